use super::localnode::OwnNode;
use super::*;
use crate::{Activity, BindError, Name, Namer, NamerError, Rebind, Transformer, Var};

fn endpoint(addr: &str) -> Endpoint {
    Endpoint::new(addr.parse().unwrap())
}

/// A bound name whose endpoints the test changes.
fn name(addr: Addr) -> (Bound, Var<Addr>) {
    let addrs = Var::new(addr);
    let id = "/#/io.l5d.fs/web".parse().unwrap();
    (
        Bound::new(id, "/rest".parse().unwrap(), addrs.clone()),
        addrs,
    )
}

fn leaf(tree: NameTree<Bound>) -> Bound {
    match tree {
        NameTree::Leaf(bound) => bound,
        other => panic!("{other:?}"),
    }
}

fn addr_of(bound: &Bound, reads: &mut Reads) -> Addr {
    match &bound.target {
        Target::Endpoints(addrs) => addrs.addr(reads),
        Target::Status(_) => panic!("a status has no address"),
    }
}

fn transformed(transformer: &dyn Transformer, before: Addr) -> (String, Addr) {
    let bound = leaf(transformer.transform(name(before).0));
    assert_eq!(bound.residual.to_string(), "/rest");
    (bound.id.to_string(), addr_of(&bound, &mut Reads::new()))
}

#[test]
fn a_port_is_put_in_the_place_of_all_ports() {
    let before = Addr::bound([
        endpoint("10.0.0.1:80").on("a"),
        endpoint("10.0.0.1:81"),
        endpoint("10.0.0.2:80"),
    ]);
    let (id, addr) = transformed(&Port::new(4141), before);
    assert_eq!(id, "/%/io.l5d.port/4141/#/io.l5d.fs/web");
    assert_eq!(
        addr,
        Addr::bound([endpoint("10.0.0.1:4141").on("a"), endpoint("10.0.0.2:4141")])
    );
}

#[test]
fn one_host_s_endpoints_are_kept() {
    let before = Addr::bound([
        endpoint("10.0.0.1:80"),
        endpoint("10.0.0.2:80").weighing(3.0),
    ]);
    let (id, addr) = transformed(&SpecificHost::new("10.0.0.2".parse().unwrap()), before);
    assert_eq!(id, "/%/io.l5d.specificHost/#/io.l5d.fs/web");
    assert_eq!(addr, Addr::bound([endpoint("10.0.0.2:80").weighing(3.0)]));
}

#[test]
fn this_host_s_endpoints_are_kept() {
    let before = Addr::bound([
        endpoint("10.0.0.1:80"),
        endpoint("[fe80::1]:80"),
        endpoint("10.0.0.2:80"),
    ]);
    let own = ["10.0.0.1", "fe80::1"]
        .map(|ip| ip.parse().unwrap())
        .to_vec();
    let (id, addr) = transformed(&Localhost::new(own), before);
    assert_eq!(id, "/%/io.l5d.localhost/#/io.l5d.fs/web");
    assert_eq!(
        addr,
        Addr::bound([endpoint("10.0.0.1:80"), endpoint("[fe80::1]:80")])
    );
}

#[test]
fn nothing_left_is_neg_and_other_states_pass() {
    let transformer = SpecificHost::new("10.0.0.9".parse().unwrap());
    for (before, want) in [
        (Addr::bound([endpoint("10.0.0.1:80")]), Addr::Neg),
        (Addr::bound([]), Addr::bound([])),
        (Addr::Neg, Addr::Neg),
        (Addr::Pending, Addr::Pending),
        (Addr::Failed("x".into()), Addr::Failed("x".into())),
    ] {
        assert_eq!(transformed(&transformer, before).1, want);
    }
}

#[test]
fn the_later_transformer_is_the_outer_prefix() {
    let (bound, addrs) = name(Addr::Pending);
    let first = leaf(SpecificHost::new("10.0.0.1".parse().unwrap()).transform(bound));
    let second = leaf(Port::new(80).transform(first));
    assert_eq!(
        second.id.to_string(),
        "/%/io.l5d.port/80/%/io.l5d.specificHost/#/io.l5d.fs/web"
    );
    // What the namer says later comes through both.
    let mut reads = Reads::new();
    assert_eq!(addr_of(&second, &mut reads), Addr::Pending);
    addrs.set(Addr::bound([
        endpoint("10.0.0.1:1"),
        endpoint("10.0.0.2:1"),
    ]));
    assert!(reads.stale());
    assert_eq!(
        addr_of(&second, &mut Reads::new()),
        Addr::bound([endpoint("10.0.0.1:80")])
    );
}

#[test]
fn a_status_keeps_being_one() {
    let bound = Bound::to(Path::utf8(["$", "x"]), Path::root(), Target::Status(404));
    let bound = leaf(Port::new(1).transform(bound));
    assert!(matches!(bound.target, Target::Status(404)));
    assert_eq!(bound.id.to_string(), "/%/io.l5d.port/1/$/x");
}

