use proptest::prelude::*;

use super::*;
use crate::objects::{Member, MemberPort};

fn port(name: &str, number: u16) -> MemberPort {
    MemberPort {
        name: name.into(),
        number,
    }
}

fn member(ip: &str, condition: Condition) -> Member {
    Member {
        ip: ip.parse().unwrap(),
        node: None,
        condition,
    }
}

fn slice(ports: &[MemberPort], members: &[Member]) -> Members {
    let subset = Subset {
        ports: ports.to_vec(),
        members: members.to_vec(),
    };
    Members {
        service: "web".into(),
        subsets: vec![subset],
        ..Members::default()
    }
}

fn addrs(resolved: &Resolved) -> Option<Vec<String>> {
    match resolved {
        Resolved::Neg => None,
        Resolved::Bound(endpoints) => Some(
            endpoints
                .iter()
                .map(|endpoint| endpoint.addr.to_string())
                .collect(),
        ),
    }
}

fn bound(addrs: &[&str]) -> Option<Vec<String>> {
    Some(addrs.iter().map(ToString::to_string).collect())
}

use Condition::{Draining, NotReady, Ready};
use Leaving::{Alone, OnTheirNode};

#[test]
fn what_looks_like_a_number_is_one() {
    assert_eq!(Port::read("80"), Port::Number(80));
    for name in ["http", "+80", "99999", "", "8 0"] {
        assert_eq!(Port::read(name), Port::Name(name.into()));
    }
}

#[test]
fn each_slice_keeps_its_own_port_number() {
    let slices = [
        slice(
            &[port("http", 8080), port("admin", 9990)],
            &[member("10.0.0.1", Ready)],
        ),
        slice(
            &[port("http", 8081)],
            &[member("10.0.0.2", Ready), member("10.0.0.1", Ready)],
        ),
    ];
    assert_eq!(
        addrs(&named(slices.iter(), "http", Alone)),
        bound(&["10.0.0.1:8080", "10.0.0.1:8081", "10.0.0.2:8081"])
    );
    assert_eq!(
        addrs(&named(slices.iter(), "admin", Alone)),
        bound(&["10.0.0.1:9990"])
    );
}

#[test]
fn no_such_port_is_neg_and_nothing_ready_is_empty() {
    let slices = [slice(
        &[port("http", 1), port("", 2)],
        &[member("10.0.0.1", NotReady)],
    )];
    assert_eq!(named(slices.iter(), "nope", Alone), Resolved::Neg);
    assert_eq!(named([].iter(), "http", Alone), Resolved::Neg);
    assert_eq!(
        named(slices.iter(), "http", Alone),
        Resolved::Bound(Vec::new())
    );
}

#[test]
fn endpoints_on_their_way_out_serve_only_alone() {
    let both = [slice(
        &[port("http", 1)],
        &[member("10.0.0.1", Draining), member("10.0.0.2", Ready)],
    )];
    assert_eq!(
        addrs(&named(both.iter(), "http", Alone)),
        bound(&["10.0.0.2:1"])
    );
    let alone = [slice(
        &[port("http", 1)],
        &[member("10.0.0.1", Draining), member("10.0.0.3", NotReady)],
    )];
    assert_eq!(
        addrs(&named(alone.iter(), "http", Alone)),
        bound(&["10.0.0.1:1"])
    );
}

#[test]
fn a_gateway_on_its_way_out_serves_its_node_until_there_is_a_ready_one() {
    let on = |ip: &str, condition, node: &str| Member {
        node: Some(node.into()),
        ..member(ip, condition)
    };
    let replaced = [slice(
        &[port("http", 1)],
        &[
            on("10.0.0.1", Draining, "a"),
            on("10.0.0.2", NotReady, "a"),
            on("10.0.0.3", Ready, "b"),
            on("10.0.0.4", Draining, "b"),
        ],
    )];
    let got = |leaving| addrs(&named(replaced.iter(), "http", leaving));
    assert_eq!(got(OnTheirNode), bound(&["10.0.0.1:1", "10.0.0.3:1"]));
    assert_eq!(got(Alone), bound(&["10.0.0.3:1"]));
    // Of each pod once, whatever the families of its neighbours.
    let both = [
        slice(&[port("http", 1)], &[on("10.0.0.1", Draining, "a")]),
        slice(
            &[port("http", 1)],
            &[on("fd00::1", Draining, "a"), on("fd00::2", Ready, "b")],
        ),
    ];
    assert_eq!(
        addrs(&named(both.iter(), "http", OnTheirNode)),
        bound(&["10.0.0.1:1", "[fd00::2]:1"])
    );
}

