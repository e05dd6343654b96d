//! The system namers, `/$/…`: Finagle's own and Linkerd's rewriters of host names.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use dtab::{NameTree, Path, Segment};

use crate::namers::Dns;
use crate::{Activity, Addr, Addrs, Bound, Endpoint, Name, Namer, NamerError, Reads, Target};

/// Answers all paths below `/$`; asked when neither the dtab nor a configured namer knows a path.
#[derive(Clone, Debug)]
pub struct SystemNamer {
    prefix: Path,
    dns: Dns,
}

impl SystemNamer {
    /// A namer that looks up host names by `dns`.
    pub fn new(dns: Dns) -> Self {
        let prefix = Path::root();
        Self { prefix, dns }
    }

    /// `/$/inet/HOST/PORT` or `/$/inet/PORT`; none when `rest` is neither.
    fn inet(&self, class: &str, rest: &Path) -> Option<Bound> {
        let segment = |n: usize| rest.segments().get(n).map(text);
        let (used, host, port) = match segment(1).as_deref().and_then(integer) {
            Some(port) => (2, segment(0)?, port),
            None => (
                1,
                Ipv4Addr::LOCALHOST.to_string().into(),
                segment(0).as_deref().and_then(integer)?,
            ),
        };
        let id = system(class).concat(&rest.take(used));
        Some(Bound::to(
            id,
            rest.drop(used),
            self.endpoint(&host, port, class == "fixedinet"),
        ))
    }

    /// `/$/io.buoyant.rinet/PORT/HOST`.
    fn rinet(&self, class: &str, path: &Path, rest: &Path) -> Activity<NameTree<Name>> {
        let [port, host, ..] = rest.segments() else {
            return Activity::Ok(NameTree::Neg);
        };
        match integer(&text(port)) {
            Some(port) => {
                let id = system(class).concat(&rest.take(2));
                bound(Bound::to(
                    id,
                    rest.drop(2),
                    self.endpoint(&text(host), port, false),
                ))
            }
            // Linkerd asks inet, which then isn't there.
            None => unknown("inet", path),
        }
    }

    fn endpoint(&self, host: &str, port: i32, once: bool) -> Target {
        let Ok(port) = u16::try_from(port) else {
            let message = format!("port out of range: {port}");
            return Target::Endpoints(Arc::new(Addr::Failed(message.into())));
        };
        Target::Endpoints(self.addrs(host, port, once))
    }

    /// The addresses of `/$/inet/HOST/PORT`, kept current as long as somebody holds the result.
    pub fn addresses(&self, host: &str, port: u16) -> Arc<dyn Addrs> {
        self.addrs(host, port, false)
    }

    fn addrs(&self, host: &str, port: u16, once: bool) -> Arc<dyn Addrs> {
        let host = match (literal(host), once) {
            (Some(ip), _) => {
                let endpoint = Endpoint::new(SocketAddr::new(ip, port));
                return Arc::new(Addr::bound([endpoint]));
            }
            (None, true) => self.dns.once(host),
            (None, false) => self.dns.follow(host),
        };
        Arc::new(Inet { host, port })
    }
}

/// A host's addresses at one port.
struct Inet {
    host: Arc<super::dns::Host>,
    port: u16,
}

impl Addrs for Inet {
    fn addr(&self, reads: &mut Reads) -> Addr {
        self.host.addr(self.port, reads)
    }
}

impl Namer for SystemNamer {
    fn prefix(&self) -> &Path {
        &self.prefix
    }

    fn lookup(&self, path: &Path, _: &mut Reads) -> Activity<NameTree<Name>> {
        let mut path = path.clone();
        loop {
            let [mark, class, ..] = path.segments() else {
                return Activity::Ok(NameTree::Neg);
            };
            if *mark != "$" {
                return Activity::Ok(NameTree::Neg);
            }
            let (class, rest) = (text(class), path.drop(2));
            return match &*class {
                "nil" => Activity::Ok(NameTree::Empty),
                "fail" => Activity::Ok(NameTree::Fail),
                "inet" | "fixedinet" => match self.inet(&class, &rest) {
                    Some(name) => bound(name),
                    None => unknown(&class, &path),
                },
                "io.buoyant.rinet" => self.rinet(&class, &path, &rest),
                "io.buoyant.http.status" => status(&class, &rest),
                // Finagle's name for all of this.
                "com.twitter.finagle.namer.global" => {
                    path = rest;
                    continue;
                }
                _ => match rewriter(&class) {
                    Some(rewrite) => rewritten(rewrite(&rest)),
                    None => unknown(&class, &path),
                },
            };
        }
    }
}

fn bound(name: Bound) -> Activity<NameTree<Name>> {
    Activity::Ok(NameTree::Leaf(Name::Bound(name)))
}

fn unknown(class: &str, path: &Path) -> Activity<NameTree<Name>> {
    Activity::failed(NamerError::UnknownNamer {
        class: class.to_owned(),
        path: path.clone(),
    })
}

