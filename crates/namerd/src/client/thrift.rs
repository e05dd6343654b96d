//! `io.l5d.namerd`: long polls by ThriftMux for each name, all on one connection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dtab::{Dtab, Path};
use naming::Addr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::follow::{Ended, Future, Said, Source};
use super::said::{MAX_NESTED, Numbered, Tree};
use super::store::{LONGEST, Remote, Stream, Way, connect};
use crate::thriftmux::mux::{MAX_TAG, Message, Outcome};
use crate::thriftmux::namer::{self, BoundNode};
use crate::thriftmux::thrift::{self, Value};

/// The tag of pings; questions have others.
const PING: u32 = 1;
const FIRST: u32 = 2;

/// A store's service as a client sees it.
#[derive(Clone)]
pub(super) struct Api(Arc<Shared>);

struct Shared {
    way: Way,
    session: tokio::sync::Mutex<Option<Arc<Session>>>,
}

impl Api {
    pub(super) fn new(way: Way) -> Self {
        Self(Arc::new(Shared {
            way,
            session: tokio::sync::Mutex::default(),
        }))
    }

    /// The one connection, which is made when there is none.
    async fn session(&self) -> Result<Arc<Session>, String> {
        // Whoever comes meanwhile waits for the same connection.
        let mut kept = self.0.session.lock().await;
        if let Some(session) = kept
            .as_ref()
            .filter(|session| session.calls().why.is_none())
        {
            return Ok(session.clone());
        }
        *kept = None;
        let stream = connect(&self.0.way, None).await?;
        let session = Session::start(stream, self.0.way.config.liveness);
        *kept = Some(session.clone());
        Ok(session)
    }

    fn source<T: Send + 'static>(
        &self,
        ask: impl Fn(&Bytes) -> thrift::Message + Send + Sync + 'static,
        read: fn(&Value) -> Result<T, String>,
    ) -> Box<dyn Source<T>> {
        Box::new(Polls {
            api: self.clone(),
            ask: Arc::new(ask),
            read,
        })
    }
}

impl Remote for Api {
    fn tree(&self, local: &Dtab, path: &Path) -> Box<dyn Source<Numbered>> {
        let namespace = self.0.way.config.namespace.clone();
        let (local, path) = (local.to_string(), path.clone());
        let ask = move |stamp: &Bytes| namer::ask_bind(&namespace, &local, &path, stamp);
        self.source(ask, |tree| match tree.field(1) {
            Some(root) => {
                nested(tree, root, &mut MAX_NODES.clone(), MAX_NESTED).map(Numbered::without)
            }
            None => Err("a tree without a root".to_owned()),
        })
    }

    fn addr(&self, id: &Path) -> Box<dyn Source<Addr>> {
        let (namespace, id) = (self.0.way.config.namespace.clone(), id.clone());
        let ask = move |stamp: &Bytes| namer::ask_addr(&namespace, &id, stamp);
        self.source(ask, namer::read_addresses)
    }
}

/// Nodes of a tree: one that refers to a node again and again must not become huge.
const MAX_NODES: usize = 10_000;

fn nested(tree: &Value, node: &Value, left: &mut usize, depth: usize) -> Result<Tree, String> {
    let depth = depth.checked_sub(1).ok_or("a tree nested too deep")?;
    *left = left.checked_sub(1).ok_or("a tree with too many branches")?;
    Ok(match namer::read_node(tree, node)? {
        BoundNode::Neg => Tree::Neg,
        BoundNode::Empty => Tree::Empty,
        BoundNode::Fail => Tree::Fail,
        BoundNode::Leaf(id, residual) => Tree::Leaf {
            id,
            residual,
            addr: Addr::Pending,
        },
        BoundNode::Alt(nodes) => {
            let trees = nodes
                .into_iter()
                .map(|node| nested(tree, node, left, depth));
            Tree::first(trees.collect::<Result<_, _>>()?)
        }
        BoundNode::Weighted(branches) => {
            let branches = branches
                .into_iter()
                .map(|(weight, node)| Ok((weight, nested(tree, node, left, depth)?)));
            Tree::Union(branches.collect::<Result<_, String>>()?)
        }
    })
}