#[test]
fn a_pod_of_two_families_counts_once() {
    let v4 = slice(&[port("http", 1)], &[member("10.0.0.1", Ready)]);
    let v6 = slice(&[port("http", 1)], &[member("fd00::1", Ready)]);
    assert_eq!(
        addrs(&named([v6.clone(), v4].iter(), "http", Alone)),
        bound(&["10.0.0.1:1"])
    );
    assert_eq!(
        addrs(&named([v6].iter(), "http", Alone)),
        bound(&["[fd00::1]:1"])
    );
}

#[test]
fn the_better_of_two_entries_for_one_address_counts() {
    let on = |node: &str, condition| Member {
        node: Some(node.into()),
        ..member("10.0.0.1", condition)
    };
    let one = slice(&[port("http", 1)], &[on("n", Ready)]);
    let two = slice(
        &[port("http", 1)],
        &[member("10.0.0.1", Ready), on("m", NotReady)],
    );
    for slices in [[&one, &two], [&two, &one]] {
        let Resolved::Bound(got) = named(slices.into_iter(), "http", Alone) else {
            panic!()
        };
        assert_eq!(got, [Endpoint::new("10.0.0.1:1".parse().unwrap()).on("n")]);
    }
}

#[test]
fn a_thousand_endpoints_in_many_slices_are_one_set() {
    let slices: Vec<_> = (0..12u8)
        .map(|a| {
            let members: Vec<_> = (0..100u8)
                .map(|b| member(&format!("10.1.{a}.{b}"), Ready))
                .collect();
            slice(&[port("http", 80)], &members)
        })
        .collect();
    let Resolved::Bound(got) = named(slices.iter(), "http", Alone) else {
        panic!()
    };
    assert_eq!(got.len(), 1200);
    assert!(got.is_sorted_by_key(|endpoint| endpoint.addr));
}

fn service(ports: &[(&str, u16, TargetPort)]) -> Service {
    let port = |(name, number, target): &(&str, u16, TargetPort)| ServicePort {
        name: (*name).into(),
        number: *number,
        target: target.clone(),
    };
    Service {
        ports: ports.iter().map(port).collect(),
        ..Service::default()
    }
}

#[test]
fn a_number_is_the_services_port() {
    let service = service(&[
        ("http", 80, TargetPort::Name("web".into())),
        ("by-hand", 81, TargetPort::Number(7000)),
        ("by-name", 82, TargetPort::Name("http".into())),
        ("lost", 83, TargetPort::Name("missing".into())),
    ]);
    let slices = [
        slice(&[port("http", 8080)], &[member("10.0.0.1", Ready)]),
        slice(&[port("http", 9090)], &[member("10.0.0.2", Ready)]),
    ];
    for (number, want) in [
        (80, bound(&["10.0.0.1:8080", "10.0.0.2:9090"])),
        (81, bound(&["10.0.0.1:7000", "10.0.0.2:7000"])),
        (82, bound(&["10.0.0.1:8080", "10.0.0.2:9090"])),
        (83, None),
        (8080, None),
    ] {
        assert_eq!(
            addrs(&numbered(slices.iter(), &service, number, Alone)),
            want,
            "{number}"
        );
    }
    assert_eq!(
        numbered([slice(&[], &[])].iter(), &service, 81, Alone),
        Resolved::Neg
    );
}

#[test]
fn a_single_port_without_a_name_is_reached_by_its_number() {
    let service = service(&[("", 80, TargetPort::Name("web".into()))]);
    let slices = [slice(&[port("", 8080)], &[member("10.0.0.1", Ready)])];
    assert_eq!(
        addrs(&numbered(slices.iter(), &service, 80, Alone)),
        bound(&["10.0.0.1:8080"])
    );
}

