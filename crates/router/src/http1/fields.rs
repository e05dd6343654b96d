//! The lines of a head: read, removed, replaced and added on an index beside the bytes.

use std::ops::Range;

use super::scan::{self, Scan, Step, token_run};
use super::{HeadError, Limits, Parsed};

/// The fields of a head, in their order. Names are compared without regard to case and written as they came.
#[derive(Debug, Default)]
pub struct Fields {
    /// The head as it came, without its empty line; after it the lines that were added or changed.
    pub(super) bytes: Vec<u8>,
    /// The end of the start line with its CR LF, where the first field begins.
    pub(super) start: usize,
    index: Vec<Entry>,
    /// Which lengths the names in the index have, a bit for each. Most fields that are asked for are not there, and of a
    /// length that no name has.
    lengths: Lengths,
    scan: Scan,
}

/// A set of lengths of names; all from 63 on are one.
#[derive(Debug, Default, Clone, Copy)]
struct Lengths(u64);

impl Lengths {
    const fn of(len: usize) -> Self {
        Self(1 << if len < 63 { len } else { 63 })
    }

    fn add(&mut self, entry: &Entry) {
        self.0 |= Self::of((entry.name_end - entry.start) as usize).0;
    }

    const fn have(self, len: usize) -> bool {
        self.0 & Self::of(len).0 != 0
    }
}

/// Where a line lies in `Fields::bytes`.
#[derive(Debug, Clone, Copy)]
struct Entry {
    start: u32,
    name_end: u32,
    value: u32,
    value_end: u32,
    /// After the CR LF.
    end: u32,
    live: bool,
}

impl Entry {
    fn name(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..self.name_end as usize]
    }

    fn value(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.value as usize..self.value_end as usize]
    }

    fn is(self, bytes: &[u8], name: &[u8]) -> bool {
        self.live
            && (self.name_end - self.start) as usize == name.len()
            && scan::is_same(self.name(bytes), name)
    }

    /// Reads the line of a field at `start..end`, which is without its CR LF.
    fn read(bytes: &[u8], start: usize, end: usize) -> Result<Self, &'static str> {
        let line = &bytes[start..end];
        // What is behind the line is no part of a token.
        let name = token_run(bytes, start).min(line.len());
        match line.get(name) {
            Some(b':') if name > 0 => {}
            Some(b':') => return Err("a field without a name"),
            Some(b' ' | b'\t') if name == 0 => return Err("a folded line"),
            Some(b' ' | b'\t') => return Err("a space in or after a field's name"),
            Some(_) => return Err("a character that no field's name may have"),
            None => return Err("a line that is no field: it has no colon"),
        }
        let after = line[name + 1..].trim_ascii_start();
        let value = after.trim_ascii_end();
        let value_start = end - after.len();
        Ok(Self {
            start: place(start),
            name_end: place(start + name),
            value: place(value_start),
            value_end: place(value_start + value.len()),
            end: place(end + 2),
            live: true,
        })
    }
}