type Ask = Arc<dyn Fn(&Bytes) -> thrift::Message + Send + Sync>;

/// A question that is asked again with the stamp of each answer.
struct Polls<T> {
    api: Api,
    ask: Ask,
    read: fn(&Value) -> Result<T, String>,
}

impl<T: Send + 'static> Source<T> for Polls<T> {
    fn open(&self) -> Future<'_, Result<Box<dyn Said<T>>, Ended>> {
        Box::pin(async {
            let polling = Polling {
                session: self.api.session().await?,
                ask: self.ask.clone(),
                read: self.read,
                stamp: Bytes::new(),
            };
            Ok(Box::new(polling) as Box<dyn Said<T>>)
        })
    }
}

struct Polling<T> {
    session: Arc<Session>,
    ask: Ask,
    read: fn(&Value) -> Result<T, String>,
    stamp: Bytes,
}

impl<T: Send> Said<T> for Polling<T> {
    fn next(&mut self) -> Future<'_, Result<T, Ended>> {
        Box::pin(async {
            let question = (self.ask)(&self.stamp).to_bytes();
            let answer = self.session.call(question).await?;
            let answer = namer::read_answer(answer);
            let (stamp, said) = answer.map_err(|(why, refused)| Ended { why, refused })?;
            let value = (self.read)(&said)?;
            if stamp.is_empty() {
                return Err("an answer without a stamp".to_owned().into());
            }
            self.stamp = stamp;
            Ok(value)
        })
    }
}

/// A connection with the questions on it.
struct Session {
    out: mpsc::UnboundedSender<Bytes>,
    calls: Mutex<Calls>,
    /// Ends the connection with the last who holds the session.
    _open: DropGuard,
}

type Asker = oneshot::Sender<Result<Bytes, String>>;

#[derive(Default)]
struct Calls {
    next: u32,
    /// By tag; without an asker when nobody wants the answer any more: the tag is not free before it is there.
    waiting: HashMap<u32, Option<Asker>>,
    /// Why it has ended.
    why: Option<String>,
}

