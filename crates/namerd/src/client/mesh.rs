//! `io.l5d.mesh`: a stream of gRPC messages for each name, all on one connection.

use std::marker::PhantomData;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use dtab::{Dtab, Path};
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use naming::Addr;
use prost::Message;
use tokio::sync::Mutex;

use super::ClientConfig;
use super::follow::{Ended, Future, Said, Source};
use super::said::{MAX_NESTED, Numbered, Tree};
use super::store::{HEAD, LONGEST, Remote, Way, connect};
use crate::mesh::messages::{self as wire, bound_name_tree as bound};
use crate::mesh::{convert, grpc};

/// All streams of a connection together: one of them may have many messages waiting.
const CONNECTION_WINDOW: u32 = 64 * 1024 * 1024;
/// gRPC's numbers of what a client did wrong: invalid argument, not found, permission denied, unimplemented,
/// unauthenticated.
const REFUSALS: [&str; 5] = ["3", "5", "7", "12", "16"];

/// A store's services as a client sees them.
#[derive(Clone)]
pub(super) struct Api(Arc<Shared>);

struct Shared {
    way: Way,
    window: u32,
    /// The connection that all use.
    sender: Mutex<Option<SendRequest<Full<Bytes>>>>,
}

impl Api {
    pub(super) fn new(way: Way, window: u32) -> Self {
        Self(Arc::new(Shared {
            way,
            window,
            sender: Mutex::default(),
        }))
    }

    /// A way to send on the one connection, which is made when there is none.
    async fn sender(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let Shared { way, window, .. } = &*self.0;
        // Whoever comes meanwhile waits for the same connection.
        let mut kept = self.0.sender.lock().await;
        if let Some(sender) = kept.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        *kept = None;
        let stream = connect(way, Some("h2")).await?;
        let (interval, timeout) = way.config.liveness;
        let handshake = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(*window)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(interval)
            .keep_alive_timeout(timeout)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(stream));
        let (sender, connection) = handshake.await.map_err(|error| error.to_string())?;
        // Ends with the last sender and the last stream.
        tokio::spawn(async move { _ = connection.await });
        *kept = Some(sender.clone());
        Ok(sender)
    }

    async fn call(&self, method: &str, question: Bytes) -> Result<Response<Incoming>, String> {
        let mut sender = self.sender().await?;
        let ClientConfig { host, port, .. } = &*self.0.way.config;
        let host: &str = &match host.contains(':') {
            true => format!("[{host}]"),
            false => host.to_string(),
        };
        let scheme = match self.0.way.secure.is_some() {
            true => "https",
            false => "http",
        };
        let url = format!("{scheme}://{host}:{port}/io.linkerd.mesh.{method}");
        let request = Request::post(url)
            .header(header::CONTENT_TYPE, grpc::MEDIA_TYPE)
            .header(header::TE, "trailers")
            .body(Full::new(question))
            .map_err(|error| error.to_string())?;
        let answered = async {
            sender.ready().await?;
            sender.send_request(request).await
        };
        let answered = tokio::time::timeout(HEAD, answered).await;
        let failed = match answered {
            Ok(Ok(response)) => return Ok(response),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {HEAD:?}"),
        };
        // The next one shall not wait on this connection.
        *self.0.sender.lock().await = None;
        Err(failed)
    }

    fn source<M: Message + Default + 'static, T: Send + 'static>(
        &self,
        method: &'static str,
        question: &impl Message,
        read: fn(M) -> Result<Option<T>, String>,
    ) -> Box<dyn Source<T>> {
        Box::new(Calls {
            api: self.clone(),
            method,
            question: grpc::framed(question),
            read,
        })
    }
}

impl Remote for Api {
    fn tree(&self, local: &Dtab, path: &Path) -> Box<dyn Source<Numbered>> {
        let root = Path::utf8([&*self.0.way.config.namespace]);
        let question = wire::BindReq {
            root: Some(convert::path(&root)),
            name: Some(convert::path(path)),
            dtab: Some(convert::dtab(local)),
        };
        self.source("Interpreter/StreamBoundTree", &question, read_tree)
    }

    fn addr(&self, id: &Path) -> Box<dyn Source<Addr>> {
        let id = Some(convert::path(id));
        let question = wire::ReplicasReq { id };
        self.source("Resolver/StreamReplicas", &question, read_addr)
    }
}

