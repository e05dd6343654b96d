//! Sockets of the data path, and the buffers that bytes lie in on their way.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::writev;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::SockRef;
use tokio::io::{AsyncWrite, Interest};
use tokio::net::TcpStream;

use crate::kept::Kept;
use crate::splice::{Passage, Pipes};
use crate::tls;

/// A connection. A plain one is as large and as quick as its socket: what TLS needs is behind a pointer.
#[derive(Debug)]
pub(crate) enum Io {
    /// Accepted, and not watched by the runtime: the first request is mostly there already, and a connection that carries
    /// no other need never be watched. Empty once that was tried in vain.
    Fresh(Option<std::net::TcpStream>),
    Plain(TcpStream),
    Tls(Box<tls::Stream>),
}

impl Io {
    /// Whether the runtime does not watch it: nobody is woken for what happens on it.
    pub(crate) fn is_fresh(&self) -> bool {
        matches!(self, Self::Fresh(_))
    }

    /// Has it watched from now on. An error stays one.
    pub(crate) fn watch(&mut self) -> io::Result<()> {
        if let Self::Fresh(tcp) = self {
            let tcp = tcp.take().ok_or(io::ErrorKind::NotConnected)?;
            *self = Self::Plain(TcpStream::from_std(tcp)?);
        }
        Ok(())
    }

    /// Does it while it is not watched; when that cannot be done at once, has it watched.
    fn at_once<T>(
        &mut self,
        attempt: impl FnOnce(&std::net::TcpStream) -> io::Result<T>,
    ) -> io::Result<Option<T>> {
        let Self::Fresh(Some(tcp)) = self else {
            return self.watch().map(|()| None);
        };
        match attempt(tcp) {
            Err(error) if is_not_yet(&error) => self.watch().map(|()| None),
            done => done.map(Some),
        }
    }

