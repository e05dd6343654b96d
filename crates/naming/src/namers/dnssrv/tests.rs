use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Mutex;

use hickory_resolver::proto::op::Message;
use hickory_resolver::proto::rr::rdata::{A, SRV};
use hickory_resolver::proto::rr::{Name as DnsName, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use super::*;
use crate::{Addr, Target};

/// A DNS server on loopback, by UDP and TCP.
#[derive(Clone)]
struct Server {
    addr: SocketAddr,
    zone: Arc<Mutex<HashMap<&'static str, Reply>>>,
}

#[derive(Clone)]
enum Reply {
    /// Targets and ports, and addresses that come along.
    Srv(Vec<(&'static str, u16)>, Vec<(&'static str, [u8; 4])>),
    /// Of a target.
    Address([u8; 4]),
    Code(ResponseCode),
    /// By UDP it does not fit.
    OnlyByTcp(&'static str, u16),
}

impl Server {
    async fn start() -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let server = Self {
            addr: udp.local_addr().unwrap(),
            zone: Arc::default(),
        };
        let own = server.clone();
        tokio::spawn(async move {
            let mut bytes = [0; 2_048];
            loop {
                let (len, from) = udp.recv_from(&mut bytes).await.unwrap();
                let answer = own.answer(&bytes[..len], false);
                udp.send_to(&answer, from).await.unwrap();
            }
        });
        let own = server.clone();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                let len = stream.read_u16().await.unwrap();
                let mut bytes = vec![0; usize::from(len)];
                stream.read_exact(&mut bytes).await.unwrap();
                let answer = own.answer(&bytes, true);
                stream.write_u16(answer.len() as u16).await.unwrap();
                stream.write_all(&answer).await.unwrap();
                // Kept open, as a resolver expects.
                tokio::spawn(async move { stream.read_u16().await });
            }
        });
        server
    }

    fn set(&self, name: &'static str, reply: Reply) {
        self.zone.lock().unwrap().insert(name, reply);
    }

    fn answer(&self, question: &[u8], tcp: bool) -> Vec<u8> {
        let question = Message::from_vec(question).unwrap();
        let query = question.queries[0].clone();
        let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
        answer.metadata.recursion_available = true;
        answer.add_query(query.clone());
        let name = |text: &str| DnsName::from_ascii(text).unwrap();
        let asked = query.name().to_ascii();
        let srv = |(target, port): (&str, u16)| {
            // As Linkerd's, priority and weight change nothing.
            let data = SRV::new(port, 0, port, name(target));
            Record::from_rdata(query.name().clone(), 1, RData::SRV(data))
        };
        let address = |of: &str, ip: [u8; 4]| {
            Record::from_rdata(name(of), 1, RData::A(A(Ipv4Addr::from(ip))))
        };
        let zone = self.zone.lock().unwrap();
        match (zone.get(asked.trim_end_matches('.')), query.query_type()) {
            (Some(Reply::Srv(targets, extra)), RecordType::SRV) => {
                answer.add_answers(targets.iter().map(|target| srv(*target)));
                answer.add_additionals(extra.iter().map(|(of, ip)| address(of, *ip)));
            }
            (Some(Reply::OnlyByTcp(target, port)), RecordType::SRV) => match tcp {
                true => _ = answer.add_answer(srv((target, *port))),
                false => answer.metadata.truncation = true,
            },
            (Some(Reply::Address(ip)), RecordType::A) => {
                answer.add_answer(address(&asked, *ip));
            }
            (Some(Reply::Code(code)), _) => answer.metadata.response_code = *code,
            (Some(_), _) => {}
            (None, _) => answer.metadata.response_code = ResponseCode::NXDomain,
        }
        answer.to_vec().unwrap()
    }

    fn namer(&self) -> DnsSrvNamer {
        let config = DnsSrvConfig {
            prefix: Path::read("/io.l5d.dnssrv").unwrap(),
            refresh: Duration::from_millis(20),
            servers: vec![self.addr],
        };
        DnsSrvNamer::new(config, Dns::system(Handle::current()), Handle::current())
    }
}

/// What the name leads to now: `id residual: addresses`.
fn now(namer: &DnsSrvNamer, path: &str, reads: &mut Reads) -> String {
    let path = Path::read(path).unwrap();
    match namer.lookup(&path, reads) {
        Activity::Pending(_) => "pending".to_owned(),
        Activity::Failed(error) => format!("failed: {error}"),
        Activity::Ok(NameTree::Leaf(Name::Bound(bound))) => {
            let Target::Endpoints(addrs) = &bound.target else {
                panic!("a status");
            };
            let shown = match addrs.addr(reads) {
                Addr::Bound(all) => {
                    let mut all: Vec<_> = all.iter().map(|one| one.addr.to_string()).collect();
                    all.sort();
                    all.join(" ")
                }
                other => format!("{other:?}"),
            };
            format!("{} {}: {shown}", bound.id, bound.residual)
        }
        Activity::Ok(tree) => format!("{tree:?}"),
    }
}

