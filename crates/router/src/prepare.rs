//! The request's head as it goes up: what each attempt of one request shares.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::client::Client;
use crate::connection::{Ends, Job};
use crate::context::{Context, Deadline};
use crate::forwarded;
use crate::http1::{Fields, Version, strip_hop_by_hop};
use crate::identify::without_segments;
use crate::routes::Local;
use crate::tunnel;

/// Makes the head that goes up, but for the lines that differ from attempt to attempt: into `job.up`, without the empty
/// line at its end.
pub(crate) fn prepare_head(
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
    if client.settings.forward_client_cert
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
pub(crate) fn shortest(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
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
pub(crate) fn via(fields: &mut Fields, entry: &str) {
    match fields.get("Via") {
        None => fields.append(b"Via", entry.as_bytes()),
        Some(first) => {
            let all = [first, b", ", entry.as_bytes()].concat();
            fields.set("Via", &all);
        }
    }
}