    /// Reads behind `buffer`'s end as much as fits. `Ready(Ok(0))`: the peer has finished sending. Nothing is held for a peer
    /// that has nothing to say: an empty buffer gets its block with the first bytes.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Buffer,
    ) -> Poll<io::Result<usize>> {
        let read = self.poll_read_into(cx, buffer);
        match &read {
            Poll::Ready(Ok(n)) => buffer.end += n,
            // A busy stream keeps its large one.
            Poll::Pending if buffer.block.len() == BLOCK => buffer.rest(),
            Poll::Pending | Poll::Ready(Err(_)) => {}
        }
        read
    }

    fn poll_read_into(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Buffer,
    ) -> Poll<io::Result<usize>> {
        if let Some((n, _)) = self.at_once(|tcp| receive(tcp, buffer.space()))? {
            return Poll::Ready(Ok(n));
        }
        match self {
            Self::Fresh(_) => Poll::Ready(Ok(0)),
            Self::Plain(tcp) => poll_when(tcp, cx, Interest::READABLE, || {
                receive(&*tcp, buffer.space())
            }),
            Self::Tls(stream) => {
                if buffer.is_without_block() {
                    ready!(stream.poll_readable(cx))?;
                }
                stream.poll_read(cx, buffer.space())
            }
        }
    }

    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some((n, _)) = self.at_once(|tcp| hand_over(tcp, bytes, SendFlags::empty()))? {
            return Poll::Ready(Ok(n));
        }
        match self {
            Self::Fresh(_) => Poll::Ready(Ok(0)),
            Self::Plain(tcp) => poll_when(tcp, cx, Interest::WRITABLE, || {
                hand_over(&*tcp, bytes, SendFlags::empty())
            }),
            Self::Tls(stream) => stream.poll_write_two(cx, bytes, &[]),
        }
    }

    /// Writes two runs of bytes in one go. What is said to be written has been handed to the socket, under TLS too; after
    /// `Pending` the same bytes are to be given again, perhaps with more behind them.
    pub(crate) fn poll_write_two(
        &mut self,
        cx: &mut Context<'_>,
        a: &[u8],
        b: &[u8],
    ) -> Poll<io::Result<usize>> {
        if b.is_empty() {
            return self.poll_write(cx, a);
        }
        let both = [io::IoSlice::new(a), io::IoSlice::new(b)];
        if let Some((n, _)) = self.at_once(|tcp| hand_over_two(tcp, &both))? {
            return Poll::Ready(Ok(n));
        }
        match self {
            Self::Fresh(_) => Poll::Ready(Ok(0)),
            Self::Plain(tcp) => {
                poll_when(tcp, cx, Interest::WRITABLE, || hand_over_two(&*tcp, &both))
            }
            Self::Tls(stream) => stream.poll_write_two(cx, a, b),
        }
    }

    /// As [`poll_write`](Self::poll_write), for the last bytes before [`poll_shutdown`](Self::poll_shutdown), which is to follow
    /// at once: they wait for it, so that they and the end are one segment, and wake the peer once. Under TLS they do not.
    pub(crate) fn poll_write_last(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some((n, _)) = self.at_once(|tcp| hand_over(tcp, bytes, SendFlags::MORE))? {
            return Poll::Ready(Ok(n));
        }
        let Self::Plain(tcp) = self else {
            return self.poll_write(cx, bytes);
        };
        poll_when(tcp, cx, Interest::WRITABLE, || {
            hand_over(&*tcp, bytes, SendFlags::MORE)
        })
    }

    /// Tells the peer that nothing more comes.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(()) = self.at_once(|tcp| tcp.shutdown(Shutdown::Write))? {
            return Poll::Ready(Ok(()));
        }
        match self {
            Self::Fresh(_) => Poll::Ready(Ok(())),
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(stream) => stream.poll_shutdown(cx),
        }
    }

    /// Closing will be a reset, not an orderly end.
    pub(crate) fn reset_on_close(&self) {
        let tcp = match self {
            Self::Fresh(None) => return,
            Self::Fresh(Some(tcp)) => SockRef::from(tcp),
            Self::Plain(tcp) => SockRef::from(tcp),
            Self::Tls(stream) => SockRef::from(stream.tcp()),
        };
        // A connection that is gone already cannot be told.
        _ = tcp.set_linger(Some(Duration::ZERO));
    }

    /// Waits until there is something to read (or the end), without a buffer.
    pub(crate) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watch()?;
        match self {
            Self::Fresh(_) => Poll::Ready(Ok(())),
            Self::Plain(tcp) => tcp.poll_read_ready(cx),
            Self::Tls(stream) => stream.poll_readable(cx),
        }
    }

    /// Whether bytes pass it as they are.
    pub(crate) fn is_plain(&self) -> bool {
        !matches!(self, Self::Tls(_))
    }

    /// Its socket, when bytes pass it as they are and the runtime watches it.
    pub(crate) fn plain(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(tcp) => Some(tcp),
            Self::Fresh(_) | Self::Tls(_) => None,
        }
    }

    /// The value of `x-forwarded-client-cert`, when the other side showed a certificate.
    pub(crate) fn client_certificate(&self) -> Option<String> {
        match self {
            Self::Fresh(_) | Self::Plain(_) => None,
            Self::Tls(stream) => stream.client_certificate(),
        }
    }

    /// Whether an idle connection may be used: nothing came and it was not closed. No system call unless something
    /// happened on it.
    pub(crate) fn is_quiet(&mut self) -> bool {
        match self {
            Self::Fresh(_) => false,
            Self::Tls(stream) => stream.is_quiet(),
            // The socket is asked only when something happened on it, perhaps long ago.
            Self::Plain(tcp) => {
                matches!(tcp.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
        }
    }
}

/// What was done, and what could have been.
type Done = (usize, usize);

/// Straight from the kernel, as [`hand_over`] is straight to it: the C library's calls can be cancelled, for which each has two
/// locked instructions.
fn receive(tcp: impl AsFd, space: &mut [u8]) -> io::Result<Done> {
    debug_assert!(!space.is_empty(), "a read into no space looks like the end");
    let most = space.len();
    let (n, _) = recv(tcp, space, RecvFlags::empty())?;
    Ok((n, most))
}

fn hand_over(tcp: impl AsFd, bytes: &[u8], flags: SendFlags) -> io::Result<Done> {
    let n = send(tcp, bytes, flags | SendFlags::NOSIGNAL)?;
    Ok((n, bytes.len()))
}

fn hand_over_two(tcp: impl AsFd, both: &[io::IoSlice<'_>; 2]) -> io::Result<Done> {
    let n = writev(tcp, both)?;
    Ok((n, both[0].len() + both[1].len()))
}

/// Tries it whenever the runtime says that the socket is ready, until it was. After less than could have been done the socket is ready
/// no more: the next attempt waits, without a system call that says so.
fn poll_when(
    tcp: &TcpStream,
    cx: &mut Context<'_>,
    interest: Interest,
    mut attempt: impl FnMut() -> io::Result<Done>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(match interest.is_readable() {
            true => tcp.poll_read_ready(cx),
            false => tcp.poll_write_ready(cx),
        })?;
        let mut done = None;
        let result = tcp.try_io(interest, || {
            let (n, most) = attempt()?;
            done = Some(n);
            match (1..most).contains(&n) {
                true => Err(io::ErrorKind::WouldBlock.into()),
                false => Ok(()),
            }
        });
        match (done, result) {
            (Some(n), _) => return Poll::Ready(Ok(n)),
            (None, Err(error)) if !is_not_yet(&error) => return Poll::Ready(Err(error)),
            (None, _) => {}
        }
    }
}

/// Whether it may succeed when it is tried again.
pub(crate) fn is_not_yet(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// Bytes between `start` and `end` of a block that is handed from connection to connection. It has none until bytes come.
#[derive(Debug)]
pub(crate) struct Buffer {
    block: Box<[u8]>,
    start: usize,
    end: usize,
    /// Where the block is from, and goes back to.
    pool: Rc<Pool>,
}

/// What a connection begins with.
pub(crate) const BLOCK: usize = 32 * 1024;
/// What a busy stream, or a large head, grows to.
pub(crate) const BLOCK_MAX: usize = 64 * 1024;

impl Buffer {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.block[self.start..self.end]
    }

    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn is_without_block(&self) -> bool {
        self.block.is_empty()
    }

    /// Gives its block back for as long as there is nothing in it.
    pub(crate) fn rest(&mut self) {
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
            self.pool.give(std::mem::take(&mut self.block));
        }
    }

    /// The first `n` bytes are done with.
    pub(crate) fn consume(&mut self, n: usize) {
        debug_assert!(n <= self.len());
        self.start += n;
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    pub(crate) fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }

    /// Room behind the end; empty when [`Buffer::make_room`] said no.
    fn space(&mut self) -> &mut [u8] {
        if self.is_without_block() {
            self.block = self.pool.take(BLOCK);
        }
        &mut self.block[self.end..]
    }

    /// A way around it for a long body.
    pub(crate) fn passage(&self) -> Passage {
        Passage::new(Rc::clone(&self.pool.pipes))
    }

    /// Whether there is no room behind the end: the socket may have more.
    pub(crate) fn is_full(&self) -> bool {
        !self.is_without_block() && self.end == self.block.len()
    }

    /// Makes room behind the end: moves what is there to the front, then takes a larger block, of up to `most` bytes.
    /// False: full.
    pub(crate) fn make_room(&mut self, most: usize) -> bool {
        if !self.is_full() {
            return true;
        }
        if self.start > 0 {
            self.block.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            return true;
        }
        self.widen(most)
    }

    /// Takes a larger block, of up to `most` bytes; false when this is as large already.
    pub(crate) fn widen(&mut self, most: usize) -> bool {
        let size = match self.block.len() {
            length if length >= most => return false,
            0 => return true,
            BLOCK if most >= BLOCK_MAX => BLOCK_MAX,
            length => (length * 2).min(most),
        };
        let mut larger = self.pool.take(size);
        let length = self.len();
        larger[..length].copy_from_slice(self.bytes());
        (self.start, self.end) = (0, length);
        self.pool.give(std::mem::replace(&mut self.block, larger));
        true
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.pool.give(std::mem::take(&mut self.block));
    }
}

