//! Sockets of the data path, and the buffers that bytes lie in on their way.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
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

    /// Reads behind `buffer`'s end as much as fits. `Ready(Ok(0))`: the peer has finished sending.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Buffer,
    ) -> Poll<io::Result<usize>> {
        let space = buffer.space();
        debug_assert!(!space.is_empty(), "a read into no space looks like the end");
        if let Some(n) = self.at_once(|mut tcp| tcp.read(space))? {
            buffer.end += n;
            return Poll::Ready(Ok(n));
        }
        let n = match self {
            Self::Fresh(_) => 0,
            Self::Plain(tcp) => {
                let mut into = ReadBuf::new(space);
                ready!(Pin::new(tcp).poll_read(cx, &mut into))?;
                into.filled().len()
            }
            Self::Tls(stream) => ready!(stream.poll_read(cx, space))?,
        };
        buffer.end += n;
        Poll::Ready(Ok(n))
    }

    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(n) = self.at_once(|mut tcp| tcp.write(bytes))? {
            return Poll::Ready(Ok(n));
        }
        match self {
            Self::Fresh(_) => Poll::Ready(Ok(0)),
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
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
        if let Some(n) = self.at_once(|mut tcp| tcp.write_vectored(&both))? {
            return Poll::Ready(Ok(n));
        }
        match self {
            Self::Fresh(_) => Poll::Ready(Ok(0)),
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, &both),
            Self::Tls(stream) => stream.poll_write_two(cx, a, b),
        }
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

    /// Its socket, when bytes pass it as they are.
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
            Self::Plain(tcp) => {
                let mut cx = Context::from_waker(Waker::noop());
                match tcp.poll_read_ready(&mut cx) {
                    Poll::Pending => true,
                    Poll::Ready(Err(_)) => false,
                    // Readiness may be of old; a read tells (and clears it).
                    Poll::Ready(Ok(())) => {
                        matches!(tcp.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
                    }
                }
            }
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

/// Bytes between `start` and `end` of a block that is handed from connection to connection.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    block: Box<[u8]>,
    start: usize,
    end: usize,
    /// Where the block goes back to.
    pool: Option<Rc<Pool>>,
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

    /// Whether it has no memory, as one that was made by `default`.
    pub(crate) fn is_without_block(&self) -> bool {
        self.block.is_empty()
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
        &mut self.block[self.end..]
    }

    /// A way around it for a long body; none for a buffer that was made by `default`.
    pub(crate) fn passage(&self) -> Option<Passage> {
        let pool = self.pool.as_ref()?;
        Some(Passage::new(Rc::clone(&pool.pipes)))
    }

    /// Whether there is no room behind the end: the socket may have more.
    pub(crate) fn is_full(&self) -> bool {
        self.end == self.block.len()
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
            0 => BLOCK.min(most),
            BLOCK if most >= BLOCK_MAX => BLOCK_MAX,
            length => (length * 2).min(most),
        };
        let mut larger = match &self.pool {
            Some(pool) => pool.take(size),
            None => vec![0; size].into_boxed_slice(),
        };
        let length = self.len();
        larger[..length].copy_from_slice(self.bytes());
        (self.start, self.end) = (0, length);
        let smaller = std::mem::replace(&mut self.block, larger);
        if let Some(pool) = &self.pool {
            pool.give(smaller);
        }
        true
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            pool.give(std::mem::take(&mut self.block));
        }
    }
}

/// A worker's unused blocks; an idle connection has none. A buffer that is dropped gives its block back.
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

/// Blocks that are kept for the next connection, and large ones for the next busy stream: 4 and 2 MiB at most.
const SMALL_KEPT: usize = 128;
const LARGE_KEPT: usize = 32;

impl Blocks {
    pub(crate) fn take(&self) -> Buffer {
        Buffer {
            block: self.0.take(BLOCK),
            start: 0,
            end: 0,
            pool: Some(Rc::clone(&self.0)),
        }
    }

    /// Drops what nobody needed since the last time.
    pub(crate) fn tidy(&self) {
        self.0.small.tidy();
        self.0.large.tidy();
        self.0.pipes.tidy();
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
    use super::*;

    #[test]
    fn room_is_made_by_moving_then_by_growing_up_to_the_limit() {
        let blocks = Blocks::default();
        let mut buffer = blocks.take();
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

    #[test]
    fn blocks_go_back_to_their_pool_and_are_used_again() {
        let blocks = Blocks::default();
        let mut buffer = blocks.take();
        buffer.end = BLOCK;
        assert!(buffer.make_room(BLOCK_MAX), "a large one");
        drop(buffer);
        let counts = || (blocks.0.small.len(), blocks.0.large.len());
        assert_eq!(counts(), (1, 1));
        let again = blocks.take();
        assert_eq!(counts(), (0, 1));
        drop(again);
        assert_eq!(counts(), (1, 1));
    }
}
