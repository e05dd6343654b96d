//! What is told about one request: counters, latency, spans, the access line. One guard around the request's way; the
//! way itself only notes facts.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use dtab::Path;
use telemetry::code::Code;
use telemetry::metrics::Outcome;
use telemetry::span::{Kind, SpanRecord, client_service, now_us};
use telemetry::trace::TraceContext;

use crate::connection::Ends;
use crate::context::Context;
use crate::http1::RequestHead;
use crate::routes::{Branch, Local, Service};

/// One request, from its head to the end of its answer. Dropping it without an end counts it as given up by the client, or
/// as a defect of ours when that is why it is dropped.
pub(crate) struct Call<'a> {
    local: &'a Local,
    ends: &'a Ends,
    began: Instant,
    /// When the clock was read last for it: what follows at once is taken for the same time.
    latest: Instant,
    /// When it began, in µs since 1970; only for sampled requests.
    began_us: u64,
    /// The server span's.
    pub(crate) trace: TraceContext,
    /// It is known whether the request is traced, and in which trace.
    traced: bool,
    service: Option<Rc<Service>>,
    /// That of its attempts.
    branch: Option<Rc<Branch>>,
    pub(crate) retries: u64,
    /// It stands in the counters already.
    counted: bool,
    ended: bool,
}

/// One attempt, for its span and the client's counters.
pub(crate) struct Attempt {
    pub(crate) began: Instant,
    pub(crate) trace: TraceContext,
    began_us: u64,
}

impl Attempt {
    /// Whether a span is to be made of it.
    pub(crate) fn is_traced(&self) -> bool {
        self.began_us > 0
    }
}

impl<'a> Call<'a> {
    pub(crate) fn begin(local: &'a Local, ends: &'a Ends) -> Self {
        ends.stats.requests.begin();
        let began = Instant::now();
        Self {
            local,
            ends,
            began,
            latest: began,
            began_us: 0,
            trace: TraceContext::root(),
            traced: false,
            service: None,
            branch: None,
            retries: 0,
            counted: false,
            ended: false,
        }
    }

    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// When the clock was read last for it, which is as good as now while it had to wait for nothing since.
    pub(crate) fn latest(&self) -> Instant {
        self.latest
    }

    /// It had to wait: reads the clock.
    pub(crate) fn waited(&mut self) -> Instant {
        self.latest = Instant::now();
        self.latest
    }

    /// The context is known: the server's span continues the caller's trace, or begins one.
    pub(crate) fn context(&mut self, context: &Context) {
        self.traced = true;
        let mut trace = context
            .trace
            .as_ref()
            .map_or(self.trace, TraceContext::child);
        self.local
            .router
            .reporting
            .sampling
            .decide(&mut trace, context.sample_rate);
        self.trace = trace;
        if self.is_sampled() {
            self.began_us = now_us();
        }
    }

    /// The request could not be read so far as to its context: it is a trace of its own. Nothing when there is a context.
    pub(crate) fn no_context(&mut self) {
        if self.traced {
            return;
        }
        self.traced = true;
        let reporting = &self.local.router.reporting;
        reporting.sampling.decide(&mut self.trace, None);
        if self.is_sampled() {
            self.began_us = now_us().saturating_sub(self.began.elapsed().as_micros() as u64);
        }
    }

    /// It has a name.
    pub(crate) fn service(&mut self, service: &Rc<Service>) {
        service.stats.requests.begin();
        self.service = Some(Rc::clone(service));
    }

    /// It is sent to a bound name.
    pub(crate) fn client(&mut self, branch: &Rc<Branch>) {
        self.branch = Some(Rc::clone(branch));
    }

    fn is_sampled(&self) -> bool {
        self.trace.is_sampled() && self.local.router.reporting.recorder.is_on()
    }

    /// An attempt begins, `now`.
    pub(crate) fn attempt(&self, now: Instant) -> Attempt {
        let began_us = if self.is_sampled() { now_us() } else { 0 };
        Attempt {
            began: now,
            trace: self.trace.child(),
            began_us,
        }
    }

