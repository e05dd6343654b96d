//! Sockets of the data path, and the buffers that bytes lie in on their way.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A connection, plain for now; TLS will be its second variant.
#[derive(Debug)]
pub(crate) enum Io {
    Plain(TcpStream),
}

impl Io {
    /// Reads behind `buffer`'s end as much as fits. `Ready(Ok(0))`: the peer has finished sending.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Buffer,
    ) -> Poll<io::Result<usize>> {
        let space = buffer.space();
        debug_assert!(!space.is_empty(), "a read into no space looks like the end");
        let mut into = ReadBuf::new(space);
        match self {
            Self::Plain(tcp) => ready!(Pin::new(tcp).poll_read(cx, &mut into))?,
        }
        let n = into.filled().len();
        buffer.end += n;
        Poll::Ready(Ok(n))
    }

    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
        }
    }

    /// Writes two runs of bytes in one go.
    pub(crate) fn poll_write_two(
        &mut self,
        cx: &mut Context<'_>,
        a: &[u8],
        b: &[u8],
    ) -> Poll<io::Result<usize>> {
        if b.is_empty() {
            return self.poll_write(cx, a);
        }
        match self {
            Self::Plain(tcp) => {
                Pin::new(tcp).poll_write_vectored(cx, &[io::IoSlice::new(a), io::IoSlice::new(b)])
            }
        }
    }

    /// Tells the peer that nothing more comes.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
        }
    }

    /// Waits until there is something to read (or the end), without a buffer.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(tcp) => tcp.poll_read_ready(cx),
        }
    }

    /// Whether an idle connection may be used: nothing came and it was not closed. No system call unless something
    /// happened on it.
    pub(crate) fn is_quiet(&self) -> bool {
        match self {
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

/// Bytes between `start` and `end` of a block that is handed from connection to connection.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    block: Box<[u8]>,
    start: usize,
    end: usize,
}

/// What a connection begins with.
pub(crate) const BLOCK: usize = 16 * 1024;
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

    /// Makes room behind the end: moves what is there to the front, then grows up to `most` bytes. False: full.
    pub(crate) fn make_room(&mut self, most: usize) -> bool {
        if self.end < self.block.len() {
            return true;
        }
        if self.start > 0 {
            self.block.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            return true;
        }
        if self.block.len() >= most {
            return false;
        }
        let mut larger =
            vec![0; (self.block.len() * 2).clamp(BLOCK, most.max(BLOCK))].into_boxed_slice();
        larger[..self.end].copy_from_slice(&self.block[..self.end]);
        self.block = larger;
        true
    }
}

/// A worker's unused blocks; an idle connection has none.
#[derive(Debug, Default)]
pub(crate) struct Blocks(RefCell<Vec<Box<[u8]>>>);

/// Blocks that are kept for the next connection.
const KEPT: usize = 128;

impl Blocks {
    pub(crate) fn take(&self) -> Buffer {
        let block = self
            .0
            .borrow_mut()
            .pop()
            .unwrap_or_else(|| vec![0; BLOCK].into_boxed_slice());
        Buffer {
            block,
            start: 0,
            end: 0,
        }
    }

    pub(crate) fn give(&self, buffer: Buffer) {
        let mut blocks = self.0.borrow_mut();
        if buffer.block.len() == BLOCK && blocks.len() < KEPT {
            blocks.push(buffer.block);
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
        assert_eq!(buffer.space().len(), BLOCK);
        buffer.consume(BLOCK);
        assert!(buffer.is_empty());
    }
}
