//! Thrift's binary protocol: values, and the messages around them.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// The strict form's first two bytes.
const VERSION: u16 = 0x8001;
/// Values inside each other, at most.
const MAX_NESTED: usize = 64;
/// Values in a message, at most: bounds what a few bytes can make us keep.
const MOST_VALUES: usize = 1_000_000;
/// The longest name of a method.
const LONGEST_NAME: usize = 100;

/// A value; numbers of the types that this service does not use are read and forgotten.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// True or not.
    Bool(bool),
    /// A byte, or two.
    Small(i16),
    /// 32 bits.
    Int(i32),
    /// 64 bits.
    Long(i64),
    /// A number with a fraction.
    Double(f64),
    /// Text or bytes.
    Bytes(Bytes),
    /// A struct's fields by number; a union is one with a single field.
    Struct(Vec<(i16, Value)>),
    /// A list.
    List(Vec<Value>),
    /// A set.
    Set(Vec<Value>),
    /// A map.
    Map(Vec<(Value, Value)>),
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// A question.
    Call = 1,
    /// Its answer.
    Reply = 2,
    /// No answer: the server did not understand.
    Exception = 3,
    /// A question that wants no answer.
    Oneway = 4,
}

/// A message: a question or an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Which.
    pub kind: MessageKind,
    /// The method.
    pub name: Bytes,
    /// What the answer has to repeat.
    pub sequence: i32,
    /// Arguments or result.
    pub fields: Vec<(i16, Value)>,
}

/// Why bytes are no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ThriftError {
    /// It ends too early.
    #[error("a Thrift message that is cut short")]
    Short,
    /// No strict binary message.
    #[error("no Thrift message in the binary protocol's strict form")]
    NoMessage,
    /// A type that there is not.
    #[error("a Thrift value of type {0}")]
    Type(u8),
    /// More than is read.
    #[error("a Thrift message with too much in it")]
    Much,
}

impl Value {
    /// Text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Bytes(Bytes::from(text.into()))
    }

    /// A field of a struct; none when it is not there, or this is no struct.
    pub fn field(&self, number: i16) -> Option<&Self> {
        match self {
            Self::Struct(fields) => field(fields, number),
            _ => None,
        }
    }

    const fn type_id(&self) -> u8 {
        match self {
            Self::Bool(_) => 2,
            Self::Double(_) => 4,
            Self::Small(_) => 6,
            Self::Int(_) => 8,
            Self::Long(_) => 10,
            Self::Bytes(_) => 11,
            Self::Struct(_) => 12,
            Self::Map(_) => 13,
            Self::Set(_) => 14,
            Self::List(_) => 15,
        }
    }

    fn put(&self, out: &mut BytesMut) {
        match self {
            Self::Bool(value) => out.put_u8((*value).into()),
            Self::Small(value) => out.put_i16(*value),
            Self::Int(value) => out.put_i32(*value),
            Self::Long(value) => out.put_i64(*value),
            Self::Double(value) => out.put_f64(*value),
            Self::Bytes(bytes) => {
                put_length(out, bytes.len());
                out.extend_from_slice(bytes);
            }
            Self::Struct(fields) => put_fields(out, fields),
            Self::List(values) | Self::Set(values) => {
                // Of what an empty one would be: paths are lists, addresses sets.
                let empty = if matches!(self, Self::List(_)) {
                    11
                } else {
                    12
                };
                out.put_u8(values.first().map_or(empty, Self::type_id));
                put_length(out, values.len());
                values.iter().for_each(|value| value.put(out));
            }
            Self::Map(pairs) => {
                let first = pairs.first();
                out.put_u8(first.map_or(8, |(key, _)| key.type_id()));
                out.put_u8(first.map_or(12, |(_, value)| value.type_id()));
                put_length(out, pairs.len());
                for (key, value) in pairs {
                    key.put(out);
                    value.put(out);
                }
            }
        }
    }
}

/// A field of a struct.
pub fn field(fields: &[(i16, Value)], number: i16) -> Option<&Value> {
    fields
        .iter()
        .find(|(one, _)| *one == number)
        .map(|(_, value)| value)
}

fn put_length(out: &mut BytesMut, length: usize) {
    out.put_i32(i32::try_from(length).unwrap_or(i32::MAX));
}

fn put_fields(out: &mut BytesMut, fields: &[(i16, Value)]) {
    for (number, value) in fields {
        out.put_u8(value.type_id());
        out.put_i16(*number);
        value.put(out);
    }
    out.put_u8(0);
}

impl Message {
    /// As it is sent.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u16(VERSION);
        out.put_u16(self.kind as u16);
        put_length(&mut out, self.name.len());
        out.extend_from_slice(&self.name);
        out.put_i32(self.sequence);
        put_fields(&mut out, &self.fields);
        out.freeze()
    }

    /// Reads a message.
    ///
    /// # Errors
    /// It is none, or has too much in it.
    pub fn read(bytes: Bytes) -> Result<Self, ThriftError> {
        let mut reader = Reader {
            bytes,
            left: MOST_VALUES,
        };
        let version = reader.u16()?;
        let kind = match (version, reader.u16()?) {
            (VERSION, 1) => MessageKind::Call,
            (VERSION, 2) => MessageKind::Reply,
            (VERSION, 3) => MessageKind::Exception,
            (VERSION, 4) => MessageKind::Oneway,
            _ => return Err(ThriftError::NoMessage),
        };
        let name = reader.text()?;
        if name.len() > LONGEST_NAME {
            return Err(ThriftError::Much);
        }
        let sequence = reader.i32()?;
        let fields = reader.fields(MAX_NESTED)?;
        Ok(Self {
            kind,
            name,
            sequence,
            fields,
        })
    }
}

