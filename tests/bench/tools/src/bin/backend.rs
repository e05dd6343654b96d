//! A very light HTTP/1.1 responder: one epoll loop, several ports.
//! Path "/<n>" answers n bytes; request bodies with Content-Length or chunked are swallowed.
use benchtools::{request_head, sys, BodyState};
use std::collections::HashMap;
use std::os::fd::AsRawFd;

struct Conn {
    buf: Vec<u8>,
    body: Option<BodyState>,
    close: bool,
    size: usize,
    out: Vec<u8>,
    off: usize,
}

fn main() {
    let ports: Vec<u16> = std::env::args()
        .nth(1)
        .expect("ports")
        .split(',')
        .map(|p| p.parse().unwrap())
        .collect();
    let ep = sys::epoll();
    let ls: Vec<_> = ports.iter().map(|p| benchtools::listen(*p)).collect();
    for l in &ls {
        sys::add(
            ep,
            l.as_raw_fd(),
            libc::EPOLLIN as u32,
            1 << 40 | l.as_raw_fd() as u64,
        );
    }
    let mut cs: HashMap<i32, Conn, fxhash::FxBuildHasher> = HashMap::default();
    let mut evs = vec![libc::epoll_event { events: 0, u64: 0 }; 256];
    let mut sc = vec![0u8; 256 << 10];
    let mut replies: HashMap<usize, Vec<u8>> = HashMap::new();
    let mut scratch = Vec::new();
    loop {
        let n = sys::wait(ep, &mut evs, -1);
        for e in &evs[..n] {
            let d = e.u64;
            if d >> 40 == 1 {
                while let Some(fd) = sys::accept((d & 0xffff_ffff) as i32) {
                    cs.insert(
                        fd,
                        Conn {
                            buf: vec![],
                            body: None,
                            close: false,
                            size: 0,
                            out: vec![],
                            off: 0,
                        },
                    );
                    sys::add(
                        ep,
                        fd,
                        (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLET | libc::EPOLLRDHUP) as u32,
                        fd as u64,
                    );
                }
                continue;
            }
            let fd = d as i32;
            let Some(c) = cs.get_mut(&fd) else { continue };
            let mut drop = false;
            if c.off < c.out.len() {
                match sys::send(fd, &c.out[c.off..]) {
                    Ok(k) => {
                        c.off += k;
                        if c.off == c.out.len() {
                            c.out = vec![];
                            c.off = 0;
                            drop = c.close
                        }
                    }
                    Err(e) => drop = !sys::would_block(&e),
                }
            }
            while !drop {
                let k = match sys::recv(fd, &mut sc) {
                    Ok(0) => {
                        drop = true;
                        break;
                    }
                    Ok(k) => k,
                    Err(e) => {
                        drop = !sys::would_block(&e);
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
                loop {
                    if c.body.is_none() {
                        if b.is_empty() {
                            break;
                        }
                        scratch.clear();
                        match request_head(b, &mut scratch) {
                            Ok(Some(h)) => {
                                let p = b.iter().position(|x| *x == b'/').unwrap_or(0) + 1;
                                let mut n = 0usize;
                                for x in &b[p..] {
                                    if !x.is_ascii_digit() {
                                        break;
                                    }
                                    n = n * 10 + (*x - b'0') as usize;
                                }
                                c.size = if n == 0 { 1024 } else { n.min(1 << 20) };
                                c.close = !h.keep_alive;
                                c.body = Some(BodyState::new(h.body));
                                b = &b[h.len..];
                            }
                            Ok(None) => {
                                c.buf = b.to_vec();
                                break;
                            }
                            Err(_) => {
                                drop = true;
                                break;
                            }
                        }
                    }
                    let bs = c.body.as_mut().unwrap();
                    match bs.take(b) {
                        Ok(n) => b = &b[n..],
                        Err(_) => {
                            drop = true;
                            break;
                        }
                    }
                    if !bs.done() {
                        break;
                    }
                    c.body = None;
                    let size = c.size;
                    let r = replies.entry(size).or_insert_with(|| {
                        let mut v = format!("HTTP/1.1 200 OK\r\nserver: backend\r\ndate: Sat, 21 Nov 2026 00:00:00 GMT\r\ncontent-type: text/plain\r\ncontent-length: {size}\r\n\r\n").into_bytes();
                        v.resize(v.len() + size, b'x');
                        v
                    });
                    let mut s = 0;
                    if c.out.is_empty() {
                        match sys::send(fd, r) {
                            Ok(k) => s = k,
                            Err(e) => {
                                if !sys::would_block(&e) {
                                    drop = true;
                                    break;
                                }
                            }
                        }
                    }
                    if s < r.len() {
                        c.out.extend_from_slice(&r[s..]);
                    } else if c.close {
                        drop = true;
                        break;
                    }
                }
                if k < sc.len()
                    && e.events & (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32 == 0
                {
                    break;
                }
            }
            if drop {
                cs.remove(&fd);
                sys::close(fd);
            }
        }
    }
}
