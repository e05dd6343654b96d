//! The attempts of one request: an endpoint is picked, connected, asked; what failed may be repeated.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use dtab::Dtab;

use crate::accrual::{Change, Waits};
use crate::call::{Attempt, AttemptFacts, Call};
use crate::classify::Verdict;
use crate::client::{Client, ConnectError, Endpoint, Upstream};
use crate::connection::{Ends, Job};
use crate::context;
use crate::exchange::{AttemptError, Downstream, Exchange, RequestBody};
use crate::failed::Failed;
use crate::handle::After;
use crate::http1::{Framing, Method};
use crate::respond::{RouteError, says_unsent};
use crate::routes::{Branch, Local, Route, To};
use crate::settings::{Accrual, Balancer};
use crate::stats::PairStats;
use crate::tls::TlsCheck;
use crate::tunnel::{self, Wish};

/// Attempts to reach an endpoint for one request that was provably never sent.
const REQUEUES: u32 = 5;

/// The attempts of one request.
pub(crate) struct Attempts<'a> {
    pub(crate) local: &'a Local,
    pub(crate) ends: &'a Ends,
    pub(crate) route: &'a Route,
    pub(crate) client: &'a Client,
    branch: &'a Branch,
    pair: &'a PairStats,
    /// The request's own dtab, for whoever has to explain.
    pub(crate) own: &'a Dtab,
    /// By when the final response's head must be there.
    total: Option<(Instant, Duration, &'static str)>,
    /// The endpoint that failed last.
    avoid: Option<SocketAddr>,
    requeues: u32,
    retries: u32,
    /// Repeats at another node, as the one before had nobody to send the request to.
    moves: u32,
    waits: Waits,
    /// A budget had no token for another attempt.
    pub(crate) budget_spent: bool,
    /// All endpoints were ejected, and until when the one is that was tried all the same.
    pub(crate) ejected: Option<Instant>,
    pub(crate) wish: Wish,
    /// The endpoint is where a CONNECT leads: it gets the tunnel's bytes, and no request.
    at_the_end: bool,
}

/// An attempt that got a connection.
pub(crate) struct Sent {
    pub(crate) up: Box<Upstream>,
    pub(crate) endpoint: Rc<Endpoint>,
    pub(crate) load: Load,
    pub(crate) all_sent: bool,
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

/// A request counted as under way at its endpoint. Of what workers share only the worker's own lane is written.
pub(crate) struct Load {
    endpoint: Rc<Endpoint>,
    worker: usize,
    probe: bool,
    judged: bool,
}

impl Load {
    fn enter(endpoint: Rc<Endpoint>, worker: usize, now: Instant) -> Self {
        endpoint.shared.lanes.enter(worker);
        let probe = endpoint.shared.health.begin(now);
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
        let endpoint = &self.endpoint.shared;
        endpoint.lanes.leave(self.worker);
        if !self.judged {
            endpoint.health.forget(self.probe);
        }
    }
}

impl<'a> Attempts<'a> {
    pub(crate) fn new(
        local: &'a Local,
        ends: &'a Ends,
        route: &'a Route,
        own: &'a Dtab,
        branch: &'a Branch,
        began: Instant,
        wish: Wish,
    ) -> Self {
        let To::Client { client, pair, .. } = &branch.to else {
            unreachable!("attempts are made of branches with a client")
        };
        let service = route.service.settings.total_timeout;
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
            moves: 0,
            waits: Waits::default(),
            budget_spent: false,
            ejected: None,
            wish,
            at_the_end: wish == Wish::Tunnel && !client.leads_to_proxies(),
        }
    }

    /// Attempts until one is answered for good, or cannot be repeated.
    pub(crate) async fn run(
        &mut self,
        down: &mut Downstream,
        job: &mut Job,
        body: &mut RequestBody,
        call: &mut Call<'_>,
    ) -> Result<After, RouteError> {
        let result = self.repeat(down, job, body, call).await;
        if result.is_err() {
            self.count_requeues();
        }
        result
    }

