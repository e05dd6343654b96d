//! The scribe collector: framed Thrift, one call `Log` with messages that are spans in Base64.

use std::net::{Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::Spans;
use super::v1::{Endpoint, SpanV1};

/// A frame longer than this is no batch of spans.
const LONGEST_FRAME: u32 = 16 << 20;
/// Structures in structures: spans need four.
const DEEPEST: usize = 16;

/// Takes connections until `stop`.
pub async fn serve(spans: Spans, listener: TcpListener, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        if let Ok((stream, _)) = accepted {
            let (spans, stop) = (spans.clone(), stop.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    // A broken connection is the sender's matter: it will open another.
                    _ = collect(&spans, stream) => {}
                }
            });
        }
    }
}

async fn collect(spans: &Spans, mut stream: TcpStream) -> std::io::Result<()> {
    loop {
        let length = stream.read_u32().await?;
        if length > LONGEST_FRAME {
            return Ok(());
        }
        let mut frame = vec![0; length as usize];
        stream.read_exact(&mut frame).await?;
        let Some((sequence, batch)) = read_call(&frame) else {
            return Ok(());
        };
        spans.add(batch.iter().map(SpanV1::to_v2));
        stream.write_all(&ok_reply(sequence)).await?;
    }
}

/// The call's sequence number and its spans; none when it is not a call of `Log`.
fn read_call(frame: &[u8]) -> Option<(u32, Vec<SpanV1>)> {
    let mut thrift = Thrift {
        rest: frame,
        depth: 0,
    };
    let first = thrift.u32()?;
    let (name, sequence) = if first >> 16 == 0x8001 {
        (thrift.binary()?, thrift.u32()?)
    } else {
        // The old form: name, type, sequence.
        let name = thrift.take(first as usize)?;
        thrift.take(1)?;
        (name, thrift.u32()?)
    };
    if name != b"Log" {
        return None;
    }
    let mut spans = Vec::new();
    thrift.fields(|thrift, id, kind| match (id, kind) {
        (1, LIST) => thrift.list(|entry| {
            entry.fields(|entry, id, kind| match (id, kind) {
                (2, BINARY) => {
                    let bytes = base64(entry.binary()?)?;
                    spans.push(read_span(&mut Thrift {
                        rest: &bytes,
                        depth: 0,
                    })?);
                    Some(())
                }
                _ => entry.skip(kind),
            })
        }),
        _ => thrift.skip(kind),
    })?;
    Some((sequence, spans))
}

/// `Log` answers a struct with field 0, `ResultCode`: 0 is OK.
fn ok_reply(sequence: u32) -> Vec<u8> {
    let mut reply = vec![0x80, 0x01, 0x00, 0x02, 0, 0, 0, 3];
    reply.extend(b"Log");
    reply.extend(sequence.to_be_bytes());
    reply.extend([I32, 0, 0, 0, 0, 0, 0, 0]);
    let mut frame = (reply.len() as u32).to_be_bytes().to_vec();
    frame.extend(reply);
    frame
}

fn read_span(thrift: &mut Thrift<'_>) -> Option<SpanV1> {
    let mut span = SpanV1::default();
    thrift.fields(|thrift, id, kind| {
        match (id, kind) {
            (1, I64) => span.trace = thrift.u64()?,
            (3, BINARY) => span.name = thrift.text()?,
            (4, I64) => span.id = thrift.u64()?,
            (5, I64) => span.parent = Some(thrift.u64()?),
            (6, LIST) => thrift.list(|item| {
                span.annotations.push(annotation(item)?);
                Some(())
            })?,
            (8, LIST) => thrift.list(|item| {
                span.tags.push(tag(item)?);
                Some(())
            })?,
            (9, BOOL) => span.debug = thrift.take(1)? != [0],
            (10, I64) => span.timestamp = Some(thrift.u64()?),
            (11, I64) => span.duration = Some(thrift.u64()?),
            (12, I64) => span.trace_high = thrift.u64()?,
            _ => thrift.skip(kind)?,
        }
        Some(())
    })?;
    Some(span)
}

fn annotation(thrift: &mut Thrift<'_>) -> Option<(u64, String, Option<Endpoint>)> {
    let (mut at, mut what, mut who) = (0, String::new(), None);
    thrift.fields(|thrift, id, kind| {
        match (id, kind) {
            (1, I64) => at = thrift.u64()?,
            (2, BINARY) => what = thrift.text()?,
            (3, STRUCT) => who = Some(endpoint(thrift)?),
            _ => thrift.skip(kind)?,
        }
        Some(())
    })?;
    Some((at, what, who))
}

