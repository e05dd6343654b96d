//! ZooKeeper's messages, as far as they are used: as `zookeeper.jute` of its sources describes them.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// No message may be longer: a directory of 100,000 members has 2 MiB of names.
const LONGEST: usize = 16 << 20;
/// The numbers that mark an event, and the answer to a ping.
const EVENT: i32 = -1;
const PING: i32 = -2;
const AUTH: i32 = -4;
const PASSWORD: [u8; 16] = [0; 16];

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// Whether there is such a node; a watch tells when one is made, too.
    Exists,
    /// What stands in it.
    Data,
    /// What the nodes below it are called.
    Children,
}

/// What a watch of the server's holds on to: existence and contents have one, children another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Watched {
    Children,
    Node,
}

impl Op {
    pub(super) const fn watched(self) -> Watched {
        match self {
            Self::Children => Watched::Children,
            Self::Exists | Self::Data => Watched::Node,
        }
    }

    const fn code(self) -> i32 {
        match self {
            Self::Exists => 3,
            Self::Data => 4,
            Self::Children => 8,
        }
    }
}

/// What the server sends after the first answer.
#[derive(Debug, PartialEq)]
pub(super) enum Received {
    /// The answer to a ping.
    Pong,
    /// A watch went off.
    Event(Event),
    /// The answer to a question, with its number; none when there is no such node.
    Answer(i32, Result<Option<Bytes>, WireError>),
}

/// A watch that went off, which it does once.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Event {
    pub(super) path: String,
    pub(super) kind: EventKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventKind {
    Created,
    Deleted,
    Changed,
    Children,
}

/// What is wrong with an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
    #[error("its message ends early")]
    Short,
    #[error("a message of {0} bytes, which is none of ZooKeeper's")]
    Length(i64),
    #[error("it sends an event of kind {0}, which is unknown")]
    Event(i32),
    #[error("its message holds no UTF-8")]
    Text,
    #[error("it refuses the session")]
    Refused,
    #[error("not allowed to read there: it must be readable by everybody (`world:anyone`)")]
    NotAllowed,
    #[error("it does not know who we are (`authInfo`)")]
    Unknown,
    #[error("it answers with error {0}")]
    Code(i32),
}

/// The first message: a new session, please.
pub(super) fn connect(timeout_ms: i32) -> BytesMut {
    framed(|out| {
        out.put_i32(0); // version of the protocol
        out.put_i64(0); // the last transaction seen
        out.put_i32(timeout_ms);
        out.put_i64(0); // no session to go on with
        put_buffer(out, &PASSWORD);
        out.put_u8(0); // a server without a majority behind it will not do
    })
}

/// The session's timeout in milliseconds, out of the first answer.
pub(super) fn connected(mut body: Bytes) -> Result<u32, WireError> {
    take_i32(&mut body)?;
    let timeout = take_i32(&mut body)?;
    if body.remaining() < 8 {
        return Err(WireError::Short);
    }
    let session = body.get_i64();
    match u32::try_from(timeout) {
        Ok(timeout) if timeout > 0 && session != 0 => Ok(timeout),
        _ => Err(WireError::Refused),
    }
}

/// A question about a node, with a watch on it.
pub(super) fn question(number: i32, op: Op, path: &str) -> BytesMut {
    framed(|out| {
        out.put_i32(number);
        out.put_i32(op.code());
        put_buffer(out, path.as_bytes());
        out.put_u8(1);
    })
}

/// Takes a watch back.
pub(super) fn unwatch(number: i32, watched: Watched, path: &str) -> BytesMut {
    framed(|out| {
        out.put_i32(number);
        out.put_i32(18);
        put_buffer(out, path.as_bytes());
        out.put_i32(match watched {
            Watched::Children => 1,
            Watched::Node => 2,
        });
    })
}

/// Keeps the session and the connection.
pub(super) fn ping() -> BytesMut {
    framed(|out| {
        out.put_i32(PING);
        out.put_i32(11);
    })
}

/// Who we are; answered like a ping, or by the end of the connection.
pub(super) fn auth(scheme: &str, secret: &str) -> BytesMut {
    framed(|out| {
        out.put_i32(AUTH);
        out.put_i32(100);
        out.put_i32(0);
        put_buffer(out, scheme.as_bytes());
        put_buffer(out, secret.as_bytes());
    })
}

/// Any other message that is answered; `code` says what it is.
pub(super) fn command(number: i32, code: i32, put: impl FnOnce(&mut BytesMut)) -> BytesMut {
    framed(|out| {
        out.put_i32(number);
        out.put_i32(code);
        put(out);
    })
}

/// One whole message out of what was read, if there is one.
pub(super) fn message(read: &mut BytesMut) -> Result<Option<Bytes>, WireError> {
    let Some(length) = read.get(..4) else {
        return Ok(None);
    };
    let length = i32::from_be_bytes(length.try_into().expect("four bytes"));
    let whole = usize::try_from(length).ok().filter(|one| *one <= LONGEST);
    let whole = whole.ok_or(WireError::Length(length.into()))?;
    if read.len() < 4 + whole {
        return Ok(None);
    }
    read.advance(4);
    Ok(Some(read.split_to(whole).freeze()))
}

/// What a message after the first says.
pub(super) fn received(mut body: Bytes) -> Result<Received, WireError> {
    let number = take_i32(&mut body)?;
    if body.remaining() < 12 {
        return Err(WireError::Short);
    }
    body.advance(8); // the transaction
    let code = body.get_i32();
    match number {
        AUTH if code != 0 => Err(WireError::Unknown),
        PING | AUTH => Ok(Received::Pong),
        EVENT => event(body).map(Received::Event),
        number => Ok(Received::Answer(
            number,
            match code {
                0 => Ok(Some(body)),
                -101 => Ok(None),
                -102 => Err(WireError::NotAllowed),
                code => Err(WireError::Code(code)),
            },
        )),
    }
}

