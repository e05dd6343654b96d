//! A request's whole way through this node. **Start reading here**: [`route`] has one step after the other.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dtab::Dtab;
use naming::{Cause, Outcome};
use telemetry::code::Code;

use crate::access_log;
use crate::accrual::{Change, Waits};
use crate::balance::Shared;
use crate::call::{Attempt, AttemptFacts, Call};
use crate::classify::Verdict;
use crate::client::{Client, ConnectError, Endpoint, Upstream};
use crate::connection::{Ends, Job};
use crate::context::{self, Context, Deadline};
use crate::diagnose::{Diagnosis, Way, diagnose};
use crate::exchange::{AttemptError, Downstream, Exchange, Forwarded, Reframe, RequestBody, drain};
use crate::forwarded;
use crate::http1::{
    Framing, Method, RequestHead, ResponseHead, Version, strip_hop_by_hop, write_response,
};
use crate::identify::{identify_head, without_segments};
use crate::respond::{self, Answering, RouteError};
use crate::routes::{Branch, Local, Route, To, Tree, choose};
use crate::settings::{Accrual, Balancer};
use crate::tls::{TlsCheck, TlsFailure};
use crate::tunnel::{self, Tunnel, Wish};
use crate::wrap::Wrapper;

/// What becomes of the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    Keep,
    Close,
    /// It is cut off: its client must not take this for an orderly end.
    Cut,
}

/// Attempts to reach an endpoint for one request that was provably never sent.
const REQUEUES: u32 = 5;
/// How long the answer to an unknown name waits for a name that may have been meant.
const NEAR_LIMIT: Duration = Duration::from_millis(100);

/// Serves one request, whose head is in `job`: here an error becomes an answer. Cancel safe: when the connection is
/// dropped, the call is counted as given up by the client.
pub(crate) async fn handle(
    local: &Local,
    ends: &Ends,
    down: &mut Downstream,
    job: &mut Job,
) -> After {
    let mut call = Call::begin(local, ends);
    let keep_up_to = local.router.settings.stream_after;
    let limit = local.router.settings.max_request.unwrap_or(u64::MAX);
    let framing = job.request.framing();
    let mut body = match RequestBody::new(framing, &down.buffer, keep_up_to, limit) {
        Ok(body) => body,
        Err(error) => {
            return refuse(
                local,
                ends,
                down,
                job,
                None,
                &mut call,
                &RouteError::BadBody(error),
            )
            .await;
        }
    };
    if job.request.expects_continue() && !body.is_complete() {
        body.expect_continue();
    }
    match route(local, ends, down, job, &mut body, &mut call).await {
        Ok(after) => after,
        Err(error) => refuse(local, ends, down, job, Some(&mut body), &mut call, &error).await,
    }
}

/// One step after the other, in the order in which they happen.
async fn route(
    local: &Local,
    ends: &Ends,
    down: &mut Downstream,
    job: &mut Job,
    body: &mut RequestBody,
    call: &mut Call<'_>,
) -> Result<After, RouteError> {
    let settings = &local.router.settings;
    let server = &settings.servers[ends.server];
    let absolute = job.request.take_absolute_form(); // what a client with http_proxy sends
    tunnel::wish(job); // an answer, an upgrade, a tunnel
    let mut context = context::take(
        &mut job.request,
        settings.trace_propagator,
        server.clear_context,
    );
    call.context(&context);
    if let Some(error) = context.refused.take() {
        return Err(error);
    }
    if context.hops > server.max_call_depth {
        return Err(RouteError::Loop {
            limit: server.max_call_depth,
            found: context.hops,
        });
    }
    let limit = server.max_concurrent_requests.unwrap_or(0);
    let _place = local
        .router
        .enter(ends.server)
        .ok_or(RouteError::TooMany(limit))?;
    tunnel::allow(job, server)?;
    job.diagnosis = diagnose(&mut job.request)?; // a TRACE that asks for the way it goes

    // Host: web -> /svc/web
    identify_head(
        &settings.identifiers,
        &settings.dst_prefix,
        &job.request,
        &mut job.name,
    )
    .map_err(|reason| RouteError::NotIdentified {
        request: describe(&job.request, ends.peer).into(),
        reason,
    })?;
    let route = local.route(&job.name, &context.dtab, &mut job.key);
    call.service(&route.service);

    // /svc/web -> /#/io.l5d.k8s/default/http/web
    let tree = bound(local, &route, down).await?;
    let branch = match &*tree {
        Tree::Bound(tree) => choose(tree),
        Tree::Nowhere(cause) => Err(cause.clone()),
        Tree::Pending => Err(Cause::Pending {
            waiting_for: "the namer".into(),
        }),
    };
    let branch = match branch {
        Ok(branch) => branch,
        Err(cause) => return Err(unbound(local, &route, &context, cause, down).await),
    };
    match &branch.to {
        To::Nowhere(cause) => Err(unbound(local, &route, &context, cause.clone(), down).await),
        To::Forbidden(endpoint) => Err(forbidden(&route, *endpoint, ends.peer)),
        To::Status(status) => Ok(answer_here(*status, "", local, down, job, body, call).await),
        To::Client { client, pair, .. } => {
            call.client(pair);
            if let Diagnosis::End(tell) = job.diagnosis {
                let way = way(local, &route, client, None, &context.dtab, call);
                let text = if tell { way.text() } else { String::new() };
                return Ok(answer_here(200, &text, local, down, job, body, call).await);
            }
            let timeout = shortest(
                route.service.shared.settings.total_timeout,
                client.shared.settings.attempt_timeout,
            );
            prepare_head(local, ends, job, &context, absolute, (client, timeout));
            let own = &context.dtab;
            let mut attempts = Attempts::new(
                local,
                ends,
                &route,
                own,
                client,
                &branch,
                call.began(),
                job.wish,
            );
            attempts.run(down, job, body, call).await
        }
    }
}