/// A head never comes near four gigabytes: [`Scan::next`] sees to that, and what is added is short.
fn place(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

impl Fields {
    /// The value of the first field of this name, without the spaces around it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.values(name).next()
    }

    /// The values of all fields of this name, in their order.
    pub fn values<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.candidates(name)
            .iter()
            .filter(|entry| entry.is(&self.bytes, name.as_bytes()))
            .map(|entry| entry.value(&self.bytes))
    }

    /// Where a field of this name is, if there is one: all entries, or none.
    fn candidates(&self, name: &str) -> &[Entry] {
        match self.lengths.have(name.len()) {
            true => &self.index,
            false => &[],
        }
    }

    /// How many fields have this name.
    #[must_use]
    pub fn count(&self, name: &str) -> usize {
        self.values(name).count()
    }

    /// Whether a field of this name lists `token`, as `Connection` lists `close`; case does not matter.
    #[must_use]
    pub fn contains_token(&self, name: &str, token: &str) -> bool {
        self.values(name)
            .flat_map(tokens)
            .any(|listed| scan::is_same(listed, token.as_bytes()))
    }

    /// All fields, in the order in which they are written.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.index
            .iter()
            .filter(|entry| entry.live)
            .map(|entry| (entry.name(&self.bytes), entry.value(&self.bytes)))
    }

    /// How many fields there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.iter().filter(|entry| entry.live).count()
    }

    /// Whether there is no field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes all fields of this name; how many there were.
    pub fn remove(&mut self, name: &str) -> usize {
        if !self.lengths.have(name.len()) {
            return 0;
        }
        self.remove_where(|found| scan::is_same(found, name.as_bytes()))
    }

    /// Removes the fields whose name, spelled as it came, `is_unwanted`; how many there were.
    pub fn remove_where(&mut self, mut is_unwanted: impl FnMut(&[u8]) -> bool) -> usize {
        let mut removed = 0;
        for entry in self.index.iter_mut().filter(|entry| entry.live) {
            if is_unwanted(entry.name(&self.bytes)) {
                entry.live = false;
                removed += 1;
            }
        }
        removed
    }

    /// Adds a field after all others. A control character in `value` is written as a space.
    ///
    /// # Panics
    /// In debug builds, when `name` is no token; otherwise nothing is added then.
    pub fn append(&mut self, name: &[u8], value: &[u8]) {
        if is_name(name) {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(name);
            let entry = self.finish(start, |bytes| scan::push_value(bytes, value));
            self.add(entry);
        }
    }

    /// Gives the first field of this name another value, where it stands and as it is spelled, and removes its other
    /// copies; adds it after all others when there is none. Otherwise as [`Fields::append`].
    pub fn set(&mut self, name: &str, value: &[u8]) {
        let start = self.bytes.len();
        scan::push_value(&mut self.bytes, value);
        self.set_from_within(name, start..self.bytes.len());
    }

    /// As [`Fields::set`], with a value that lies in these bytes already.
    pub(super) fn set_from_within(&mut self, name: &str, value: Range<usize>) {
        let has_name = |entry: &Entry, bytes: &[u8]| entry.is(bytes, name.as_bytes());
        let mut candidates = self.candidates(name).iter();
        let Some(first) = candidates.position(|entry| has_name(entry, &self.bytes)) else {
            if is_name(name.as_bytes()) {
                let start = self.bytes.len();
                self.bytes.extend_from_slice(name.as_bytes());
                let entry = self.finish(start, |bytes| bytes.extend_from_within(value));
                self.add(entry);
            }
            return;
        };
        for entry in &mut self.index[first + 1..] {
            entry.live &= !has_name(entry, &self.bytes);
        }
        let (old, start) = (self.index[first], self.bytes.len());
        self.bytes
            .extend_from_within(old.start as usize..old.name_end as usize);
        self.index[first] = self.finish(start, |bytes| bytes.extend_from_within(value));
    }

    /// Writes the fields and the empty line: those that came in their order, case and spelling, then the added ones.
    pub(super) fn write(&self, out: &mut Vec<u8>, from: usize) {
        let mut run = from..self.start;
        for entry in self.index.iter().filter(|entry| entry.live) {
            let (start, end) = (entry.start as usize, entry.end as usize);
            if start != run.end {
                out.extend_from_slice(&self.bytes[run]);
                run = start..end;
            } else {
                run.end = end;
            }
        }
        out.extend_from_slice(&self.bytes[run]);
        out.extend_from_slice(b"\r\n");
    }

    fn add(&mut self, entry: Entry) {
        self.lengths.add(&entry);
        self.index.push(entry);
    }

    /// The name is there, from `start`; adds the rest of the line, its value by `push`.
    fn finish(&mut self, start: usize, push: impl FnOnce(&mut Vec<u8>)) -> Entry {
        let name_end = self.bytes.len();
        self.bytes.extend_from_slice(b": ");
        push(&mut self.bytes);
        let value_end = self.bytes.len();
        self.bytes.extend_from_slice(b"\r\n");
        Entry {
            start: place(start),
            name_end: place(name_end),
            value: place(name_end + 2),
            value_end: place(value_end),
            end: place(self.bytes.len()),
            live: true,
        }
    }

    /// A piece of the first line; empty while there is none.
    pub(super) fn part(&self, (start, end): (usize, usize)) -> &[u8] {
        self.bytes.get(start..end).unwrap_or_default()
    }

    /// Takes in a head from the front of `buf`, which on a later call is the same and longer. `start_line` judges the
    /// first line, without its CR LF.
    pub(super) fn take_in(
        &mut self,
        buf: &[u8],
        limits: &Limits,
        mut start_line: impl FnMut(&[u8]) -> Result<(), HeadError>,
    ) -> Result<Parsed, HeadError> {
        if self.scan.is_stale(buf) {
            self.clear();
        }
        loop {
            match self.scan.next(buf, limits)? {
                Step::Line(1, start, end) => {
                    self.bytes.clear();
                    self.clear_index();
                    self.start = end + 2;
                    start_line(&buf[start..end])?;
                }
                Step::Line(number, start, end) => {
                    if self.index.len() >= limits.fields {
                        let limit = limits.fields;
                        return Err(HeadError::TooManyFields { limit });
                    }
                    let entry = Entry::read(buf, start, end);
                    self.add(
                        entry
                            .map_err(|what| HeadError::malformed(what, number, &buf[start..end]))?,
                    );
                }
                Step::Partial => {
                    self.adopt(buf, self.scan.lines_end());
                    return Ok(Parsed::Partial);
                }
                Step::End(consumed) => {
                    self.adopt(buf, consumed - 2);
                    self.scan = Scan::default();
                    return Ok(Parsed::Complete { consumed });
                }
            }
        }
    }

    /// Copies the bytes of `buf` up to `end`, as far as they are not here yet.
    fn adopt(&mut self, buf: &[u8], end: usize) {
        let new = buf.get(self.bytes.len()..end).unwrap_or_default();
        self.bytes.extend_from_slice(new);
    }

    /// Forgets everything, keeps the memory.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.clear_index();
        self.start = 0;
        self.scan = Scan::default();
    }

    fn clear_index(&mut self) {
        self.index.clear();
        self.lengths = Lengths::default();
    }

    /// Begins a head by hand with this line, which is without its CR LF.
    pub(super) fn begin(&mut self, line: &[&[u8]]) {
        self.clear();
        for part in line {
            self.bytes.extend(
                part.iter()
                    .map(|byte| if scan::is_value(*byte) { *byte } else { b' ' }),
            );
        }
        self.bytes.extend_from_slice(b"\r\n");
        self.start = self.bytes.len();
    }
}

