//! `tls` of servers and clients.

use std::path::PathBuf;
use std::sync::Arc;

use router::settings::{ClientTls, ServerTls, TlsIdentity, TlsVersions, Trust};
use router::tls::cipher_names;

use super::At;

/// `servers[].tls`; `None` when it is not given.
pub(super) fn server(at: &At<'_>) -> Option<ServerTls> {
    let identity = identity(at)?;
    let (authorities, required) = (at.get("caCertPath"), at.get("requireClientAuth"));
    let client_roots = match (required.bool().unwrap_or(false), path(&authorities)) {
        (true, Some(path)) => Some(path),
        (true, None) => {
            required.error(
                "`requireClientAuth` without `caCertPath`: any authority that the system trusts could let a client in",
                "name the file with the authorities of your clients as `caCertPath`",
            );
            None
        }
        (false, Some(_)) => {
            authorities.warning(
                "`caCertPath` has no effect without `requireClientAuth: true`: no client is asked for a certificate",
                "set it, if only clients with a certificate are to get in",
            );
            None
        }
        (false, None) => None,
    };
    Some(ServerTls {
        identity,
        client_roots,
        versions: versions(&at.get("protocols")),
        ciphers: ciphers(&at.get("ciphers")),
    })
}

/// `client.tls`; `prefix` is that of its entry, whose captures may stand in `commonName`.
pub(super) fn client(at: &At<'_>, prefix: Option<&str>) -> Option<ClientTls> {
    if !at.is_given() {
        return None;
    }
    let (name, own) = (at.get("commonName"), at.get("clientAuth"));
    let trust = trust(at);
    unchecked(&own, &trust);
    let enabled = at.get("enabled").bool().unwrap_or(true);
    if enabled && trust != Trust::Anything && !name.is_given() {
        at.warning(
            "tls is configured with validation but `commonName` is not set: every request of this client is answered 502 (RT-E134), as in Linkerd 1",
            "give the name that the endpoints' certificates have; captures of the prefix may stand in it",
        );
    }
    captures(&name, prefix.unwrap_or_default());
    Some(ClientTls {
        enabled,
        name: name.text(),
        trust,
        identity: identity(&own),
        versions: versions(&at.get("protocols")),
    })
}

/// `interpreter.tls`, towards a store; `None` when it is not given, or turned off.
pub(super) fn store(at: &At<'_>) -> Option<ClientTls> {
    if !at.is_given() || at.get("enabled").bool() == Some(false) {
        return None;
    }
    let own = at.get("clientAuth");
    let trust = trust(at);
    unchecked(&own, &trust);
    Some(ClientTls {
        enabled: true,
        name: at.get("commonName").text(),
        trust,
        identity: identity(&own),
        versions: versions(&at.get("protocols")),
    })
}

/// `interpreter.tls` of io.l5d.namerd, which has keys of its own.
pub(super) fn thrift_store(at: &At<'_>) -> Option<ClientTls> {
    let trust = path(&at.get("caCert")).map_or(Trust::System, |file| Trust::Files(vec![file]));
    at.is_given().then(|| ClientTls {
        enabled: true,
        name: at.get("commonName").text(),
        trust,
        identity: None,
        versions: TlsVersions::default(),
    })
}

fn unchecked(own: &At<'_>, trust: &Trust) {
    if *trust == Trust::Anything && own.is_given() {
        own.error(
            "disableValidation: true is incompatible with clientAuth",
            "name what is trusted with `trustCertsBundle` and delete `disableValidation`",
        );
    }
}

/// A capture that the prefix does not have stays as it is written, and no certificate has such a name.
fn captures(name: &At<'_>, prefix: &str) {
    let text = name.string().unwrap_or_default();
    let capture = text.find('{').and_then(|open| {
        let close = text[open..].find('}')?;
        Some(&text[open..=open + close])
    });
    if let Some(capture) = capture
        && !prefix.contains(capture)
    {
        name.warning(
            format!("`commonName` has {capture}, and the prefix of this entry does not"),
            "put it into `prefix`, such as `/#/io.l5d.k8s/*/*/{service}`",
        );
    }
}

fn trust(at: &At<'_>) -> Trust {
    let (files, bundle) = (at.get("trustCerts"), at.get("trustCertsBundle"));
    if files.is_given() && bundle.is_given() {
        bundle.error(
            "`trustCerts` and `trustCertsBundle` exclude each other",
            "put all certificates into one of them",
        );
    }
    let all: Vec<_> = files.items().iter().filter_map(path).collect();
    match (at.get("disableValidation").bool(), path(&bundle)) {
        (Some(true), _) => Trust::Anything,
        (_, Some(bundle)) => Trust::Files(vec![bundle]),
        (_, None) if all.is_empty() => Trust::System,
        (_, None) => Trust::Files(all),
    }
}

fn identity(at: &At<'_>) -> Option<TlsIdentity> {
    // Read all the same when one of them is missing: that has been said.
    let (cert, key) = (path(&at.get("certPath")), path(&at.get("keyPath")));
    let intermediates = path(&at.get("intermediateCertsPath"));
    Some(TlsIdentity {
        cert: cert?,
        key: key?,
        intermediates,
    })
}

fn path(at: &At<'_>) -> Option<PathBuf> {
    at.string().map(PathBuf::from)
}

fn versions(at: &At<'_>) -> TlsVersions {
    let named: Vec<_> = at.items().iter().filter_map(At::string).collect();
    if named.is_empty() {
        return TlsVersions::default();
    }
    let has = |version: &str| named.iter().any(|name| name == version);
    let versions = TlsVersions {
        tls12: has("TLSv1.2"),
        tls13: has("TLSv1.3"),
    };
    if !versions.tls12 && !versions.tls13 {
        at.error(
            format!("none of {} is spoken here", named.join(", ")),
            "TLSv1.2 and TLSv1.3 are; older versions are broken",
        );
        return TlsVersions::default();
    }
    for item in at.items() {
        let name = item.string().unwrap_or_default();
        if !matches!(name.as_str(), "TLSv1.2" | "TLSv1.3") {
            item.warning(
                format!("`{name}` is not spoken here, the others of the list are"),
                "delete it: TLSv1.2 and TLSv1.3 are what there is",
            );
        }
    }
    versions
}

fn ciphers(at: &At<'_>) -> Vec<Arc<str>> {
    let known = cipher_names();
    let items = at.items();
    let is_known = |item: &&At<'_>| item.string().is_some_and(|name| known.contains(&name));
    let there: Vec<Arc<str>> = items.iter().filter(is_known).filter_map(At::text).collect();
    if !items.is_empty() && there.is_empty() {
        at.error(
            "none of these ciphers is used here",
            format!("those there are: {}", known.join(", ")),
        );
        return there;
    }
    for item in items.iter().filter(|item| !is_known(item)) {
        item.warning(
            format!(
                "`{}` is not used here, the others of the list are",
                item.string().unwrap_or_default()
            ),
            format!("those there are: {}", known.join(", ")),
        );
    }
    there
}
