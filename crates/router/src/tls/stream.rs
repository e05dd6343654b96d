//! A connection under TLS. It behaves as a socket does: what [`Stream::poll_write_two`] says was written has been handed to
//! the socket, nothing waits in between. So nobody has to flush, and "the head was never sent" is as sure as without TLS.

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use rustls::Connection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::show;

/// A socket and its TLS session.
#[derive(Debug)]
pub(crate) struct Stream {
    tcp: TcpStream,
    session: Connection,
    /// Bytes that were encrypted and are not yet said to be written: their caller comes again with the same ones.
    owed: usize,
    /// Decrypted bytes that nobody has read.
    unread: usize,
}

impl Stream {
    pub(super) fn new(tcp: TcpStream, session: Connection) -> Self {
        Self {
            tcp,
            session,
            owed: 0,
            unread: 0,
        }
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// The value of `x-forwarded-client-cert`, when the client showed a certificate.
    pub(crate) fn client_certificate(&self) -> Option<String> {
        let der = self.session.peer_certificates()?.first()?;
        show::forwarded(der)
    }

    /// Goes through the handshake; ready when both sides are sure.
    pub(super) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_push(cx))?;
            if !self.session.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.poll_pull(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Reads into `space`; `Ready(Ok(0))` when the peer said that nothing more comes. An end without that word is an
    /// error: somebody may have cut the connection.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        space: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.session.reader().read(space) {
                Ok(n) => {
                    self.unread = self.unread.saturating_sub(n);
                    return Poll::Ready(Ok(n));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            ready!(self.poll_pull(cx))?;
        }
    }

    /// Writes two runs of bytes, in as few records as they fit in. Pending: call again with the same bytes, perhaps with
    /// more behind them.
    pub(crate) fn poll_write_two(
        &mut self,
        cx: &mut Context<'_>,
        a: &[u8],
        b: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.owed == 0 {
            // Something else may be on its way: the answer to a change of keys.
            ready!(self.poll_push(cx))?;
            let both = [io::IoSlice::new(a), io::IoSlice::new(b)];
            self.owed = self.session.writer().write_vectored(&both)?;
        }
        ready!(self.poll_push(cx))?;
        Poll::Ready(Ok(std::mem::take(&mut self.owed)))
    }

    /// Tells the peer that nothing more comes.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.session.send_close_notify();
        ready!(self.poll_push(cx))?;
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    /// Waits until there may be something to read, without a buffer.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.unread {
            0 => self.tcp.poll_read_ready(cx),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Whether an idle connection may be used. What belongs to TLS itself, such as a ticket, is taken in.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            match self.poll_pull(&mut cx) {
                Poll::Pending => return self.unread == 0,
                Poll::Ready(Ok(n)) if n > 0 && self.unread == 0 => {}
                Poll::Ready(_) => return false,
            }
        }
    }

    /// Hands everything that is encrypted to the socket.
    fn poll_push(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut socket = Socket {
            tcp: &mut self.tcp,
            cx,
        };
        while self.session.wants_write() {
            match self.session.write_tls(&mut socket) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes in what the socket has, once; 0 at its end.
    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut socket = Socket {
            tcp: &mut self.tcp,
            cx,
        };
        let n = match self.session.read_tls(&mut socket) {
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            Err(error) => return Poll::Ready(Err(error)),
        };
        match self.session.process_new_packets() {
            Ok(state) => {
                self.unread = state.plaintext_bytes_to_read();
                Poll::Ready(Ok(n))
            }
            Err(error) => {
                // The peer is told why, if it can be done at once.
                _ = self.session.write_tls(&mut socket);
                Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)))
            }
        }
    }
}

impl Drop for Stream {
    /// Says goodbye, if it can be done at once: a peer takes an end without it for a cut connection.
    fn drop(&mut self) {
        if self.session.is_handshaking() || self.owed > 0 {
            return;
        }
        self.session.send_close_notify();
        let mut cx = Context::from_waker(Waker::noop());
        _ = self.poll_push(&mut cx);
    }
}

/// The socket as rustls wants it: what would wait is an error, and wakes the task later.
struct Socket<'a, 'b> {
    tcp: &'a mut TcpStream,
    cx: &'a mut Context<'b>,
}

impl Read for Socket<'_, '_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut into = ReadBuf::new(into);
        match Pin::new(&mut *self.tcp).poll_read(self.cx, &mut into) {
            Poll::Ready(result) => result.map(|()| into.filled().len()),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Socket<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match Pin::new(&mut *self.tcp).poll_write(self.cx, bytes) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn write_vectored(&mut self, runs: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match Pin::new(&mut *self.tcp).poll_write_vectored(self.cx, runs) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