/// The entries of a comma-separated list, without empty ones.
pub(super) fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}

/// Appends one line. A name that is none is left out.
pub(super) fn push_line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    if is_name(name) {
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        scan::push_value(out, value);
        out.extend_from_slice(b"\r\n");
    }
}

/// Whether this can be the name of a field; one that we make always can.
fn is_name(name: &[u8]) -> bool {
    let is_name = !name.is_empty() && token_run(name, 0) == name.len();
    debug_assert!(is_name, "the name of a field: {}", name.escape_ascii());
    is_name
}

/// Removes what concerns this connection alone, as Linkerd 1 does: `Connection` and the fields that it lists, `TE`,
/// `Trailer`, `Upgrade`, `Proxy-Authenticate` and `Proxy-Authorization`; `Keep-Alive` and `Proxy-Connection` only when
/// listed.
///
/// The lines of the framing stay, for the body stays as it is framed. What says where a message goes, ends or has been
/// cannot be removed by listing it: `Host`, `Content-Length`, `Transfer-Encoding`, `Via`. To be called before fields are
/// added, so that a client's list can't name those.
pub fn strip_hop_by_hop(fields: &mut Fields) {
    if fields.lengths.0 & HOP_BY_HOP == 0 {
        return;
    }
    let Fields {
        bytes,
        index,
        lengths,
        ..
    } = fields;
    for at in 0..index.len() {
        let connection = index[at];
        if !connection.is(bytes, b"connection") {
            continue;
        }
        // Mostly it is an option, `close`, and no field's name.
        let goes = |listed: &&[u8]| lengths.have(listed.len()) && !is_kept(listed);
        for listed in tokens(connection.value(bytes)).filter(goes) {
            for entry in index.iter_mut() {
                if entry.is(bytes, listed) && !entry.is(bytes, b"connection") {
                    entry.live = false;
                }
            }
        }
    }
    fields.remove_where(is_hop_by_hop);
}

fn is_kept(name: &[u8]) -> bool {
    [
        &b"host"[..],
        b"content-length",
        b"transfer-encoding",
        b"via",
    ]
    .iter()
    .any(|kept| scan::is_same(name, kept))
}

/// The lengths of the names in [`is_hop_by_hop`].
const HOP_BY_HOP: u64 =
    Lengths::of(2).0 | Lengths::of(7).0 | Lengths::of(10).0 | Lengths::of(18).0 | Lengths::of(19).0;

fn is_hop_by_hop(name: &[u8]) -> bool {
    let known: &[u8] = match name.len() {
        2 => b"te",
        7 if name[0] | 0x20 == b't' => b"trailer",
        7 => b"upgrade",
        10 => b"connection",
        18 => b"proxy-authenticate",
        19 => b"proxy-authorization",
        _ => return false,
    };
    scan::is_same(name, known)
}