#[test]
fn local_endpoints_are_known_by_node_or_guessed_by_subnet() {
    let here = endpoint("10.1.1.5:80").on("node-1");
    let elsewhere = endpoint("10.1.1.6:80").on("node-2");
    let (near, far) = (endpoint("10.1.1.7:80"), endpoint("10.1.2.7:80"));
    let all = || Addr::bound([&here, &elsewhere, &near, &far].map(Clone::clone));
    let pod = "10.1.1.2".parse().unwrap();
    let node = Var::new(None);
    let transformer = LocalNode::by_pod(pod, node.clone());
    let (id, addr) = transformed(&transformer, all());
    assert_eq!(id, "/%/io.l5d.k8s.localnode/10.1.1.2/#/io.l5d.fs/web");
    assert_eq!(
        addr,
        Addr::bound([here.clone(), elsewhere.clone(), near.clone()])
    );
    // Once the own node's name is known, it decides where the other side knows, too.
    let bound = leaf(transformer.transform(name(all()).0));
    let mut reads = Reads::new();
    addr_of(&bound, &mut reads);
    node.set(Some("node-1".into()));
    assert!(reads.stale());
    assert_eq!(
        addr_of(&bound, &mut reads),
        Addr::bound([here.clone(), near.clone()])
    );
    let (id, addr) = transformed(&LocalNode::by_node("node-1"), all());
    assert_eq!(id, "/%/io.l5d.k8s.localnode/node-1/#/io.l5d.fs/web");
    assert_eq!(addr, Addr::bound([here.clone()]));
    let nothing_known = LocalNode::at(Path::root(), OwnNode::default());
    assert_eq!(transformed(&nothing_known, all()).1, Addr::Neg);
}

/// A namer with one name.
struct OneName {
    prefix: Path,
    state: Var<Option<Result<Var<Addr>, NamerError>>>,
    exists: bool,
}

impl Namer for OneName {
    fn prefix(&self) -> &Path {
        &self.prefix
    }

    fn lookup(&self, rest: &Path, reads: &mut Reads) -> Activity<NameTree<Name>> {
        assert_eq!(rest.to_string(), "/linkerd/incoming/l5d");
        match &*self.state.read(reads) {
            None => Activity::pending("the test"),
            Some(Err(error)) => Activity::failed(error.clone()),
            Some(Ok(_)) if !self.exists => Activity::Ok(NameTree::Neg),
            Some(Ok(addrs)) => {
                let bound = Bound::new(rest.clone(), Path::root(), addrs.clone());
                Activity::Ok(NameTree::Leaf(Name::Bound(bound)))
            }
        }
    }
}

fn daemonset(
    gateways: Option<Result<Addr, NamerError>>,
    exists: bool,
    host_network: bool,
) -> DaemonSet {
    let config = DaemonSetConfig {
        namespace: "linkerd".to_owned(),
        port: "incoming".to_owned(),
        service: "l5d".to_owned(),
        host_network,
    };
    let namer = OneName {
        prefix: Path::utf8(["io.l5d.k8s"]),
        state: Var::new(gateways.map(|known| known.map(Var::new))),
        exists,
    };
    DaemonSet::new(&config, Arc::new(namer))
}

fn by_gateways(
    gateways: impl IntoIterator<Item = Endpoint>,
    endpoints: impl IntoIterator<Item = Endpoint>,
) -> Addr {
    let transformer = daemonset(Some(Ok(Addr::bound(gateways))), true, false);
    let (id, addr) = transformed(&transformer, Addr::bound(endpoints));
    assert_eq!(
        id,
        "/%/io.l5d.k8s.daemonset/linkerd/incoming/l5d/#/io.l5d.fs/web"
    );
    addr
}

#[test]
fn gateways_take_the_endpoints_place_and_weigh_what_is_behind_them() {
    let gateways = ["10.1.1.2:4141", "10.1.2.2:4141", "10.1.3.2:4141"].map(endpoint);
    let endpoints = [
        "10.1.1.5:80",
        "10.1.1.6:80",
        "10.1.1.7:80",
        "10.1.2.5:80",
        "10.9.9.9:80",
    ]
    .map(endpoint);
    let want = [
        endpoint("10.1.1.2:4141").weighing(3.0),
        endpoint("10.1.2.2:4141"),
    ];
    assert_eq!(by_gateways(gateways, endpoints), Addr::bound(want));
}

#[test]
fn nodes_names_decide_where_both_sides_know_them() {
    let gateways = [
        endpoint("10.1.1.2:4141").on("node-1"),
        endpoint("10.1.1.3:4141").on("node-2"),
    ];
    let endpoints = [
        endpoint("10.1.1.5:80").on("node-2"),
        endpoint("10.7.7.7:80").on("node-2"),
    ];
    let want = [gateways[1].clone().weighing(2.0)];
    assert_eq!(by_gateways(gateways, endpoints), Addr::bound(want));
}