fn tag(thrift: &mut Thrift<'_>) -> Option<(String, Option<String>, Option<Endpoint>)> {
    let (mut key, mut bytes, mut type_of, mut who) = (String::new(), Vec::new(), 6, None);
    thrift.fields(|thrift, id, kind| {
        match (id, kind) {
            (1, BINARY) => key = thrift.text()?,
            (2, BINARY) => bytes = thrift.binary()?.to_vec(),
            (3, I32) => type_of = thrift.u32()?,
            (4, STRUCT) => who = Some(endpoint(thrift)?),
            _ => thrift.skip(kind)?,
        }
        Some(())
    })?;
    let number = || {
        bytes
            .iter()
            .fold(0_i64, |n, byte| n << 8 | i64::from(*byte))
    };
    let value = match (type_of, key.as_str()) {
        (0, "sa" | "ca") => None,
        (0, _) => Some((bytes != [0]).to_string()),
        (2..=4, _) => Some(number().to_string()),
        _ => Some(String::from_utf8_lossy(&bytes).into_owned()),
    };
    Some((key, value, who))
}

fn endpoint(thrift: &mut Thrift<'_>) -> Option<Endpoint> {
    let mut endpoint = Endpoint::default();
    thrift.fields(|thrift, id, kind| {
        match (id, kind) {
            (1, I32) => match thrift.u32()? {
                0 => {}
                ip => endpoint.ip = Ipv4Addr::from(ip).to_string(),
            },
            (2, I16) => endpoint.port = u16::from_be_bytes(thrift.take(2)?.try_into().ok()?),
            (3, BINARY) => endpoint.service = thrift.text()?.to_lowercase(),
            (4, BINARY) => {
                if let Ok(ip) = <[u8; 16]>::try_from(thrift.binary()?) {
                    endpoint.ip = Ipv6Addr::from(ip).to_string();
                }
            }
            _ => thrift.skip(kind)?,
        }
        Some(())
    })?;
    Some(endpoint)
}

const BOOL: u8 = 2;
const I16: u8 = 6;
const I32: u8 = 8;
const I64: u8 = 10;
const BINARY: u8 = 11;
const STRUCT: u8 = 12;
const LIST: u8 = 15;

/// Reads Thrift's binary form; everything gives `None` when it is cut short or too deep.
struct Thrift<'a> {
    rest: &'a [u8],
    depth: usize,
}

impl<'a> Thrift<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }

    fn binary(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    fn text(&mut self) -> Option<String> {
        Some(String::from_utf8_lossy(self.binary()?).into_owned())
    }

    /// Calls `field` with id and type of each field of a struct; it has to read the value.
    fn fields(&mut self, mut field: impl FnMut(&mut Self, u16, u8) -> Option<()>) -> Option<()> {
        self.deeper()?;
        loop {
            let kind = self.take(1)?[0];
            if kind == 0 {
                self.depth -= 1;
                return Some(());
            }
            let id = u16::from_be_bytes(self.take(2)?.try_into().ok()?);
            field(self, id, kind)?;
        }
    }

    /// Calls `item` for each struct of a list.
    fn list(&mut self, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        let kind = self.take(1)?[0];
        let length = self.u32()?;
        for _ in 0..length {
            if kind == STRUCT {
                item(self)
            } else {
                self.skip(kind)
            }?;
        }
        Some(())
    }

    fn deeper(&mut self) -> Option<()> {
        self.depth += 1;
        (self.depth <= DEEPEST).then_some(())
    }

    fn skip(&mut self, kind: u8) -> Option<()> {
        match kind {
            BOOL | 3 => _ = self.take(1)?,
            I16 => _ = self.take(2)?,
            I32 => _ = self.take(4)?,
            4 | I64 => _ = self.take(8)?,
            BINARY => _ = self.binary()?,
            STRUCT => self.fields(|thrift, _, kind| thrift.skip(kind))?,
            LIST | 14 => {
                self.deeper()?;
                let kind = self.take(1)?[0];
                for _ in 0..self.u32()? {
                    self.skip(kind)?;
                }
                self.depth -= 1;
            }
            _ => return None,
        }
        Some(())
    }
}

/// Base64 as scribe's senders write it: standard alphabet, padding and line ends may be missing or there.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0_u32, 0);
    for byte in text.iter().filter(|byte| !b"\r\n=".contains(byte)) {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(six);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_with_and_without_padding() {
        assert_eq!(base64(b"aGVsbG8=").unwrap(), b"hello");
        assert_eq!(base64(b"aGVs\nbG8").unwrap(), b"hello");
        assert_eq!(base64(b"a-b"), None);
    }

    #[test]
    fn a_frame_that_is_cut_or_too_deep_is_no_call() {
        assert!(read_call(b"\x80\x01\x00\x01\x00\x00\x00\x03Log\x00").is_none());
        let mut deep = b"\x80\x01\x00\x01\x00\x00\x00\x03Log\x00\x00\x00\x01".to_vec();
        deep.extend([STRUCT, 0, 9].repeat(100_000));
        assert!(read_call(&deep).is_none());
        let mut empty = b"\x80\x01\x00\x01\x00\x00\x00\x03Log\x00\x00\x00\x07".to_vec();
        empty.push(0);
        assert_eq!(read_call(&empty).unwrap().0, 7);
    }
}
