use super::*;
use wire::EventKind;

fn dns() -> Dns {
    Dns::system(Handle::current())
}

#[tokio::test]
async fn a_server_that_is_down_leaves_names_pending_and_says_so() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .unwrap()
        .port();
    let config = ZkConfig {
        prefix: Path::utf8(["io.l5d.serversets"]),
        kind: ZkKind::Serverset,
        servers: vec![("127.0.0.1".into(), port)],
    };
    let namer = ZkNamer::new(config, dns(), Handle::current());
    let path: Path = "/discovery/prod/web".parse().unwrap();
    let waiting = |namer: &ZkNamer, reads: &mut Reads| match namer.lookup(&path, reads) {
        Activity::Pending(why) => why.to_string(),
        other => panic!("{other:?}"),
    };
    let mut reads = Reads::new();
    let first = waiting(&namer, &mut reads);
    assert!(first.contains("/discovery/prod/web"), "{first}");
    let told = tokio::time::timeout(Duration::from_secs(10), reads.changed()).await;
    assert!(told.is_ok(), "nothing is said about the server");
    let then = waiting(&namer, &mut Reads::new());
    assert!(
        then.contains(&format!("ZooKeeper 127.0.0.1:{port}: ")),
        "{then}"
    );
    assert!(namer.why_not(&path).unwrap().contains(&port.to_string()));
    assert_eq!(namer.state()["/discovery/prod/web"]["poll"]["error"], then);
}

#[tokio::test]
async fn what_zookeeper_can_have_no_node_for_is_not_there() {
    let config = ZkConfig {
        prefix: Path::utf8(["io.l5d.zkLeader"]),
        kind: ZkKind::Leader,
        servers: vec![("127.0.0.1".into(), 1)],
    };
    let namer = ZkNamer::new(config, dns(), Handle::current());
    for path in ["/", "/.."] {
        let path: Path = path.parse().unwrap();
        let answer = namer.lookup(&path, &mut Reads::new());
        assert!(matches!(answer, Activity::Ok(NameTree::Neg)), "{path}");
    }
}

#[test]
fn a_watch_that_went_off_says_what_is_read_again() {
    let group = Group::of(ZkKind::Serverset, &"/prod/web".parse().unwrap()).unwrap();
    let known = BTreeMap::from([("member_1".to_owned(), Member::NotServing)]);
    let due = |path: &str, kind| {
        let mut due = Due::default();
        let path = path.to_owned();
        due.note(&Event { path, kind }, &group, &known);
        due
    };
    assert_eq!(due("/prod/web", EventKind::Children), Due::all());
    assert_eq!(due("/prod/web", EventKind::Deleted), Due::all());
    let member = due("/prod/web/member_1", EventKind::Changed);
    assert_eq!(member.members, BTreeSet::from(["member_1".to_owned()]));
    for other in ["/prod/web/member_2", "/prod/web2/member_1", "/prod"] {
        assert_eq!(due(other, EventKind::Changed), Due::default(), "{other}");
    }
}
