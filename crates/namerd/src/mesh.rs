//! The interface `io.l5d.mesh`: Linkerd's gRPC services `io.linkerd.mesh`, by which routers bind names and follow them.
//!
//! [`Mesh::serve`] is one connection, [`Mesh::answer`] one call; `messages` are what is said, `convert` what it means,
//! `grpc` what stands around it. `authority` lets Linkerd 1's client in.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use dtab::{Dtab, NameTree, Path};
use futures_util::stream;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use naming::{Bound, Reads};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use self::authority::WithoutAuthority;
use self::grpc::{Answer, Code, Status};
use self::messages as wire;
use crate::names::{Names, explained};
use crate::observe::{self, State};
use crate::serve::until;
use crate::store::{Namespace, Observed, Store};

pub mod authority;
pub(crate) mod convert;
pub(crate) mod grpc;
pub mod messages;

/// A question: names and dtabs.
const QUESTION_BYTES: usize = 8 * 1024 * 1024;
/// It must have come after this, and what is asked for once be known.
const PATIENCE: Duration = Duration::from_secs(30);
/// As Linkerd's: a delegation that takes longer is given up.
const DELEGATION_PATIENCE: Duration = Duration::from_secs(2);
/// Streams of one connection: a router has two for each name.
const STREAMS: u32 = 20_000;
/// A client that says nothing is asked whether it is there, and has so long to say so.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(30));
/// Who reads slowly has so much waiting for it on each stream.
const STREAM_BUFFER: usize = 64 * 1024;

/// The services over a store and its names.
#[derive(Clone)]
pub struct Mesh {
    store: Arc<dyn Store>,
    names: Names,
    /// Ends the streams.
    stop: CancellationToken,
}

impl Mesh {
    /// The services; `stop` ends the answers that go on.
    pub fn new(store: Arc<dyn Store>, names: Names, stop: CancellationToken) -> Self {
        Self { store, names, stop }
    }

    /// Serves one connection; when the store ends, its streams end and the client is told to go.
    pub(crate) async fn serve(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: SocketAddr,
    ) {
        let stop = self.stop.clone();
        let service = service_fn(move |request| {
            let mesh = self.clone();
            async move { Ok::<_, Infallible>(mesh.answer(request).await) }
        });
        let io = TokioIo::new(WithoutAuthority::new(stream));
        let serving = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_send_buf_size(STREAM_BUFFER)
            .keep_alive_interval(KEEPALIVE.0)
            .keep_alive_timeout(KEEPALIVE.1)
            .serve_connection(io, service);
        until(&stop, serving, peer).await;
    }

