use std::sync::Mutex;

use tokio::time::sleep;

use super::super::tests::request;
use super::*;

/// A collector that does what the script says, one entry for a try, the last one forever.
#[derive(Clone, Default)]
struct Scripted {
    script: Arc<Mutex<Vec<Act>>>,
    tries: Arc<Mutex<Vec<(usize, Instant)>>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Act {
    Take,
    Fail,
    Refuse,
    Hang,
}

impl Scripted {
    fn new(script: &[Act]) -> Self {
        let script = Arc::new(Mutex::new(script.iter().rev().copied().collect()));
        Self {
            script,
            ..Self::default()
        }
    }

    fn batches(&self) -> Vec<usize> {
        let tries = self.tries.lock().unwrap();
        tries.iter().map(|(len, _)| *len).collect()
    }
}

impl Carrier for Scripted {
    async fn send(&mut self, spans: &[Arc<SpanRecord>]) -> Result<(), SendError> {
        self.tries
            .lock()
            .unwrap()
            .push((spans.len(), Instant::now()));
        let act = {
            let mut script = self.script.lock().unwrap();
            match script.len() {
                1 => script[0],
                _ => script.pop().unwrap(),
            }
        };
        match act {
            Act::Take => Ok(()),
            Act::Fail => Err(SendError::Failed("down".into())),
            Act::Refuse => Err(SendError::Refused("bad".into())),
            Act::Hang => std::future::pending().await,
        }
    }
}

struct Running {
    exporter: Option<Exporter>,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

impl Running {
    fn start(collector: &Scripted, queue: usize) -> Self {
        let (sender, spans) = mpsc::channel(queue);
        let counts = Arc::new(Counts::default());
        let task = tokio::spawn(run(spans, collector.clone(), counts.clone()));
        let exporter = Some(Exporter {
            queue: sender,
            counts: counts.clone(),
        });
        Self {
            exporter,
            counts,
            task,
        }
    }

    fn offer(&self, n: usize) {
        let span = Arc::new(request().0);
        for _ in 0..n {
            self.exporter.as_ref().unwrap().offer(&span);
        }
    }

    /// Closes the queue and waits for the end; spans sent and dropped.
    async fn end(mut self) -> (u64, u64) {
        self.exporter.take();
        self.task.await.unwrap();
        (self.counts.sent.get(), self.counts.dropped.get())
    }
}

#[tokio::test(start_paused = true)]
async fn spans_travel_in_batches_and_none_waits_long() {
    let collector = Scripted::new(&[Act::Take]);
    let running = Running::start(&collector, 1000);
    running.offer(250);
    sleep(LINGER * 3).await;
    assert_eq!(collector.batches(), [100, 100, 50]);
    assert_eq!(running.end().await, (250, 0));
}

#[tokio::test(start_paused = true)]
async fn a_dead_collector_costs_one_queue_and_every_drop_is_counted() {
    let collector = Scripted::new(&[Act::Fail]);
    let running = Running::start(&collector, 300);
    for _ in 0..600 {
        running.offer(50);
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(running.end().await, (0, 30_000));
}

#[tokio::test(start_paused = true)]
async fn while_a_collector_takes_none_only_the_newest_spans_wait() {
    let collector = Scripted::new(&[Act::Fail]);
    let running = Running::start(&collector, 10_000);
    running.offer(10_000);
    sleep(Duration::from_secs(60)).await;
    let waiting = running.exporter.as_ref().unwrap();
    let waiting = waiting.queue.max_capacity() - waiting.queue.capacity();
    let dropped = running.counts.dropped.get() as usize;
    assert!(waiting <= WAITING, "{waiting}");
    assert!(
        (10_000 - waiting - BATCH..=10_000 - waiting).contains(&dropped),
        "{dropped}"
    );
    assert_eq!(running.end().await, (0, 10_000));
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_comes_back_gets_spans_within_ten_seconds() {
    let collector = Scripted::new(&[Act::Fail]);
    let running = Running::start(&collector, 300);
    running.offer(10);
    sleep(Duration::from_secs(600)).await;
    running.offer(10);
    sleep(Duration::from_secs(60)).await;
    *collector.script.lock().unwrap() = vec![Act::Take];
    running.offer(10);
    sleep(Duration::from_secs(10)).await;
    assert!(running.counts.sent.get() >= 10);
    let (sent, dropped) = running.end().await;
    assert_eq!(sent + dropped, 30);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_collector_is_given_up_and_its_batch_tried_again() {
    let collector = Scripted::new(&[Act::Hang, Act::Hang, Act::Take]);
    let running = Running::start(&collector, 300);
    running.offer(7);
    sleep(Duration::from_secs(20)).await;
    assert_eq!(collector.batches(), [7, 7, 7]);
    assert_eq!(running.end().await, (7, 0));
}

#[tokio::test(start_paused = true)]
async fn a_refused_batch_is_dropped_at_once_and_the_next_one_goes() {
    let collector = Scripted::new(&[Act::Refuse, Act::Take]);
    let running = Running::start(&collector, 300);
    running.offer(5);
    sleep(Duration::from_secs(2)).await;
    running.offer(6);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(collector.batches(), [5, 6]);
    assert_eq!(running.end().await, (6, 5));
}

#[tokio::test(start_paused = true)]
async fn waits_between_tries_grow_to_seconds_and_no_further() {
    let mut health = Health::default();
    let error = SendError::Failed("down".into());
    let waits: Vec<_> = (0..100).map(|_| health.bad(&error)).collect();
    assert!(waits[0] < Duration::from_millis(150) && waits[99] >= Duration::from_secs(3));
    assert!(waits.iter().all(|w| *w < Duration::from_secs(7)));
}

#[tokio::test(start_paused = true)]
async fn a_dead_collector_does_not_hold_up_the_end() {
    let collector = Scripted::new(&[Act::Fail]);
    let running = Running::start(&collector, 300);
    running.offer(250);
    let start = Instant::now();
    assert_eq!(running.end().await, (0, 250));
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn the_end_does_not_wait_for_the_next_try_of_a_collector_that_is_back() {
    let collector = Scripted::new(&[Act::Fail]);
    let running = Running::start(&collector, 300);
    running.offer(7);
    // Waits have grown to seconds by now.
    sleep(Duration::from_secs(120)).await;
    running.offer(5);
    sleep(LINGER * 2).await;
    *collector.script.lock().unwrap() = vec![Act::Take];
    let start = Instant::now();
    let (sent, _) = running.end().await;
    assert_eq!(sent, 5);
    assert!(start.elapsed() <= LOOK_EVERY * 2, "{:?}", start.elapsed());
}

#[test]
fn the_port_or_a_path_tells_the_transport() {
    assert_eq!(Transport::of(9410, None), Transport::Scribe);
    assert_eq!(Transport::of(9411, None), Transport::Http);
    assert_eq!(Transport::of(80, Some("/api/v2/spans")), Transport::Http);
    assert_eq!(Transport::of(1463, None), Transport::Scribe);
}
