//! The format of an address file: a line for each, `host port` or `host port * weight`.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::namers::Dns;
use crate::namers::dns;
use crate::namers::system::literal;

/// The largest file that is read, as Linkerd's.
pub const MAX_FILE_BYTES: u64 = 500 * 1024;

/// One address as written.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) host: Host,
    pub(super) port: u16,
    pub(super) weight: f64,
}

#[derive(Clone, Debug)]
pub(super) enum Host {
    Ip(IpAddr),
    Name(Arc<dns::Host>),
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(ip) => write!(f, "{ip} {}", self.port)?,
            Host::Name(host) => write!(f, "{} {}", host.name(), self.port)?,
        }
        if self.weight == 1.0 {
            Ok(())
        } else {
            write!(f, " * {}", self.weight)
        }
    }
}

/// A line that is no address; in Linkerd's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed address: {line} (line {number})")]
pub struct LineError {
    /// The line, without its comment.
    pub line: String,
    /// Its number, from 1.
    pub number: usize,
}

/// All addresses of a file; one wrong line spoils it, as half of a replica set would get all of the traffic.
pub(super) fn parse(text: &str, dns: &Dns) -> Result<Vec<Line>, LineError> {
    let mut lines = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let content = line.split('#').next().unwrap_or_default().trim();
        if content.is_empty() {
            continue;
        }
        lines.push(address(content, dns).ok_or_else(|| LineError {
            line: content.to_owned(),
            number: i + 1,
        })?);
    }
    Ok(lines)
}

fn address(line: &str, dns: &Dns) -> Option<Line> {
    let (address, weight) = match line.split_once('*') {
        None => (line, 1.0),
        Some((address, weight)) => (address, decimal(weight.trim())?),
    };
    let mut words = address.split_whitespace();
    let (host, port, None) = (words.next()?, words.next()?, words.next()) else {
        return None;
    };
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    let port = port.parse().ok().filter(|port| digits && *port > 0)?;
    let host = match literal(host) {
        Some(ip) => Host::Ip(ip),
        None => Host::Name(dns.follow(host)),
    };
    Some(Line { host, port, weight })
}

/// A number without sign and exponent.
fn decimal(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    text.parse()
        .ok()
        .filter(|weight: &f64| plain && weight.is_finite())
}