fn rewritten(result: Rewritten) -> Activity<NameTree<Name>> {
    match result {
        Ok(Some(path)) => Activity::Ok(NameTree::Leaf(Name::Path(path))),
        Ok(None) => Activity::Ok(NameTree::Neg),
        Err(error) => Activity::failed(error),
    }
}

/// `/$/class`.
fn system(class: &str) -> Path {
    Path::utf8(["$", class])
}

fn text(segment: &Segment) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(segment.as_bytes())
}

/// As Java reads an `Int`: a sign is allowed.
fn integer(text: &str) -> Option<i32> {
    text.parse().ok()
}

/// An address that needs no DNS, also in the short forms of IPv4 that Java and C libraries take: `127.1` is 127.0.0.1.
pub(crate) fn literal(host: &str) -> Option<IpAddr> {
    let unbracketed = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host);
    unbracketed
        .parse()
        .ok()
        .or_else(|| short_v4(host).map(IpAddr::V4))
}

/// One to three decimal numbers, the last of which fills the bytes that are left.
fn short_v4(host: &str) -> Option<Ipv4Addr> {
    let decimal = |part: &str| {
        part.bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| part.parse::<u64>().ok())?
    };
    let parts = host.split('.').map(decimal).collect::<Option<Vec<_>>>()?;
    let (last, first) = parts.split_last()?;
    let room =
        8 * u32::try_from(4_usize.checked_sub(first.len()).filter(|left| *left > 0)?).ok()?;
    if first.iter().any(|byte| *byte > 255) || *last >= 1 << room {
        return None;
    }
    let high = first.iter().fold(0, |all, byte| all << 8 | byte);
    u32::try_from(high << room | last).ok().map(Ipv4Addr::from)
}

/// `/CODE/rest`: the router answers the code itself.
fn status(class: &str, rest: &Path) -> Activity<NameTree<Name>> {
    let code = rest.segments().first().map(text);
    match code.and_then(|code| code.parse::<u16>().ok()) {
        Some(code) if (100..600).contains(&code) => {
            let id = system(class).concat(&rest.take(1));
            bound(Bound::to(id, rest.drop(1), Target::Status(code)))
        }
        _ => Activity::Ok(NameTree::Neg),
    }
}

/// A rewritten path, or none when the name does not fit.
type Rewritten = Result<Option<Path>, NamerError>;

/// The rewriter of this class name, which gets what is behind it.
fn rewriter(class: &str) -> Option<fn(&Path) -> Rewritten> {
    Some(match class {
        "io.buoyant.hostportPfx" => |path| host_and_port(path, |host, port| [host, port]),
        "io.buoyant.porthostPfx" => |path| host_and_port(path, |host, port| [port, host]),
        "io.buoyant.http.anyMethod" => |path| Ok(without(path, 0, is_method)),
        "io.buoyant.http.anyMethodPfx" => |path| Ok(without(path, 1, is_method)),
        "io.buoyant.http.anyHost" => |path| Ok(without(path, 0, is_host)),
        "io.buoyant.http.anyHostPfx" => |path| Ok(without(path, 1, is_host)),
        "io.buoyant.http.subdomainOf" => |path| Ok(subdomain(path, 1)),
        "io.buoyant.http.subdomainOfPfx" => |path| Ok(subdomain(path, 2)),
        "io.buoyant.http.domainToPath" => |path| domain_to_path(path, 0),
        "io.buoyant.http.domainToPathPfx" => |path| domain_to_path(path, 1),
        _ => return None,
    })
}

/// `/pfx/host:port/rest`, with the pair taken apart and put in order.
fn host_and_port(path: &Path, order: for<'a> fn(&'a str, &'a str) -> [&'a str; 2]) -> Rewritten {
    let [_, pair, ..] = path.segments() else {
        return Ok(None);
    };
    let pair = text(pair);
    // Java's `split` drops empty parts at the end: `host:80:` counts.
    match pair
        .trim_end_matches(':')
        .split(':')
        .collect::<Vec<_>>()
        .as_slice()
    {
        [host, port] if is_port(port) => {
            if host.is_empty() {
                return Err(empty_segment());
            }
            let pair = Path::utf8(order(host, port));
            Ok(Some(path.take(1).concat(&pair).concat(&path.drop(2))))
        }
        _ => Ok(None),
    }
}

/// In Finagle's words: a path has no empty segments.
fn empty_segment() -> NamerError {
    let message = "requirement failed".to_owned();
    NamerError::Unfit { message }
}

/// The path without its segment `at`, when that fits.
fn without(path: &Path, at: usize, fits: fn(&str) -> bool) -> Option<Path> {
    let segment = path.segments().get(at)?;
    fits(&text(segment)).then(|| path.take(at).concat(&path.drop(at + 1)))
}

/// `/domain[/pfx]/sub.domain/rest` as `[/pfx]/sub/rest`; the host is the segment `at`.
fn subdomain(path: &Path, at: usize) -> Option<Path> {
    let (domain, host) = (path.segments().first()?, path.segments().get(at)?);
    let (domain, host) = (text(domain), text(host));
    if !is_host(&domain) || !is_host(&host) {
        return None;
    }
    let named = match host.find(':') {
        Some(colon) if colon > 0 => &host[..colon],
        _ => &host,
    };
    let sub = named.strip_suffix(&*domain)?.strip_suffix('.')?;
    let sub = Segment::new(sub)?;
    Some(path.take(at).drop(1).child(sub).concat(&path.drop(at + 1)))
}

