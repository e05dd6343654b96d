//! The addresses of this host's network interfaces, as Linux lists them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses of all interfaces that are up. An address family that the system lacks has none.
pub fn local_addresses() -> io::Result<Vec<IpAddr>> {
    let mut all = v4(&read("/proc/net/fib_trie")?);
    all.extend(v6(&read("/proc/net/if_inet6")?));
    Ok(all)
}

fn read(file: &str) -> io::Result<String> {
    match std::fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other,
    }
}

/// The routing table's own addresses: a line `|-- 10.0.0.1`, and below it `/32 host LOCAL`. Each is in two tables.
fn v4(fib_trie: &str) -> Vec<IpAddr> {
    let mut all = Vec::new();
    let mut last = None;
    for line in fib_trie.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok().map(IpAddr::V4);
        } else if line == "/32 host LOCAL" {
            all.extend(last);
        }
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// A line for each address, beginning with its 32 digits.
fn v6(if_inet6: &str) -> Vec<IpAddr> {
    let digits = if_inet6
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    let number = digits.filter_map(|digits| u128::from_str_radix(digits, 16).ok());
    number
        .map(|number| IpAddr::V6(Ipv6Addr::from(number)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_from_the_system_s_tables() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     |-- 10.1.2.0\n        /24 link UNICAST\n\
            Local:\n     |-- 10.1.2.3\n        /32 host LOCAL\n     |-- 10.1.2.255\n        /32 link BROADCAST\n     |-- 127.0.0.0\n\
                /8 host LOCAL\n     |-- 127.0.0.1\n        /32 host LOCAL\n     |-- 10.1.2.3\n        /32 host LOCAL\n";
        assert_eq!(
            v4(trie),
            ["10.1.2.3", "127.0.0.1"].map(|ip| ip.parse::<IpAddr>().unwrap())
        );
        let table = "00000000000000000000000000000001 01 80 10 80       lo\nfe80000000000000000000fffe000001 02 40 20 80 eth0\n";
        assert_eq!(
            v6(table),
            ["::1", "fe80::ff:fe00:1"].map(|ip| ip.parse::<IpAddr>().unwrap())
        );
    }

    #[test]
    fn this_host_has_a_loopback_address() {
        let all = local_addresses().unwrap();
        assert!(all.contains(&"127.0.0.1".parse().unwrap()), "{all:?}");
    }
}