    /// An attempt has ended; makes its span.
    pub(crate) fn attempted(
        &self,
        attempt: &Attempt,
        id: &Path,
        residual: &Path,
        facts: &AttemptFacts,
        head: &RequestHead,
    ) {
        let id = id.to_string();
        let end = now_us();
        let method = String::from_utf8_lossy(head.method());
        let uri = String::from_utf8_lossy(head.target());
        let path = uri.split(['?', '#']).next().unwrap_or("/");
        let mut tags = vec![
            ("http.uri".into(), uri.as_ref().into()),
            ("http.req.method".into(), method.as_ref().into()),
            ("http.req.host".into(), header(head, "Host")),
            ("http.req.version".into(), head.version().as_str().into()),
            ("client".into(), id.as_str().into()),
        ];
        if let Some(status) = facts.status {
            tags.push(("http.rsp.status".into(), status.to_string().into()));
            tags.push(("http.rsp.version".into(), "HTTP/1.1".into()));
        }
        if !residual.is_empty() {
            tags.push(("residual".into(), residual.to_string().into()));
        }
        if self.retries > 0 {
            tags.push(("finagle.retry".into(), self.retries.to_string().into()));
        }
        tags.push((
            "l5d.success".into(),
            if facts.success {
                "1.0".into()
            } else {
                "0.0".into()
            },
        ));
        self.local.router.reporting.recorder.record(SpanRecord {
            context: attempt.trace,
            kind: Kind::Client,
            name: format!("{} {path}", method.to_lowercase()).into(),
            service: client_service(&self.ends.name, &id).into(),
            start_us: attempt.began_us,
            duration_us: end.saturating_sub(attempt.began_us).max(1),
            local: facts.local,
            remote: Some(facts.remote),
            tags,
            annotations: Vec::new(),
            error: facts.code,
        });
    }

    /// The request has ended: `status` is what the client was answered, `code` is ours if we made the answer.
    pub(crate) fn end(
        &mut self,
        status: Option<u16>,
        success: bool,
        code: Option<Code>,
        exception: Option<&str>,
    ) {
        self.ended = true;
        if self.counted && self.began_us == 0 {
            return;
        }
        let latency_us = self.began.elapsed().as_micros() as u64;
        let outcome = Outcome {
            status,
            success,
            code,
            exception,
            latency_us,
        };
        self.count(&outcome);
        if self.began_us > 0 {
            self.span(&outcome);
        }
    }

    /// It is answered as far as its counters go: its last piece is about to be written, and who reads it may look at the
    /// counters next; or it goes on as a tunnel, and how long that lasts is no latency.
    pub(crate) fn answered(&mut self, status: u16, success: bool) {
        let latency_us = self.latest.duration_since(self.began).as_micros() as u64;
        self.count(&Outcome {
            status: Some(status),
            success,
            code: None,
            exception: None,
            latency_us,
        });
    }

    fn count(&mut self, outcome: &Outcome<'_>) {
        if std::mem::replace(&mut self.counted, true) {
            return;
        }
        self.ends.stats.requests.end(outcome);
        let pair = self.branch.as_ref().and_then(|branch| branch.pair());
        if let Some(service) = &self.service {
            match pair {
                Some(_) => service.stats.requests.end_elsewhere(outcome),
                None => service.stats.requests.end(outcome),
            }
            service.stats.retries_per_request.record(self.retries);
        }
        match pair {
            Some(pair) => pair.outcomes.end(outcome),
            // Without a label of its name, see `ServiceStats::resolved`.
            None => self.local.stats.outcomes.end(outcome),
        }
    }

    fn span(&self, outcome: &Outcome<'_>) {
        let label = &self.local.router.settings.label;
        let mut tags = vec![("router.label".into(), (&**label).into())];
        let mut name = label.to_string();
        if let Some(service) = &self.service {
            let path = service.shared.path.to_string();
            name = format!("{label} {path}");
            tags.push(("service".into(), path.into()));
        }
        if let Some(status) = outcome.status {
            tags.push(("http.status_code".into(), status.to_string().into()));
        }
        if let Some(code) = outcome.code {
            tags.push(("rutter.code".into(), code.as_str().into()));
        }
        if self.retries > 0 {
            tags.push(("retries".into(), self.retries.to_string().into()));
        }
        self.local.router.reporting.recorder.record(SpanRecord {
            context: self.trace,
            kind: Kind::Server,
            name: name.into(),
            service: Arc::clone(&self.ends.name),
            start_us: self.began_us,
            duration_us: outcome.latency_us.max(1),
            local: Some(self.ends.local),
            remote: Some(self.ends.peer),
            tags,
            annotations: Vec::new(),
            error: outcome.code,
        });
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let code = match std::thread::panicking() {
                true => Code::E140,
                false => Code::E126,
            };
            self.end(None, false, Some(code), None);
        }
    }
}

/// What is told about an attempt.
#[derive(Clone, Copy)]
pub(crate) struct AttemptFacts {
    pub(crate) local: Option<SocketAddr>,
    pub(crate) remote: SocketAddr,
    pub(crate) status: Option<u16>,
    pub(crate) success: bool,
    pub(crate) code: Option<Code>,
}

fn header(head: &RequestHead, name: &str) -> Box<str> {
    head.get(name).map_or_else(Default::default, |value| {
        String::from_utf8_lossy(value).into()
    })
}