#[test]
fn a_load_balancer_is_reached_by_port_name_or_number() {
    let mut service = service(&[("http", 80, TargetPort::Number(8080))]);
    assert_eq!(external(&service, &Port::Number(80)), Resolved::Neg);
    service.ingress = ["2.0.0.1", "1.0.0.1"]
        .map(|ip| Ingress::Ip(ip.parse().unwrap()))
        .to_vec();
    for port in [Port::Number(80), Port::Name("http".into())] {
        assert_eq!(
            addrs(&external(&service, &port)),
            bound(&["1.0.0.1:80", "2.0.0.1:80"])
        );
    }
    assert_eq!(external(&service, &Port::Number(8080)), Resolved::Neg);
}

pub(crate) fn any_slice() -> impl Strategy<Value = Members> {
    let ports = proptest::collection::vec((0..3u8, 1..3u16), 0..3);
    let members = proptest::collection::vec((0..6u8, 0..3u8, 0..3u8), 0..5);
    let subset = (ports, members).prop_map(|(ports, members)| Subset {
        ports: ports
            .into_iter()
            .map(|(name, number)| port(["http", "admin", ""][usize::from(name)], number))
            .collect(),
        members: members
            .into_iter()
            .map(|(ip, condition, node)| Member {
                ip: if ip < 4 {
                    format!("10.0.0.{ip}")
                } else {
                    format!("fd00::{ip}")
                }
                .parse()
                .unwrap(),
                condition: [Ready, Draining, NotReady][usize::from(condition)],
                node: [None, Some("a".into()), Some("b".into())][usize::from(node)].clone(),
            })
            .collect(),
    });
    proptest::collection::vec(subset, 0..3).prop_map(|subsets| Members {
        subsets,
        ..Members::default()
    })
}

/// The same by words: gather all, throw out what a better one makes superfluous, on each node or altogether.
pub(crate) fn reference(
    slices: &[Members],
    name: &str,
    leaving: Leaving,
) -> Option<Vec<SocketAddr>> {
    let mut all = Vec::new();
    let mut known = false;
    for subset in slices.iter().flat_map(|slice| slice.subsets.clone()) {
        for port in subset.ports.iter().filter(|port| *port.name == *name) {
            known = true;
            all.extend(subset.members.iter().map(|m| {
                let addr = SocketAddr::new(m.ip, port.number);
                (addr, m.condition, m.node.is_none(), m.node.clone())
            }));
        }
    }
    // The best of each address comes first.
    all.sort();
    all.dedup_by_key(|(addr, ..)| *addr);
    let group = |node: &Option<Arc<str>>| (leaving == OnTheirNode).then(|| node.clone());
    let chosen = all.iter().filter(|(addr, condition, _, node)| {
        let rank = |addr: &SocketAddr, condition| (condition, addr.is_ipv6());
        let neighbours = all.iter().filter(|(.., other)| group(other) == group(node));
        let best = neighbours.map(|(addr, condition, ..)| rank(addr, *condition));
        *condition != NotReady && best.min() == Some(rank(addr, *condition))
    });
    let addrs = chosen.map(|(addr, ..)| *addr).collect();
    known.then_some(addrs)
}

proptest! {
    #[test]
    fn the_merge_is_as_the_reference_whatever_the_order(slices in proptest::collection::vec(any_slice(), 0..5)) {
        for (name, leaving) in [("http", Alone), ("admin", OnTheirNode), ("", Alone), ("http", OnTheirNode)] {
            let got = named(slices.iter(), name, leaving);
            let found = match &got {
                Resolved::Neg => None,
                Resolved::Bound(endpoints) => Some(endpoints.iter().map(|endpoint| endpoint.addr).collect()),
            };
            prop_assert_eq!(found, reference(&slices, name, leaving));
            prop_assert_eq!(&named(slices.iter().rev(), name, leaving), &got);
        }
    }
}
