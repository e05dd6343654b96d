//! The last requests, for the page `/requests`: telemeter `io.l5d.recentRequests`.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde::Serialize;

use super::{Kind, Sink, SpanRecord};
use crate::code::Code;
use crate::lock;

/// Attempts whose request has not ended yet are kept, but not more than these.
const OPEN_ATTEMPTS: usize = 1_000;

/// A request that has ended; columns as on Linkerd's page, and some more.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecentRequest {
    /// When it began, in µs since 1970.
    pub timestamp_us: u64,
    /// Who asked.
    pub source: Option<SocketAddr>,
    /// The listener it came in at.
    pub server: Option<SocketAddr>,
    /// The router's label.
    pub router: String,
    /// `/svc/web`, if it got a name.
    pub logical_name: Option<String>,
    /// The bound id, if it was bound.
    pub concrete_name: Option<String>,
    /// Method and path of the last attempt; none when there was no attempt.
    pub request: Option<String>,
    /// The endpoint of the last attempt.
    pub destination: Option<SocketAddr>,
    /// How many attempts were made.
    pub attempts: usize,
    /// How long it took.
    pub duration_us: u64,
    /// The status of the last attempt's answer, as far as known.
    pub status: Option<String>,
    /// The code, if rutter answered itself.
    pub error: Option<&'static str>,
    /// The trace's id, to look it up.
    pub trace: String,
}

/// The last requests of all routers; cheap to clone.
#[derive(Debug, Clone)]
pub struct Recent(Arc<Mutex<Ring>>);

#[derive(Debug)]
struct Ring {
    capacity: usize,
    /// Newest last.
    requests: VecDeque<RecentRequest>,
    /// Client spans that wait for their server span, which ends after them; newest last.
    attempts: VecDeque<Arc<SpanRecord>>,
}

impl Recent {
    /// Keeps the last `capacity` requests.
    pub fn new(capacity: usize) -> Self {
        Self(Arc::new(Mutex::new(Ring {
            capacity,
            requests: VecDeque::new(),
            attempts: VecDeque::new(),
        })))
    }

    /// The requests kept, newest first.
    pub fn requests(&self) -> Vec<RecentRequest> {
        let ring = lock(&self.0);
        ring.requests.iter().rev().cloned().collect()
    }
}

impl Sink for Recent {
    fn offer(&self, span: &Arc<SpanRecord>) {
        let mut ring = lock(&self.0);
        match span.kind {
            Kind::Client => {
                ring.attempts.push_back(span.clone());
                if ring.attempts.len() > OPEN_ATTEMPTS {
                    ring.attempts.pop_front();
                }
            }
            Kind::Server => ring.ended(span),
        }
    }
}

impl Ring {
    fn ended(&mut self, span: &SpanRecord) {
        let context = &span.context;
        let (mut last, mut count) = (None, 0);
        self.attempts.retain(|attempt| {
            let ours = attempt.context.trace == context.trace
                && attempt.context.parent == Some(context.span);
            if ours {
                (last, count) = (Some(attempt.clone()), count + 1);
            }
            !ours
        });
        self.requests
            .push_back(request(span, last.as_deref(), count));
        while self.requests.len() > self.capacity {
            self.requests.pop_front();
        }
    }
}

fn request(span: &SpanRecord, last: Option<&SpanRecord>, attempts: usize) -> RecentRequest {
    let status = last.and_then(|attempt| attempt.tag("http.rsp.status"));
    RecentRequest {
        timestamp_us: span.start_us,
        source: span.remote,
        server: span.local,
        router: span.tag("router.label").unwrap_or(&span.service).to_owned(),
        logical_name: span.tag("service").map(str::to_owned),
        concrete_name: last
            .and_then(|attempt| attempt.tag("client").or(Some(&*attempt.service)))
            .map(str::to_owned),
        request: last.map(|attempt| attempt.name.to_string()),
        destination: last.and_then(|attempt| attempt.remote),
        attempts,
        duration_us: span.duration_us,
        status: status.or(span.tag("http.rsp.status")).map(str::to_owned),
        error: span.error.map(Code::as_str),
        trace: span.context.trace.to_string(),
    }
}
