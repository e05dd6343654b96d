//! A connection to one of ZooKeeper's servers, which is made again whenever it breaks.
//!
//! Nothing of ours in ZooKeeper hangs on a session. So a new connection is a new session, and everything is asked anew: there
//! is no state of watches that two sides have to agree upon.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::{debug, info, warn};

use super::wire::{self, Event, EventKind, Op, Received, Watched, WireError};

/// The longest silence of a server; it may shorten it.
const SESSION: Duration = Duration::from_secs(10);
/// How long a server may take to accept a connection and a session.
const CONNECT: Duration = Duration::from_secs(3);
/// The first and the longest wait after a failure; jittered.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// How often watches are taken back that nobody is told of any more.
const PURGE: Duration = Duration::from_secs(30);

/// A name or address, and a port.
pub(super) type Server = (Arc<str>, u16);

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum ZkError {
    /// The connection is broken; a new one is being made.
    #[error("the connection is broken")]
    Gone,
    /// The server's answer is no good.
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// How things stand with the connection.
#[derive(Clone, Default)]
pub(super) struct Standing {
    pub(super) connection: Option<Connection>,
    /// Why there is none.
    pub(super) problem: Option<Arc<str>>,
}

/// Who connects.
#[derive(Clone, Default)]
pub(super) struct Identity {
    /// A scheme, and what it takes.
    pub(super) auth: Option<(String, String)>,
    /// The longest silence that is asked for.
    pub(super) timeout: Option<Duration>,
}

/// Keeps a connection to one of these servers, as long as it is held.
pub(super) struct Session {
    standing: watch::Receiver<Standing>,
    task: AbortHandle,
}

impl Session {
    pub(super) fn new(servers: Vec<Server>, control: &Handle) -> Self {
        Self::having(Identity::default(), servers, control)
    }

    /// A session of somebody.
    pub(super) fn having(identity: Identity, servers: Vec<Server>, control: &Handle) -> Self {
        let (writer, standing) = watch::channel(Standing::default());
        let task = control.spawn(keep(identity, servers, writer));
        let task = task.abort_handle();
        Self { standing, task }
    }

    pub(super) fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Puts questions to the server; a cheap handle.
#[derive(Clone)]
pub(super) struct Connection {
    asked: mpsc::UnboundedSender<Asked>,
}

enum Asked {
    Question(Question),
    Command(Command),
}

/// Anything that sets no watch.
struct Command {
    message: Box<dyn FnOnce(i32) -> BytesMut + Send>,
    answer: oneshot::Sender<Result<Option<Bytes>, WireError>>,
}

/// Who waits for an answer.
enum Waiting {
    Question(Question),
    Command(oneshot::Sender<Result<Option<Bytes>, WireError>>),
}

struct Question {
    op: Op,
    path: String,
    events: mpsc::UnboundedSender<Event>,
    answer: oneshot::Sender<Result<Option<Bytes>, WireError>>,
}

/// An answer that is on its way.
pub(super) struct Pending(oneshot::Receiver<Result<Option<Bytes>, WireError>>);

impl Pending {
    /// None when there is no such node.
    pub(super) async fn answer(self) -> Result<Option<Bytes>, ZkError> {
        match self.0.await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(ZkError::Gone),
        }
    }
}

impl Connection {
    /// Asks now, before the answer is waited for. The next change is told to `events`, once; that there is no such node
    /// only of [`Op::Exists`].
    pub(super) fn ask(
        &self,
        op: Op,
        path: String,
        events: &mpsc::UnboundedSender<Event>,
    ) -> Pending {
        let (answer, pending) = oneshot::channel();
        let question = Question {
            op,
            path,
            events: events.clone(),
            answer,
        };
        // When the connection is gone the question is dropped, and with it the answer.
        _ = self.asked.send(Asked::Question(question));
        Pending(pending)
    }

    /// Sends a message, which is told its number.
    pub(super) fn send(&self, message: impl FnOnce(i32) -> BytesMut + Send + 'static) -> Pending {
        let (answer, pending) = oneshot::channel();
        let message = Box::new(message);
        _ = self.asked.send(Asked::Command(Command { message, answer }));
        Pending(pending)
    }

    /// Resolves when the connection is gone.
    pub(super) async fn gone(&self) {
        self.asked.closed().await;
    }
}

/// Connects, again and again.
async fn keep(identity: Identity, mut servers: Vec<Server>, standing: watch::Sender<Standing>) {
    let all: Vec<_> = servers.iter().map(shown).collect();
    let all = all.join(",");
    let mut failures = 0;
    loop {
        // Each node begins at another server.
        fastrand::shuffle(&mut servers);
        let mut problem = String::new();
        for server in &servers {
            let ended = match timeout(CONNECT, connect(&identity, server)).await {
                Err(_) => format!("no answer within {CONNECT:?}"),
                Ok(Err(error)) => error,
                Ok(Ok(link)) => {
                    if failures > 0 {
                        info!(server = %shown(server), "connected to ZooKeeper again");
                    }
                    let (ask, asked) = mpsc::unbounded_channel();
                    standing.send_replace(Standing {
                        connection: Some(Connection { asked: ask }),
                        problem: None,
                    });
                    let began = Instant::now();
                    let ended = link.run(asked).await;
                    // A server that takes every connection and drops it is not asked in a loop without end.
                    if began.elapsed() > BACKOFF.1 {
                        failures = 0;
                    }
                    ended
                }
            };
            problem = format!("ZooKeeper {}: {ended}", shown(server));
            debug!(%problem, "no connection");
            standing.send_replace(Standing {
                connection: None,
                problem: Some(problem.as_str().into()),
            });
        }
        if failures == 0 {
            warn!(servers = %all, %problem, "no connection to ZooKeeper, what is known stays");
        }
        tokio::time::sleep(backoff(failures, fastrand::f64())).await;
        failures += 1;
    }
}

/// How long to wait after so many failures in a row; `jitter` is between 0 and 1.
pub(super) fn backoff(failures: u32, jitter: f64) -> Duration {
    let longest = BACKOFF.0.saturating_mul(1 << failures.min(16));
    longest.min(BACKOFF.1).mul_f64(0.5 + jitter / 2.0)
}

fn shown((host, port): &Server) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

async fn connect(identity: &Identity, (host, port): &Server) -> Result<Link, String> {
    let stream = TcpStream::connect((&**host, *port)).await;
    let mut stream = stream.map_err(|error| error.to_string())?;
    // A question is small, and somebody waits for its answer.
    stream
        .set_nodelay(true)
        .map_err(|error| error.to_string())?;
    let asked = identity.timeout.unwrap_or(SESSION).as_millis();
    let asked = i32::try_from(asked).unwrap_or(i32::MAX);
    let sent = stream.write_all(&wire::connect(asked)).await;
    sent.map_err(|error| error.to_string())?;
    let mut read = BytesMut::new();
    let first = loop {
        match wire::message(&mut read).map_err(|error| error.to_string())? {
            Some(body) => break body,
            None => match stream.read_buf(&mut read).await {
                Ok(0) => return Err("it closes the connection".to_owned()),
                Ok(_) => {}
                Err(error) => return Err(error.to_string()),
            },
        }
    };
    let granted = wire::connected(first).map_err(|error| error.to_string())?;
    if let Some((scheme, secret)) = &identity.auth {
        let sent = stream.write_all(&wire::auth(scheme, secret)).await;
        sent.map_err(|error| error.to_string())?;
    }
    Ok(Link {
        stream,
        read,
        silence: Duration::from_millis(granted.into()),
    })
}

/// A connection whose session is accepted.
struct Link {
    stream: TcpStream,
    /// Read and not yet looked at.
    read: BytesMut,
    /// After as long without a word either side holds the session for lost.
    silence: Duration,
}

impl Link {
    /// Asks and tells until the connection breaks, and why it did.
    async fn run(self, mut asked: mpsc::UnboundedReceiver<Asked>) -> String {
        let Self {
            stream,
            mut read,
            silence,
        } = self;
        let (mut reader, writer) = stream.into_split();
        let mut talk = Talk::new(writer);
        let mut heard = Instant::now();
        let mut tick = interval(silence / 3);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut purge = interval(PURGE);
        loop {
            let done = tokio::select! {
                got = reader.read_buf(&mut read) => match got {
                    Ok(0) => return "it closes the connection".to_owned(),
                    Ok(_) => {
                        heard = Instant::now();
                        talk.hear(&mut read).map_err(|error| error.to_string())
                    }
                    Err(error) => Err(error.to_string()),
                },
                question = asked.recv() => match question {
                    Some(first) => {
                        talk.take(first);
                        while let Ok(more) = asked.try_recv() {
                            talk.take(more);
                        }
                        talk.flush(silence).await
                    }
                    None => return "nobody asks any more".to_owned(),
                },
                now = tick.tick() => match now.saturating_duration_since(heard) >= silence * 2 / 3 {
                    true => Err(format!("no word for {:?}", now.saturating_duration_since(heard))),
                    false => {
                        talk.out.extend_from_slice(&wire::ping());
                        talk.flush(silence).await
                    }
                },
                _ = purge.tick() => {
                    talk.purge();
                    talk.flush(silence).await
                }
            };
            if let Err(problem) = done {
                return problem;
            }
        }
    }
}

/// What was asked and not answered yet, and who is told of what.
struct Talk<W = OwnedWriteHalf> {
    writer: W,
    out: BytesMut,
    number: i32,
    /// Answers come in the order of the questions.
    open: VecDeque<(i32, Option<Waiting>)>,
    watches: HashMap<(Watched, String), Vec<mpsc::UnboundedSender<Event>>>,
}

impl<W: AsyncWriteExt + Unpin> Talk<W> {
    fn new(writer: W) -> Self {
        Self {
            writer,
            out: BytesMut::new(),
            number: 0,
            open: VecDeque::new(),
            watches: HashMap::new(),
        }
    }

    fn take(&mut self, asked: Asked) {
        match asked {
            Asked::Question(question) => self.ask(question),
            Asked::Command(Command { message, answer }) => {
                let number = self.say(message);
                self.wait(number, Waiting::Command(answer));
            }
        }
    }

    fn ask(&mut self, question: Question) {
        let number = self.say(|number| wire::question(number, question.op, &question.path));
        self.wait(number, Waiting::Question(question));
    }

    fn wait(&mut self, number: i32, who: Waiting) {
        let last = self.open.back_mut().filter(|one| one.0 == number);
        last.expect("it was just put there").1 = Some(who);
    }

    /// Writes a message that will be answered.
    fn say(&mut self, message: impl FnOnce(i32) -> BytesMut) -> i32 {
        self.number = self.number.checked_add(1).unwrap_or(1);
        self.out.extend_from_slice(&message(self.number));
        self.open.push_back((self.number, None));
        self.number
    }

    /// Sends what was written. A server that does not read for so long is lost.
    async fn flush(&mut self, patience: Duration) -> Result<(), String> {
        let sent = timeout(patience, self.writer.write_all(&self.out)).await;
        self.out.clear();
        match sent {
            Ok(sent) => sent.map_err(|error| error.to_string()),
            Err(_) => Err(format!("it takes nothing for {patience:?}")),
        }
    }

    /// Takes in what came.
    fn hear(&mut self, read: &mut BytesMut) -> Result<(), WireError> {
        while let Some(body) = wire::message(read)? {
            match wire::received(body)? {
                Received::Pong => {}
                Received::Event(event) => self.tell(&event),
                Received::Answer(number, answer) => self.answer(number, answer)?,
            }
        }
        Ok(())
    }

    fn answer(
        &mut self,
        number: i32,
        answer: Result<Option<Bytes>, WireError>,
    ) -> Result<(), WireError> {
        let Some((_, question)) = self.open.pop_front().filter(|open| open.0 == number) else {
            return Err(WireError::Code(number));
        };
        let question = match question {
            None => return Ok(()),
            Some(Waiting::Question(question)) => question,
            Some(Waiting::Command(waits)) => {
                _ = waits.send(answer);
                return Ok(());
            }
        };
        // The server has set its watch when there is a node, or when just that was asked.
        if matches!(answer, Ok(Some(_))) || question.op == Op::Exists && answer == Ok(None) {
            let key = (question.op.watched(), question.path);
            self.watches.entry(key).or_default().push(question.events);
        }
        // Who does not wait any more needs no answer.
        _ = question.answer.send(answer);
        Ok(())
    }

    fn tell(&mut self, event: &Event) {
        let watched: &[Watched] = match event.kind {
            EventKind::Created | EventKind::Changed => &[Watched::Node],
            EventKind::Children => &[Watched::Children],
            EventKind::Deleted => &[Watched::Node, Watched::Children],
        };
        for one in watched {
            let told = self.watches.remove(&(*one, event.path.clone()));
            for events in told.into_iter().flatten() {
                _ = events.send(event.clone());
            }
        }
    }

    /// Takes back the watches that nobody is told of, so that names that were asked for once do not fill the server.
    fn purge(&mut self) {
        let open = self.open.iter().filter_map(|one| match &one.1 {
            Some(Waiting::Question(question)) => Some(question),
            Some(Waiting::Command(_)) | None => None,
        });
        let open: Vec<_> = open.collect();
        // A watch that is being set anew would be taken back with the old one.
        let asked = |path: &str| open.iter().any(|question| question.path == path);
        let mut unused = Vec::new();
        self.watches.retain(|(watched, path), told| {
            told.retain(|events| !events.is_closed());
            let keep = !told.is_empty() || asked(path);
            if !keep {
                unused.push((*watched, path.clone()));
            }
            keep
        });
        for (watched, path) in unused {
            self.say(|number| wire::unwatch(number, watched, &path));
        }
    }
}

#[cfg(test)]
mod tests;
