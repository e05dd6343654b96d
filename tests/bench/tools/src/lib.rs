//! What the benchmark's own programs share: just enough HTTP/1 to count messages, and the system calls they make.
use std::mem::MaybeUninit;

/// A listening socket with SO_REUSEPORT so each thread may have its own.
pub fn listen(port: u16) -> std::net::TcpListener {
    use std::os::fd::FromRawFd;
    unsafe {
        let fd = libc::socket(
            libc::AF_INET,
            libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
            0,
        );
        let one: libc::c_int = 1;
        for o in [libc::SO_REUSEADDR, libc::SO_REUSEPORT] {
            libc::setsockopt(fd, libc::SOL_SOCKET, o, &one as *const _ as *const _, 4);
        }
        let mut sa: libc::sockaddr_in = std::mem::zeroed();
        sa.sin_family = libc::AF_INET as u16;
        sa.sin_port = port.to_be();
        sa.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
        let r = libc::bind(
            fd,
            &sa as *const _ as *const _,
            std::mem::size_of_val(&sa) as u32,
        );
        assert_eq!(r, 0, "bind {port}: {}", std::io::Error::last_os_error());
        assert_eq!(libc::listen(fd, 4096), 0);
        std::net::TcpListener::from_raw_fd(fd)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Body {
    Len(u64),
    Chunked,
    Eof,
}

#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// Bytes of the input that the head took.
    pub len: usize,
    pub body: Body,
    pub keep_alive: bool,
    pub host: (usize, usize),
    pub is_head: bool,
    pub status: u16,
}

#[derive(Debug)]
pub struct Bad;

const MAX_HEADERS: usize = 100;

#[inline]
fn offset(buf: &[u8], p: *const u8) -> usize {
    p as usize - buf.as_ptr() as usize
}

#[inline]
fn hop(name: &str) -> u8 {
    // 0: end to end, 1: drop, 2: connection, 3: content-length, 4: transfer-encoding, 5: host
    match name.len() {
        2 if name.eq_ignore_ascii_case("te") => 1,
        4 if name.eq_ignore_ascii_case("host") => 5,
        7 if name.eq_ignore_ascii_case("upgrade") => 1,
        10 if name.eq_ignore_ascii_case("connection") => 2,
        10 if name.eq_ignore_ascii_case("keep-alive") => 1,
        14 if name.eq_ignore_ascii_case("content-length") => 3,
        16 if name.eq_ignore_ascii_case("proxy-connection") => 1,
        17 if name.eq_ignore_ascii_case("transfer-encoding") => 4,
        _ => 0,
    }
}

fn copy_headers(
    buf: &[u8],
    headers: &[httparse::Header],
    head_len: usize,
    out: &mut Vec<u8>,
    v11: bool,
) -> Result<Head, Bad> {
    let mut h = Head {
        len: head_len,
        body: Body::Len(0),
        keep_alive: v11,
        host: (0, 0),
        is_head: false,
        status: 0,
    };
    let mut run = 0usize;
    let mut saw_len = false;
    for (i, x) in headers.iter().enumerate() {
        let k = hop(x.name);
        if k == 0 {
            continue;
        }
        match k {
            2 => {
                for t in x.value.split(|b| *b == b',') {
                    let t = t.trim_ascii();
                    if t.eq_ignore_ascii_case(b"close") {
                        h.keep_alive = false
                    } else if t.eq_ignore_ascii_case(b"keep-alive") {
                        h.keep_alive = true
                    }
                }
            }
            3 => {
                let s = std::str::from_utf8(x.value).map_err(|_| Bad)?;
                let n: u64 = s.trim().parse().map_err(|_| Bad)?;
                if saw_len {
                    return Err(Bad);
                }
                saw_len = true;
                if h.body != Body::Chunked {
                    h.body = Body::Len(n);
                }
                continue;
            }
            4 => {
                h.body = Body::Chunked;
                continue;
            }
            5 => {
                let s = offset(buf, x.value.as_ptr());
                h.host = (s, s + x.value.len());
                continue;
            }
            _ => {}
        }
        let s = offset(buf, x.name.as_ptr());
        let e = match headers.get(i + 1) {
            Some(n) => offset(buf, n.name.as_ptr()),
            None => head_len - 2,
        };
        out.extend_from_slice(&buf[run..s]);
        run = e;
    }
    out.extend_from_slice(&buf[run..head_len - 2]);
    if !saw_len && h.body != Body::Chunked {
        h.body = Body::Eof; // for a request the caller turns this into "none"
    }
    Ok(h)
}

/// Parses a request head; `out` is scratch space.
pub fn request_head(buf: &[u8], out: &mut Vec<u8>) -> Result<Option<Head>, Bad> {
    let mut hs: [MaybeUninit<httparse::Header>; MAX_HEADERS] =
        [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut r = httparse::Request::new(&mut []);
    match httparse::ParserConfig::default().parse_request_with_uninit_headers(&mut r, buf, &mut hs)
    {
        Ok(httparse::Status::Complete(n)) => {
            let mut h = copy_headers(buf, r.headers, n, out, r.version == Some(1))?;
            h.is_head = r.method == Some("HEAD");
            if h.body == Body::Eof {
                h.body = Body::Len(0);
            }
            Ok(Some(h))
        }
        Ok(httparse::Status::Partial) => Ok(None),
        Err(_) => Err(Bad),
    }
}

pub fn response_head(buf: &[u8], out: &mut Vec<u8>, to_head: bool) -> Result<Option<Head>, Bad> {
    let mut hs: [MaybeUninit<httparse::Header>; MAX_HEADERS] =
        [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut r = httparse::Response::new(&mut []);
    match httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut r, buf, &mut hs)
    {
        Ok(httparse::Status::Complete(n)) => {
            let mut h = copy_headers(buf, r.headers, n, out, r.version == Some(1))?;
            h.status = r.code.unwrap_or(0);
            if to_head || h.status == 204 || h.status == 304 || h.status < 200 {
                h.body = Body::Len(0);
            }
            if h.body == Body::Eof {
                h.keep_alive = false;
            }
            Ok(Some(h))
        }
        Ok(httparse::Status::Partial) => Ok(None),
        Err(_) => Err(Bad),
    }
}

/// Where a body stands. `take` says how many of the given bytes belong to it.
#[derive(Clone, Copy, Debug)]
pub struct BodyState {
    kind: Body,
    left: u64,
    // chunked: 0 size line, 1 data (left bytes incl. CRLF), 2 trailers at line start, 3 trailer line, 4 done
    st: u8,
    size: u64,
    seen_ext: bool,
}
impl BodyState {
    pub fn new(kind: Body) -> BodyState {
        let left = if let Body::Len(n) = kind { n } else { 0 };
        BodyState {
            kind,
            left,
            st: 0,
            size: 0,
            seen_ext: false,
        }
    }
    pub fn done(&self) -> bool {
        match self.kind {
            Body::Len(_) => self.left == 0,
            Body::Chunked => self.st == 4,
            Body::Eof => false,
        }
    }
    pub fn take(&mut self, b: &[u8]) -> Result<usize, Bad> {
        match self.kind {
            Body::Len(_) => {
                let n = self.left.min(b.len() as u64);
                self.left -= n;
                Ok(n as usize)
            }
            Body::Eof => Ok(b.len()),
            Body::Chunked => {
                let mut i = 0;
                while i < b.len() && self.st != 4 {
                    match self.st {
                        0 => {
                            let c = b[i];
                            i += 1;
                            match c {
                                b'\n' => {
                                    if self.size == 0 {
                                        self.st = 2
                                    } else {
                                        self.left = self.size + 2;
                                        self.st = 1
                                    }
                                    self.size = 0;
                                    self.seen_ext = false;
                                }
                                b'\r' => {}
                                b';' => self.seen_ext = true,
                                _ if self.seen_ext => {}
                                c => {
                                    let d = (c as char).to_digit(16).ok_or(Bad)?;
                                    self.size = self.size.checked_mul(16).ok_or(Bad)? + d as u64;
                                }
                            }
                        }
                        1 => {
                            let n = self.left.min((b.len() - i) as u64);
                            i += n as usize;
                            self.left -= n;
                            if self.left == 0 {
                                self.st = 0
                            }
                        }
                        2 => {
                            let c = b[i];
                            i += 1;
                            match c {
                                b'\r' => {}
                                b'\n' => self.st = 4,
                                _ => self.st = 3,
                            }
                        }
                        _ => {
                            if b[i] == b'\n' {
                                self.st = 2
                            }
                            i += 1;
                        }
                    }
                }
                Ok(i)
            }
        }
    }
}

/// Thin wrappers over the system calls that the hand-written programs use.
pub mod sys {
    use std::io::Error;
    pub type Fd = i32;
    pub fn epoll() -> Fd {
        unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }
    }
    pub fn add(ep: Fd, fd: Fd, events: u32, data: u64) {
        let mut e = libc::epoll_event { events, u64: data };
        unsafe { libc::epoll_ctl(ep, libc::EPOLL_CTL_ADD, fd, &mut e) };
    }
    pub fn wait(ep: Fd, evs: &mut [libc::epoll_event], ms: i32) -> usize {
        let n = unsafe { libc::epoll_wait(ep, evs.as_mut_ptr(), evs.len() as i32, ms) };
        n.max(0) as usize
    }
    pub fn recv(fd: Fd, b: &mut [u8]) -> Result<usize, Error> {
        loop {
            let n = unsafe { libc::recv(fd, b.as_mut_ptr() as *mut _, b.len(), 0) };
            if n >= 0 {
                return Ok(n as usize);
            }
            let e = Error::last_os_error();
            if e.kind() != std::io::ErrorKind::Interrupted {
                return Err(e);
            }
        }
    }
    pub fn send(fd: Fd, b: &[u8]) -> Result<usize, Error> {
        let n = unsafe { libc::send(fd, b.as_ptr() as *const _, b.len(), libc::MSG_NOSIGNAL) };
        if n < 0 {
            Err(Error::last_os_error())
        } else {
            Ok(n as usize)
        }
    }
    pub fn accept(fd: Fd) -> Option<Fd> {
        let n = accept_as_it_is(fd)?;
        nodelay(n);
        Some(n)
    }
    /// With the options that it has of the listening socket.
    pub fn accept_as_it_is(fd: Fd) -> Option<Fd> {
        let n = unsafe {
            libc::accept4(
                fd,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
            )
        };
        (n >= 0).then_some(n)
    }
    /// Whether there is something to read, or to accept, now.
    pub fn has_more(fd: Fd) -> bool {
        let mut asked = libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        unsafe { libc::poll(&mut asked, 1, 0) != 0 }
    }
    pub fn nodelay(fd: Fd) {
        let one: libc::c_int = 1;
        unsafe {
            libc::setsockopt(
                fd,
                libc::IPPROTO_TCP,
                libc::TCP_NODELAY,
                &one as *const _ as *const _,
                4,
            )
        };
    }
    /// Starts a non-blocking connect. `src` picks the last byte of a 127.0.0.x source.
    pub fn connect(addr: std::net::SocketAddrV4, src: Option<u8>) -> Result<Fd, Error> {
        unsafe {
            let fd = libc::socket(
                libc::AF_INET,
                libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
                0,
            );
            if fd < 0 {
                return Err(Error::last_os_error());
            }
            nodelay(fd);
            let mut sa: libc::sockaddr_in = std::mem::zeroed();
            sa.sin_family = libc::AF_INET as u16;
            if let Some(s) = src {
                let one: libc::c_int = 1;
                libc::setsockopt(
                    fd,
                    libc::IPPROTO_IP,
                    libc::IP_BIND_ADDRESS_NO_PORT,
                    &one as *const _ as *const _,
                    4,
                );
                sa.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, s]);
                libc::bind(
                    fd,
                    &sa as *const _ as *const _,
                    std::mem::size_of_val(&sa) as u32,
                );
            }
            sa.sin_port = addr.port().to_be();
            sa.sin_addr.s_addr = u32::from_ne_bytes(addr.ip().octets());
            let r = libc::connect(
                fd,
                &sa as *const _ as *const _,
                std::mem::size_of_val(&sa) as u32,
            );
            if r < 0 {
                let e = Error::last_os_error();
                if e.raw_os_error() != Some(libc::EINPROGRESS) {
                    libc::close(fd);
                    return Err(e);
                }
            }
            Ok(fd)
        }
    }
    pub fn close(fd: Fd) {
        unsafe { libc::close(fd) };
    }
    pub fn would_block(e: &Error) -> bool {
        e.kind() == std::io::ErrorKind::WouldBlock
    }
}