    /// Answers one call.
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path().to_owned();
        let answer = self.route(request, &path).await;
        answer.unwrap_or_else(|status| {
            tracing::debug!(path, code = ?status.code, reason = status.reason, "refused");
            grpc::refused(status)
        })
    }

    async fn route(&self, request: Request<Incoming>, path: &str) -> Result<Answer, Status> {
        let nowhere = || Status::new(Code::Unimplemented, format!("there is no method {path}"));
        if request.method() != Method::POST {
            return Err(nowhere());
        }
        let method = path.strip_prefix("/io.linkerd.mesh.").ok_or_else(nowhere)?;
        match method {
            "Interpreter/GetBoundTree" => self.once(self.bind(question(request).await?)?).await,
            "Interpreter/StreamBoundTree" => Ok(self.stream(self.bind(question(request).await?)?)),
            "Resolver/GetReplicas" => self.once(self.replicas(question(request).await?)).await,
            "Resolver/StreamReplicas" => Ok(self.stream(self.replicas(question(request).await?))),
            "Delegator/GetDtab" => self.once(self.dtab(question(request).await?)?).await,
            "Delegator/StreamDtab" => Ok(self.stream(self.dtab(question(request).await?)?)),
            "Delegator/GetDelegateTree" | "Delegator/StreamDelegateTree" => {
                let tree = self.delegate(question(request).await?).await?;
                Ok(one(wire::DelegateTreeRsp { tree: Some(tree) }))
            }
            "Codec/ReadDtab" => {
                let text: wire::Text = question(request).await?;
                let dtab =
                    Dtab::read(&text.text).map_err(|error| invalid(error.report(&text.text)))?;
                let dtab = Some(convert::dtab(&dtab));
                Ok(one(wire::OneDtab { dtab }))
            }
            "Codec/ShowDtab" => {
                let text = read_dtab(question::<wire::OneDtab>(request).await?.dtab)?.to_string();
                Ok(one(wire::Text { text }))
            }
            "Codec/ReadPath" => {
                let text: wire::Text = question(request).await?;
                let path = Path::read(&text.text).map_err(|error| invalid(error.to_string()))?;
                let path = Some(convert::path(&path));
                Ok(one(wire::OnePath { path }))
            }
            "Codec/ShowPath" => {
                let path = question::<wire::OnePath>(request).await?.path;
                let text = convert::read_path(&path.unwrap_or_default()).to_string();
                Ok(one(wire::Text { text }))
            }
            _ => Err(nowhere()),
        }
    }

    fn bind(&self, request: wire::BindReq) -> Result<Said<wire::BoundTreeRsp>, Status> {
        let namespace = namespace(request.root.as_ref())?;
        let name = request.name.as_ref().filter(|name| !name.elems.is_empty());
        let name = convert::read_path(name.ok_or_else(no_name)?);
        let (scope, local) = (self.names.of(&namespace), read_dtab(request.dtab)?);
        Ok(Box::new(move |reads: &mut Reads| {
            State::of(scope.bind(&local, &name, reads)).map(|tree: NameTree<Bound>| {
                let nothing = matches!(tree, NameTree::Neg);
                let tree = Some(convert::bound_tree(&tree));
                (wire::BoundTreeRsp { tree }, nothing)
            })
        }))
    }

    fn replicas(&self, request: wire::ReplicasReq) -> Said<wire::Replicas> {
        let names = self.names.clone();
        let id = request.id.filter(|id| !id.elems.is_empty());
        let id = id.map(|id| convert::read_path(&id));
        Box::new(move |reads| {
            let Some(id) = &id else {
                let addr = naming::Addr::Failed("No ID provided".into());
                return State::Is((convert::replicas(&addr), false));
            };
            State::of_addr(names.addr(id, reads)).map(|addr| {
                let nothing = addr.endpoints().is_empty();
                (convert::replicas(&addr), nothing)
            })
        })
    }

    fn dtab(&self, request: wire::DtabReq) -> Result<Said<wire::DtabRsp>, Status> {
        let watch = self.store.watch(&namespace(request.root.as_ref())?);
        Ok(Box::new(move |reads| match watch.read(reads) {
            Observed::Unknown(_) => State::Wait,
            Observed::Absent => State::Fails(ROOT_NOT_FOUND.to_owned()),
            Observed::Present(stored) => {
                let version = wire::Version {
                    id: Some(stored.record.version().into_bytes()),
                };
                let dtab = wire::VersionedDtab {
                    version: Some(version),
                    dtab: Some(convert::dtab(&stored.dtab)),
                };
                State::Is((wire::DtabRsp { dtab: Some(dtab) }, false))
            }
        }))
    }

    async fn delegate(
        &self,
        request: wire::DelegateTreeReq,
    ) -> Result<wire::BoundDelegateTree, Status> {
        let namespace = namespace(request.root.as_ref())?;
        let tree = convert::read_tree(&request.tree.ok_or_else(no_name)?).map_err(invalid)?;
        let NameTree::Leaf(path) = tree else {
            return Err(invalid(
                "one path can be delegated, found a tree of several",
            ));
        };
        let (scope, local) = (self.names.of(&namespace), read_dtab(request.dtab)?);
        let found = explained(&scope, &local, &path);
        match tokio::time::timeout(DELEGATION_PATIENCE, found).await {
            Ok(Some(delegation)) => Ok(convert::delegation(&delegation)),
            Ok(None) => Err(Status::new(
                Code::Unimplemented,
                "the store's transformers cannot show delegations",
            )),
            Err(_) => Err(Status::new(Code::DeadlineExceeded, "Request timed out.")),
        }
    }

    /// One state, once it is known.
    async fn once<T: Message + PartialEq + 'static>(
        &self,
        mut said: Said<T>,
    ) -> Result<Answer, Status> {
        let known = observe::next(&mut *said, |_| true, |(_, nothing)| *nothing);
        match tokio::time::timeout(PATIENCE, known).await {
            Ok(Ok((message, _))) => Ok(one(message)),
            Ok(Err(why)) => Err(failed(why)),
            Err(_) => {
                let reason = format!("not known within {PATIENCE:?}");
                Err(Status::new(Code::DeadlineExceeded, reason))
            }
        }
    }

    /// All of them, each once the last one is on its way: who reads slowly sees the newest.
    fn stream<T: Message + PartialEq + Clone + 'static>(&self, said: Said<T>) -> Answer {
        let begin = Some((said, None::<T>, self.stop.clone()));
        grpc::answer(stream::unfold(begin, |going_on| async move {
            let (mut said, last, stop) = going_on?;
            let news = |(message, _): &(T, bool)| last.as_ref() != Some(message);
            let in_doubt = |(_, nothing): &(T, bool)| *nothing && last.is_none();
            let next = tokio::select! {
                next = observe::next(&mut *said, news, in_doubt) => next.map_err(failed),
                () = stop.cancelled() => Err(Status::new(Code::Unavailable, "the store ends")),
            };
            Some(match next {
                Ok((message, _)) => (Ok(message.clone()), Some((said, Some(message), stop))),
                Err(status) => (Err(status), None),
            })
        }))
    }
}

