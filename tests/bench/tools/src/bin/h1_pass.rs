//! The floor of HTTP: a proxy that reads heads to know where messages end, and keeps connections to endpoints open. One
//! epoll loop; nothing is named, balanced, counted, timed, limited or tried again, and no client may pipeline.
use benchtools::{request_head, response_head, sys, BodyState};
use std::net::SocketAddrV4;
use std::os::fd::AsRawFd;

const NONE: usize = usize::MAX;
const LISTENER: u64 = u64::MAX;

/// One end: a client's connection, or one to an endpoint.
struct End {
    fd: i32,
    is_client: bool,
    /// The other end of the message that is under way.
    peer: usize,
    /// A head that is not whole yet, or the beginning of the next message.
    input: Vec<u8>,
    /// How far the message that comes from this end is.
    body: Option<BodyState>,
    /// What its socket has not taken yet.
    output: Vec<u8>,
    /// Whether it is used again after this message.
    stays: bool,
    /// Whether epoll watches it. One that carries a single request need not be.
    is_watched: bool,
}

struct Proxy {
    epoll: i32,
    endpoints: Vec<SocketAddrV4>,
    next: usize,
    ends: Vec<End>,
    free: Vec<usize>,
    idle: Vec<usize>,
    block: Vec<u8>,
    head: Vec<u8>,
}

fn main() {
    let mut args = std::env::args().skip(1);
    let port = args
        .next()
        .expect("h1_pass PORT ADDRESS,ADDRESS...")
        .parse()
        .expect("a port");
    let endpoints = args.next().expect("addresses of the endpoints");
    let listener = benchtools::listen(port);
    // Inherited by what it accepts.
    sys::nodelay(listener.as_raw_fd());
    let mut proxy = Proxy {
        epoll: sys::epoll(),
        endpoints: endpoints
            .split(',')
            .map(|one| one.parse().expect("an address"))
            .collect(),
        next: 0,
        ends: vec![],
        free: vec![],
        idle: vec![],
        block: vec![0; 64 << 10],
        head: vec![],
    };
    sys::add(
        proxy.epoll,
        listener.as_raw_fd(),
        libc::EPOLLIN as u32,
        LISTENER,
    );
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; 256];
    loop {
        let n = sys::wait(proxy.epoll, &mut events, -1);
        for event in &events[..n] {
            if event.u64 == LISTENER {
                while let Some(fd) = sys::accept_as_it_is(listener.as_raw_fd()) {
                    let client = proxy.open(fd, true);
                    proxy.read(client);
                    let end = &proxy.ends[client];
                    if end.stays || !end.body.is_some_and(|body| body.done()) {
                        proxy.watch(client);
                    }
                    // An accept that finds nothing makes a socket before it looks, and costs ten times as much.
                    if !sys::has_more(listener.as_raw_fd()) {
                        break;
                    }
                }
                continue;
            }
            let at = event.u64 as usize;
            let was_held_up = !proxy.ends[at].output.is_empty();
            if was_held_up && proxy.flush(at) {
                proxy.read(proxy.ends[at].peer);
            }
            proxy.read(at);
        }
    }
}