/// What the name leads to; waits while nothing is known of it yet, as long as `bindingTimeoutMs`.
async fn bound(local: &Local, route: &Route, down: &Downstream) -> Result<Rc<Tree>, RouteError> {
    let tree = route.tree(local);
    if !matches!(&*tree, Tree::Pending) {
        return Ok(tree);
    }
    let limit = local.router.settings.binding_timeout;
    down.timer.arm_in(limit);
    let settled = tokio::select! {
        outcome = route.binding.settled() => Some(outcome),
        () = down.timer.expired() => None,
    };
    down.timer.disarm();
    match settled {
        Some(_) => Ok(route.tree(local)),
        None => {
            let waiting_for = match &*route.binding.current() {
                Outcome::Pending { waiting_for } => waiting_for.as_ref().into(),
                _ => "the namer".into(),
            };
            Err(RouteError::BindTimeout {
                path: route.service.shared.path.clone(),
                limit,
                waiting_for,
            })
        }
    }
}

async fn unbound(
    local: &Local,
    route: &Route,
    context: &Context,
    cause: Cause,
    down: &Downstream,
) -> RouteError {
    let path = route.service.shared.path.clone();
    let delegation = local
        .router
        .names
        .explain(&path, &context.dtab)
        .map(Box::new);
    RouteError::Unbound {
        near: match cause {
            Cause::Neg => near(local, &path, down).await,
            _ => None,
        },
        path,
        cause,
        delegation,
    }
}

/// The name that was meant, perhaps.
async fn near(local: &Local, path: &dtab::Path, down: &Downstream) -> Option<dtab::Path> {
    down.timer.arm_in(NEAR_LIMIT);
    let found = tokio::select! {
        found = local.router.names.near(path) => found,
        () = down.timer.expired() => None,
    };
    down.timer.disarm();
    found
}

fn forbidden(route: &Route, endpoint: SocketAddr, from: SocketAddr) -> RouteError {
    let path = route.service.shared.path.clone();
    tracing::debug!(name = %path, %endpoint, %from, code = "RT-E119", "a request named an address that it may not reach");
    RouteError::Forbidden {
        path,
        endpoint,
        what: "an address of this machine, its network or the control plane: a request may not name it (the configured \
               dtab may)",
    }
}

/// Method, target and sender, as Linkerd 1 shows a request it cannot name.
fn describe(head: &RequestHead, peer: SocketAddr) -> String {
    let method = String::from_utf8_lossy(head.method());
    let target = String::from_utf8_lossy(head.target());
    format!(
        "Request(\"{method} {}\", from {peer})",
        target.chars().take(200).collect::<String>()
    )
}

/// Makes the head that goes up, but for the lines that differ from attempt to attempt: into `job.up`, without the empty
/// line at its end.
fn prepare_head(
    local: &Local,
    ends: &Ends,
    job: &mut Job,
    context: &Context,
    absolute: bool,
    (client, timeout): (&Client, Option<Duration>),
) {
    let settings = &local.router.settings;
    let server = &settings.servers[ends.server];
    let head = &mut job.request;
    strip_hop_by_hop(head);
    tunnel::offer(head, job.wish, &job.protocols);
    // This router tells the client to go on, as Linkerd 1 does.
    head.remove("Expect");
    if head.version() == Version::Http11 && head.get("Host").is_none() {
        // As Linkerd 1: the next hop need not guess.
        head.append(b"Host", b"");
    }
    if job.name.consumed() > 0 {
        let target = without_segments(head.target(), job.name.consumed());
        // A part of a valid target is one.
        _ = head.set_target(&target);
    }
    head.take_latin1_target();
    if let Some(forwarded) = &server.add_forwarded {
        let who = forwarded::Ends {
            local: ends.local,
            peer: ends.peer,
            router: &settings.label,
            connection: ends.id,
        };
        let proto = if absolute { Some("http") } else { None };
        let value = forwarded::value(forwarded, &who, head.get("Host"), proto);
        head.append(b"Forwarded", value.as_bytes());
    }
    if client.shared.settings.forward_client_cert
        && let Some(cert) = &ends.client_cert
    {
        head.append(b"x-forwarded-client-cert", cert.as_bytes());
    }
    if let Some(name) = &server.timestamp_header {
        let millis = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis());
        head.append(name.as_bytes(), millis.to_string().as_bytes());
    }
    via(
        head,
        if job.client_http10 {
            "1.0 rutter"
        } else {
            "1.1 rutter"
        },
    );
    if !context.dtab.is_empty() {
        head.append(b"l5d-ctx-dtab", context.dtab.to_string().as_bytes());
    }
    if let Some(deadline) = deadline(context, timeout) {
        let text = format!("{} {}", deadline.since, deadline.until);
        head.append(b"l5d-ctx-deadline", text.as_bytes());
    }
    job.up.clear();
    head.write(&mut job.up);
    let whole = job.up.len();
    job.up.truncate(whole - 2);
    job.formats = context.formats;
}

/// The shorter of two timeouts that may be there.
fn shortest(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    a.into_iter().chain(b).min()
}

