//! The interface `io.l5d.thriftNameInterpreter`: names by ThriftMux, as Linkerd 1's oldest interpreter asks for them.
//!
//! [`ThriftMux::serve`] is one connection. `mux` carries many questions at a time, `thrift` is how they are written,
//! `namer` what they say. A question waits until its answer is another than the one that the asker has.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use dtab::NameTree;
use naming::{Addr, Bound, Reads};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use self::mux::{Message, Outcome};
use self::namer::Question;
use self::thrift::Value;
use crate::names::Names;
use crate::observe::{self, State};
use crate::store::{Observed, Store};

pub mod mux;
pub mod namer;
pub mod thrift;

/// A question: a name and a dtab.
const LONGEST: usize = 8 * 1024 * 1024;
/// Questions of a connection that wait at the same time: a router has two for each name.
const MOST: usize = 20_000;
/// Answers that wait for the socket; further ones are not made yet.
const ANSWERS: usize = 16;
/// The tag of what a server asks.
const OWN_TAG: u32 = 1;

/// The service over a store and its names.
#[derive(Clone)]
pub struct ThriftMux {
    store: Arc<dyn Store>,
    names: Names,
    /// Ends the connections.
    stop: CancellationToken,
}

impl ThriftMux {
    /// The service; `stop` ends its connections.
    pub fn new(store: Arc<dyn Store>, names: Names, stop: CancellationToken) -> Self {
        Self { store, names, stop }
    }

    /// Serves one connection; when the store ends, what waits is told to ask elsewhere.
    pub(crate) async fn serve(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: SocketAddr,
    ) {
        let (mut reading, mut writing) = tokio::io::split(stream);
        let (answers, mut to_write) = mpsc::channel::<Bytes>(ANSWERS);
        let gone = CancellationToken::new();
        let lost = gone.clone();
        let writer = tokio::spawn(async move {
            while let Some(frame) = to_write.recv().await {
                let written = async {
                    writing.write_all(&frame).await?;
                    // TLS may hold something back.
                    writing.flush().await
                };
                if written.await.is_err() {
                    break;
                }
            }
            lost.cancel();
            _ = writing.shutdown().await;
        });
        let mut session = Session {
            service: self.clone(),
            answers,
            waiting: HashMap::new(),
            tidy_at: 64,
        };
        let ended = tokio::select! {
            ended = session.read(&mut reading) => ended,
            () = gone.cancelled() => Ok(()),
            () = self.stop.cancelled() => {
                session.drain().await;
                Ok(())
            }
        };
        if let Err(why) = ended {
            tracing::debug!(%peer, why, "a connection ended");
        }
        drop(session);
        _ = writer.await;
    }

    /// The answer to a call, once it is another than the one that the asker has.
    async fn answer(&self, call: &thrift::Message) -> thrift::Message {
        let question = match Question::read(call) {
            Ok(question) => question,
            Err(why) => return namer::refusal(call, &why),
        };
        let mut state = self.state(&question);
        let asked = question.stamp().clone();
        let news = |(stamp, ..): &(Bytes, Value, bool)| *stamp != asked;
        let in_doubt = |(_, _, nothing): &(Bytes, Value, bool)| *nothing && asked.is_empty();
        match observe::next(&mut *state, news, in_doubt).await {
            Ok((stamp, said, _)) => namer::answer(call, &question, stamp, said),
            Err(reason) => namer::failure(call, &reason),
        }
    }

    fn state(&self, question: &Question) -> StampedState {
        match question.clone() {
            Question::Bind {
                namespace,
                local,
                path,
                ..
            } => {
                let scope = self.names.of(&namespace);
                stamped(move |reads| {
                    State::of(scope.bind(&local, &path, reads)).map(|tree: NameTree<Bound>| {
                        let nothing = matches!(tree, NameTree::Neg);
                        (namer::bound_tree(&tree), nothing)
                    })
                })
            }
            Question::Addr { id, .. } => {
                let names = self.names.clone();
                stamped(move |reads| match State::of_addr(names.addr(&id, reads)) {
                    State::Is(Addr::Failed(why)) => State::Fails(why.to_string()),
                    State::Is(addr) => match namer::addresses(&addr) {
                        Some(said) => State::Is((said, addr.endpoints().is_empty())),
                        None => State::Wait,
                    },
                    State::Fails(why) => State::Fails(why),
                    State::Wait => State::Wait,
                })
            }
            Question::Delegate {
                namespace,
                local,
                path,
                ..
            } => {
                let scope = self.names.of(&namespace);
                stamped(move |reads| match scope.delegate(&local, &path, reads) {
                    Err(_) => State::Wait,
                    Ok(None) => {
                        State::Fails("the store's transformers cannot show delegations".to_owned())
                    }
                    Ok(Some(delegation)) => match delegation.pending() {
                        Some(_) => State::Wait,
                        None => State::Is((namer::delegation(&delegation), false)),
                    },
                })
            }
            Question::Dtab { namespace, .. } => {
                let watch = self.store.watch(&namespace);
                stamped(move |reads| match watch.read(reads) {
                    Observed::Unknown(_) => State::Wait,
                    Observed::Absent => State::Fails("Namespace not found".to_owned()),
                    Observed::Present(stored) => {
                        State::Is((Value::text(crate::store::one_line(&stored.dtab)), false))
                    }
                })
            }
        }
    }
}

