//! The floor: a TCP proxy that copies bytes (recv and send), one epoll
//! loop, one upstream connection per client connection, no HTTP at all.
use benchtools::sys;
use std::os::fd::AsRawFd;

struct C {
    fd: i32,
    peer: usize,
    pend: Vec<u8>,
    open: bool,
}

fn main() {
    let mut args = std::env::args().skip(1);
    let port = args
        .next()
        .expect("l4_copy PORT ADDRESS,ADDRESS...")
        .parse()
        .expect("a port");
    let backends = args.next().expect("addresses of the backends");
    let addrs: Vec<std::net::SocketAddrV4> = backends
        .split(',')
        .map(|s| s.parse().expect("an address"))
        .collect();
    let ep = sys::epoll();
    let l = benchtools::listen(port);
    sys::add(ep, l.as_raw_fd(), libc::EPOLLIN as u32, u64::MAX);
    let mut cs: Vec<C> = vec![];
    let mut free: Vec<usize> = vec![];
    let mut evs = vec![libc::epoll_event { events: 0, u64: 0 }; 256];
    let mut sc = vec![0u8; 64 << 10];
    let ev = (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLET | libc::EPOLLRDHUP) as u32;
    let mut rr = 0;
    loop {
        let n = sys::wait(ep, &mut evs, -1);
        for e in &evs[..n] {
            if e.u64 == u64::MAX {
                while let Some(fd) = sys::accept(l.as_raw_fd()) {
                    rr += 1;
                    let Ok(u) = sys::connect(addrs[rr % addrs.len()], None) else {
                        sys::close(fd);
                        continue;
                    };
                    let mk = |fd, peer| C {
                        fd,
                        peer,
                        pend: vec![],
                        open: true,
                    };
                    let (i, j) = if free.len() >= 2 {
                        (free.pop().unwrap(), free.pop().unwrap())
                    } else {
                        cs.push(mk(-1, 0));
                        cs.push(mk(-1, 0));
                        (cs.len() - 2, cs.len() - 1)
                    };
                    cs[i] = mk(fd, j);
                    cs[j] = mk(u, i);
                    sys::add(ep, fd, ev, i as u64);
                    sys::add(ep, u, ev, j as u64);
                }
                continue;
            }
            let i = e.u64 as usize;
            if !cs[i].open {
                continue;
            }
            let j = cs[i].peer;
            let mut dead = false;
            // writable: flush what the peer read for us (kept in peer.pend)
            if e.events & libc::EPOLLOUT as u32 != 0 && !cs[j].pend.is_empty() {
                let p = std::mem::take(&mut cs[j].pend);
                match sys::send(cs[i].fd, &p) {
                    Ok(k) => cs[j].pend = p[k..].to_vec(),
                    Err(e) if sys::would_block(&e) => cs[j].pend = p,
                    Err(_) => dead = true,
                }
            }
            for (r, w) in [(i, j), (j, i)] {
                if r == j && e.events & libc::EPOLLOUT as u32 == 0 {
                    continue;
                }
                if r == j && cs[j].pend.is_empty() && e.events & (libc::EPOLLIN as u32) != 0 {
                    continue;
                }
                loop {
                    if !cs[r].pend.is_empty() {
                        break;
                    }
                    let k = match sys::recv(cs[r].fd, &mut sc) {
                        Ok(0) => {
                            dead = true;
                            break;
                        }
                        Ok(k) => k,
                        Err(e) => {
                            dead |= !sys::would_block(&e);
                            break;
                        }
                    };
                    match sys::send(cs[w].fd, &sc[..k]) {
                        Ok(m) if m == k => {}
                        Ok(m) => {
                            cs[r].pend = sc[m..k].to_vec();
                            break;
                        }
                        Err(e)
                            if sys::would_block(&e) || e.raw_os_error() == Some(libc::ENOTCONN) =>
                        {
                            cs[r].pend = sc[..k].to_vec();
                            break;
                        }
                        Err(_) => {
                            dead = true;
                            break;
                        }
                    }
                    if k < sc.len() && e.events & libc::EPOLLRDHUP as u32 == 0 {
                        break;
                    }
                }
            }
            if dead {
                for x in [i, j] {
                    sys::close(cs[x].fd);
                    cs[x].open = false;
                    free.push(x);
                }
            }
        }
    }
}