/// A worker's unused blocks; a connection has one only while bytes are in it.
#[derive(Debug, Default)]
pub(crate) struct Blocks(Rc<Pool>);

#[derive(Debug)]
struct Pool {
    small: Kept<Box<[u8]>>,
    large: Kept<Box<[u8]>>,
    pipes: Rc<Pipes>,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            small: Kept::new(SMALL_KEPT),
            large: Kept::new(LARGE_KEPT),
            pipes: Rc::default(),
        }
    }
}

/// Blocks that are kept for the next bytes, and large ones for the next busy stream: 1 and 2 MiB at most.
const SMALL_KEPT: usize = 32;
const LARGE_KEPT: usize = 32;

impl Blocks {
    /// An empty buffer of a connection, which has no block yet.
    pub(crate) fn buffer(&self) -> Buffer {
        Buffer {
            block: Box::default(),
            start: 0,
            end: 0,
            pool: Rc::clone(&self.0),
        }
    }

    /// Drops what nobody needed since the last time, and says whether there was any.
    pub(crate) fn tidy(&self) -> bool {
        let pool = &self.0;
        pool.small.tidy() | pool.large.tidy() | pool.pipes.tidy()
    }
}

impl Pool {
    /// The blocks of this size.
    fn shelf(&self, size: usize) -> Option<&Kept<Box<[u8]>>> {
        match size {
            BLOCK => Some(&self.small),
            BLOCK_MAX => Some(&self.large),
            _ => None,
        }
    }