    async fn repeat(
        &mut self,
        down: &mut Downstream,
        job: &mut Job,
        body: &mut RequestBody,
        call: &mut Call<'_>,
    ) -> Result<After, RouteError> {
        let method = job.request.known_method();
        let classifier = self.route.service.settings.classifier;
        let base = job.up.len();
        // Only a body that is wholly kept for its Content-Length's sake may be repeated after it was sent.
        let keeps = match job.request.framing() {
            Framing::None => true,
            Framing::Length(n) => n <= self.local.router.settings.stream_after,
            Framing::Chunked | Framing::UntilClose => false,
        };
        loop {
            let now = call.latest();
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
            let attempt = call.attempt(now);
            job.up.truncate(base);
            self.finish_head(job, &attempt);
            self.pair.attempts.begin();
            let result = self.attempt(down, job, body, &attempt, endpoint).await;
            let ended = call.waited();
            let waited = ended.duration_since(attempt.began);
            match result {
                Ok(mut sent) => {
                    let status = job.response.status();
                    // What a router on the way answered is not the fault of the endpoint behind it.
                    let error = job.response.get("l5d-err");
                    let routers_own = error.is_some();
                    let elsewhere = error.is_some_and(says_unsent) && self.may_go_elsewhere();
                    let says_so = elsewhere || job.response.get("l5d-retryable") == Some(b"true");
                    let verdict = classifier.response(method, status, says_so);
                    let success = verdict == Verdict::Success;
                    if routers_own {
                        sent.load.judged = false;
                    } else {
                        self.judge(&mut sent.load, success, attempt.began, ended);
                    }
                    self.count(status, success, waited);
                    if verdict == Verdict::Retryable
                        && keeps
                        && body.can_be_sent_again()
                        && self.may_retry()
                    {
                        // Another node's router may have what this one lacks.
                        self.avoid = routers_own.then_some(sent.endpoint.shared.addr);
                        self.moves += u32::from(elsewhere);
                        self.span(&attempt, job, &sent.facts(status, success), call);
                        self.discard(sent, job, method);
                        call.retries += 1;
                        self.back_off(down, call).await?;
                        continue;
                    }
                    let facts = sent.facts(status, success);
                    // As Finagle, with the answer's head: a body or a tunnel may take its time.
                    self.count_requeues();
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
                        self.back_off(down, call).await?;
                        continue;
                    }
                    return Err(self.noted(error));
                }
            }
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
        let mut load = Load::enter(Rc::clone(&endpoint), self.client.worker(), attempt.began);
        if load.probe {
            self.client.stats.probes.incr();
        }
        let deadline = self.deadline(attempt);
        let blocks = &self.local.worker.blocks;
        // After a pooled connection that was found closed, the next ones may be, too: the repeat makes its own.
        let pooled = match self.requeues {
            0 if !self.at_the_end => self.client.reuse(&endpoint, attempt.began),
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
                        self.judge_connect(&mut load, attempt.began);
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
        let mut exchange = Exchange::new(down, self.client.lend(&mut up), body, &job.up);
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
                    self.judge(&mut load, false, attempt.began, Instant::now());
                }
                Err((failed, endpoint))
            }
        }
    }

    /// The sooner of the attempt's and the whole request's deadline, with what to say when it passes.
    fn deadline(&self, attempt: &Attempt) -> Option<(Instant, Duration, &'static str)> {
        let one = self.client.settings.attempt_timeout;
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
    fn judge_connect(&self, load: &mut Load, began: Instant) {
        let now = Instant::now();
        let settings = &self.client.settings;
        match settings.fail_fast {
            true => self.judge_by(&Accrual::fail_fast(), load, false, began, now),
            false => self.judge(load, false, began, now),
        }
    }

    /// Tells balancer and ejection how the attempt went that ended `now`.
    fn judge(&self, load: &mut Load, success: bool, began: Instant, now: Instant) {
        self.judge_by(&self.client.settings.accrual, load, success, began, now);
    }

    fn judge_by(
        &self,
        policy: &Accrual,
        load: &mut Load,
        success: bool,
        began: Instant,
        now: Instant,
    ) {
        load.judged = true;
        let settings = &self.client.settings;
        let health = &load.endpoint.shared.health;
        let change = match success {
            true => health.success(policy, load.probe, now),
            false => health.failure(policy, load.probe, now),
        };
        if let Balancer::Ewma { decay } = settings.balancer {
            load.endpoint.shared.lanes.observe(
                load.worker,
                now.duration_since(began),
                self.local.worker.micros(now),
                decay,
            );
        }
        match change {
            Change::None => {}
            Change::Revived => {
                self.client.stats.revivals.incr();
                tracing::info!(bound = %self.client.shared.id, endpoint = %load.endpoint.shared.addr, "endpoint is back");
            }
            Change::Removed(wait) => {
                self.client.stats.removals.incr();
                let for_ms = wait.as_millis() as u64;
                self.client.stats.removed_for_ms.add(for_ms);
                tracing::info!(bound = %self.client.shared.id, endpoint = %load.endpoint.shared.addr, for_ms, "endpoint ejected");
            }
        }
    }

    fn may_requeue(&mut self) -> bool {
        let now = Instant::now();
        if self.total.is_some_and(|(at, ..)| at <= now) {
            return false;
        }
        if self.requeues >= REQUEUES {
            self.client.stats.request_limit.incr();
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

    /// Whether there is a gateway that was not asked yet, as far as their number tells.
    fn may_go_elsewhere(&self) -> bool {
        self.moves < REQUEUES && self.moves as usize + 1 < self.client.width()
    }

    fn may_retry(&mut self) -> bool {
        let now = Instant::now();
        let service = &self.route.service;
        if self.retries >= service.settings.max_retries
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
    async fn back_off(
        &mut self,
        down: &mut Downstream,
        call: &mut Call<'_>,
    ) -> Result<(), RouteError> {
        let wait = self.waits.next(&self.route.service.settings.backoff);
        if wait.is_zero() {
            return Ok(());
        }
        let until = Instant::now() + wait;
        let until = self.total.map_or(until, |(at, ..)| until.min(at));
        down.timer.arm(until);
        down.timer.expired().await;
        let now = call.waited();
        match self.total {
            Some((at, limit, what)) if at <= now => Err(RouteError::Timeout {
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

    /// There is no further attempt.
    fn count_requeues(&self) {
        let requeues = u64::from(self.requeues);
        self.client.stats.requeues_per_request.record(requeues);
    }

    /// Counts an attempt that was answered.
    fn count(&self, status: u16, success: bool, waited: Duration) {
        self.counted(&telemetry::metrics::Outcome {
            status: Some(status),
            success,
            code: None,
            exception: None,
            latency_us: waited.as_micros() as u64,
        });
    }

    fn counted(&self, outcome: &telemetry::metrics::Outcome<'_>) {
        self.pair.attempts.end(outcome);
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
    pub(crate) fn span(&self, attempt: &Attempt, job: &Job, facts: &AttemptFacts, call: &Call<'_>) {
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
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::balance::Shared;

    #[test]
    fn of_what_workers_share_a_request_that_succeeds_writes_its_own_lane_alone() {
        let now = Instant::now();
        let shared = Shared::new(([10, 0, 0, 1], 80).into(), 2, now);
        let endpoint = Endpoint::alone(Arc::clone(&shared));
        let seen = || (Arc::strong_count(&shared), format!("{:?}", shared.health));
        let before = seen();
        let mut load = Load::enter(Rc::clone(&endpoint), 1, now);
        assert_eq!((shared.lanes.load(), seen()), (1, before.clone()));
        let change = shared.health.success(&Accrual::default(), load.probe, now);
        assert!(matches!(change, Change::None));
        load.judged = true;
        drop(load);
        assert_eq!((shared.lanes.load(), seen()), (0, before));
    }
}
