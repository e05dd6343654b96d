//! A request's whole way through this node. **Start reading here**: [`route`] has one step after the other.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use naming::{Cause, Outcome};

use crate::attempts::Attempts;
use crate::call::Call;
use crate::connection::{Ends, Job};
use crate::context::{self, Context};
use crate::deliver::way;
use crate::diagnose::{Diagnosis, diagnose};
use crate::exchange::{Downstream, RequestBody, drain};
use crate::http1::{Framing, RequestHead, write_response};
use crate::identify::identify_head;
use crate::prepare::{prepare_head, shortest};
use crate::respond::{self, Answering, RouteError};
use crate::routes::{Local, Route, To, Tree, choose};
use crate::tunnel;

/// What becomes of the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    Keep,
    Close,
    /// It is cut off: its client must not take this for an orderly end.
    Cut,
}

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
    let tree = bound(local, &route, down, call).await?;
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
        To::Client { client, .. } => {
            call.client(&branch);
            if let Diagnosis::End(tell) = job.diagnosis {
                let way = way(local, &route, client, None, &context.dtab, call);
                let text = if tell { way.text() } else { String::new() };
                return Ok(answer_here(200, &text, local, down, job, body, call).await);
            }
            let timeout = shortest(
                route.service.settings.total_timeout,
                client.settings.attempt_timeout,
            );
            prepare_head(local, ends, job, &context, absolute, (client, timeout));
            let own = &context.dtab;
            let mut attempts =
                Attempts::new(local, ends, &route, own, &branch, call.began(), job.wish);
            attempts.run(down, job, body, call).await
        }
    }
}

/// What the name leads to; waits while nothing is known of it yet, as long as `bindingTimeoutMs`.
async fn bound(
    local: &Local,
    route: &Route,
    down: &Downstream,
    call: &mut Call<'_>,
) -> Result<Rc<Tree>, RouteError> {
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
    call.waited();
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
    call.end(Some(status), status < 500, None, None);
    if !down.flush().await {
        after = After::Close;
    }
    after
}

/// Answers an error of ours. The rest of the request is read away, a little of it, so that the connection can go on.
pub(crate) async fn refuse(
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
    tracing::debug!(router = %settings.label, client = %ends.peer, code = code.as_str(), %error, "request refused");
    call.no_context();
    call.end(
        Some(error.status()),
        error.status() < 500,
        Some(code),
        Some(error.exception()),
    );
    let flushed = down.flush().await;
    if let Some(body) = undrained
        && !drain(down, body).await
    {
        after = After::Close;
    }
    if flushed { after } else { After::Close }
}
