//! What gRPC puts around messages, both ways: a prefix of five bytes, and the status as a trailer.

use std::convert::Infallible;
use std::pin::Pin;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, stream};
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, StreamBody};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use prost::Message;

/// The media type of requests and answers.
pub(crate) const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");
/// How an answer ended: a [`Code`] as a number.
pub(crate) const STATUS: &str = "grpc-status";
/// Why, percent-encoded.
pub(crate) const MESSAGE: &str = "grpc-message";
/// Whether it is compressed, and the length.
const PREFIX: usize = 5;
/// What must be encoded in a reason.
const REASON: &AsciiSet = &CONTROLS.add(b'%');

/// How an answer ends; gRPC's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    Ok = 0,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
}

/// How an answer ends, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) code: Code,
    pub(crate) reason: String,
}

impl Status {
    pub(crate) fn new(code: Code, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self { code, reason }
    }
}

/// An answer.
pub(crate) type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Messages, then how it ended: nothing said is well. As Linkerd's server, never in the head alone: its client looks for
/// the status in the trailers.
pub(crate) fn answer<T: Message>(
    messages: impl Stream<Item = Result<T, Status>> + Send + 'static,
) -> Answer {
    let begin = Some(Box::pin(messages));
    let frames = stream::unfold(begin, |messages| async move {
        let mut messages: Pin<Box<_>> = messages?;
        match messages.next().await {
            Some(Ok(message)) => Some((Ok(Frame::data(framed(&message))), Some(messages))),
            Some(Err(status)) => Some((Ok(Frame::trailers(trailers(&status))), None)),
            None => {
                let well = Status::new(Code::Ok, "");
                Some((Ok(Frame::trailers(trailers(&well))), None))
            }
        }
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, MEDIA_TYPE);
    response
}

/// No message, and why.
pub(crate) fn refused(status: Status) -> Answer {
    answer::<super::messages::Nothing>(stream::once(async { Err(status) }))
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert(STATUS, HeaderValue::from(status.code as u16));
    if !status.reason.is_empty() {
        let reason = utf8_percent_encode(&status.reason, REASON).to_string();
        if let Ok(reason) = HeaderValue::from_str(&reason) {
            trailers.insert(MESSAGE, reason);
        }
    }
    trailers
}

/// A message as it is sent.
pub(crate) fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    bytes.extend_from_slice(&message.encode_to_vec());
    bytes.freeze()
}

/// Takes the first message off what has come; none while it is not whole.
///
/// # Errors
/// It is compressed, longer than `most`, or no such message.
pub(crate) fn take<T: Message + Default>(
    buffer: &mut BytesMut,
    most: usize,
) -> Result<Option<T>, String> {
    let Some(prefix) = buffer.first_chunk::<PREFIX>() else {
        return Ok(None);
    };
    let [compressed, length @ ..] = *prefix;
    let length = u32::from_be_bytes(length) as usize;
    if compressed != 0 {
        return Err("a compressed message, and compression was not agreed on".to_owned());
    }
    if length > most {
        return Err(format!("a message of {length} bytes, the limit is {most}"));
    }
    if buffer.len() < PREFIX + length {
        return Ok(None);
    }
    buffer.advance(PREFIX);
    let message = buffer.split_to(length);
    T::decode(message)
        .map(Some)
        .map_err(|error| format!("a message that cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::super::messages::Text;
    use super::*;

    #[test]
    fn a_message_is_taken_when_it_is_whole() {
        let text = Text {
            text: "x".repeat(300),
        };
        let whole = framed(&text);
        let mut buffer = BytesMut::new();
        for byte in &whole[..whole.len() - 1] {
            buffer.put_u8(*byte);
            assert_eq!(take::<Text>(&mut buffer, 1000), Ok(None));
        }
        buffer.put_u8(whole[whole.len() - 1]);
        buffer.extend_from_slice(&whole[..7]);
        assert_eq!(take::<Text>(&mut buffer, 1000), Ok(Some(text)));
        assert_eq!(buffer, whole[..7]);
    }

    #[test]
    fn what_is_too_long_compressed_or_no_message_is_refused() {
        for (bytes, want) in [
            (&[0, 0, 0, 4, 0][..], "a message of 1024 bytes"),
            (&[0, 255, 255, 255, 255], "a message of 4294967295 bytes"),
            (&[1, 0, 0, 0, 0], "a compressed message"),
            (&[0, 0, 0, 0, 2, 0x0a, 9], "a message that cannot be read"),
        ] {
            let error = take::<Text>(&mut BytesMut::from(bytes), 1000).unwrap_err();
            assert!(error.starts_with(want), "{error}");
        }
    }
}