fn event(mut body: Bytes) -> Result<Event, WireError> {
    let kind = match take_i32(&mut body)? {
        1 => EventKind::Created,
        2 => EventKind::Deleted,
        3 => EventKind::Changed,
        4 => EventKind::Children,
        other => return Err(WireError::Event(other)),
    };
    take_i32(&mut body)?; // the session's state
    let path = take_text(&mut body)?;
    Ok(Event { path, kind })
}

/// The contents of a node, out of the answer to [`Op::Data`].
pub(super) fn data(mut body: Bytes) -> Result<Bytes, WireError> {
    take_buffer(&mut body)
}

/// What ZooKeeper says of a node beside what stands in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The transaction that changed it last.
    pub changed: u64,
    /// How often it was changed since it was made.
    pub version: i32,
    /// The transaction that made or deleted a child last.
    pub children: u64,
}

/// A node's state, as it stands at the end of an answer.
pub(super) fn stat(body: &Bytes) -> Result<Stat, WireError> {
    const LENGTH: usize = 68;
    let from = body.len().checked_sub(LENGTH).ok_or(WireError::Short)?;
    let mut body = body.slice(from..);
    body.advance(8); // the transaction that made it
    let changed = body.get_u64();
    body.advance(16); // times
    let version = body.get_i32();
    body.advance(24); // other versions, an owner, sizes
    let children = body.get_u64();
    Ok(Stat {
        changed,
        version,
        children,
    })
}

/// The names in the answer to [`Op::Children`].
pub(super) fn children(mut body: Bytes) -> Result<Vec<String>, WireError> {
    let count = take_i32(&mut body)?;
    (0..count).map(|_| take_text(&mut body)).collect()
}

fn framed(put: impl FnOnce(&mut BytesMut)) -> BytesMut {
    let mut out = BytesMut::with_capacity(64);
    out.put_i32(0);
    put(&mut out);
    let length = i32::try_from(out.len() - 4).expect("what is sent is shorter than 2 GiB");
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}

pub(super) fn put_buffer(out: &mut BytesMut, bytes: &[u8]) {
    out.put_i32(i32::try_from(bytes.len()).expect("what is sent is shorter than 2 GiB"));
    out.put_slice(bytes);
}

fn take_i32(body: &mut Bytes) -> Result<i32, WireError> {
    match body.remaining() >= 4 {
        true => Ok(body.get_i32()),
        false => Err(WireError::Short),
    }
}

/// A length and so many bytes; -1 stands for none at all.
fn take_buffer(body: &mut Bytes) -> Result<Bytes, WireError> {
    let length = usize::try_from(take_i32(body)?).unwrap_or(0);
    match body.remaining() >= length {
        true => Ok(body.split_to(length)),
        false => Err(WireError::Short),
    }
}

fn take_text(body: &mut Bytes) -> Result<String, WireError> {
    let bytes = take_buffer(body)?;
    String::from_utf8(bytes.into()).map_err(|_| WireError::Text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(put: impl FnOnce(&mut BytesMut)) -> Bytes {
        framed(put).split_off(4).freeze()
    }

    #[test]
    fn a_message_is_taken_when_it_is_whole() {
        let sent = ping();
        let mut read = BytesMut::from(&sent[..5]);
        assert_eq!(message(&mut read), Ok(None));
        read.extend_from_slice(&sent[5..]);
        assert_eq!(message(&mut read).unwrap().unwrap().len(), 8);
        assert!(read.is_empty());
    }

    #[test]
    fn a_length_that_cannot_be_is_an_error_at_once() {
        for length in [-1, i32::MAX] {
            let mut read = BytesMut::from(&length.to_be_bytes()[..]);
            assert_eq!(
                message(&mut read),
                Err(WireError::Length(i64::from(length)))
            );
        }
    }

    #[test]
    fn every_cut_of_an_answer_is_an_error_and_no_panic() {
        let whole = body(|out| {
            out.put_i32(2);
            put_buffer(out, b"member_1");
            put_buffer(out, b"member_2");
        });
        assert_eq!(children(whole.clone()).unwrap().len(), 2);
        let event = body(|out| {
            out.put_i32(EVENT);
            out.put_i64(0);
            out.put_i32(0);
            out.put_i32(2);
            out.put_i32(3);
            put_buffer(out, b"/a");
        });
        let gone = Event {
            path: "/a".into(),
            kind: EventKind::Deleted,
        };
        assert_eq!(received(event.clone()), Ok(Received::Event(gone)));
        for end in 0..whole.len() {
            assert_eq!(children(whole.slice(..end)), Err(WireError::Short), "{end}");
        }
        for end in 0..event.len() {
            assert_eq!(received(event.slice(..end)), Err(WireError::Short), "{end}");
        }
    }

    #[test]
    fn a_count_of_children_is_not_believed() {
        let lie = body(|out| out.put_i32(i32::MAX));
        assert_eq!(children(lie), Err(WireError::Short));
    }

    #[test]
    fn a_session_that_is_refused_is_an_error() {
        let answer = |timeout: i32, session: i64| {
            connected(body(|out| {
                out.put_i32(0);
                out.put_i32(timeout);
                out.put_i64(session);
            }))
        };
        assert_eq!(answer(10_000, 7), Ok(10_000));
        assert_eq!(answer(0, 0), Err(WireError::Refused));
        assert_eq!(answer(-1, 7), Err(WireError::Refused));
    }
}
