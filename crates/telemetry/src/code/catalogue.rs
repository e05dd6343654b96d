//! The table behind [`Code`], and the macro that makes such tables.

use super::Entry;

/// Declares an enum of codes and its table; a variant `E101` of family `RT-` is `RT-E101`.
macro_rules! catalogue {
    ($(#[$doc:meta])* $name:ident: $($variant:ident $title:literal $statuses:expr;
        $what:literal; causes $($cause:literal),+; fix $fix:literal; see $see:literal;)+) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $(#[doc = $title] $variant),+ }

        impl $name {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// What the catalogue says about it.
            pub fn entry(self) -> &'static Entry {
                const TABLE: &[Entry] = &[$(Entry {
                    code: concat!("RT-", stringify!($variant)), title: $title, statuses: &$statuses,
                    what: $what, causes: &[$($cause),+], fix: $fix, see: $see,
                }),+];
                &TABLE[self as usize]
            }
        }
    };
}

catalogue! {
    /// Every way in which rutter itself ends a request with an error.
    Code:
    E100 "the request cannot be identified" [400];
    "The router names each request before it routes it, by default from its Host header. This request has nothing that the configured identifier could make a name of.";
    causes "no Host header, or an empty one", "the path has fewer segments than `io.l5d.path` needs", "the header that `io.l5d.header` or `io.l5d.header.token` reads is missing or no path";
    fix "Send the header or path that the identifier in the message needs, or choose another `identifier` for the router; several may be listed, the first that names the request wins.";
    see "`rutter_errors_total{code=\"RT-E100\"}`; tag `rutter.code` of the server span; a `debug` line of `router`.";

    E101 "no such destination" [502];
    "The request's name was followed through the dtab and every branch ended where nobody knows it (neg). The answer shows the way it went, step by step, with the dentry used at each.";
    causes "the name is misspelt, or the service is in another namespace or has another port name", "no dentry matches: the dtab lacks a rule for this prefix", "the service was deleted";
    fix "Read the last line of the delegation in the answer: it names the source that was asked and what it lacks. `rutter why URL` shows the same with suggestions; `/delegator` on the admin port lets you try a changed dtab.";
    see "`rutter_errors_total{code=\"RT-E101\"}`, `rutter_delegations_total{result=\"neg\"}`; tags `service` and `rutter.code` of the server span.";

    E102 "the dtab refuses this name" [502];
    "A rule of the dtab ends in `!` or `/$/fail`: somebody decided that requests with this name are to fail here, and no later alternative was to be tried.";
    causes "a deliberate stop in the dtab, for example during a migration", "a fallback ending in `!` that was meant to be `~`";
    fix "The answer names the dentry. Change `!` to `~` there if other alternatives should be tried, or remove the rule.";
    see "`rutter_errors_total{code=\"RT-E102\"}`, `rutter_delegations_total{result=\"fail\"}`.";

    E103 "not bound in time" [502];
    "The name needs an answer from a source that has not given a first one within the binding timeout (`bindingTimeoutMs`, 10 s by default). Names that were bound once stay bound, so this is a new name or a router that just started.";
    causes "the Kubernetes API, Consul, ZooKeeper or DNS server is slow or unreachable", "the credentials or address of the namer are wrong, so that it keeps trying", "the dtab store has not answered yet";
    fix "The answer says who was waited for. Check that source's state on the admin page `/namer_state` or with `rutter check`.";
    see "`rutter_errors_total{code=\"RT-E103\"}`, `rutter_namer_watch_age_seconds`; a `warn` line of the namer with its error.";

    E104 "a transformer left no address" [502];
    "The service exists and has endpoints, but a transformer (`io.l5d.k8s.daemonset`, `io.l5d.k8s.localnode`, …) left none of them: the nodes the endpoints run on have no router to send to, or none runs on this node.";
    causes "the Service named by the daemonset transformer does not exist or selects no pods", "no router runs on the endpoint's node, or it is not ready", "`port` names a port that the routers' Service does not have";
    fix "Create or repair the Service that the transformer names (see RT-C021); `rutter check` names nodes without a ready router.";
    see "`rutter_errors_total{code=\"RT-E104\"}`; the delegation in the answer ends with the transformer's prefix.";

    E105 "no ready endpoint" [502];
    "The destination exists, but the set of its ready endpoints is confirmed to be empty: there is nothing to send the request to.";
    causes "all pods fail their readiness probe or are scaled to zero", "the Service's selector matches no pod", "an address file exists and is empty";
    fix "`kubectl get endpointslices` for the service shows what the router sees; repair readiness or the selector, or add a fallback with `|` to the dtab.";
    see "`rutter_endpoints{client=…,state=\"ready\"}` is 0; `rutter_errors_total{code=\"RT-E105\"}`.";

    E110 "the endpoint refused the connection" [502];
    "A connection to the endpoint could not be made, or was reset before the request was sent; other endpoints were tried first as far as there were any.";
    causes "nothing listens on that port in the pod", "the pod just went away and its removal has not been seen yet", "a network policy rejects the connection";
    fix "The answer names address and port. Check that the container listens on it on all interfaces, not on 127.0.0.1 only.";
    see "`rutter_connects_total{result=\"refused\"}`, `rutter_errors_total{code=\"RT-E110\"}`; `failures` of the client in `/admin/metrics.json`.";

    E111 "connect timeout" [502];
    "The endpoint's host did not answer the attempt to connect in time (1 s unless configured).";
    causes "the node is down or cut off", "a network policy or firewall drops packets", "the endpoint's accept queue is full";
    fix "Try the address from the router's node. If only some nodes are concerned, look at the network between them; if only one endpoint, at its load.";
    see "`rutter_connects_total{result=\"timeout\"}`, `rutter_errors_total{code=\"RT-E111\"}`.";

    E112 "request timeout" [503];
    "The response's head did not come within a configured limit; the message says which: of one attempt (`requestAttemptTimeoutMs`), of the request with all retries (`totalTimeoutMs`), or of the server (`timeoutMs`).";
    causes "the service is slow or overloaded", "the limit is shorter than the service's normal slow requests", "the total leaves no time for the retries";
    fix "Find a slow trace (in Zipkin, or on `/requests` of the admin port) to see whether connection, queue or service took the time; then repair it or raise that limit.";
    see "`rutter_errors_total{code=\"RT-E112\"}`, the upper buckets of `rutter_request_duration_seconds`.";

    E113 "all endpoints are ejected" [];
    "Failure accrual has taken every endpoint of this destination out of rotation. The balancer still tries one, as Linkerd does; this note is added to that attempt's own failure and says until when.";
    causes "the whole service fails, not single endpoints", "`failureAccrual` is too strict for the service's normal error rate", "a shared dependency of all endpoints is down";
    fix "Treat the failure that this note was added to; ejected endpoints come back by themselves after their backoff, when a probe succeeds.";
    see "`rutter_endpoints{state=\"ejected\"}`, `rutter_endpoint_ejections_total`; `failure_accrual/removals` of the client.";

    E114 "retry budget exhausted" [];
    "The last failure was worth another attempt, but the retry budget is spent: retries would only add load to a service that fails much. The note is added to that last failure.";
    causes "a larger share of requests fails than the budget (20 % by default) allows to repeat", "a burst of failures just after start, when few requests have filled the budget";
    fix "Treat the failure that this note was added to. Raise `retries.budget.percentCanRetry` only when the service can bear the load.";
    see "`rutter_retry_budget_ratio`, `rutter_retry_budget_exhausted_total`; `retries/budget_exhausted` of the service.";

    E115 "routing loop" [400];
    "The request passed more routers than `maxCallDepth` allows, counted from its Via header: it is going round in a circle, or was made by a caller that copies Via from request to request.";
    causes "the dtab leads back to a router's own listener", "an application forwards the Via header of the request it is answering, call after call", "two routers that each send to the other";
    fix "`rutter why URL` shows the way; take the router's own address out of it. Raise `maxCallDepth` only for call chains that are truly that deep.";
    see "`rutter_errors_total{code=\"RT-E115\"}`; a trace whose spans repeat the same two services.";

    E116 "delegation too deep" [502];
    "Following the dtab took more steps than the limit: its rules rewrite a name into itself, or multiply alternatives without end.";
    causes "a cycle such as `/a => /b ; /b => /a`", "a rule whose destination lies under its own prefix", "alternatives that double at every step";
    fix "`rutter config check FILE` finds cycles (RT-D03); the answer shows the last steps before the limit.";
    see "`rutter_errors_total{code=\"RT-E116\"}`, `rutter_delegations_total{result=\"too_deep\"}`.";

    E117 "a namer failed" [502];
    "A source of names answered with an error and nothing is known from before; without an earlier answer there is nothing to fall back to.";
    causes "the dtab names a namer that is not configured", "the Kubernetes service account may not list endpointslices or services", "the source's certificate or token is wrong";
    fix "The answer has the source's own words. Add the namer to `namers:`, or give the account the permission named.";
    see "`rutter_errors_total{code=\"RT-E117\"}`; `/namer_state` of that namer; its `warn` lines.";

    E118 "bad dtab in a header" [400];
    "The request carries a dtab of its own (`l5d-dtab` or `l5d-ctx-dtab`) that cannot be read; it would be wrong to route the request as if it had none.";
    causes "a typing error in a header set by hand", "a header that was cut or escaped twice by another proxy";
    fix "The answer shows the place and what was expected there. `rutter delegate PATH --dtab TEXT` reads a dtab without sending a request.";
    see "`rutter_errors_total{code=\"RT-E118\"}`.";

    E119 "address forbidden" [403];
    "The name led to an address that a request may not choose: loopback, link-local, a control plane's, or a listener of this router. Only the configured dtab may name such addresses.";
    causes "a request override or Host with a literal address", "a DNS name that resolves to a loopback or link-local address", "a dtab rule that leads to the router's own listener";
    fix "If the address is meant, write it into the configured dtab as a literal; it is then the operator's word.";
    see "`rutter_errors_total{code=\"RT-E119\"}`; a `debug` line with the address and the request's source.";

    E120 "draining" [503];
    "The router is shutting down: it finishes what it has begun and takes no new requests. The answer closes the connection.";
    causes "a rolling update or a node being drained", "`/admin/shutdown` or SIGTERM";
    fix "Nothing, when it is short: clients connect anew. If it shows on every update, give the pod a `preStop` hook and enough `terminationGracePeriodSeconds`.";
    see "`rutter_errors_total{code=\"RT-E120\"}`; the log lines of the drain with what is still in flight.";

    E121 "malformed request" [400];
    "The request's head or framing is malformed or can be read in two ways (for instance two Content-Lengths). It is refused, never repaired, and the connection is closed, because the next proxy might read it in the other way.";
    causes "a client that builds HTTP by hand", "Content-Length and Transfer-Encoding in one request", "an attempt to smuggle a request", "TLS or another protocol spoken to a plain HTTP port";
    fix "The message says which line and why. Correct the client; there is no switch to accept such requests.";
    see "`rutter_errors_total{code=\"RT-E121\"}`; a `debug` line of `router` with the client and what was found.";

    E122 "request too large" [414, 431, 413];
    "The request line (414), the header block (431) or the body (413) is over its limit.";
    causes "cookies or tokens that grew", "data in the query that belongs in a body", "a limit lower than the application needs";
    fix "Raise `maxInitialLineKB`, `maxHeadersKB` or `maxRequestKB` of the server, or make the request smaller.";
    see "`rutter_errors_total{code=\"RT-E122\"}`.";

    E123 "the client is too slow" [408];
    "The request's head was not complete in time, or its body came to a halt. The connection is closed so that slow clients cannot hold all of them.";
    causes "a client on a bad network", "a client that announces a longer body than it sends", "a slow-request attack";
    fix "Check the Content-Length of what the client sends. Raise the server's head or body time limits only for clients known to need it.";
    see "`rutter_errors_total{code=\"RT-E123\"}`.";

    E124 "too many concurrent requests" [503];
    "`maxConcurrentRequests` of the server is reached: answering at once is better than letting everybody wait.";
    causes "a service behind the router got slow, so requests pile up", "a burst or a client without a limit", "the limit is too low for normal traffic";
    fix "Look for the slow service first (latencies on the admin port's first page); then raise the limit if requests in flight are normal.";
    see "`rutter_errors_total{code=\"RT-E124\"}`, `rutter_in_flight_requests`.";

    E125 "CONNECT refused" [403];
    "The request asks for a tunnel (CONNECT) to a port that the server's `connectPorts` does not have.";
    causes "a client with `https_proxy` asks for an https:// address with an unusual port", "a program uses the router as a way to any TCP port";
    fix "If the port is meant, add it to `connectPorts` of the server, on both nodes of the way; otherwise exclude the host by `no_proxy`.";
    see "`rutter_errors_total{code=\"RT-E125\"}`.";

    E126 "the client is gone" [499];
    "The client closed its connection before the response's head was ready. Nobody receives this status; it stands in log and metrics only. The upstream request was cancelled.";
    causes "the caller's timeout is shorter than the service's time", "the user closed the page", "the caller was restarted";
    fix "Compare the caller's timeout with the service's latency; usually the service is slow and this is only how it shows.";
    see "`rutter_errors_total{code=\"RT-E126\"}`; tag `rutter.code` of the server span.";

    E127 "plain HTTP to a TLS listener" [400];
    "The listener is configured with `tls`, and what the client sent is no TLS. Nothing was routed; the connection was closed.";
    causes "the client uses http:// where it should use https://", "a load balancer in front ends TLS itself and goes on in plain text", "a health check that speaks HTTP to the wrong port";
    fix "Send to https://, or give the listener that is meant to be plain another port without `tls`.";
    see "`rutter_errors_total{code=\"RT-E127\"}`, `rutter_tls_handshakes_total{result=\"plain\"}`.";

    E128 "a client's TLS handshake failed" [];
    "A client began a TLS handshake with a listener and did not come to its end, so that there is nobody to answer. The log says which check: client certificate, version, time; at most once a second, with the number of those that were not told about.";
    causes "the client does not trust this listener's certificate, and hung up", "`requireClientAuth` is set and the client showed no certificate, or one that `caCertPath` has not signed or that is expired", "the client speaks only versions or ciphers that are not on offer", "something opens connections and says nothing";
    fix "Read `check` and `error` in the log line. Try it with `openssl s_client -connect ADDRESS -CAfile CA -cert CERT -key KEY`.";
    see "`rutter_tls_handshakes_total`, a `warn` line of `router` with the client's address.";

    E130 "dtab store unreachable and nothing cached" [502];
    "The router's dtab lives in the store (namerd), which does not answer, and neither memory nor `stateDir` has an earlier version. Routers that have one keep using it; only a router that never had one says this.";
    causes "the store is down while a new router starts", "its address or namespace is wrong in the configuration", "`stateDir` is not writable, so that no copy was kept";
    fix "Bring the store up or correct `interpreter.dst`; give the router a writable `stateDir` that outlives the pod.";
    see "`rutter_errors_total{code=\"RT-E130\"}`; `/ready` lists it as missing; `warn` lines of the interpreter.";

    E131 "the endpoint closed without answering" [502];
    "The request was sent and the endpoint closed the connection before the head of its response. It may have been processed, so it is repeated only if the classifier calls it retryable.";
    causes "the application crashed or was killed while working on it", "its keep-alive time ended in the very moment of the request", "it refuses such requests by closing";
    fix "Look at the application's log and restarts at that time. For idle closes, make its keep-alive longer than the router's idle time.";
    see "`rutter_errors_total{code=\"RT-E131\"}`; `failures` of the client.";

    E132 "the response broke off" [];
    "The endpoint closed or failed in the middle of the response's body. The status was already sent, so the client's connection is closed (HTTP/2: the stream is reset) instead of pretending that the body was whole.";
    causes "the application crashed while writing", "it sent fewer bytes than its Content-Length", "it stalled longer than the body limit";
    fix "Look at the application's log; fetch the same URL from the endpoint directly to see whether the body is whole there.";
    see "`rutter_errors_total{code=\"RT-E132\"}`; the access log has the true status; a `debug` line of `router` with the endpoint.";

    E133 "malformed response" [502];
    "What the endpoint answered is not HTTP, its framing can be read in two ways, or its head is over the limit. It is not passed on and the connection is closed.";
    causes "the port speaks another protocol (TLS, gRPC, a database)", "Content-Length and Transfer-Encoding at once", "more than `maxHeadersKB` of headers, often cookies";
    fix "The message has the first offending bytes. Check the port name in the dtab; configure TLS on the client if the endpoint wants it.";
    see "`rutter_errors_total{code=\"RT-E133\"}`.";

    E134 "TLS failed" [502];
    "The TLS handshake with the endpoint or the router on its node failed; the message says which check: trust, name, time, protocol version, or client certificate.";
    causes "the certificate is not signed by a configured CA", "`commonName` does not match the certificate", "a certificate is expired or not yet valid", "the other side speaks plain HTTP";
    fix "Correct `client.tls` (`commonName`, `trustCertsBundle`, `clientAuth`) or renew the certificate.";
    see "`rutter_errors_total{code=\"RT-E134\"}`, `rutter_connects_total{result=\"tls\"}`.";

    E135 "all connections are in use" [502];
    "The configuration limits the connections to an endpoint (`hostConnectionPool.maxSize`), all of them carry a request, and either as many requests as `maxWaiters` allows wait for one already, or none became free in time (10 s, or the request's own time). The request was not sent.";
    causes "the service is slow, so that each connection is held for longer", "more requests at once than the limits were made for", "`maxSize` was copied from somewhere and is too small";
    fix "Look at the service's latency first. If it is as it should be, raise `maxSize`: a connection carries one request at a time.";
    see "`rutter_errors_total{code=\"RT-E135\"}`; `rutter_connections` of the client stands at the limit.";

    E140 "internal error" [];
    "Something in rutter itself went wrong. This is a defect of ours. The connection was closed without an answer; the log has the place.";
    causes "a bug";
    fix "Please report it with these log lines. The router goes on: only this connection was ended.";
    see "`rutter_errors_total{code=\"RT-E140\"}`; an `error` line of `router`, below the line of the panic with its place.";
}
