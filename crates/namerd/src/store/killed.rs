//! Writers that are killed while they write. An engine names a test of its own, `victim`, that opens its store at a place and
//! goes [`on and on`](on_and_on); run as a process, that is what is killed.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::{Change, Namespace, Only, Origin, Record, Store, real, suite};

/// In the process that is killed: where it writes.
const PLACE: &str = "NAMERD_TEST_PLACE";

fn namespace() -> Namespace {
    Namespace::new("victim").unwrap()
}

/// Where the victim is to write. None when it was not called for: then it is no test.
pub(super) fn place() -> Option<String> {
    std::env::var(PLACE).ok()
}

/// Writes until it is killed, and says each write that was answered.
pub(super) async fn on_and_on(store: Arc<dyn Store>) {
    let store = suite::good(store).await;
    loop {
        let text = format!("/svc => /{}", "x".repeat(fastrand::usize(1..20_000)));
        let change = Change::read(&text, Origin::now("victim", "")).unwrap();
        let stored = store.put(&namespace(), change, Only::Always).await.unwrap();
        let hash = stored.record.hash().unwrap();
        writeln!(std::io::stderr(), "wrote {} {hash}.", stored.record.number).unwrap();
    }
}

/// Has `victim`, the full name of a test, write to `place`, and kills it, time after time. What `open` then opens has every
/// answered write; of those further back than `kept` it may have none.
pub(super) async fn every_answered_write_is_there(
    victim: &str,
    place: &str,
    kept: u64,
    open: impl Fn() -> Arc<dyn Store>,
) {
    for _ in 0..real::setting("RUTTER_KILLS", 8) {
        let (program, mut lines) = real::itself(victim, (PLACE, place));
        let mut wrote = || lines.find_map(|line| answered(&line.ok()?));
        let mut writes = vec![wrote().expect("it writes")];
        std::thread::sleep(Duration::from_micros(fastrand::u64(0..150_000)));
        drop(program);
        writes.extend(std::iter::from_fn(wrote));

        let (now, history) = settled(&*suite::good(open()).await).await;
        let numbers: Vec<_> = history.iter().map(|one| one.number).collect();
        let expected: Vec<_> = (1..=now).rev().take(numbers.len()).collect();
        assert_eq!(numbers, expected, "no number is missing");
        assert!(numbers.len() as u64 >= now.min(kept), "{numbers:?}");
        for (number, hash) in writes {
            assert!(number <= now, "{number} was answered, {now} is there");
            if let Some(record) = history.get((now - number) as usize) {
                assert_eq!(record.hash(), Some(hash), "{number}");
            }
        }
    }
}

/// The number in force and the history. What was sent to a server before its sender was killed may still come to pass.
async fn settled(store: &dyn Store) -> (u64, Vec<Record>) {
    loop {
        let now = store.get(&namespace()).await.unwrap().unwrap();
        let history = store.history(&namespace(), None, usize::MAX).await;
        match history.unwrap() {
            history if history[0].number == now.record.number => {
                return (now.record.number, history);
            }
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// The number and the hash of a write, in a whole line.
fn answered(line: &str) -> Option<(u64, String)> {
    let (number, hash) = line.strip_prefix("wrote ")?.split_once(' ')?;
    Some((number.parse().ok()?, hash.strip_suffix('.')?.to_owned()))
}
