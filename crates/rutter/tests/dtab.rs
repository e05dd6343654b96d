//! `rutter dtab` and `rutter shift` as they are typed, against a store: `tests/dtab/*.txt` are what is typed and what comes of it;
//! lines with `#: ` say what for.
//!
//! `UPDATE_GOLDEN=1 cargo test -p rutter --test dtab` writes the answers anew; look at the difference before it is believed.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use namerd::store::MemoryStore;
use namerd::{Api, ApiListener, Names};
use naming::DefaultInterpreter;
use naming::namers::{Dns, SystemNamer};
use tokio_util::sync::CancellationToken;

/// A store in this process, until it is dropped.
struct Store {
    addr: SocketAddr,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Store {
    fn start() -> Self {
        let stop = CancellationToken::new();
        let (tell, told) = std::sync::mpsc::channel();
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let system = Arc::new(SystemNamer::new(Dns::system(
                    tokio::runtime::Handle::current(),
                )));
                let interpreter = DefaultInterpreter::new(Vec::new(), system, Vec::new());
                let store = Arc::new(MemoryStore::default());
                let names = Names::new(store.clone(), Arc::new(interpreter));
                let listener = ApiListener::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
                tell.send(listener.addr()).unwrap();
                let api = Api::new(store, names, stopped.clone());
                listener.serve(namerd::Interface::Http(api), stopped).await;
            });
        });
        Self {
            addr: told.recv().unwrap(),
            stop,
            thread: Some(thread),
        }
    }
}

/// What a router would say; the status line.
fn post(addr: SocketAddr, path: &str, body: &str) -> String {
    let answer = ask(addr, "POST", path, body);
    answer.lines().next().unwrap_or_default().to_owned()
}

/// The whole answer, but for its date.
fn ask(addr: SocketAddr, method: &str, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    let length = body.len();
    write!(stream, "{method} /api/rutter/1/{path} HTTP/1.1\r\nhost: store\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let lines = answer.lines().filter(|line| !line.starts_with("date: "));
    lines.collect::<Vec<_>>().join("\n")
}

impl Drop for Store {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

/// Everything that is another with each run.
fn same_each_time(text: &str, folder: &Path, store: &Store) -> String {
    let text = text
        .replace(&folder.display().to_string(), "DIR")
        .replace(&store.addr.to_string(), "STORE");
    let mut out = String::new();
    for line in text.lines() {
        // Words keep their blanks, so that columns stay seen.
        let words = line.split(' ').map(|word| {
            let bare = word.trim_matches(|c: char| "\",:".contains(c));
            let hex = bare.len() >= 12 && bare.bytes().all(|b| b.is_ascii_hexdigit());
            let time = bare.len() == 24 && bare.ends_with('Z') && bare.contains('T');
            let digits = bare.trim_end_matches(['s', 'm']);
            let age = bare.len() > digits.len()
                && !digits.is_empty()
                && digits.bytes().all(|b| b.is_ascii_digit());
            match (hex, time, age) {
                (true, ..) => word.replace(bare, "HASH"),
                (_, true, _) => word.replace(bare, "TIME"),
                (.., true) => word.replace(bare, "AGE"),
                _ => word.to_owned(),
            }
        });
        let words: Vec<_> = words.collect();
        let mut line = words.join(" ");
        if let Some(at) = line.find(" ms") {
            let start = line[..at].rfind(' ').map_or(0, |blank| blank + 1);
            line.replace_range(start..at, "N");
        }
        // A column is as wide as its oldest age.
        while line.contains("AGE   ") {
            line = line.replace("AGE   ", "AGE  ");
        }
        out.push_str(&line);
        out.push('\n');
    }
    out
}

/// Runs what a transcript types, and gives it with what came of it.
fn played(transcript: &str) -> String {
    let store = Store::start();
    let folder = tempfile::tempdir().unwrap();
    let files = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/dtab/files");
    for file in files.read_dir().unwrap().flatten() {
        std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    let mut out = String::new();
    let mut later = Vec::new();
    for line in transcript.lines() {
        if line.starts_with("#: ") {
            out.push_str(&format!("{line}\n"));
            continue;
        }
        let Some(typed) = line.strip_prefix("$ ") else {
            continue;
        };
        out.push_str(&format!("$ {typed}\n"));
        if let Some(report) = typed.strip_prefix("router-says-later ") {
            // Once the next command has written something.
            let (id, body) = report.split_once(' ').unwrap();
            let (path, body, addr) = (format!("routers/{id}"), body.to_owned(), store.addr);
            let before = ask(addr, "GET", "dtabs/default", "");
            later.push(std::thread::spawn(move || {
                while ask(addr, "GET", "dtabs/default", "") == before {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                assert_eq!(post(addr, &path, &body), "HTTP/1.1 200 OK");
            }));
            continue;
        }
        if let Some(report) = typed.strip_prefix("router-says ") {
            let (id, body) = report.split_once(' ').unwrap();
            let status = post(store.addr, &format!("routers/{id}"), body);
            assert_eq!(status, "HTTP/1.1 200 OK", "{typed}");
            continue;
        }
        let path = std::env::var("PATH").unwrap_or_default();
        let bin = assert_cmd::cargo::cargo_bin("rutter");
        let output = std::process::Command::new("sh")
            .args(["-c", typed])
            .current_dir(folder.path())
            .env_clear()
            .env(
                "PATH",
                format!("{}:{path}", bin.parent().unwrap().display()),
            )
            .env("RUTTER_BASE_URL", format!("http://{}", store.addr))
            .env("USER", "ops")
            .env("LANG", "C.UTF-8")
            .env("EDITOR", "sed -i s,/9002,/9003,")
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        for (stream, prefix) in [(output.stdout, ""), (output.stderr, "2> ")] {
            let text = String::from_utf8(stream).unwrap();
            for line in same_each_time(&text, folder.path(), &store).lines() {
                out.push_str(format!("{prefix}{line}").trim_end());
                out.push('\n');
            }
        }
        match output.status.code() {
            Some(0) => {}
            code => out.push_str(&format!("exit {}\n", code.unwrap())),
        }
        for thread in later.drain(..) {
            thread.join().unwrap();
        }
    }
    out
}

fn check(name: &str) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/dtab/{name}.txt"));
    let wanted = std::fs::read_to_string(&file).unwrap();
    let got = played(&wanted);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &got).unwrap();
        return;
    }
    let lines = wanted.lines().zip(got.lines()).enumerate();
    let differs = lines
        .filter(|(_, (wanted, got))| wanted != got)
        .map(|(at, (wanted, got))| {
            format!(
                "{}:{}\n  wanted {wanted}\n  got    {got}\n",
                file.display(),
                at + 1
            )
        });
    let differs: String = differs.collect();
    assert!(wanted == got, "{differs}\nall of it:\n{got}");
}

#[test]
fn namespaces_are_made_changed_looked_at_and_taken_back() {
    check("life");
}

#[test]
fn a_change_is_planned_against_the_names_in_use_and_waits_for_routers() {
    check("plan");
}

#[test]
fn texts_are_laid_out_and_looked_over() {
    check("text");
}

#[test]
fn a_folder_of_dtabs_goes_out_and_comes_in() {
    check("folder");
}

#[test]
fn a_share_is_shifted_in_steps() {
    check("shift");
}

#[test]
fn versions_and_steps_are_watched_as_they_come() {
    check("watch");
}

#[test]
fn every_answer_is_json_as_well() {
    check("json");
}
