use std::collections::HashMap;
use std::net::Ipv4Addr;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig};
use tokio::net::UdpSocket;

use super::*;

/// A DNS server on loopback that knows some A records and counts the questions.
#[derive(Clone)]
struct Server {
    port: u16,
    zone: Arc<Mutex<HashMap<&'static str, Reply>>>,
    asked: Arc<Mutex<usize>>,
}

#[derive(Clone)]
enum Reply {
    Addresses(Vec<Ipv4Addr>, u32),
    ServerFailure,
}

impl Server {
    async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            port: socket.local_addr().unwrap().port(),
            zone: Arc::default(),
            asked: Arc::default(),
        };
        let own = server.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            loop {
                let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
                *own.asked.lock().unwrap() += 1;
                let answer = own.answer(&buffer[..len]);
                socket.send_to(&answer, from).await.unwrap();
            }
        });
        server
    }

    fn set(&self, name: &'static str, reply: Reply) {
        self.zone.lock().unwrap().insert(name, reply);
    }

    /// The question with an answer section behind it.
    fn answer(&self, question: &[u8]) -> Vec<u8> {
        let mut labels = Vec::new();
        let mut at = 12;
        while question[at] != 0 {
            let len = usize::from(question[at]);
            labels.push(String::from_utf8(question[at + 1..at + 1 + len].to_vec()).unwrap());
            at += 1 + len;
        }
        let kind = question[at + 2];
        let end = at + 5;
        let (code, addresses, ttl) = match self.zone.lock().unwrap().get(labels.join(".").as_str())
        {
            Some(Reply::Addresses(ips, ttl)) if kind == 1 => (0, ips.clone(), *ttl),
            Some(Reply::Addresses(..)) => (0, Vec::new(), 0),
            Some(Reply::ServerFailure) => (2, Vec::new(), 0),
            None => (3, Vec::new(), 0),
        };
        let mut answer = question[..2].to_vec();
        answer.extend([
            0x81,
            0x80 | code,
            0,
            1,
            0,
            addresses.len() as u8,
            0,
            0,
            0,
            0,
        ]);
        answer.extend(&question[12..end]);
        for ip in addresses {
            answer.extend([0xc0, 12, 0, 1, 0, 1]);
            answer.extend(ttl.to_be_bytes());
            answer.extend([0, 4]);
            answer.extend(ip.octets());
        }
        answer
    }

    fn dns(&self) -> Dns {
        let mut udp = ConnectionConfig::udp();
        udp.port = self.port;
        let server = NameServerConfig::new(Ipv4Addr::LOCALHOST.into(), true, vec![udp]);
        let mut options = ResolverOpts::default();
        options.timeout = Duration::from_millis(500);
        options.attempts = 1;
        Dns::new(
            ResolverConfig::from_name_servers(vec![server]),
            options,
            Handle::current(),
        )
    }
}

async fn settled(host: &Host) -> Addr {
    loop {
        let mut reads = Reads::new();
        match host.addr(80, &mut reads) {
            Addr::Pending => reads.changed().await,
            addr => return addr,
        }
    }
}

fn endpoints(ips: &[&str]) -> Addr {
    Addr::bound(
        ips.iter()
            .map(|ip| Endpoint::new(SocketAddr::new(ip.parse().unwrap(), 80))),
    )
}

#[tokio::test]
async fn a_name_is_bound_to_its_addresses_and_followed() {
    let server = Server::start().await;
    let ip = |last| Ipv4Addr::new(10, 0, 0, last);
    server.set("web.test", Reply::Addresses(vec![ip(2), ip(1)], 60));
    let dns = server.dns();
    let host = dns.follow("web.test.");
    assert_eq!(host.addr(80, &mut Reads::new()), Addr::Pending);
    assert_eq!(settled(&host).await, endpoints(&["10.0.0.1", "10.0.0.2"]));
    assert!(
        Arc::ptr_eq(&host, &dns.follow("web.test.")),
        "one name is followed once"
    );
}

#[tokio::test]
async fn a_failure_keeps_the_last_good_answer() {
    let server = Server::start().await;
    server.set(
        "web.test",
        Reply::Addresses(vec![Ipv4Addr::new(10, 0, 0, 1)], 0),
    );
    let dns = server.dns();
    let host = dns.follow("web.test.");
    assert_eq!(settled(&host).await, endpoints(&["10.0.0.1"]));
    server.set("web.test", Reply::ServerFailure);
    let answer = ask(&dns.0.resolver, "web.test.").await;
    assert!(answer.is_err());
    assert_eq!(host.apply(answer, 0), Some(RETRY.0));
    assert_eq!(settled(&host).await, endpoints(&["10.0.0.1"]));
    let gone = ask(&dns.0.resolver, "gone.test.").await;
    assert_eq!(host.apply(gone, 9), Some(RETRY.1));
    assert_eq!(settled(&host).await, endpoints(&["10.0.0.1"]));
}

#[tokio::test]
async fn an_unknown_name_is_neg_and_a_failing_server_a_failure() {
    let server = Server::start().await;
    server.set("broken.test", Reply::ServerFailure);
    let dns = server.dns();
    assert_eq!(settled(&dns.follow("no.test.")).await, Addr::Neg);
    let Addr::Failed(message) = settled(&dns.follow("broken.test.")).await else {
        panic!("a failing server is no answer");
    };
    assert!(message.contains("broken.test."), "{message}");
}

#[tokio::test]
async fn a_ttl_of_zero_is_not_believed() {
    let host = Server::start().await.dns().follow("x.test.");
    let answer = |ttl| {
        let ips = [IpAddr::from(Ipv4Addr::LOCALHOST)].into();
        let ttl = Duration::from_secs(ttl);
        Ok(Answer { ips, ttl })
    };
    assert_eq!(host.apply(answer(0), 0), Some(SHORTEST));
    assert_eq!(host.apply(answer(60), 0), Some(Duration::from_secs(60)));
    assert_eq!(host.apply(answer(86_400), 0), Some(LONGEST));
}

#[tokio::test]
async fn a_name_that_nobody_holds_is_forgotten() {
    let server = Server::start().await;
    let dns = server.dns();
    for i in 0..10 {
        drop(dns.follow(&format!("n{i}.test.")));
    }
    assert!(dns.0.hosts().len() <= 10);
    let held = dns.once("held.test.");
    // What lingers ends with its task.
    let hosts: Vec<_> = dns.0.hosts().values().filter_map(Weak::upgrade).collect();
    for host in hosts {
        if !Arc::ptr_eq(&host, &held) {
            host.task.lock().unwrap().take().unwrap().abort();
        }
    }
    while dns.0.hosts().len() > 1 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_fixed_name_is_asked_once() {
    let server = Server::start().await;
    server.set(
        "web.test",
        Reply::Addresses(vec![Ipv4Addr::new(10, 0, 0, 1)], 0),
    );
    let host = server.dns().once("web.test.");
    assert_eq!(settled(&host).await, endpoints(&["10.0.0.1"]));
    let task = host.task.lock().unwrap().clone().unwrap();
    while !task.is_finished() {
        tokio::task::yield_now().await;
    }
    assert_eq!(*server.asked.lock().unwrap(), 1);
}