fn deadline(context: &Context, timeout: Option<Duration>) -> Option<Deadline> {
    let ours = timeout.map(|timeout| {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos() as u64);
        Deadline {
            since: now,
            until: now + timeout.as_nanos() as u64,
        }
    });
    match (context.deadline, ours) {
        (Some(came), Some(ours)) => Some(came.combined(ours)),
        (came, ours) => came.or(ours),
    }
}

/// Appends this router to `Via`. Of several lines the first one counts and the others go, as in Linkerd 1.
fn via(fields: &mut crate::http1::Fields, entry: &str) {
    match fields.get("Via") {
        None => fields.append(b"Via", entry.as_bytes()),
        Some(first) => {
            let all = [first, b", ", entry.as_bytes()].concat();
            fields.set("Via", &all);
        }
    }
}

/// The attempts of one request.
struct Attempts<'a> {
    local: &'a Local,
    ends: &'a Ends,
    route: &'a Route,
    client: &'a Client,
    branch: &'a Branch,
    pair: &'a crate::stats::PairStats,
    /// The request's own dtab, for whoever has to explain.
    own: &'a Dtab,
    /// By when the final response's head must be there.
    total: Option<(Instant, Duration, &'static str)>,
    /// The endpoint that failed last.
    avoid: Option<SocketAddr>,
    requeues: u32,
    retries: u32,
    waits: Waits,
    /// A budget had no token for another attempt.
    budget_spent: bool,
    /// All endpoints were ejected, and until when the one is that was tried all the same.
    ejected: Option<Instant>,
    wish: Wish,
    /// The endpoint is where a CONNECT leads: it gets the tunnel's bytes, and no request.
    at_the_end: bool,
}

/// An attempt that got a connection.
struct Sent {
    up: Upstream,
    endpoint: Rc<Endpoint>,
    load: Load,
    all_sent: bool,
}

impl Sent {
    fn facts(&self, status: u16, success: bool) -> AttemptFacts {
        AttemptFacts {
            local: self.up.local,
            remote: self.endpoint.shared.addr,
            status: Some(status),
            success,
            code: None,
        }
    }
}

/// A request counted as under way at its endpoint.
struct Load {
    endpoint: Arc<Shared>,
    worker: usize,
    probe: bool,
    judged: bool,
}

impl Load {
    fn enter(endpoint: Arc<Shared>, worker: usize, now: Instant) -> Self {
        endpoint.enter(worker);
        let probe = endpoint.health.begin(now);
        Self {
            endpoint,
            worker,
            probe,
            judged: false,
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.endpoint.leave(self.worker);
        if !self.judged {
            self.endpoint.health.forget(self.probe);
        }
    }
}

/// Why an attempt failed, and what that allows.
struct Failed {
    error: RouteError,
    /// It may be sent again without asking anybody but the requeue budget: it was provably not sent, or it only asks and
    /// its endpoint closed a pooled connection without a word.
    again: bool,
}

impl<'a> Attempts<'a> {
    fn new(
        local: &'a Local,
        ends: &'a Ends,
        route: &'a Route,
        own: &'a Dtab,
        client: &'a Client,
        branch: &'a Branch,
        began: Instant,
        wish: Wish,
    ) -> Self {
        let To::Client { pair, .. } = &branch.to else {
            unreachable!("attempts are made of branches with a client")
        };
        let service = route.service.shared.settings.total_timeout;
        let server = local.router.settings.servers[ends.server].timeout;
        let all = service.map(|limit| {
            (
                began + limit,
                limit,
                "the request, including retries (if applicable)",
            )
        });
        let ours = server.map(|limit| {
            (
                began + limit,
                limit,
                "an individual request, excluding retries",
            )
        });
        let total = all.into_iter().chain(ours).min_by_key(|(at, ..)| *at);
        route.service.deposits.add(&route.service.shared.retries);
        client.deposits.add(&client.shared.requeues);
        Self {
            local,
            ends,
            route,
            client,
            branch,
            pair,
            own,
            total,
            avoid: None,
            requeues: 0,
            retries: 0,
            waits: Waits::default(),
            budget_spent: false,
            ejected: None,
            wish,
            at_the_end: wish == Wish::Tunnel && !client.leads_to_proxies(),
        }
    }

