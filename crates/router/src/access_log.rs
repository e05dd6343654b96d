//! The access log: one line for each request that was answered by an endpoint, in Linkerd 1's form. A thread of its own
//! writes; a request only hands the line over, and a line that does not fit into the queue is dropped and counted.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dtab::Path;
use telemetry::cells::Counter;

use crate::http1::RequestHead;
use crate::settings::{AccessLogSettings, RollPolicy};

/// Lines that may wait for the disk.
const QUEUE: usize = 8192;
/// A line is on disk this long after it was written at the latest.
const FLUSH: Duration = Duration::from_millis(200);

/// A handle on the log; lines are written by a thread that ends with it.
pub(crate) struct AccessLog {
    json: bool,
    lines: SyncSender<Vec<u8>>,
    dropped: Counter,
    hangup: Arc<AtomicBool>,
}

impl AccessLog {
    pub(crate) fn open(settings: &AccessLogSettings) -> io::Result<Self> {
        let file = Rolling::open(settings)?;
        let (lines, receiver) = sync_channel(QUEUE);
        let hangup = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&hangup);
        std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write(&receiver, file, &told))?;
        Ok(Self {
            json: settings.json,
            lines,
            dropped: Counter::new(),
            hangup,
        })
    }

    /// The process got SIGHUP: whose policy that is begins a new file, as somebody has moved the old one away.
    pub(crate) fn hangup(&self) {
        self.hangup.store(true, Ordering::Relaxed);
    }

    /// Hands over the line of one request.
    pub(crate) fn line(&self, line: &Line<'_>) {
        let now = SystemTime::now();
        let text = match self.json {
            true => line.json(now),
            false => line.text(now),
        };
        if self.lines.try_send(text).is_err() {
            self.dropped.incr();
        }
    }
}

/// What one line tells.
pub(crate) struct Line<'a> {
    pub(crate) head: &'a RequestHead,
    pub(crate) peer: IpAddr,
    pub(crate) status: u16,
    /// The response's Content-Length.
    pub(crate) length: Option<&'a [u8]>,
    pub(crate) service: &'a Path,
    pub(crate) client: &'a Path,
}

impl Line<'_> {
    /// As Linkerd 1 writes it.
    fn text(&self, now: SystemTime) -> Vec<u8> {
        let Self {
            head,
            peer,
            status,
            length,
            ..
        } = *self;
        let mut line = Vec::with_capacity(256);
        put(&mut line, head.get("Host").unwrap_or(b""));
        line.extend_from_slice(format!(" {peer} - - [{}] \"", date(now)).as_bytes());
        put(&mut line, head.method());
        line.push(b' ');
        put(&mut line, head.target());
        line.extend_from_slice(format!(" {}\" {status} ", head.version().as_str()).as_bytes());
        put(&mut line, length.unwrap_or(b"-"));
        for name in ["Referer", "User-Agent"] {
            line.extend_from_slice(b" \"");
            put(&mut line, head.get(name).unwrap_or(b"-"));
            line.push(b'"');
        }
        line.push(b'\n');
        line
    }

    /// An object with the same, and how the request was routed.
    fn json(&self, now: SystemTime) -> Vec<u8> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let field = |name| self.head.get(name).map(text);
        let value = serde_json::json!({
            "time": iso(now),
            "client": self.peer,
            "method": text(self.head.method()),
            "host": field("Host"),
            "target": text(self.head.target()),
            "version": self.head.version().as_str(),
            "status": self.status,
            "length": self.length.and_then(|length| text(length).parse::<u64>().ok()),
            "referer": field("Referer"),
            "userAgent": field("User-Agent"),
            "service": self.service.to_string(),
            "bound": self.client.to_string(),
        });
        // serde_json escapes what ends a line; what a terminal obeys beyond that is escaped here.
        let mut line = Vec::with_capacity(512);
        for char in value.to_string().chars() {
            match char.is_control() {
                true => line.extend_from_slice(format!("\\u{:04x}", u32::from(char)).as_bytes()),
                false => line.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        line.push(b'\n');
        line
    }
}

/// Text of a request, made safe: nothing in it ends a field or a line, and a terminal has nothing in it to obey. What is no
/// UTF-8 is shown by its bytes.
fn put(line: &mut Vec<u8>, text: &[u8]) {
    let escaped = |line: &mut Vec<u8>, bytes: &[u8]| {
        for byte in bytes {
            line.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
        }
    };
    for chunk in text.utf8_chunks() {
        for char in chunk.valid().chars() {
            let mut bytes = [0; 4];
            let bytes = char.encode_utf8(&mut bytes).as_bytes();
            match char {
                '"' | '\\' => line.extend_from_slice(&[b'\\', bytes[0]]),
                char if char.is_control() => escaped(line, bytes),
                _ => line.extend_from_slice(bytes),
            }
        }
        escaped(line, chunk.invalid());
    }
}