#[test]
fn two_gateways_on_a_node_share_what_is_behind_them() {
    let gateways = ["10.1.1.2:4141", "10.1.1.3:4141"].map(endpoint);
    let endpoints = ["10.1.1.5:80", "10.1.1.6:80", "10.1.1.7:80"].map(endpoint);
    let want = gateways.clone().map(|gateway| gateway.weighing(1.5));
    assert_eq!(by_gateways(gateways, endpoints), Addr::bound(want));
}

#[test]
fn without_a_gateway_on_the_node_there_is_nothing() {
    assert_eq!(
        by_gateways([endpoint("10.1.1.2:4141")], [endpoint("10.1.2.5:80")]),
        Addr::Neg
    );
    assert_eq!(by_gateways([], [endpoint("10.1.2.5:80")]), Addr::Neg);
    assert_eq!(
        by_gateways([endpoint("10.1.1.2:4141")], [endpoint("[::1]:80")]),
        Addr::Neg
    );
}

#[test]
fn with_host_network_only_nodes_names_count() {
    let gateways = [
        endpoint("10.1.1.2:4141").on("node-1"),
        endpoint("10.1.1.3:4141"),
    ];
    let transformer = daemonset(Some(Ok(Addr::bound(gateways.clone()))), true, true);
    let endpoints = [
        endpoint("10.1.1.2:80").on("node-1"),
        endpoint("10.1.1.9:80"),
    ];
    let (_, addr) = transformed(&transformer, Addr::bound(endpoints));
    assert_eq!(addr, Addr::bound([gateways[0].clone()]));
}

#[test]
fn gateways_that_are_not_known_yet_are_waited_for() {
    let endpoints = || Addr::bound([endpoint("10.1.1.5:80")]);
    let failed = NamerError::Unavailable {
        message: "403".to_owned(),
    };
    for (gateways, exists, want) in [
        (None, true, Addr::Pending),
        (Some(Ok(Addr::Pending)), true, Addr::Pending),
        (Some(Ok(Addr::Neg)), true, Addr::Neg),
        (Some(Ok(Addr::Pending)), false, Addr::Neg),
        (Some(Err(failed)), true, Addr::Failed("403".into())),
    ] {
        assert_eq!(
            transformed(&daemonset(gateways, exists, false), endpoints()).1,
            want
        );
    }
    // An empty replica set does not wait for gateways.
    assert_eq!(
        transformed(&daemonset(None, true, false), Addr::bound([])).1,
        Addr::bound([])
    );
}

/// Binds every path to itself.
struct Itself;

impl Rebind for Itself {
    fn bind(&mut self, path: &Path, _: &mut Reads) -> Activity<NameTree<Bound>, BindError> {
        let bound = Bound::new(Path::utf8(["bound"]).concat(path), Path::root(), Addr::Neg);
        Activity::Ok(NameTree::Leaf(bound))
    }

    fn bind_plain(&mut self, path: &Path, _: &mut Reads) -> Activity<NameTree<Bound>, BindError> {
        let bound = Bound::new(Path::utf8(["plain"]).concat(path), Path::root(), Addr::Neg);
        Activity::Ok(NameTree::Leaf(bound))
    }
}

fn shown(transformer: &dyn Transformer, tree: NameTree<Bound>) -> String {
    let tree = transformer.transform_tree(tree, &mut Itself, &mut Reads::new());
    tree.ok().unwrap().map(|bound| bound.id.clone()).to_string()
}

#[test]
fn a_constant_answers_everything() {
    let transformer = Const::new("/x".parse().unwrap());
    assert!(!transformer.delegates());
    for tree in [
        NameTree::Neg,
        NameTree::Fail,
        NameTree::Leaf(name(Addr::Neg).0),
    ] {
        assert_eq!(shown(&transformer, tree), "/%/io.l5d.const/bound/x");
    }
}

#[test]
fn a_replacement_takes_the_place_of_bound_names_only() {
    let transformer = Replace::new("/x".parse().unwrap());
    assert!(!transformer.delegates());
    assert_eq!(shown(&transformer, NameTree::Neg), "~");
    assert_eq!(shown(&transformer, NameTree::Empty), "$");
    let (mut bound, _) = name(Addr::Neg);
    bound.weight = Some(0.5);
    let union = NameTree::Union(vec![
        dtab::Weighted::new(0.5, NameTree::Leaf(bound.clone())),
        dtab::Weighted::new(2.0, NameTree::Empty),
    ]);
    let tree = transformer.transform_tree(union.clone(), &mut Itself, &mut Reads::new());
    tree.ok()
        .unwrap()
        .for_each_leaf(&mut |leaf| assert_eq!(leaf.weight, Some(0.5)));
    assert_eq!(
        shown(&transformer, union),
        "0.50*/%/io.l5d.replace/plain/x & 2.00*$"
    );
}