    /// Attempts until one is answered for good.
    async fn run(
        &mut self,
        down: &mut Downstream,
        job: &mut Job,
        body: &mut RequestBody,
        call: &mut Call<'_>,
    ) -> Result<After, RouteError> {
        let method = job.request.known_method();
        let classifier = self.route.service.shared.settings.classifier;
        let base = job.up.len();
        // Only a body that is wholly kept for its Content-Length's sake may be repeated after it was sent.
        let keeps = match job.request.framing() {
            Framing::None => true,
            Framing::Length(n) => n <= self.local.router.settings.stream_after,
            Framing::Chunked | Framing::UntilClose => false,
        };
        loop {
            let now = Instant::now();
            let endpoint = self
                .client
                .pick(self.avoid, now, self.local.worker.micros(now));
            let endpoint = endpoint.ok_or_else(|| self.no_endpoint())?;
            self.refuse_own_listener(&endpoint)?;
            if self.avoid.is_none() {
                // An ejected endpoint is picked only when no other is left.
                let until = endpoint.shared.health.ejected_until();
                self.ejected = until.filter(|until| *until > now);
            }
            let attempt = call.attempt();
            job.up.truncate(base);
            self.finish_head(job, &attempt);
            self.client.stats.requests.begin();
            self.pair.requests.begin();
            let result = self.attempt(down, job, body, &attempt, endpoint).await;
            let waited = attempt.began.elapsed();
            match result {
                Ok(mut sent) => {
                    let status = job.response.status();
                    let says_so = job.response.get("l5d-retryable") == Some(b"true");
                    let verdict = classifier.response(method, status, says_so);
                    // What a router on the way answered is not the fault of the endpoint behind it.
                    let routers_own = job.response.get("l5d-err").is_some();
                    if routers_own {
                        sent.load.judged = false;
                    } else {
                        self.judge(&mut sent.load, verdict == Verdict::Success, waited);
                    }
                    let success = verdict == Verdict::Success;
                    self.count(&attempt, status, success);
                    if verdict == Verdict::Retryable
                        && keeps
                        && body.can_be_sent_again()
                        && self.may_retry()
                    {
                        self.avoid = None;
                        self.span(&attempt, job, &sent.facts(status, success), call);
                        self.discard(sent, job, method);
                        call.retries += 1;
                        self.back_off(down).await?;
                        continue;
                    }
                    let facts = sent.facts(status, success);
                    return Ok(self
                        .respond(down, job, body, call, sent, (&attempt, facts))
                        .await);
                }
                Err((failed, endpoint)) => {
                    let error = failed.error;
                    self.record_failure(&attempt, job, &error, endpoint.shared.addr, call);
                    if matches!(
                        error,
                        RouteError::ClientGone | RouteError::BadBody(_) | RouteError::TooSlow(_)
                    ) {
                        return Err(error);
                    }
                    self.avoid = Some(endpoint.shared.addr);
                    if failed.again && body.can_be_sent_again() && self.may_requeue() {
                        continue;
                    }
                    let total_passed = self.total.is_some_and(|(at, ..)| at <= Instant::now());
                    let verdict = classifier.no_response(method);
                    if verdict == Verdict::Retryable
                        && !total_passed
                        && keeps
                        && body.can_be_sent_again()
                        && self.may_retry()
                    {
                        call.retries += 1;
                        self.back_off(down).await?;
                        continue;
                    }
                    return Err(self.noted(error));
                }
            }
        }
    }

    /// A failure that is answered, with what else is to be known of it: all endpoints are ejected, no token was left.
    fn noted(&self, error: RouteError) -> RouteError {
        let noted = |error, code, note| RouteError::Noted {
            error: Box::new(error),
            code,
            note,
        };
        let error = match self.ejected {
            Some(until) => {
                let left = until
                    .saturating_duration_since(Instant::now())
                    .as_secs_f64();
                let note = format!(
                    "of {}; this one for {left:.1} s more",
                    self.client.shared.id
                );
                noted(error, Code::E113, note)
            }
            None => error,
        };
        match self.budget_spent {
            true => noted(error, Code::E114, "it was not repeated again".into()),
            false => error,
        }
    }

    /// One attempt, up to the response's head, which is then in `job.response`.
    async fn attempt(
        &self,
        down: &mut Downstream,
        job: &mut Job,
        body: &mut RequestBody,
        attempt: &Attempt,
        endpoint: Rc<Endpoint>,
    ) -> Result<Sent, (Failed, Rc<Endpoint>)> {
        let addr = endpoint.shared.addr;
        let mut load = Load::enter(
            Arc::clone(&endpoint.shared),
            self.client.worker(),
            attempt.began,
        );
        if load.probe {
            self.client.stats.probes.incr();
        }
        let deadline = self.deadline(attempt);
        let blocks = &self.local.worker.blocks;
        // After a pooled connection that was found closed, the next ones may be, too: the repeat makes its own.
        let pooled = match self.requeues {
            0 if !self.at_the_end => self.client.reuse(&endpoint, blocks, attempt.began),
            _ => None,
        };
        let mut up = match pooled {
            Some(up) => up,
            None => match self
                .client
                .connect(&endpoint, blocks, &down.timer, deadline.map(|(at, ..)| at))
                .await
            {
                Ok(up) => up,
                Err(error) => {
                    let crowded = matches!(error, ConnectError::NoPlace(_));
                    if !crowded {
                        // That many requests are under way to it is no fault of the endpoint.
                        self.judge_connect(&mut load, attempt.began.elapsed());
                    }
                    // A handshake that takes too long has taken the time of further ones.
                    let slow = matches!(&error, ConnectError::Tls(failure) if failure.check == TlsCheck::Slow);
                    let again = !crowded && !slow;
                    let error = self.connect_error(error, addr);
                    return Err((Failed { error, again }, endpoint));
                }
            },
        };
        let interim = !job.client_http10;
        job.response.reset();
        if self.at_the_end {
            tunnel::connected(&mut job.response);
            let all_sent = true;
            return Ok(Sent {
                up,
                endpoint,
                load,
                all_sent,
            });
        }
        if self.wish == Wish::Upgrade {
            job.response.allow_upgrade();
        }
        let mut exchange = Exchange::new(down, &mut up, body, &job.up);
        let result = exchange
            .until_head(
                &mut job.response,
                &self.local.limits,
                interim,
                deadline.map(|(at, ..)| at),
            )
            .await;
        let all_sent = exchange.all_sent();
        let heard = exchange.heard();
        match result {
            Ok(()) => Ok(Sent {
                up,
                endpoint,
                load,
                all_sent,
            }),
            Err(error) => {
                // An endpoint may close a connection that was idle at the very moment when it is used again.
                let stale = up.reused && !heard && matches!(error, AttemptError::Broken { .. });
                let (mut failed, at_fault) = self.attempt_error(error, addr, deadline);
                failed.again |= stale && job.request.known_method().is_safe();
                if at_fault && !stale {
                    self.judge(&mut load, false, attempt.began.elapsed());
                }
                Err((failed, endpoint))
            }
        }
    }