struct Reader {
    bytes: Bytes,
    /// So many more values are read.
    left: usize,
}

impl Reader {
    fn u8(&mut self) -> Result<u8, ThriftError> {
        self.bytes.try_get_u8().map_err(|_| ThriftError::Short)
    }

    fn u16(&mut self) -> Result<u16, ThriftError> {
        self.bytes.try_get_u16().map_err(|_| ThriftError::Short)
    }

    fn i32(&mut self) -> Result<i32, ThriftError> {
        self.bytes.try_get_i32().map_err(|_| ThriftError::Short)
    }

    fn i64(&mut self) -> Result<i64, ThriftError> {
        self.bytes.try_get_i64().map_err(|_| ThriftError::Short)
    }

    fn text(&mut self) -> Result<Bytes, ThriftError> {
        let length = usize::try_from(self.i32()?).map_err(|_| ThriftError::Short)?;
        match self.bytes.len() >= length {
            true => Ok(self.bytes.split_to(length)),
            false => Err(ThriftError::Short),
        }
    }

    /// How many values come; each takes a byte at least.
    fn count(&mut self) -> Result<usize, ThriftError> {
        let count = usize::try_from(self.i32()?).map_err(|_| ThriftError::Short)?;
        match count <= self.bytes.len() {
            true => Ok(count),
            false => Err(ThriftError::Short),
        }
    }

    fn fields(&mut self, depth: usize) -> Result<Vec<(i16, Value)>, ThriftError> {
        let mut fields = Vec::new();
        loop {
            let kind = self.u8()?;
            if kind == 0 {
                return Ok(fields);
            }
            let number = self.u16()? as i16;
            fields.push((number, self.value(kind, depth)?));
        }
    }

    fn value(&mut self, kind: u8, depth: usize) -> Result<Value, ThriftError> {
        let depth = depth.checked_sub(1).ok_or(ThriftError::Much)?;
        self.left = self.left.checked_sub(1).ok_or(ThriftError::Much)?;
        Ok(match kind {
            2 => Value::Bool(self.u8()? != 0),
            3 => Value::Small(i16::from(self.u8()? as i8)),
            4 => Value::Double(f64::from_bits(self.i64()? as u64)),
            6 => Value::Small(self.u16()? as i16),
            8 => Value::Int(self.i32()?),
            10 => Value::Long(self.i64()?),
            11 => Value::Bytes(self.text()?),
            12 => Value::Struct(self.fields(depth)?),
            13 => {
                let (key, value) = (self.u8()?, self.u8()?);
                let count = self.count()?;
                let pairs =
                    (0..count).map(|_| Ok((self.value(key, depth)?, self.value(value, depth)?)));
                Value::Map(pairs.collect::<Result<_, _>>()?)
            }
            list @ (14 | 15) => {
                let kind = self.u8()?;
                let count = self.count()?;
                let values = (0..count).map(|_| self.value(kind, depth));
                let values = values.collect::<Result<_, _>>()?;
                match list {
                    15 => Value::List(values),
                    _ => Value::Set(values),
                }
            }
            other => return Err(ThriftError::Type(other)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(fields: Vec<(i16, Value)>) -> Message {
        Message {
            kind: MessageKind::Call,
            name: Bytes::from_static(b"bind"),
            sequence: 7,
            fields,
        }
    }

    #[test]
    fn a_message_comes_back_as_it_was_and_no_part_of_it_is_one() {
        let inner = Value::Struct(vec![(1, Value::text("x")), (2, Value::Double(0.5))]);
        let all = vec![
            (1, Value::Bool(true)),
            (2, Value::Small(-3)),
            (3, Value::Int(-4)),
            (4, Value::Long(5)),
            (5, Value::List(vec![inner.clone(), inner.clone()])),
            (6, Value::Map(vec![(Value::Int(1), inner)])),
            (7, Value::Set(vec![Value::Int(1)])),
            (9, Value::List(Vec::new())),
            (8, Value::Map(Vec::new())),
        ];
        let sent = message(all);
        let bytes = sent.to_bytes();
        assert!(bytes.starts_with(b"\x80\x01\0\x01\0\0\0\x04bind\0\0\0\x07\x02\0\x01\x01"));
        for part in 0..bytes.len() {
            assert_eq!(Message::read(bytes.slice(..part)), Err(ThriftError::Short));
        }
        assert_eq!(Message::read(bytes), Ok(sent));
    }

    #[test]
    fn what_asks_for_too_much_is_refused() {
        let head = &message(Vec::new()).to_bytes()[..16];
        let with = |rest: &[u8]| Message::read(Bytes::from([head, rest].concat()));
        // A list of two thousand million, a text longer than the message, a negative length.
        for rest in [
            &b"\x0f\0\x01\x02\x7f\xff\xff\xff"[..],
            b"\x0b\0\x01\0\0\0\x05abcd",
            b"\x0b\0\x01\xff\xff\xff\xff",
            b"\x0d\0\x01\x08\x08\0\0\x10\0",
        ] {
            assert_eq!(with(rest), Err(ThriftError::Short));
        }
        assert_eq!(with(&b"\x0c\0\x01".repeat(100)), Err(ThriftError::Much));
        assert_eq!(with(b"\x09\0\x01"), Err(ThriftError::Type(9)));
        let many = [b"\x0f\0\x01\x02\0\x20\0\0", &[1; 1 << 21][..]].concat();
        assert_eq!(with(&many), Err(ThriftError::Much));
        assert_eq!(
            Message::read(Bytes::from_static(b"\0\0\0\x04bind\x01")),
            Err(ThriftError::NoMessage)
        );
    }
}