/// `[/pfx]/host/rest` with the labels of the host in reverse order; the port stays where it is.
fn domain_to_path(path: &Path, at: usize) -> Rewritten {
    let Some(host) = path.segments().get(at).map(text) else {
        return Ok(None);
    };
    if !is_host(&host) {
        return Ok(None);
    }
    let host = host.trim_end_matches('.');
    let labels: Vec<_> = match host {
        "" => Vec::new(),
        host => host.rsplit('.').collect(),
    };
    if labels.contains(&"") {
        return Err(empty_segment());
    }
    let labels = Path::utf8(labels);
    Ok(Some(
        path.take(at).concat(&labels).concat(&path.drop(at + 1)),
    ))
}

fn is_method(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_uppercase())
}

fn is_host(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b':' | b'_' | b'-');
    !text.is_empty() && text.bytes().all(fits)
}

/// A number or a name in small letters.
fn is_port(text: &str) -> bool {
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let mut bytes = text.bytes();
    text.len() <= 63 && bytes.next().is_some_and(letter) && bytes.all(|b| letter(b) || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_no_part_of_a_subdomain() {
        for (path, want) in [
            ("/test.org/svc/web.test.org:8080/x", Some("/svc/web/x")),
            ("/test.org/svc/a.web.test.org/x", Some("/svc/a.web/x")),
            ("/test.org/svc/test.org:8080", None),
            ("/test.org:8080/svc/web.test.org", None),
        ] {
            let found = subdomain(&Path::read(path).unwrap(), 2);
            assert_eq!(found.map(|p| p.to_string()).as_deref(), want, "{path}");
        }
    }

    #[test]
    fn literals_need_no_dns() {
        for (host, want) in [
            ("127.0.0.1", "127.0.0.1"),
            ("127.1", "127.0.0.1"),
            ("10.1.258", "10.1.1.2"),
            ("80", "0.0.0.80"),
            ("::1", "::1"),
            ("[::1]", "::1"),
        ] {
            assert_eq!(literal(host), Some(want.parse().unwrap()), "{host}");
        }
        for host in [
            "localhost",
            "",
            "1.2.3.4.5",
            "256.1",
            "1..2",
            "a.1",
            "4294967296",
            "1.2.3.256",
        ] {
            assert_eq!(literal(host), None, "{host}");
        }
    }

    /// The bound name that a path leads to.
    fn bound(path: &str) -> Bound {
        let namer = SystemNamer::new(Dns::system(tokio::runtime::Handle::current()));
        let answer = namer.lookup(&path.parse().unwrap(), &mut Reads::new());
        match answer.ok() {
            Some(NameTree::Leaf(Name::Bound(bound))) => bound,
            other => panic!("{path}: {other:?}"),
        }
    }

    fn addr(path: &str) -> Addr {
        match bound(path).target {
            Target::Endpoints(addrs) => addrs.addr(&mut Reads::new()),
            Target::Status(code) => panic!("{path} answers {code}"),
        }
    }

    #[tokio::test]
    async fn an_address_is_bound_at_once() {
        for (path, want) in [
            ("/$/inet/10.0.0.1/80/rest", "10.0.0.1:80"),
            ("/$/inet/8080", "127.0.0.1:8080"),
            ("/$/fixedinet/10.0.0.1/80", "10.0.0.1:80"),
            ("/$/io.buoyant.rinet/80/10.0.0.1", "10.0.0.1:80"),
        ] {
            let endpoint = Endpoint::new(want.parse().unwrap());
            assert_eq!(addr(path), Addr::bound([endpoint]), "{path}");
        }
    }

    #[tokio::test]
    async fn a_port_out_of_range_fails() {
        for path in ["/$/inet/10.0.0.1/65536", "/$/inet/10.0.0.1/-1"] {
            assert!(matches!(addr(path), Addr::Failed(_)), "{path}");
        }
    }

    #[tokio::test]
    async fn a_host_name_waits_for_dns() {
        assert_eq!(addr("/$/inet/no-such-host.invalid./80"), Addr::Pending);
    }

    #[tokio::test]
    async fn a_status_is_answered_by_the_router() {
        let name = bound("/$/io.buoyant.http.status/503/rest");
        assert!(matches!(name.target, Target::Status(503)));
        assert_eq!(name.id.to_string(), "/$/io.buoyant.http.status/503");
        assert_eq!(name.residual.to_string(), "/rest");
        let namer = SystemNamer::new(Dns::system(tokio::runtime::Handle::current()));
        for path in ["99", "600", "x", "-1", "2000"] {
            let path = format!("/$/io.buoyant.http.status/{path}").parse().unwrap();
            let answer = namer.lookup(&path, &mut Reads::new());
            assert!(matches!(answer.ok(), Some(NameTree::Neg)), "{path}");
        }
    }
}