    /// The sooner of the attempt's and the whole request's deadline, with what to say when it passes.
    fn deadline(&self, attempt: &Attempt) -> Option<(Instant, Duration, &'static str)> {
        let one = self.client.shared.settings.attempt_timeout;
        let one = one.map(|limit| {
            (
                attempt.began + limit,
                limit,
                "an individual request, excluding retries",
            )
        });
        one.into_iter().chain(self.total).min_by_key(|(at, ..)| *at)
    }

    /// The lines that differ from attempt to attempt, and the end of the head.
    fn finish_head(&self, job: &mut Job, attempt: &Attempt) {
        let up = &mut job.up;
        up.extend_from_slice(&self.branch.headers);
        let propagation = context::propagation(self.local.router.settings.trace_propagator);
        attempt
            .trace
            .write(job.formats, propagation, |name, value| {
                up.extend_from_slice(name.as_bytes());
                up.extend_from_slice(b": ");
                up.extend_from_slice(value);
                up.extend_from_slice(b"\r\n");
            });
        up.extend_from_slice(b"\r\n");
    }

    fn no_endpoint(&self) -> RouteError {
        let path = self.route.service.shared.path.clone();
        let delegation = self
            .local
            .router
            .names
            .explain(&path, self.own)
            .map(Box::new);
        RouteError::Unbound {
            path,
            cause: Cause::AddrEmpty,
            delegation,
            near: None,
        }
    }

    /// A request that would come straight back to the listener it came from goes round for ever.
    fn refuse_own_listener(&self, endpoint: &Endpoint) -> Result<(), RouteError> {
        let addr = endpoint.shared.addr;
        if addr.port() == self.ends.local.port() && self.is_own(addr) {
            return Err(RouteError::Forbidden {
                path: self.route.service.shared.path.clone(),
                endpoint: addr,
                what: "this router's own listener",
            });
        }
        Ok(())
    }

    /// Whether this is where the request's router listens: a wildcard is the address the client used, and loopback.
    fn is_own(&self, addr: SocketAddr) -> bool {
        let ip = addr.ip().to_canonical();
        self.local.router.listeners().iter().any(|listener| {
            listener.port() == addr.port()
                && match listener.ip().is_unspecified() {
                    true => ip == self.ends.local.ip().to_canonical() || ip.is_loopback(),
                    false => listener.ip() == addr.ip(),
                }
        })
    }

    /// Tells ejection that there was no connection: with `failFast` once is enough.
    fn judge_connect(&self, load: &mut Load, waited: Duration) {
        let settings = &self.client.shared.settings;
        match settings.fail_fast {
            true => self.judge_by(&Accrual::fail_fast(), load, false, waited),
            false => self.judge(load, false, waited),
        }
    }

    /// Tells balancer and ejection how the attempt went.
    fn judge(&self, load: &mut Load, success: bool, waited: Duration) {
        self.judge_by(&self.client.shared.settings.accrual, load, success, waited);
    }

    fn judge_by(&self, policy: &Accrual, load: &mut Load, success: bool, waited: Duration) {
        load.judged = true;
        let now = Instant::now();
        let settings = &self.client.shared.settings;
        let health = &load.endpoint.health;
        let change = match success {
            true => health.success(policy, load.probe, now),
            false => health.failure(policy, load.probe, now),
        };
        if let Balancer::Ewma { decay } = settings.balancer {
            load.endpoint
                .observe(load.worker, waited, self.local.worker.micros(now), decay);
        }
        match change {
            Change::None => {}
            Change::Revived => {
                self.client.stats.revivals.incr();
                tracing::info!(bound = %self.client.shared.id, endpoint = %load.endpoint.addr, "endpoint is back");
            }
            Change::Removed(wait) => {
                self.client.stats.removals.incr();
                let for_ms = wait.as_millis() as u64;
                tracing::info!(bound = %self.client.shared.id, endpoint = %load.endpoint.addr, for_ms, "endpoint ejected");
            }
        }
    }

    fn connect_error(&self, error: ConnectError, endpoint: SocketAddr) -> RouteError {
        let path = self.route.service.shared.path.clone();
        let id = self.client.shared.id.clone();
        match error {
            ConnectError::Refused(error) => RouteError::Refused {
                endpoint,
                error,
                path,
                id,
            },
            ConnectError::NoPlace(why) => RouteError::NoPlace {
                endpoint,
                why,
                path,
                id,
            },
            ConnectError::Tls(failure) => RouteError::Tls {
                endpoint,
                failure,
                path,
                id,
            },
            ConnectError::Timeout => {
                let limit = self.client.shared.settings.connect_timeout;
                RouteError::ConnectTimeout {
                    endpoint,
                    limit,
                    path,
                    id,
                }
            }
        }
    }