fn write(lines: &Receiver<Vec<u8>>, mut file: Rolling, hangup: &AtomicBool) {
    let mut dirty = false;
    loop {
        if hangup.swap(false, Ordering::Relaxed) {
            file.hangup();
        }
        match lines.recv_timeout(FLUSH) {
            Ok(line) => {
                file.write(&line);
                dirty = true;
                // What is there already goes out in one write.
                while let Ok(line) = lines.try_recv() {
                    file.write(&line);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return file.flush(),
        }
        if std::mem::take(&mut dirty) {
            file.flush();
        }
    }
}

/// A file that is begun anew by its policy.
struct Rolling {
    settings: AccessLogSettings,
    out: BufWriter<File>,
    size: u64,
    period: u64,
    failed: bool,
}

impl Rolling {
    fn open(settings: &AccessLogSettings) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options
            .create(true)
            .write(true)
            .append(settings.append)
            .truncate(!settings.append);
        let file = options.open(&settings.path).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!(
                    "cannot write the access log {}: {error}",
                    settings.path.display()
                ),
            )
        })?;
        let size = file.metadata()?.len();
        let period = period(settings.roll, SystemTime::now());
        Ok(Self {
            settings: settings.clone(),
            out: BufWriter::new(file),
            size,
            period,
            failed: false,
        })
    }

    fn write(&mut self, line: &[u8]) {
        let now = period(self.settings.roll, SystemTime::now());
        let full = matches!(self.settings.roll, RollPolicy::Size(most) if self.size + line.len() as u64 > most);
        if (full && self.size > 0) || now != self.period {
            self.period = now;
            if let Err(error) = self.roll() {
                self.complain(&error);
            }
        }
        self.size += line.len() as u64;
        if let Err(error) = self.out.write_all(line) {
            self.complain(&error);
        }
    }

    fn flush(&mut self) {
        if let Err(error) = self.out.flush() {
            self.complain(&error);
        }
    }

    /// Goes on in a file of the same name, which may be another one by now.
    fn hangup(&mut self) {
        if self.settings.roll != RollPolicy::Sighup {
            return;
        }
        self.flush();
        let append = AccessLogSettings {
            append: true,
            ..self.settings.clone()
        };
        match Self::open(&append) {
            Ok(new) => *self = new,
            Err(error) => self.complain(&error),
        }
    }

    /// Moves the file away under the present time and begins a new one; old ones beyond `keep` go.
    fn roll(&mut self) -> io::Result<()> {
        self.out.flush()?;
        let path = &self.settings.path;
        let stamp = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos());
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(format!("-{stamp}"));
        std::fs::rename(path, path.with_file_name(name))?;
        let append = AccessLogSettings {
            append: true,
            ..self.settings.clone()
        };
        *self = Self::open(&append)?;
        self.prune()
    }

    fn prune(&self) -> io::Result<()> {
        let Some(keep) = self.settings.keep else {
            return Ok(());
        };
        let path = &self.settings.path;
        let prefix = format!(
            "{}-",
            path.file_name().unwrap_or_default().to_string_lossy()
        );
        let directory = path
            .parent()
            .filter(|dir| !dir.as_os_str().is_empty())
            .map_or(".".into(), PathBuf::from);
        let mut old: Vec<_> = std::fs::read_dir(directory)?
            .filter_map(Result::ok)
            .filter(|entry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                name.strip_prefix(&prefix)
                    .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()))
            })
            .map(|entry| entry.path())
            .collect();
        old.sort();
        for path in &old[..old.len().saturating_sub(keep)] {
            std::fs::remove_file(path)?;
        }
        Ok(())
    }

    fn complain(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.failed, true) {
            tracing::error!(path = %self.settings.path.display(), %error, "cannot write the access log, lines are lost");
        }
    }
}

/// The number of the hour, day or week; a change begins a new file.
fn period(roll: RollPolicy, now: SystemTime) -> u64 {
    let seconds = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    match roll {
        RollPolicy::Hourly => seconds / 3600,
        RollPolicy::Daily => seconds / 86_400,
        // 1970 began on a Thursday; 1 is Sunday.
        RollPolicy::Weekly(day) => (seconds / 86_400 + 11 - u64::from(day.min(7))) / 7,
        RollPolicy::Never | RollPolicy::Size(_) | RollPolicy::Sighup => 0,
    }
}

