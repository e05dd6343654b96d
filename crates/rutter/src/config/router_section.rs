//! `routers[]` and `servers[]`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dtab::{Dtab, Path};
use router::settings::{
    AccessLogSettings, BINDING_TIMEOUT, CONNECT_PORTS, ForwardedLabel, ForwardedSettings,
    IdentifierSettings, MAX_CALL_DEPTH, MAX_HEAD, MAX_LINE, RollPolicy, RouterSettings,
    SERVER_IDLE_TIME, STREAM_AFTER, ServerSettings, SocketSettings, TUNNEL_IDLE, TracePropagator,
};

use super::settings::{CacheSettings, RouterConfig};
use super::{At, Environment, client, names, tls, top, validate};

/// As zlib's, which Linkerd 1's `-1` means.
const COMPRESSION: u32 = 6;
/// As Linkerd 1's http servers.
const HTTP_PORT: u16 = 4140;
/// As Linkerd 1's `bindingCache.paths`.
const CACHED_PATHS: usize = 1000;
/// As Linkerd 1's `bindingCache.idleTtlSecs`.
const CACHE_IDLE_TTL: Duration = Duration::from_secs(600);

pub(super) fn router(at: &At<'_>, environment: &Environment) -> Option<RouterConfig> {
    let protocol = at.tag("protocol", "");
    if protocol != "http" {
        return None;
    }
    at.get("experimental");
    let label: Arc<str> = at.get("label").text().unwrap_or_else(|| protocol.into());
    let servers = at.get("servers");
    if servers.is_given() && servers.items().is_empty() {
        servers.error(
            format!("router '{label}' has no servers"),
            "give at least one, such as `- port: 4140`",
        );
    }
    streaming_clash(at);
    let servers: Vec<_> = servers.items().iter().map(server).collect();
    let router = RouterSettings {
        label,
        servers,
        identifiers: identifiers(&at.get("identifier")),
        dst_prefix: at
            .get("dstPrefix")
            .name()
            .unwrap_or_else(|| Path::utf8(["svc"])),
        binding_timeout: at
            .get("bindingTimeoutMs")
            .millis()
            .unwrap_or(BINDING_TIMEOUT),
        binding_idle: cache(&at.get("bindingCache")).idle_ttl,
        client: client::clients(&at.get("client")),
        service: client::services(&at.get("service")),
        trace_propagator: match at.get("tracePropagator").tag("kind", "").as_str() {
            "io.l5d.zipkin" => TracePropagator::Zipkin,
            _ => TracePropagator::Default,
        },
        access_log: access_log(at),
        stream_after: at
            .get("streamAfterContentLengthKB")
            .u64()
            .map_or(STREAM_AFTER, |kb| kb * 1024),
        max_head: at
            .get("maxHeadersKB")
            .usize()
            .map_or(MAX_HEAD, |kb| kb * 1024),
        max_line: at
            .get("maxInitialLineKB")
            .usize()
            .map_or(MAX_LINE, |kb| kb * 1024),
        max_request: at.get("maxRequestKB").u64().map(|kb| kb * 1024),
        compression: match at.get("compressionLevel").i64() {
            None | Some(0) => None,
            Some(-1) => Some(COMPRESSION),
            Some(level) => u32::try_from(level).ok(),
        },
        protected: environment.protected(),
    };
    Some(RouterConfig {
        router,
        dtab: at.get("dtab").dtab().unwrap_or_else(Dtab::empty),
        interpreter: names::interpreter(&at.get("interpreter"), environment),
        cache: cache(&at.get("bindingCache")),
    })
}

fn streaming_clash(at: &At<'_>) {
    let (off, after) = (
        at.get("streamingEnabled"),
        at.get("streamAfterContentLengthKB"),
    );
    if off.bool() == Some(false) && after.is_given() {
        after.error(
            "`streamAfterContentLengthKB` contradicts `streamingEnabled: false`",
            "delete one of them",
        );
    }
}

fn cache(at: &At<'_>) -> CacheSettings {
    CacheSettings {
        paths: at.get("paths").usize().unwrap_or(CACHED_PATHS),
        idle_ttl: at.get("idleTtlSecs").seconds().unwrap_or(CACHE_IDLE_TTL),
    }
}