/// Waits until the name leads there.
async fn leads_to(namer: &DnsSrvNamer, path: &str, want: &str) {
    let mut last = String::new();
    let wait = async {
        loop {
            let mut reads = Reads::new();
            last = now(namer, path, &mut reads);
            if last == want {
                return;
            }
            reads.changed().await;
        }
    };
    let limit = Duration::from_secs(20);
    if tokio::time::timeout(limit, wait).await.is_err() {
        panic!("{path} leads to {last}, not to {want}");
    }
}

/// A few questions further.
async fn some_questions() {
    tokio::time::sleep(Duration::from_millis(200)).await;
}

#[tokio::test]
async fn a_name_leads_to_the_targets_of_its_records_and_follows_them() {
    let server = Server::start().await;
    let along = vec![("a.test.", [10, 0, 0, 1])];
    server.set("b.test", Reply::Address([10, 0, 0, 2]));
    server.set(
        "web.test",
        Reply::Srv(vec![("a.test.", 80), ("b.test.", 81)], along),
    );
    let namer = server.namer();
    assert_eq!(now(&namer, "/web.test", &mut Reads::new()), "pending");
    // The address of one came along, the other's is asked for.
    leads_to(
        &namer,
        "/web.test/v1/x",
        "/#/io.l5d.dnssrv/web.test /v1/x: 10.0.0.1:80 10.0.0.2:81",
    )
    .await;
    server.set("web.test", Reply::Srv(vec![("b.test.", 82)], vec![]));
    leads_to(
        &namer,
        "/web.test",
        "/#/io.l5d.dnssrv/web.test /: 10.0.0.2:82",
    )
    .await;
    let state = namer.state();
    let shown = &state["/web.test"]["state"]["value"]["addrs"][0];
    assert_eq!(
        (&shown["ip"], &shown["port"]),
        (&"10.0.0.2".into(), &82.into())
    );
}

#[tokio::test]
async fn no_records_are_no_name_so_that_an_alternative_is_taken() {
    let server = Server::start().await;
    server.set("empty.test", Reply::Srv(vec![], vec![]));
    server.set("never.test", Reply::Srv(vec![(".", 0)], vec![]));
    let namer = server.namer();
    for path in ["/unknown.test", "/empty.test", "/never.test"] {
        leads_to(&namer, path, "Neg").await;
    }
    let why = namer.why_not(&Path::read("/unknown.test").unwrap());
    assert_eq!(why.unwrap(), "DNS has no SRV record for `unknown.test`");
    assert_eq!(now(&namer, "/", &mut Reads::new()), "Neg");
    // It comes later.
    server.set(
        "empty.test",
        Reply::Srv(vec![("a.test.", 1)], vec![("a.test.", [10, 0, 0, 1])]),
    );
    leads_to(
        &namer,
        "/empty.test",
        "/#/io.l5d.dnssrv/empty.test /: 10.0.0.1:1",
    )
    .await;
}

#[tokio::test]
async fn a_failing_server_takes_no_name_away_and_recovers() {
    let server = Server::start().await;
    server.set("new.test", Reply::Code(ResponseCode::ServFail));
    let a = || Reply::Srv(vec![("a.test.", 80)], vec![("a.test.", [10, 0, 0, 1])]);
    server.set("web.test", a());
    let namer = server.namer();
    let there = "/#/io.l5d.dnssrv/web.test /: 10.0.0.1:80";
    leads_to(&namer, "/web.test", there).await;
    for code in [ResponseCode::ServFail, ResponseCode::Refused] {
        server.set("web.test", Reply::Code(code));
        some_questions().await;
        assert_eq!(now(&namer, "/web.test", &mut Reads::new()), there, "{code}");
    }
    let why = namer.why_not(&Path::read("/web.test").unwrap()).unwrap();
    assert!(why.starts_with("DNS: SRV web.test: "), "{why}");
    server.set(
        "web.test",
        Reply::Srv(vec![("a.test.", 81)], vec![("a.test.", [10, 0, 0, 1])]),
    );
    leads_to(
        &namer,
        "/web.test",
        "/#/io.l5d.dnssrv/web.test /: 10.0.0.1:81",
    )
    .await;
    // Gone for good, and said so again and again.
    server.set("web.test", Reply::Code(ResponseCode::NXDomain));
    leads_to(&namer, "/web.test", "Neg").await;
    // Who never was known has failed, until there is an answer.
    let mut reads = Reads::new();
    while now(&namer, "/new.test", &mut reads) == "pending" {
        reads.changed().await;
    }
    let failed = now(&namer, "/new.test", &mut Reads::new());
    assert!(failed.starts_with("failed: DNS: SRV new.test"), "{failed}");
    server.set("new.test", a());
    leads_to(
        &namer,
        "/new.test",
        "/#/io.l5d.dnssrv/new.test /: 10.0.0.1:80",
    )
    .await;
}

#[tokio::test]
async fn an_answer_that_does_not_fit_is_fetched_by_tcp() {
    let server = Server::start().await;
    server.set("a.test", Reply::Address([10, 0, 0, 9]));
    server.set("big.test", Reply::OnlyByTcp("a.test.", 80));
    let namer = server.namer();
    leads_to(
        &namer,
        "/big.test",
        "/#/io.l5d.dnssrv/big.test /: 10.0.0.9:80",
    )
    .await;
}
