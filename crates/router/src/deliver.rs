//! The answer on its way to the client: its head made ours, its body passed on, or a tunnel from here on.

use std::net::SocketAddr;

use dtab::Dtab;
use telemetry::code::Code;

use crate::access_log;
use crate::attempts::{Attempts, Load, Sent};
use crate::call::{Attempt, AttemptFacts, Call};
use crate::client::{Client, Upstream};
use crate::connection::Job;
use crate::context::is_l5d;
use crate::diagnose::{Diagnosis, Way};
use crate::exchange::{Downstream, Exchange, Forwarded, Reframe, RequestBody, drain};
use crate::handle::{After, refuse};
use crate::http1::{Framing, RequestHead, ResponseHead, Version, strip_hop_by_hop};
use crate::prepare::via;
use crate::respond::RouteError;
use crate::routes::{Local, Route};
use crate::tunnel::{self, Tunnel, Wish};
use crate::wrap::Wrapper;

impl Attempts<'_> {
    /// Passes the response on to the client.
    pub(crate) async fn respond(
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
            response.remove_where(is_l5d);
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
        let lent = self.client.lend(&mut up);
        let mut exchange = Exchange::new_forwarding(down, lent, body, all_sent, wrapper);
        let mut load = Some(load);
        let answered = |at_once: bool| {
            // Its endpoint is done with it. This thread may be kept from running once the client has its answer, and the
            // client's next request comes to another thread.
            drop(load.take());
            if !at_once {
                call.waited();
            }
            call.answered(status, success);
        };
        let then_ends = after == After::Close;
        let end = exchange
            .forward(framing, reframe, then_ends, answered)
            .await;
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
            self.client.put_back(&endpoint, up, call.latest());
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
        (mut up, load, status): (Box<Upstream>, Load, u16),
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
                let mut tunnel = Tunnel::new(down, self.client.lend(&mut up), stats);
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
pub(crate) fn way<'a>(
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