impl Proxy {
    fn open(&mut self, fd: i32, is_client: bool) -> usize {
        let end = End {
            fd,
            is_client,
            peer: NONE,
            input: vec![],
            body: None,
            output: vec![],
            stays: true,
            is_watched: false,
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.ends[at] = end;
                at
            }
            None => {
                self.ends.push(end);
                self.ends.len() - 1
            }
        };
        at
    }

    fn watch(&mut self, at: usize) {
        let end = &mut self.ends[at];
        if end.fd >= 0 && !std::mem::replace(&mut end.is_watched, true) {
            let all = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLET | libc::EPOLLRDHUP;
            sys::add(self.epoll, end.fd, all as u32, at as u64);
        }
    }

    fn close(&mut self, at: usize) {
        if at == NONE || self.ends[at].fd < 0 {
            return;
        }
        sys::close(self.ends[at].fd);
        self.ends[at].fd = -1;
        self.idle.retain(|idle| *idle != at);
        self.free.push(at);
    }

    /// Closes it, and the other end with it: the message is broken.
    fn give_up(&mut self, at: usize) {
        let peer = self.ends[at].peer;
        self.close(at);
        self.close(peer);
    }

    fn endpoint(&mut self) -> Option<usize> {
        if let Some(at) = self.idle.pop() {
            return Some(at);
        }
        self.next += 1;
        let addr = self.endpoints[self.next % self.endpoints.len()];
        let fd = sys::connect(addr, None).ok()?;
        let at = self.open(fd, false);
        self.watch(at);
        Some(at)
    }

    /// Reads what there is at this end and passes it on, as long as the other one takes it.
    fn read(&mut self, at: usize) {
        while at != NONE && self.ends[at].fd >= 0 {
            let end = &self.ends[at];
            let waits_for_answer = end.is_client && end.body.is_some_and(|body| body.done());
            if waits_for_answer || (end.peer != NONE && !self.ends[end.peer].output.is_empty()) {
                return;
            }
            let mut block = std::mem::take(&mut self.block);
            let read = sys::recv(self.ends[at].fd, &mut block);
            let passed = match &read {
                Ok(n) if *n > 0 => self.pass(at, &block[..*n]),
                Err(error) if sys::would_block(error) => Some(()),
                _ => None,
            };
            let is_drained = !matches!(&read, Ok(n) if *n == block.len());
            self.block = block;
            if passed.is_none() {
                return self.give_up(at);
            }
            if is_drained {
                return;
            }
        }
    }

    /// Passes bytes on that came from this end; nothing when the message is broken.
    fn pass(&mut self, at: usize, bytes: &[u8]) -> Option<()> {
        let joined;
        let mut bytes = bytes;
        if !self.ends[at].input.is_empty() {
            let mut input = std::mem::take(&mut self.ends[at].input);
            input.extend_from_slice(bytes);
            joined = input;
            bytes = &joined;
        }
        let mut head = std::mem::take(&mut self.head);
        head.clear();
        if self.ends[at].body.is_none() {
            let is_client = self.ends[at].is_client;
            let read = match is_client {
                true => request_head(bytes, &mut head),
                false => response_head(bytes, &mut head, false),
            };
            let Some(read) = read.ok()? else {
                self.ends[at].input = bytes.to_vec();
                self.head = head;
                return Some(());
            };
            self.ends[at].body = Some(BodyState::new(read.body));
            self.ends[at].stays = read.keep_alive;
            if is_client {
                let endpoint = self.endpoint()?;
                self.ends[at].peer = endpoint;
                self.ends[endpoint].peer = at;
            } else if !self.ends.get(self.ends[at].peer)?.stays {
                head.extend_from_slice(b"connection: close\r\n");
            }
            head.extend_from_slice(b"\r\n");
            bytes = &bytes[read.len..];
        }
        let n = self.ends[at].body.as_mut()?.take(bytes).ok()?;
        let is_done = self.ends[at].body?.done();
        self.ends[at].input.extend_from_slice(&bytes[n..]);
        let peer = self.ends[at].peer;
        if head.is_empty() {
            self.write(peer, &bytes[..n])?;
        } else {
            head.extend_from_slice(&bytes[..n]);
            self.write(peer, &head)?;
        }
        self.head = head;
        if is_done && !self.ends[at].is_client {
            self.end_of_answer(at, peer);
        }
        Some(())
    }

    fn end_of_answer(&mut self, endpoint: usize, client: usize) {
        self.ends[endpoint].body = None;
        self.ends[endpoint].peer = NONE;
        self.ends[client].body = None;
        self.ends[client].peer = NONE;
        match self.ends[endpoint].stays {
            true => self.idle.push(endpoint),
            false => self.close(endpoint),
        }
        if !self.ends[client].stays && self.ends[client].output.is_empty() {
            self.close(client);
        }
    }

    /// Writes as much as the socket takes and keeps the rest.
    fn write(&mut self, at: usize, bytes: &[u8]) -> Option<()> {
        let end = self.ends.get_mut(at)?;
        let n = match end.output.is_empty() {
            true => match sys::send(end.fd, bytes) {
                Ok(n) => n,
                Err(error) if is_not_yet(&error) => 0,
                Err(_) => return None,
            },
            false => 0,
        };
        if n < bytes.len() {
            end.output.extend_from_slice(&bytes[n..]);
            self.watch(at);
        }
        Some(())
    }

    /// Writes what was kept; whether this end is still there.
    fn flush(&mut self, at: usize) -> bool {
        let end = &mut self.ends[at];
        match sys::send(end.fd, &end.output) {
            Ok(n) => _ = end.output.drain(..n),
            Err(error) if is_not_yet(&error) => {}
            Err(_) => self.give_up(at),
        }
        let end = &self.ends[at];
        if end.output.is_empty() && !end.stays && end.is_client && end.body.is_none() {
            self.close(at);
        }
        self.ends[at].fd >= 0
    }
}

/// Also while the connection is being made.
fn is_not_yet(error: &std::io::Error) -> bool {
    sys::would_block(error) || error.raw_os_error() == Some(libc::ENOTCONN)
}