    /// What a broken attempt means, and whether the endpoint is at fault.
    fn attempt_error(
        &self,
        error: AttemptError,
        endpoint: SocketAddr,
        deadline: Option<(Instant, Duration, &'static str)>,
    ) -> (Failed, bool) {
        let path = self.route.service.shared.path.clone();
        let id = self.client.shared.id.clone();
        let failed = |error| Failed {
            error,
            again: false,
        };
        if let AttemptError::Broken {
            error: Some(error), ..
        } = &error
            && let Some(failure) = TlsFailure::refusal(error)
        {
            let error = RouteError::Tls {
                endpoint,
                failure,
                path,
                id,
            };
            return (failed(error), true);
        }
        match error {
            AttemptError::Broken { unsent, error } => {
                let stats = &self.client.stats;
                match unsent {
                    true => stats.broken_unsent.incr(),
                    false => stats.broken_sent.incr(),
                }
                (
                    Failed {
                        error: RouteError::Closed {
                            endpoint,
                            error,
                            path,
                            id,
                            unsent,
                        },
                        again: unsent,
                    },
                    true,
                )
            }
            AttemptError::BadResponse(error) => (
                failed(RouteError::BadResponse {
                    endpoint,
                    error,
                    path,
                    id,
                }),
                true,
            ),
            AttemptError::Deadline => {
                let (_, limit, what) =
                    deadline.unwrap_or((Instant::now(), Duration::ZERO, "the request"));
                (
                    failed(RouteError::Timeout {
                        limit,
                        to: id,
                        what,
                    }),
                    true,
                )
            }
            AttemptError::BodyStalled => (
                failed(RouteError::TooSlow(
                    "the request's body stands still for 60 s",
                )),
                false,
            ),
            AttemptError::BadBody(error) => (failed(RouteError::BadBody(error)), false),
            AttemptError::ClientGone => (failed(RouteError::ClientGone), false),
        }
    }

    fn may_requeue(&mut self) -> bool {
        let now = Instant::now();
        if self.requeues >= REQUEUES || self.total.is_some_and(|(at, ..)| at <= now) {
            return false;
        }
        self.client
            .deposits
            .flush(&self.client.shared.requeues, now);
        if !self.client.shared.requeues.withdraw(now) {
            self.client.stats.requeue_budget_exhausted.incr();
            self.budget_spent = true;
            return false;
        }
        self.requeues += 1;
        self.client.stats.requeues.incr();
        true
    }

    fn may_retry(&mut self) -> bool {
        let now = Instant::now();
        let service = &self.route.service;
        if self.retries >= service.shared.settings.max_retries
            || self.total.is_some_and(|(at, ..)| at <= now)
        {
            return false;
        }
        service.deposits.flush(&service.shared.retries, now);
        if !service.shared.retries.withdraw(now) {
            service.stats.budget_exhausted.incr();
            self.budget_spent = true;
            return false;
        }
        self.retries += 1;
        service.stats.retries.incr();
        true
    }

    /// Waits before a repeat; the client may go away meanwhile.
    async fn back_off(&mut self, down: &mut Downstream) -> Result<(), RouteError> {
        let wait = self.waits.next(&self.route.service.shared.settings.backoff);
        if wait.is_zero() {
            return Ok(());
        }
        let until = Instant::now() + wait;
        let until = self.total.map_or(until, |(at, ..)| until.min(at));
        down.timer.arm(until);
        down.timer.expired().await;
        match self.total {
            Some((at, limit, what)) if at <= Instant::now() => Err(RouteError::Timeout {
                limit,
                to: self.client.shared.id.clone(),
                what,
            }),
            _ => Ok(()),
        }
    }

    /// Gives a response up that is not going to be passed on. Its connection is kept only when nothing is left on it.
    fn discard(&self, sent: Sent, job: &Job, method: Method) {
        let nothing = matches!(
            job.response.framing(method),
            Ok(Framing::None | Framing::Length(0))
        );
        let Sent {
            mut up,
            endpoint,
            all_sent,
            ..
        } = sent;
        let mut whole = nothing;
        if let Ok(Framing::Length(n)) = job.response.framing(method)
            && n as usize == up.buffer.len()
        {
            up.buffer.clear();
            whole = true;
        }
        let keeps = job.response.keep_alive() && !self.wish.is_tunnel();
        if whole && all_sent && keeps && up.buffer.is_empty() {
            self.client.put_back(&endpoint, up, Instant::now());
        }
    }

    /// Counts an attempt that was answered.
    fn count(&self, attempt: &Attempt, status: u16, success: bool) {
        self.counted(&telemetry::metrics::Outcome {
            status: Some(status),
            success,
            code: None,
            exception: None,
            latency_us: attempt.began.elapsed().as_micros() as u64,
        });
    }

    fn counted(&self, outcome: &telemetry::metrics::Outcome<'_>) {
        self.client.stats.requests.end(outcome);
        self.pair.requests.end(outcome);
    }

    fn record_failure(
        &self,
        attempt: &Attempt,
        job: &Job,
        error: &RouteError,
        endpoint: SocketAddr,
        call: &Call<'_>,
    ) {
        self.counted(&telemetry::metrics::Outcome {
            status: None,
            success: false,
            code: Some(error.code()),
            exception: Some(error.exception()),
            latency_us: attempt.began.elapsed().as_micros() as u64,
        });
        let facts = AttemptFacts {
            local: None,
            remote: endpoint,
            status: None,
            success: false,
            code: Some(error.code()),
        };
        self.span(attempt, job, &facts, call);
    }

    /// Makes the attempt's span, which ends now.
    fn span(&self, attempt: &Attempt, job: &Job, facts: &AttemptFacts, call: &Call<'_>) {
        if attempt.is_traced() {
            let branch = &self.branch;
            call.attempted(
                attempt,
                &self.client.shared.id,
                &branch.residual,
                facts,
                &job.request,
            );
        }
    }

    /// Passes the response on to the client.
    async fn respond(
        &self,
        down: &mut Downstream,
        job: &mut Job,
        body: &mut RequestBody,
        call: &mut Call<'_>,
        sent: Sent,
        (attempt, facts): (&Attempt, AttemptFacts),
    ) -> After {
        let success = facts.success;
        let Sent {
            mut up,
            endpoint,
            load,
            all_sent,
        } = sent;
        let method = job.request.known_method();
        let granted = self.wish.is_granted(job.response.status());
        let judged = tunnel::judge(job, all_sent);
        let response = &mut job.response;
        let status = response.status();
        let framing = match judged.and_then(|()| response.framing(method)) {
            Ok(_) if granted => Framing::None,
            Ok(framing) => framing,
            Err(error) => {
                let (path, id) = (
                    self.route.service.shared.path.clone(),
                    self.client.shared.id.clone(),
                );
                let error = RouteError::BadResponse {
                    endpoint: endpoint.shared.addr,
                    error,
                    path,
                    id,
                };
                drop((up, load));
                let code = Some(error.code());
                self.span(attempt, job, &AttemptFacts { code, ..facts }, call);
                return refuse(self.local, self.ends, down, job, Some(body), call, &error).await;
            }
        };
        let up_keeps =
            response.keep_alive() && framing != Framing::UntilClose && !self.wish.is_tunnel();
        strip_hop_by_hop(response);
        let server = &self.local.router.settings.servers[self.ends.server];
        let hidden = server.clear_context && response.get("l5d-err").is_some();
        if server.clear_context {
            response.remove_where(|name| name.len() > 4 && name[..4].eq_ignore_ascii_case(b"l5d-"));
        } else {
            response.set("l5d-success-class", if success { b"1.0" } else { b"0.0" });
        }
        via(response, "1.1 rutter");
        let framing = if hidden { Framing::Length(0) } else { framing };
        let wrapped = !job.client_http10 && framing != Framing::None && !hidden;
        let wrapper = match wrapped {
            true => self.wrapper(
                &job.request,
                response,
                framing,
                (job.diagnosis, call, facts.remote),
            ),
            false => None,
        };
        let reframe = match wrapper {
            Some(_) => Reframe::Wrap,
            None => Reframe::of(framing, job.client_http10, method),
        };
        match reframe {
            // Of a HEAD the chunks are told, too, and HTTP/1.0 does not know any.
            Reframe::Same if job.client_http10 => _ = response.remove("Transfer-Encoding"),
            Reframe::Same | Reframe::Wrap => {}
            Reframe::Unchunk => _ = response.remove("Transfer-Encoding"),
            Reframe::Chunk => response.append(b"Transfer-Encoding", b"chunked"),
        }
        let until_close =
            job.client_http10 && (framing == Framing::UntilClose || reframe == Reframe::Unchunk);
        // An endpoint that refuses in the middle of an upload is not going to read its rest.
        let cut_short = (status >= 400 || !up_keeps) && body.is_far_from_complete();
        let keeps = job.client_keeps && !until_close && !cut_short;
        let mut after = match keeps && !self.ends.entrance.is_ending() {
            true => After::Keep,
            false => After::Close,
        };
        response.set_version(if job.client_http10 {
            Version::Http10
        } else {
            Version::Http11
        });
        match (after, job.client_http10) {
            _ if granted => tunnel::grant(response, self.wish, &job.protocols),
            (After::Close, _) => response.append(b"Connection", b"close"),
            (After::Keep, true) => response.append(b"Connection", b"keep-alive"),
            _ => {}
        }
        if let Some(log) = &self.local.router.access_log {
            log.line(&access_log::Line {
                head: &job.request,
                peer: self.ends.peer.ip(),
                status,
                length: response.get("Content-Length"),
                service: &self.route.service.shared.path,
                client: &self.client.shared.id,
            });
        }
        if hidden {
            response.set("Content-Length", b"0");
            response.remove("Transfer-Encoding");
        }
        response.write(&mut down.out);
        if granted {
            let sent = (up, load, status);
            return self.tunnel(down, job, call, sent, (attempt, facts)).await;
        }
        let mut exchange = Exchange::new_forwarding(down, &mut up, body, all_sent, wrapper);
        let end = exchange.forward(framing, reframe).await;
        let all_sent = exchange.all_sent();
        drop(load);
        let code = match &end {
            Forwarded::Whole => None,
            Forwarded::ClientGone => Some(Code::E126),
            Forwarded::Stalled | Forwarded::UpstreamBroke(_) => Some(Code::E132),
        };
        if let Forwarded::UpstreamBroke(error) = &end {
            let endpoint = endpoint.shared.addr;
            tracing::debug!(bound = %self.client.shared.id, %endpoint, error, "response broken off");
        }
        // As a caller sees it: the response's body is a part of the call.
        self.span(attempt, job, &AttemptFacts { code, ..facts }, call);
        call.end(
            Some(status),
            success && code.is_none(),
            code,
            code.map(Code::as_str),
        );
        if code.is_some() {
            return After::Close;
        }
        if up_keeps && all_sent && up.buffer.is_empty() && !hidden {
            self.client.put_back(&endpoint, up, Instant::now());
        }
        if !body.is_complete() && !drain(down, body).await {
            after = After::Close;
        }
        body.finish(&mut down.buffer);
        after
    }

    /// What is done to the response's body besides passing it on: nothing, nearly always.
    fn wrapper(
        &self,
        request: &RequestHead,
        response: &mut ResponseHead,
        framing: Framing,
        (diagnosis, call, endpoint): (Diagnosis, &Call<'_>, SocketAddr),
    ) -> Option<Box<Wrapper>> {
        if diagnosis == Diagnosis::Tell {
            let way = way(
                self.local,
                self.route,
                self.client,
                Some(endpoint),
                self.own,
                call,
            );
            return Some(Box::new(Wrapper::tail(response, way.text().into_bytes())));
        }
        let level = self.local.router.settings.compression?;
        Wrapper::compress(level, request, response, framing).map(Box::new)
    }

    /// The client's connection is a tunnel from here on, until it ends; `down.out` holds the head that says so.
    async fn tunnel(
        &self,
        down: &mut Downstream,
        job: &Job,
        call: &mut Call<'_>,
        (mut up, load, status): (Upstream, Load, u16),
        (attempt, facts): (&Attempt, AttemptFacts),
    ) -> After {
        let stats = &self.ends.stats.tunnels;
        let server = &self.local.router.settings.servers[self.ends.server];
        let kind = match self.wish {
            Wish::Upgrade => &stats.upgrades,
            Wish::Answer | Wish::Tunnel => &stats.connects,
        };
        kind.incr();
        call.answered(status, facts.success);
        let end = match down.flush().await {
            true => {
                let blocks = &self.local.worker.blocks;
                let mut tunnel = Tunnel::new(down, &mut up, blocks, stats);
                tunnel.run(server.tunnel_idle).await
            }
            false => tunnel::End::ClientGone,
        };
        drop((up, load));
        let code = end.code();
        tracing::debug!(bound = %self.client.shared.id, endpoint = %facts.remote, ?end, "tunnel ended");
        self.span(attempt, job, &AttemptFacts { code, ..facts }, call);
        call.end(Some(status), facts.success, code, code.map(Code::as_str));
        match end {
            tunnel::End::Whole => After::Close,
            _ => After::Cut,
        }
    }
}

/// How a request is routed, for a TRACE that asks.
fn way<'a>(
    local: &'a Local,
    route: &'a Route,
    client: &'a Client,
    selected: Option<SocketAddr>,
    own: &Dtab,
    call: &Call<'_>,
) -> Way<'a> {
    let service = &route.service.shared.path;
    let mut addresses: Vec<_> = client
        .shared
        .endpoints()
        .iter()
        .map(|one| one.addr)
        .collect();
    addresses.sort();
    Way {
        router: local.router.label(),
        took: call.began().elapsed(),
        service,
        client: &client.shared.id,
        addresses,
        selected,
        delegation: local.router.names.explain(service, own),
    }
}

/// Answers in the endpoint's place: `/$/io.buoyant.http.status/CODE`, or a TRACE that ends here.
async fn answer_here(
    status: u16,
    text: &str,
    local: &Local,
    down: &mut Downstream,
    job: &Job,
    body: &mut RequestBody,
    call: &mut Call<'_>,
) -> After {
    let mut after = if job.client_keeps && !local.worker.draining() {
        After::Keep
    } else {
        After::Close
    };
    if !body.is_complete() && !drain(down, body).await {
        after = After::Close;
    }
    body.finish(&mut down.buffer);
    let mut headers: Vec<(&str, &[u8])> = vec![("Via", b"1.1 rutter")];
    if !text.is_empty() {
        headers.push(("Content-Type", b"text/plain"));
    }
    if after != After::Keep {
        headers.push(("Connection", b"close"));
    }
    write_response(
        &mut down.out,
        job.request.version(),
        status,
        respond::reason(status),
        &headers,
        text.as_bytes(),
    );
    if !down.flush().await {
        after = After::Close;
    }
    call.end(Some(status), status < 500, None, None);
    after
}

/// Answers an error of ours. The rest of the request is read away, a little of it, so that the connection can go on.
async fn refuse(
    local: &Local,
    ends: &Ends,
    down: &mut Downstream,
    job: &Job,
    body: Option<&mut RequestBody>,
    call: &mut Call<'_>,
    error: &RouteError,
) -> After {
    let code = error.code();
    if matches!(error, RouteError::ClientGone) {
        call.end(None, false, Some(code), Some(error.exception()));
        return After::Close;
    }
    let settings = &local.router.settings;
    let mut after = if error.closes() || !job.client_keeps || ends.entrance.is_ending() {
        After::Close
    } else {
        After::Keep
    };
    let mut undrained = None;
    if let Some(body) = body {
        match body.is_complete() {
            true => body.finish(&mut down.buffer),
            // A client that waits for 100 is not going to send its body after this.
            false if !body.is_withheld() && after == After::Keep => undrained = Some(body),
            false => after = After::Close,
        }
    }
    if undrained.is_some() && !matches!(job.request.framing(), Framing::Length(n) if n <= 64 * 1024)
    {
        after = After::Close;
    }
    let who = Answering {
        router: &settings.label,
        node: &local.router.reporting.node,
        terse: settings.servers[ends.server].clear_context,
        close: after == After::Close,
    };
    respond::to_error(&mut down.out, error, &who, Some(&job.request));
    let flushed = down.flush().await;
    if let Some(body) = undrained
        && !drain(down, body).await
    {
        after = After::Close;
    }
    tracing::debug!(router = %settings.label, client = %ends.peer, code = code.as_str(), %error, "request refused");
    call.no_context();
    call.end(
        Some(error.status()),
        error.status() < 500,
        Some(code),
        Some(error.exception()),
    );
    if flushed { after } else { After::Close }
}
