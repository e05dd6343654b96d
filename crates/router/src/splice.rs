//! Long bodies on their way through the kernel, from socket to pipe to socket (`splice(2)`): their bytes are never copied
//! into this process and out again.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::io::is_not_yet;
use crate::kept::Kept;

/// What is left of a body must be as long as this: of a shorter one, copies cost less.
pub(crate) const LONG: u64 = 32 * 1024;
/// So much is on its way at once, which a client that does not read holds in memory.
const AT_ONCE: u64 = 128 * 1024;
/// Pipes that are kept for the next body.
const KEPT: usize = 32;

#[derive(Debug)]
struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

/// A worker's unused pipes. All are empty.
#[derive(Debug)]
pub(crate) struct Pipes(Kept<Pipe>);

impl Default for Pipes {
    fn default() -> Self {
        Self(Kept::new(KEPT))
    }
}

impl Pipes {
    fn take(&self) -> io::Result<Pipe> {
        if let Some(kept) = self.0.take() {
            return Ok(kept);
        }
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Pipe { reader, writer })
    }

    fn give(&self, pipe: Pipe) {
        self.0.give(pipe);
    }

    /// Closes those that nobody needed since the last time, and says whether there was any.
    pub(crate) fn tidy(&self) -> bool {
        self.0.tidy()
    }
}

/// The way of one body. It has a pipe only while bytes are in it.
#[derive(Debug)]
pub(crate) struct Passage {
    pipes: Rc<Pipes>,
    pipe: Option<Pipe>,
    /// Bytes in the pipe.
    held: usize,
}

/// What happened on the way.
#[derive(Debug)]
pub(crate) enum Step {
    /// So many bytes came out of the one socket.
    Took(usize),
    /// So many went into the other.
    Gave(usize),
    /// The way is closed, and nothing was taken: there is no pipe, or the system does not do this.
    Closed,
    /// The one that sends has finished, or its connection broke.
    FromEnded(Option<io::Error>),
    /// The one that receives takes no more.
    ToBroke(io::Error),
}

impl Passage {
    pub(crate) fn new(pipes: Rc<Pipes>) -> Self {
        Self {
            pipes,
            pipe: None,
            held: 0,
        }
    }

    /// Whether there are bytes that were taken and not given on.
    pub(crate) fn is_loaded(&self) -> bool {
        self.held > 0
    }

    /// Gives on what was taken; when that is done, takes what has come since, up to `most` bytes.
    pub(crate) fn poll_step(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        to: &TcpStream,
        most: u64,
    ) -> Poll<Step> {
        match self.pipe.take_if(|_| self.held > 0) {
            Some(pipe) => self.poll_give(cx, to, pipe),
            None => self.poll_take(cx, from, most.min(AT_ONCE) as usize),
        }
    }

    fn poll_take(&mut self, cx: &mut Context<'_>, from: &TcpStream, most: usize) -> Poll<Step> {
        loop {
            if let Err(error) = ready!(from.poll_read_ready(cx)) {
                return Poll::Ready(Step::FromEnded(Some(error)));
            }
            let Ok(pipe) = self.pipes.take() else {
                return Poll::Ready(Step::Closed);
            };
            // The pipe is empty: it is the socket that would block.
            let taken = from.try_io(Interest::READABLE, || {
                Ok(splice(from, None, &pipe.writer, None, most, FLAGS)?)
            });
            let error = match taken {
                Ok(n) if n > 0 => {
                    (self.held, self.pipe) = (n, Some(pipe));
                    return Poll::Ready(Step::Took(n));
                }
                Ok(_) => None,
                Err(error) => Some(error),
            };
            self.pipes.give(pipe);
            if error.as_ref().is_some_and(is_not_yet) {
                continue;
            }
            match error.as_ref().map(io::Error::kind) {
                Some(
                    io::ErrorKind::InvalidInput
                    | io::ErrorKind::Unsupported
                    | io::ErrorKind::PermissionDenied,
                ) => return Poll::Ready(Step::Closed),
                _ => return Poll::Ready(Step::FromEnded(error)),
            }
        }
    }

    fn poll_give(&mut self, cx: &mut Context<'_>, to: &TcpStream, pipe: Pipe) -> Poll<Step> {
        loop {
            match to.poll_write_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Step::ToBroke(error)),
                Poll::Pending => {
                    self.pipe = Some(pipe);
                    return Poll::Pending;
                }
            }
            let given = to.try_io(Interest::WRITABLE, || {
                Ok(splice(&pipe.reader, None, to, None, self.held, FLAGS)?)
            });
            match given {
                Ok(n) if n > 0 => {
                    self.held -= n;
                    match self.held {
                        0 => self.pipes.give(pipe),
                        _ => self.pipe = Some(pipe),
                    }
                    return Poll::Ready(Step::Gave(n));
                }
                Ok(_) => return Poll::Ready(Step::ToBroke(io::ErrorKind::WriteZero.into())),
                Err(error) if is_not_yet(&error) => {}
                Err(error) => return Poll::Ready(Step::ToBroke(error)),
            }
        }
    }
}

const FLAGS: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);