/// A state with its stamp, and whether it is that there is nothing.
type StampedState = Box<dyn FnMut(&mut Reads) -> State<(Bytes, Value, bool)> + Send>;

fn stamped(
    mut state: impl FnMut(&mut Reads) -> State<(Value, bool)> + Send + 'static,
) -> StampedState {
    Box::new(move |reads| {
        state(reads).map(|(said, nothing)| (namer::stamp_of(&said), said, nothing))
    })
}

/// One connection.
struct Session {
    service: ThriftMux,
    answers: mpsc::Sender<Bytes>,
    /// By tag: questions whose answers are worked out.
    waiting: HashMap<u32, (AbortHandle, bool)>,
    /// With so many of them, those that were answered are taken out.
    tidy_at: usize,
}

impl Session {
    async fn read(&mut self, reading: &mut (impl AsyncRead + Unpin)) -> Result<(), String> {
        let mut buffer = BytesMut::new();
        loop {
            while let Some((tag, message)) =
                Message::take(&mut buffer, LONGEST).map_err(|error| error.to_string())?
            {
                self.take(tag, message).await;
            }
            match reading.read_buf(&mut buffer).await {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    async fn take(&mut self, tag: u32, message: Message) {
        match message {
            Message::Tdispatch(body) => self.question(tag, body, false).await,
            Message::Treq(body) => self.question(tag, body, true).await,
            Message::Tping => self.say(tag, &Message::Rping).await,
            Message::Tinit(..) => self.say(tag, &Message::init_answer()).await,
            Message::Tdrain => self.say(tag, &Message::Rdrain).await,
            // A client of Finagle wants to know whether we answer what we don't know; this is the answer.
            Message::Rerr(probe) if probe == mux::PROBE => {
                self.say(tag, &Message::Rerr(probe)).await;
            }
            Message::Tdiscarded(which) => {
                if let Some((task, _)) = self.waiting.remove(&which) {
                    task.abort();
                    self.say(which, &Message::Rdiscarded).await;
                }
            }
            Message::Unknown(kind) => {
                let reason = format!("unexpected message of type {kind}");
                self.say(tag, &Message::Rerr(reason.into())).await;
            }
            // Answers to what we did not ask, and what needs none.
            Message::Rdispatch(..) | Message::Rreq(..) | Message::Rping | Message::Rinit(..) => {}
            Message::Rdrain | Message::Rdiscarded | Message::Tlease | Message::Rerr(_) => {}
        }
    }

    async fn say(&self, tag: u32, message: &Message) {
        _ = self.answers.send(message.frame(tag)).await;
    }

    async fn question(&mut self, tag: u32, body: Bytes, plain: bool) {
        if self.waiting.len() >= self.tidy_at {
            self.waiting.retain(|_, (task, _)| !task.is_finished());
            self.tidy_at = (2 * self.waiting.len()).max(64);
        }
        if self.waiting.len() >= MOST {
            // As Linkerd.
            let reason =
                format!("The maximum number of concurrent observations has been reached ({MOST})");
            return self
                .say(tag, &answered(plain, Outcome::Error, reason.into()))
                .await;
        }
        let (service, answers) = (self.service.clone(), self.answers.clone());
        let task = tokio::spawn(async move {
            let answer = match thrift::Message::read(body) {
                Ok(call) => {
                    let answer = service.answer(&call).await;
                    answered(plain, Outcome::Ok, answer.to_bytes())
                }
                Err(error) => answered(plain, Outcome::Error, error.to_string().into()),
            };
            _ = answers.send(answer.frame(tag)).await;
        });
        let before = self.waiting.insert(tag, (task.abort_handle(), plain));
        if let Some((task, _)) = before {
            // A tag that is used again has had its answer.
            task.abort();
        }
    }

    /// What waits is told to ask again, elsewhere.
    async fn drain(&mut self) {
        let waiting: Vec<_> = self.waiting.drain().collect();
        self.say(OWN_TAG, &Message::Tdrain).await;
        for (tag, (task, plain)) in waiting {
            if !task.is_finished() {
                task.abort();
                let reason = Bytes::from_static(b"the store ends");
                self.say(tag, &answered(plain, Outcome::Nack, reason)).await;
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for (task, _) in self.waiting.values() {
            task.abort();
        }
    }
}

fn answered(plain: bool, outcome: Outcome, body: Bytes) -> Message {
    match plain {
        true => Message::Rreq(outcome, body),
        false => Message::Rdispatch(outcome, body),
    }
}