impl Session {
    fn start(stream: Stream, liveness: (Duration, Duration)) -> Arc<Self> {
        let (out, to_write) = mpsc::unbounded_channel();
        let ended = CancellationToken::new();
        let session = Arc::new(Self {
            out,
            calls: Mutex::default(),
            _open: ended.clone().drop_guard(),
        });
        let (weak, pings) = (Arc::downgrade(&session), session.out.clone());
        tokio::spawn(async move {
            let run = run(stream, (to_write, pings), liveness, |tag, message| {
                let Some(session) = weak.upgrade() else {
                    return;
                };
                session.answered(tag, message);
            });
            let why = tokio::select! {
                why = run => why,
                () = ended.cancelled() => return,
            };
            if let Some(session) = weak.upgrade() {
                session.end(&why);
            }
        });
        session
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks, and waits for the answer. Cancel safe: the store is told when nobody waits any more.
    async fn call(&self, question: Bytes) -> Result<Bytes, String> {
        let (asker, answer) = oneshot::channel();
        let tag = self.calls().enlist(asker)?;
        let waiting = Discard { session: self, tag };
        _ = self.out.send(Message::Tdispatch(question).frame(tag));
        let answer = answer.await;
        drop(waiting);
        answer.unwrap_or_else(|_| Err("the connection is gone".to_owned()))
    }

    fn answered(&self, tag: u32, message: Message) {
        let answer = match message {
            Message::Rdispatch(Outcome::Ok, body) => Ok(body),
            Message::Rdispatch(Outcome::Nack, _) => Err("the store is ending".to_owned()),
            Message::Rdispatch(Outcome::Error, reason) | Message::Rerr(reason) => Err(format!(
                "the store says: {}",
                String::from_utf8_lossy(&reason)
            )),
            Message::Rdiscarded => Err("the store gave the question up".to_owned()),
            Message::Tping => {
                _ = self.out.send(Message::Rping.frame(tag));
                return;
            }
            Message::Tdrain => {
                _ = self.out.send(Message::Rdrain.frame(tag));
                return self.end("the store is ending");
            }
            _ => return,
        };
        let asker = self.calls().waiting.remove(&tag).flatten();
        if let Some(asker) = asker {
            _ = asker.send(answer);
        }
    }

    /// Nothing comes any more.
    fn end(&self, why: &str) {
        let mut calls = self.calls();
        calls.why = Some(why.to_owned());
        for (_, asker) in calls.waiting.drain() {
            if let Some(asker) = asker {
                _ = asker.send(Err(why.to_owned()));
            }
        }
    }
}

impl Calls {
    /// A free tag.
    fn enlist(&mut self, asker: Asker) -> Result<u32, String> {
        if let Some(why) = &self.why {
            return Err(why.clone());
        }
        if self.waiting.len() as u32 >= MAX_TAG / 2 {
            return Err("too many questions on one connection".to_owned());
        }
        loop {
            self.next = match self.next {
                FIRST..MAX_TAG => self.next + 1,
                _ => FIRST,
            };
            if !self.waiting.contains_key(&self.next) {
                break;
            }
        }
        self.waiting.insert(self.next, Some(asker));
        Ok(self.next)
    }
}

/// Tells the store when an answer is not wanted any more.
struct Discard<'a> {
    session: &'a Session,
    tag: u32,
}

impl Drop for Discard<'_> {
    fn drop(&mut self) {
        let mut calls = self.session.calls();
        if let Some(asker) = calls.waiting.get_mut(&self.tag)
            && asker.as_ref().is_some_and(Asker::is_closed)
        {
            *asker = None;
            drop(calls);
            _ = self
                .session
                .out
                .send(Message::Tdiscarded(self.tag).frame(0));
        }
    }
}

/// Runs a connection until it ends; why it does.
async fn run(
    stream: Stream,
    (mut to_write, pings): (mpsc::UnboundedReceiver<Bytes>, mpsc::UnboundedSender<Bytes>),
    (period, patience): (Duration, Duration),
    answered: impl Fn(u32, Message),
) -> String {
    let (mut reading, mut writing) = tokio::io::split(stream);
    let write = async {
        while let Some(frame) = to_write.recv().await {
            let write = async {
                writing.write_all(&frame).await?;
                writing.flush().await
            };
            let written = tokio::time::timeout(period + patience, write).await;
            match written {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return error.to_string(),
                Err(_) => return "the store reads nothing".to_owned(),
            }
        }
        "nobody asks any more".to_owned()
    };
    let read = async {
        let mut buffer = BytesMut::new();
        loop {
            loop {
                match Message::take(&mut buffer, LONGEST) {
                    Ok(Some((tag, message))) => answered(tag, message),
                    Ok(None) => break,
                    Err(error) => return error.to_string(),
                }
            }
            match tokio::time::timeout(period, reading.read_buf(&mut buffer)).await {
                Ok(Ok(0)) => return "the store closed the connection".to_owned(),
                Ok(Ok(_)) => continue,
                Ok(Err(error)) => return error.to_string(),
                // It said nothing for a while: is it there?
                Err(_) => _ = pings.send(Message::Tping.frame(PING)),
            }
            match tokio::time::timeout(patience, reading.read_buf(&mut buffer)).await {
                Ok(Ok(0)) => return "the store closed the connection".to_owned(),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return error.to_string(),
                Err(_) => return format!("the store says nothing within {patience:?}"),
            }
        }
    };
    tokio::select! {
        why = write => why,
        why = read => why,
    }
}