/// `dd/Mon/yyyy:HH:mm:ss +0000`, in UTC.
fn date(at: SystemTime) -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let seconds = at
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (h, m, s) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!(
        "{day:02}/{}/{year}:{h:02}:{m:02}:{s:02} +0000",
        MONTHS[month - 1]
    )
}

/// `yyyy-mm-ddThh:mm:ss.mmmZ`.
fn iso(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs();
    let ((year, month, day), of_day) = (civil(seconds / 86_400), seconds % 86_400);
    let (h, m, s) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let millis = since.subsec_millis();
    format!("{year}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{millis:03}Z")
}

/// Year, month (1 to 12) and day of a number of days since 1970, counted in years that begin in March.
fn civil(days: u64) -> (u64, usize, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    } as usize;
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::Limits;

    fn settings(path: PathBuf, roll: RollPolicy) -> AccessLogSettings {
        AccessLogSettings {
            path,
            json: false,
            append: true,
            roll,
            keep: Some(1),
        }
    }

    #[test]
    fn dates_are_right_around_leap_days_and_ends_of_years() {
        for (seconds, want) in [
            (0, "01/Jan/1970:00:00:00 +0000"),
            (951_782_400, "29/Feb/2000:00:00:00 +0000"),
            (1_735_689_599, "31/Dec/2024:23:59:59 +0000"),
            (1_709_251_199, "29/Feb/2024:23:59:59 +0000"),
        ] {
            assert_eq!(date(UNIX_EPOCH + Duration::from_secs(seconds)), want);
        }
    }

    fn line<'a>(head: &'a RequestHead, name: &'a Path) -> Line<'a> {
        Line {
            head,
            peer: [127, 0, 0, 1].into(),
            status: 200,
            length: Some(b"3"),
            service: name,
            client: name,
        }
    }

    #[test]
    fn nothing_in_a_request_is_obeyed_by_a_terminal_or_ends_a_line() {
        let mut head = RequestHead::new();
        let text = "GET /a HTTP/1.1\r\nHost: w\u{9b}31m\r\nUser-Agent: \u{85}\u{1f600}\t\"\r\nReferer: \u{2028}\r\n\r\n";
        head.parse(text.as_bytes(), &Limits::default()).unwrap();
        let name = Path::utf8(["svc", "w\u{1b}[2J\n"]);
        let line = line(&head, &name);
        for made in [line.text(SystemTime::now()), line.json(SystemTime::now())] {
            let text = String::from_utf8(made).unwrap();
            let (text, end) = text.split_at(text.len() - 1);
            assert_eq!(end, "\n");
            assert!(!text.contains(char::is_control), "{text:?}");
            assert!(text.contains('\u{1f600}'), "{text}");
        }
        let json: serde_json::Value = serde_json::from_slice(&line.json(UNIX_EPOCH)).unwrap();
        assert_eq!(json["time"], "1970-01-01T00:00:00.000Z");
        assert_eq!(json["host"], "w\u{9b}31m");
        assert_eq!((&json["status"], &json["length"]), (&200.into(), &3.into()));
    }

    #[test]
    fn no_header_forges_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let log = AccessLog::open(&settings(path.clone(), RollPolicy::Never)).unwrap();
        let mut head = RequestHead::new();
        let text = b"GET /a?b HTTP/1.1\r\nHost: web\r\nUser-Agent: x\" \xff\ty\r\n\r\n";
        head.parse(text, &Limits::default()).unwrap();
        log.line(&line(&head, &Path::utf8(["svc", "web"])));
        drop(log);
        let written = loop {
            let text = std::fs::read(&path).unwrap();
            if text.ends_with(b"\n") {
                break text;
            }
            std::thread::yield_now();
        };
        let text = String::from_utf8_lossy(&written);
        assert!(text.starts_with("web 127.0.0.1 - - ["), "{text}");
        assert!(
            text.contains("] \"GET /a?b HTTP/1.1\" 200 3 \"-\" \"x\\\" "),
            "{text}"
        );
        assert_eq!(written.iter().filter(|&&b| b == b'\n').count(), 1);
        assert!(!written.contains(&b'\t'));
    }

    #[test]
    fn a_full_file_is_moved_away_and_only_so_many_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let mut file = Rolling::open(&settings(path.clone(), RollPolicy::Size(10))).unwrap();
        for line in [b"1234567\n", b"2345678\n", b"3456789\n"] {
            file.write(line);
        }
        file.flush();
        assert_eq!(std::fs::read(&path).unwrap(), b"3456789\n");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
