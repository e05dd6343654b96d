//! Calls to etcd: to one of its members, and to the next one when that does not answer.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::Stream;
use http::uri::PathAndQuery;
use naming::words;
use prost::Message;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::messages::{WatchRequest, WatchResponse};
use crate::store::Refused;
use crate::store::remote::Trouble;

/// How long a member may take for an answer before the next one is asked.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long to reach one.
const CONNECT: Duration = Duration::from_millis(1_500);
/// How often a connection is looked after, and how long its answer to that may take.
const ALIVE: Duration = Duration::from_secs(4);
/// What an answer may have: a list of a hundred large dtabs.
const LARGEST: usize = 256 << 20;

/// The members of an etcd.
pub(super) struct Client {
    members: Vec<(String, Channel)>,
    /// The one that answered last.
    present: AtomicUsize,
}

impl Client {
    /// Connects when it is needed. Each member is `host:port`.
    pub(super) fn new(members: &[String]) -> Result<Self, String> {
        let connect = |member: &String| {
            let endpoint = Endpoint::from_shared(format!("http://{member}"))
                .map_err(|error| format!("`{member}` is no address of etcd: {error}"))?
                .connect_timeout(CONNECT)
                .http2_keep_alive_interval(ALIVE)
                .keep_alive_timeout(ALIVE)
                .keep_alive_while_idle(true)
                .tcp_nodelay(true);
            Ok((member.clone(), endpoint.connect_lazy()))
        };
        Ok(Self {
            members: members.iter().map(connect).collect::<Result<_, String>>()?,
            present: AtomicUsize::new(0),
        })
    }

    /// Whoever is asked next is another one.
    pub(super) fn turn_away(&self) {
        self.present.fetch_add(1, Ordering::Relaxed);
    }

    fn member(&self) -> (usize, &(String, Channel)) {
        let at = self.present.load(Ordering::Relaxed);
        (at, &self.members[at % self.members.len()])
    }

    /// One call, to each member once. What changes something must be safe to be done again: its answer may have been lost.
    pub(super) async fn call<Q, A>(&self, method: &'static str, request: &Q) -> Result<A, Trouble>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let mut trouble = None;
        for _ in 0..self.members.len() {
            let (at, (member, channel)) = self.member();
            let called = tokio::time::timeout(PATIENCE, call(channel.clone(), method, request));
            let status = match called.await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded(format!("no answer within {PATIENCE:?}")),
            };
            match judge(member, &status) {
                Trouble::Refused(why, text) => return Err(Trouble::Refused(why, text)),
                unanswered => trouble = Some(unanswered),
            }
            // Only if nobody else has turned away from it already.
            let (same, next) = (Ordering::Relaxed, at.wrapping_add(1));
            _ = self.present.compare_exchange(at, next, same, same);
        }
        Err(trouble
            .unwrap_or_else(|| Trouble::Unanswered("no member of etcd is configured".to_owned())))
    }

    /// A watch, which is told by `requests` what to do.
    pub(super) async fn watch(
        &self,
        requests: impl Stream<Item = WatchRequest> + Send + 'static,
    ) -> Result<(&str, Streaming<WatchResponse>), Trouble> {
        let (_, (member, channel)) = self.member();
        let failed = |status: Status| judge(member, &status);
        let mut grpc = grpc(channel.clone());
        grpc.ready()
            .await
            .map_err(|error| Trouble::Unanswered(format!("etcd at {member}: {}", words(&error))))?;
        let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
        let mut request = Request::new(requests);
        // A member that has lost its leader ends the watch, rather than being silent.
        let yes = "true".parse().expect("it is ASCII");
        request.metadata_mut().insert("hasleader", yes);
        let opened = grpc.streaming(request, path, ProstCodec::default());
        let opened = tokio::time::timeout(PATIENCE, opened).await;
        let late =
            || Trouble::Unanswered(format!("etcd at {member}: no watch within {PATIENCE:?}"));
        let response = opened.map_err(|_| late())?.map_err(failed)?;
        Ok((member, response.into_inner()))
    }
}

fn grpc(channel: Channel) -> Grpc<Channel> {
    Grpc::new(channel).max_decoding_message_size(LARGEST)
}

async fn call<Q, A>(channel: Channel, method: &'static str, request: &Q) -> Result<A, Status>
where
    Q: Message + Clone + 'static,
    A: Message + Default + 'static,
{
    let mut grpc = grpc(channel);
    grpc.ready()
        .await
        .map_err(|error| Status::unavailable(words(&error)))?;
    let codec: ProstCodec<Q, A> = ProstCodec::default();
    let path = PathAndQuery::from_static(method);
    let response = grpc
        .unary(Request::new(request.clone()), path, codec)
        .await?;
    Ok(response.into_inner())
}

/// What an error means.
pub(super) fn judge(member: &str, status: &Status) -> Trouble {
    let text = match status.message() {
        "" => format!("etcd at {member}: {}", words(status)),
        message => format!("etcd at {member}: {message}"),
    };
    match status.code() {
        Code::InvalidArgument if text.contains("too large") => Trouble::Refused(
            Refused::TooLarge,
            format!("{text}: the dtab is larger than its --max-request-bytes"),
        ),
        // A message beyond what a member reads at all.
        Code::ResourceExhausted if text.contains("larger than max") => {
            Trouble::Refused(Refused::TooLarge, text)
        }
        Code::PermissionDenied | Code::Unauthenticated => {
            Trouble::Refused(Refused::Forbidden, text)
        }
        Code::InvalidArgument if text.contains("user name is empty") => Trouble::Refused(
            Refused::Forbidden,
            format!("{text}: it asks for users, which are not supported in this version"),
        ),
        _ => Trouble::Unanswered(text),
    }
}