    fn take(&self, size: usize) -> Box<[u8]> {
        let kept = self.shelf(size).and_then(Kept::take);
        kept.unwrap_or_else(|| vec![0; size].into_boxed_slice())
    }

    fn give(&self, block: Box<[u8]>) {
        if let Some(shelf) = self.shelf(block.len()) {
            shelf.give(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn room_is_made_by_moving_then_by_growing_up_to_the_limit() {
        let blocks = Blocks::default();
        let mut buffer = blocks.buffer();
        assert!(buffer.make_room(BLOCK) && !buffer.is_full());
        assert_eq!(buffer.space().len(), BLOCK);
        buffer.end = BLOCK;
        buffer.consume(10);
        assert!(buffer.make_room(BLOCK));
        assert_eq!((buffer.len(), buffer.space().len()), (BLOCK - 10, 10));
        buffer.end = BLOCK;
        assert!(!buffer.make_room(BLOCK));
        assert!(buffer.make_room(BLOCK_MAX));
        assert_eq!(buffer.space().len(), BLOCK_MAX - BLOCK);
        buffer.consume(BLOCK);
        assert!(buffer.is_empty());
    }

    #[tokio::test]
    async fn a_connection_holds_a_block_only_while_bytes_are_in_it() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = TcpStream::connect(listener.local_addr().unwrap());
        let (there, here) = tokio::join!(there, listener.accept());
        let (there, mut here) = (there.unwrap(), Io::Plain(here.unwrap().0));
        let blocks = Blocks::default();
        let mut buffer = blocks.buffer();
        let mut cx = Context::from_waker(Waker::noop());
        let mut read = |buffer: &mut Buffer| here.poll_read(&mut cx, buffer);
        assert!(read(&mut buffer).is_pending());
        assert!(buffer.is_without_block());
        there.try_write(b"hello").unwrap();
        while read(&mut buffer).is_pending() {
            tokio::task::yield_now().await;
        }
        assert_eq!(buffer.bytes(), b"hello");
        assert!(read(&mut buffer).is_pending());
        assert_eq!(buffer.bytes(), b"hello", "they are waited with");
        buffer.consume(5);
        assert!(read(&mut buffer).is_pending());
        assert!(buffer.is_without_block() && blocks.0.small.len() == 1);
    }

    #[test]
    fn blocks_go_back_to_their_pool_and_are_used_again() {
        let blocks = Blocks::default();
        let counts = || (blocks.0.small.len(), blocks.0.large.len());
        let mut buffer = blocks.buffer();
        buffer.space();
        buffer.end = BLOCK;
        buffer.rest();
        assert_eq!(buffer.len(), BLOCK, "there is something in it");
        assert!(buffer.make_room(BLOCK_MAX), "a large one");
        drop(buffer);
        assert_eq!(counts(), (1, 1));
        let mut again = blocks.buffer();
        assert_eq!(counts(), (1, 1), "nothing is in it yet");
        again.space();
        assert_eq!(counts(), (0, 1));
        again.rest();
        assert_eq!(counts(), (1, 1));
    }
}