/// A call whose answer goes on.
struct Calls<M, T> {
    api: Api,
    method: &'static str,
    question: Bytes,
    read: fn(M) -> Result<Option<T>, String>,
}

impl<M: Message + Default + 'static, T: Send + 'static> Source<T> for Calls<M, T> {
    fn open(&self) -> Future<'_, Result<Box<dyn Said<T>>, Ended>> {
        Box::pin(async {
            let response = self.api.call(self.method, self.question.clone()).await?;
            if response.status() != StatusCode::OK {
                return Err(format!("the store answers {}", response.status()).into());
            }
            if response.headers().contains_key(grpc::STATUS) {
                return Err(ended(response.headers()));
            }
            Ok(Box::new(Messages {
                body: response.into_body(),
                buffer: BytesMut::new(),
                read: self.read,
                message: PhantomData,
            }) as Box<dyn Said<T>>)
        })
    }
}

/// The answer, message by message.
struct Messages<M, T> {
    body: Incoming,
    buffer: BytesMut,
    read: fn(M) -> Result<Option<T>, String>,
    message: PhantomData<fn() -> M>,
}

impl<M: Message + Default, T: Send> Said<T> for Messages<M, T> {
    fn next(&mut self) -> Future<'_, Result<T, Ended>> {
        Box::pin(async {
            loop {
                while let Some(message) = grpc::take(&mut self.buffer, LONGEST)? {
                    if let Some(value) = (self.read)(message)? {
                        return Ok(value);
                    }
                }
                match self.body.frame().await {
                    None => return Err("the store ended the stream".to_owned().into()),
                    Some(Err(error)) => {
                        return Err(format!("the stream broke off: {error}").into());
                    }
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => self.buffer.extend_from_slice(&data),
                        Err(frame) => {
                            let trailers = frame.into_trailers().unwrap_or_default();
                            return Err(ended(&trailers));
                        }
                    },
                }
            }
        })
    }
}

/// How a call ended.
fn ended(fields: &HeaderMap) -> Ended {
    let text = |name: &str| fields.get(name).and_then(|value| value.to_str().ok());
    let status = text(grpc::STATUS).unwrap_or("no status");
    let reason = text(grpc::MESSAGE).unwrap_or_default();
    let reason = percent_encoding::percent_decode_str(reason).decode_utf8_lossy();
    Ended {
        why: format!("the store ended the stream with {status}: {reason}"),
        refused: REFUSALS.contains(&status),
    }
}

fn read_tree(message: wire::BoundTreeRsp) -> Result<Option<Numbered>, String> {
    let tree = message.tree.ok_or("an answer without a tree")?;
    nested(&tree, MAX_NESTED).map(|tree| Some(Numbered::without(tree)))
}

fn nested(tree: &wire::BoundNameTree, depth: usize) -> Result<Tree, String> {
    let depth = depth.checked_sub(1).ok_or("a tree nested too deep")?;
    Ok(match tree.node.as_ref().ok_or("a tree that is nothing")? {
        bound::Node::Neg(_) => Tree::Neg,
        bound::Node::Fail(_) => Tree::Fail,
        bound::Node::Empty(_) => Tree::Empty,
        bound::Node::Leaf(leaf) => {
            let id = convert::read_path(leaf.id.as_ref().ok_or("a leaf without an id")?);
            if id.is_empty() {
                return Err("a leaf with an empty id".to_owned());
            }
            let residual = leaf.residual.as_ref().map(convert::read_path);
            Tree::Leaf {
                id,
                residual: residual.unwrap_or_else(|| Path::utf8([])),
                addr: Addr::Pending,
            }
        }
        bound::Node::Alt(alt) => {
            let trees = alt.trees.iter().map(|tree| nested(tree, depth));
            Tree::first(trees.collect::<Result<_, _>>()?)
        }
        bound::Node::Union(union) => {
            let branches = union.trees.iter().map(|branch| {
                let tree = branch.tree.as_ref().ok_or("a branch without a tree")?;
                Ok((convert::weight(branch.weight)?, nested(tree, depth)?))
            });
            Tree::Union(branches.collect::<Result<_, String>>()?)
        }
    })
}

fn read_addr(message: wire::Replicas) -> Result<Option<Addr>, String> {
    let addr = convert::read_replicas(message)?;
    // What was known before stays until it knows better.
    Ok((addr != Addr::Pending).then_some(addr))
}