fn access_log(at: &At<'_>) -> Option<AccessLogSettings> {
    let path = at.get("httpAccessLog");
    let (format, roll, append, keep) = (
        at.get("httpAccessLogFormat"),
        at.get("httpAccessLogRollPolicy"),
        at.get("httpAccessLogAppend"),
        at.get("httpAccessLogRotateCount"),
    );
    if !path.is_given() {
        let others = [&format, &roll, &append, &keep];
        for useless in others.into_iter().filter(|k| k.is_given()) {
            useless.warning(
                "it has no effect without `httpAccessLog`",
                "give the file's path as `httpAccessLog`",
            );
        }
    }
    Some(AccessLogSettings {
        path: PathBuf::from(path.string()?),
        json: format.string().as_deref() == Some("json"),
        append: append.bool().unwrap_or(true),
        roll: roll
            .string()
            .and_then(|r| validate::roll_policy(&r))
            .unwrap_or(RollPolicy::Never),
        keep: keep.i64().and_then(|n| usize::try_from(n).ok()),
    })
}

fn identifiers(at: &At<'_>) -> Vec<IdentifierSettings> {
    let all: Vec<_> = at.items().iter().filter_map(identifier).collect();
    if all.is_empty() {
        vec![IdentifierSettings::HeaderToken {
            header: "Host".into(),
        }]
    } else {
        all
    }
}

fn identifier(at: &At<'_>) -> Option<IdentifierSettings> {
    let header = |default: &str| at.get("header").text().unwrap_or_else(|| default.into());
    Some(match at.tag("kind", "").as_str() {
        "io.l5d.header.token" => IdentifierSettings::HeaderToken {
            header: header("Host"),
        },
        "io.l5d.header" => IdentifierSettings::Header {
            header: header("l5d-name"),
        },
        "io.l5d.methodAndHost" => IdentifierSettings::MethodAndHost {
            uri_in_dst: at.get("httpUriInDst").bool().unwrap_or(false),
        },
        "io.l5d.path" => IdentifierSettings::Path {
            segments: at.get("segments").usize().unwrap_or(1),
            consume: at.get("consume").bool().unwrap_or(false),
        },
        "io.l5d.static" => IdentifierSettings::Static {
            path: at.get("path").name()?,
        },
        _ => return None,
    })
}

/// Where a server listens.
pub(super) fn server_addr(at: &At<'_>) -> SocketAddr {
    SocketAddr::new(
        at.get("ip").ip().unwrap_or(top::LOOPBACK),
        at.get("port").u16().unwrap_or(HTTP_PORT),
    )
}

fn server(at: &At<'_>) -> ServerSettings {
    let session = at.get("serverSession");
    ServerSettings {
        clear_context: at.get("clearContext").bool().unwrap_or(false),
        max_concurrent_requests: at.get("maxConcurrentRequests").u32(),
        max_call_depth: at.get("maxCallDepth").usize().unwrap_or(MAX_CALL_DEPTH),
        add_forwarded: forwarded(&at.get("addForwardedHeader")),
        timestamp_header: at.get("timestampHeader").text(),
        timeout: at.get("timeoutMs").millis(),
        idle_time: session
            .get("idleTimeMs")
            .millis()
            .or(Some(SERVER_IDLE_TIME)),
        life_time: session.get("lifeTimeMs").millis(),
        connect_ports: connect_ports(&at.get("connectPorts")),
        tunnel_idle: at.get("tunnelIdleMs").millis().unwrap_or(TUNNEL_IDLE),
        socket: socket(&at.get("socketOptions")),
        tls: tls::server(&at.get("tls")),
        ..ServerSettings::new(server_addr(at))
    }
}

fn connect_ports(at: &At<'_>) -> Vec<u16> {
    match at.is_given() {
        true => at.items().iter().filter_map(At::u16).collect(),
        false => CONNECT_PORTS.to_vec(),
    }
}

fn forwarded(at: &At<'_>) -> Option<ForwardedSettings> {
    at.is_given().then(|| ForwardedSettings {
        by: label(&at.get("by")),
        client: label(&at.get("for")),
    })
}

fn label(at: &At<'_>) -> ForwardedLabel {
    match at.tag("kind", "").as_str() {
        "ip" => ForwardedLabel::Ip,
        "ip:port" => ForwardedLabel::IpPort,
        "connectionRandom" => ForwardedLabel::ConnectionRandom,
        "router" => ForwardedLabel::Router,
        "static" => ForwardedLabel::Static(at.get("label").text().unwrap_or_default()),
        _ => ForwardedLabel::RequestRandom,
    }
}

fn socket(at: &At<'_>) -> SocketSettings {
    let default = SocketSettings::default();
    SocketSettings {
        no_delay: at.get("noDelay").bool().unwrap_or(default.no_delay),
        reuse_addr: at.get("reuseAddr").bool().unwrap_or(default.reuse_addr),
        reuse_port: at.get("reusePort").bool().unwrap_or(default.reuse_port),
        keep_alive: at.get("keepAlive").bool(),
        backlog: at.get("backlog").u32(),
        read_timeout: at.get("readTimeoutMs").millis(),
        write_timeout: at.get("writeTimeoutMs").millis(),
    }
}
