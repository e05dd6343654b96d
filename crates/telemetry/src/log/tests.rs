use std::io::Write;
use std::sync::{Arc, Mutex};

use super::*;

#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Page {
    fn text(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn log(format: Format, levels: Option<&str>, act: impl FnOnce(&LogHandle, &Page)) {
    let page = Page::default();
    let writer = page.clone();
    let (subscriber, handle) = subscriber(format, false, levels, move || writer.clone()).unwrap();
    tracing::subscriber::with_default(subscriber, || act(&handle, &page));
}

#[test]
fn a_level_can_be_changed_while_running() {
    log(Format::Plain, None, |handle, page| {
        let say = || tracing::debug!(target: "naming::cache", "a miss");
        say();
        assert_eq!(page.text(), "");
        handle.set("naming", "DEBUG").unwrap();
        say();
        assert!(page.text().contains("a miss"));
        handle.set("naming", "off").unwrap();
        tracing::error!(target: "naming", "lost");
        assert_eq!(page.text(), "");
        handle.set("root", "ALL").unwrap();
        tracing::trace!(target: "k8s", "event");
        assert!(page.text().contains("event"));
    });
}

#[test]
fn levels_are_listed_by_linkerds_names() {
    log(
        Format::Plain,
        Some("warn,rutter::naming=debug"),
        |handle, _| {
            let json = handle.json();
            let level = |logger: &str| {
                let all = json.as_array().unwrap();
                let entry = all.iter().find(|entry| entry["logger"] == logger);
                entry.unwrap()["level"].clone()
            };
            assert_eq!(
                json[0],
                serde_json::json!({"logger": "root", "level": "WARNING"})
            );
            assert_eq!(
                (level("naming"), level("router"), level("access")),
                ("DEBUG".into(), "WARNING".into(), "OFF".into())
            );
        },
    );
}

#[test]
fn access_lines_are_off_until_asked_for() {
    log(Format::Json, Some("info"), |handle, page| {
        tracing::info!(target: ACCESS, path = "/svc/web", "request");
        assert_eq!(page.text(), "");
        handle.set(ACCESS, "info").unwrap();
        tracing::info!(target: ACCESS, path = "/svc/web", "request");
        let line: serde_json::Value = serde_json::from_str(&page.text()).unwrap();
        assert_eq!(
            (&line["message"], &line["path"], &line["level"]),
            (&"request".into(), &"/svc/web".into(), &"INFO".into())
        );
    });
}

#[test]
fn nonsense_is_refused_with_the_choices() {
    for levels in ["loud", "naming=loud", "a=b=c"] {
        assert_eq!(
            parse(levels).unwrap_err(),
            LogError::Levels(levels.to_owned()),
            "{levels}"
        );
    }
    assert!(
        "xml"
            .parse::<Format>()
            .unwrap_err()
            .to_string()
            .contains("plain")
    );
    log(Format::Plain, None, |handle, _| {
        assert_eq!(
            handle.set("naming", "loud"),
            Err(LogError::Level("loud".to_owned()))
        );
    });
}

#[test]
fn info_is_the_level_of_what_has_none() {
    for levels in [None, Some(""), Some(" , "), Some("naming=warn")] {
        log(Format::Plain, levels, |_, page| {
            tracing::debug!(target: "rutter::run", "a detail");
            tracing::info!(target: "rutter::run", "serving");
            let text = page.text();
            assert!(text.contains("serving"), "{levels:?}: {text}");
            assert!(!text.contains("a detail"), "{levels:?}: {text}");
        });
    }
}