/// What is said of a state, and whether that is that there is nothing.
type Said<T> = Box<dyn FnMut(&mut Reads) -> State<(T, bool)> + Send>;

/// In Linkerd's words, as the two below.
const ROOT_NOT_FOUND: &str = "Root not found";

fn no_name() -> Status {
    Status::new(Code::NotFound, "No name given")
}

fn namespace(root: Option<&wire::Path>) -> Result<Namespace, Status> {
    let root = root.ok_or_else(|| invalid("No namespace specified"))?;
    let [segment] = &*root.elems else {
        let shown = convert::read_path(root);
        return Err(invalid(format!(
            "Invalid root: `{shown}` must have exactly one segment"
        )));
    };
    let name = std::str::from_utf8(segment).map_err(|_| invalid("the namespace is not UTF-8"))?;
    Namespace::new(name).map_err(|error| invalid(error.to_string()))
}

fn invalid(reason: impl Into<String>) -> Status {
    Status::new(Code::InvalidArgument, reason)
}

fn failed(why: String) -> Status {
    match &*why {
        ROOT_NOT_FOUND => Status::new(Code::NotFound, why),
        _ => Status::new(Code::Internal, why),
    }
}

fn read_dtab(message: Option<wire::Dtab>) -> Result<Dtab, Status> {
    convert::read_dtab(&message.unwrap_or_default()).map_err(invalid)
}

fn one<T: Message + 'static>(message: T) -> Answer {
    grpc::answer(stream::once(async { Ok(message) }))
}

/// The message of a request.
async fn question<T: Message + Default>(request: Request<Incoming>) -> Result<T, Status> {
    let body = Limited::new(request.into_body(), QUESTION_BYTES).collect();
    let body = tokio::time::timeout(PATIENCE, body).await;
    let body =
        body.map_err(|_| invalid(format!("the question did not arrive within {PATIENCE:?}")))?;
    let body = body.map_err(
        |error| match error.is::<http_body_util::LengthLimitError>() {
            true => Status::new(
                Code::ResourceExhausted,
                format!("a question of more than {QUESTION_BYTES} bytes"),
            ),
            false => invalid(error.to_string()),
        },
    )?;
    let mut buffer = BytesMut::from(&*body.to_bytes());
    let message = grpc::take(&mut buffer, QUESTION_BYTES).map_err(invalid)?;
    message.ok_or_else(|| invalid("the question is not whole"))
}
