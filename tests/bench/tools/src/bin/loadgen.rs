//! HTTP/1.1 load generator: closed loop (as fast as the connections allow) or open loop
//! (fixed rate; latency counts from the moment a request was due). Prints one JSON line.
//! loadgen --port P --conns C --n N [--rate R] [--path /1024] [--post BYTES] [--hosts N]
//!         [--newconn] [--idle SECONDS] [--max-s S]
use benchtools::{response_head, sys, BodyState};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

struct Conn {
    fd: i32,
    open: bool,
    busy: bool,
    due: u64,
    buf: Vec<u8>,
    body: Option<BodyState>,
    close: bool,
    out: Vec<u8>,
    off: usize,
    status: u16,
}

fn main() {
    let mut o = std::collections::HashMap::new();
    let mut it = std::env::args().skip(1).peekable();
    while let Some(k) = it.next() {
        let v = match it.peek() {
            Some(v) if !v.starts_with("--") => it.next().unwrap(),
            _ => "1".into(),
        };
        o.insert(k.trim_start_matches("--").to_string(), v);
    }
    let num = |k: &str, d: u64| o.get(k).map(|v| v.parse().unwrap()).unwrap_or(d);
    let addr = SocketAddrV4::new(Ipv4Addr::LOCALHOST, num("port", 0) as u16);
    let (conns, n, rate, post, hosts) = (
        num("conns", 64) as usize,
        num("n", 1000),
        num("rate", 0),
        num("post", 0),
        num("hosts", 1),
    );
    let newconn = num("newconn", 0) == 1;
    let idle = num("idle", 0);
    let max = Duration::from_secs(num("max-s", 60).min(300));
    let path = o.get("path").cloned().unwrap_or("/1024".into());
    let mk = |host: u64| -> Vec<u8> {
        let mut v = format!(
            "{} {path} HTTP/1.1\r\nhost: svc-{host}\r\nuser-agent: loadgen/1\r\naccept: */*\r\n",
            if post > 0 { "POST" } else { "GET" }
        )
        .into_bytes();
        if newconn {
            v.extend_from_slice(b"connection: close\r\n");
        }
        if post > 0 {
            v.extend_from_slice(format!("content-length: {post}\r\n").as_bytes());
        }
        v.extend_from_slice(b"\r\n");
        v.resize(v.len() + post as usize, b'p');
        v
    };
    let reqs: Vec<Vec<u8>> = (0..hosts.max(1)).map(mk).collect();
    let ep = sys::epoll();
    let mut cs: Vec<Conn> = Vec::new();
    let ev = (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLET | libc::EPOLLRDHUP) as u32;
    let mut src = 0u64;
    let mut dial = |i: usize| -> i32 {
        src += 1;
        let s = if newconn {
            Some(2 + (src % 40) as u8)
        } else {
            None
        };
        let fd = sys::connect(addr, s).expect("connect");
        sys::add(ep, fd, ev, i as u64);
        fd
    };
    for i in 0..conns {
        let fd = if newconn { -1 } else { dial(i) };
        cs.push(Conn {
            fd,
            open: !newconn,
            busy: false,
            due: 0,
            buf: vec![],
            body: None,
            close: false,
            out: vec![],
            off: 0,
            status: 0,
        });
    }
    let mut evs = vec![libc::epoll_event { events: 0, u64: 0 }; 512];
    let mut sc = vec![0u8; 256 << 10];
    let mut junk = Vec::new();
    let t0 = Instant::now();
    let mut free: VecDeque<usize> = (0..conns).collect();
    let (mut sent, mut done, mut errors, mut non2xx) = (0u64, 0u64, 0u64, 0u64);
    let mut lat: Vec<u32> = Vec::with_capacity(n as usize);
    let mut seed = 88172645463325252u64;
    let gap = if rate > 0 { 1e9 / rate as f64 } else { 0.0 };
    while done + errors < n && t0.elapsed() < max {
        let mut now = t0.elapsed().as_nanos() as u64;
        // start what is due
        while sent < n {
            let due = if rate > 0 {
                (sent as f64 * gap) as u64
            } else {
                now
            };
            if due > now {
                break;
            }
            let Some(i) = free.pop_front() else { break };
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let r = &reqs[(seed % reqs.len() as u64) as usize];
            if !cs[i].open {
                let fd = dial(i);
                cs[i].fd = fd;
                cs[i].open = true;
            }
            let c = &mut cs[i];
            c.busy = true;
            c.due = due;
            sent += 1;
            let s = match sys::send(c.fd, r) {
                Ok(s) => s,
                Err(_) => 0, // not connected yet, or full: epoll tells when to go on
            };
            if s < r.len() {
                c.out.clear();
                c.out.extend_from_slice(&r[s..]);
                c.off = 0;
            }
            if rate > 0 {
                now = t0.elapsed().as_nanos() as u64;
            }
        }
        let ms = if rate > 0 && sent < n && !free.is_empty() {
            let due = (sent as f64 * gap) as u64;
            let now = t0.elapsed().as_nanos() as u64;
            if due > now {
                // sleep with ns precision, then poll
                let d = due - now;
                let ts = libc::timespec {
                    tv_sec: 0,
                    tv_nsec: d.min(999_999_999) as i64,
                };
                let k = unsafe {
                    libc::syscall(
                        libc::SYS_epoll_pwait2,
                        ep,
                        evs.as_mut_ptr(),
                        evs.len() as i32,
                        &ts,
                        0usize,
                        0usize,
                    )
                };
                if k > 0 {
                    -(k as i32) - 1
                } else {
                    0
                }
            } else {
                0
            }
        } else {
            200
        };
        let k = if ms < -1 {
            (-ms - 1) as usize
        } else {
            sys::wait(ep, &mut evs, ms)
        };
        for e in &evs[..k] {
            let i = e.u64 as usize;
            let c = &mut cs[i];
            if !c.open {
                continue;
            }
            let mut bad = false;
            let mut fin = false;
            if c.off < c.out.len() {
                match sys::send(c.fd, &c.out[c.off..]) {
                    Ok(k) => {
                        c.off += k;
                        if c.off == c.out.len() {
                            c.out.clear();
                            c.off = 0
                        }
                    }
                    Err(e) => bad = !sys::would_block(&e),
                }
            }
            while !bad && !fin {
                let k = match sys::recv(c.fd, &mut sc) {
                    Ok(0) => {
                        bad = true;
                        break;
                    }
                    Ok(k) => k,
                    Err(e) => {
                        bad = !sys::would_block(&e);
                        break;
                    }
                };
                let own;
                let mut b: &[u8] = &sc[..k];
                if !c.buf.is_empty() {
                    c.buf.extend_from_slice(b);
                    own = std::mem::take(&mut c.buf);
                    b = &own;
                }
                if c.body.is_none() {
                    junk.clear();
                    match response_head(b, &mut junk, false) {
                        Ok(Some(h)) => {
                            c.body = Some(BodyState::new(h.body));
                            c.close = !h.keep_alive || newconn;
                            c.status = h.status;
                            b = &b[h.len..];
                        }
                        Ok(None) => {
                            c.buf = b.to_vec();
                            continue;
                        }
                        Err(_) => {
                            bad = true;
                            break;
                        }
                    }
                }
                let bs = c.body.as_mut().unwrap();
                if bs.take(b).is_err() {
                    bad = true
                }
                if bs.done() {
                    fin = true;
                } else if k < sc.len() && e.events & (libc::EPOLLRDHUP | libc::EPOLLHUP) as u32 == 0
                {
                    break;
                }
            }
            if fin {
                c.body = None;
                let now = t0.elapsed().as_nanos() as u64;
                lat.push(((now - c.due) / 1000) as u32);
                done += 1;
                if !(200..300).contains(&c.status) {
                    non2xx += 1
                }
            } else if bad && c.busy {
                errors += 1;
            }
            if bad || (fin && c.close) {
                sys::close(c.fd);
                c.open = false;
                c.out.clear();
                c.off = 0;
                c.buf.clear();
                c.body = None;
            }
            if (fin || bad) && c.busy {
                c.busy = false;
                free.push_back(i);
            }
        }
    }
    let el = t0.elapsed().as_secs_f64();
    lat.sort_unstable();
    let p = |q: f64| {
        lat.get(((lat.len() as f64 * q) as usize).min(lat.len().saturating_sub(1)))
            .copied()
            .unwrap_or(0)
    };
    println!("{{\"requests\":{done},\"errors\":{errors},\"non2xx\":{non2xx},\"elapsed\":{el:.4},\"p50\":{},\"p90\":{},\"p99\":{},\"p999\":{},\"max\":{}}}", p(0.5), p(0.9), p(0.99), p(0.999), p(1.0));
    if idle > 0 {
        use std::io::Write;
        let _ = std::io::stdout().flush();
        std::thread::sleep(Duration::from_secs(idle.min(60)));
    }
}
