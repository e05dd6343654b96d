use std::path::PathBuf;
use std::time::Duration;

use telemetry::span::Transport;

use super::*;

/// A pod of node `node-a`; files need not exist.
fn pod() -> Environment {
    Environment {
        pod_ip: Some([10, 1, 2, 3].into()),
        node_name: Some("node-a".into()),
        in_pod: true,
        variables: HashMap::from([("POD_NAMESPACE".to_owned(), "shop".to_owned())]),
        purpose: Purpose::Text,
    }
}

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(folder);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{}", folder.display());
    files
}

/// What is wrong with a text, one line each: `line:column key: message (help)`.
fn errors(source: &str) -> Vec<String> {
    errors_in(source, &pod())
}

fn errors_in(source: &str, environment: &Environment) -> Vec<String> {
    match load("config.yaml", source, environment) {
        Ok(_) => Vec::new(),
        Err(problems) => problems
            .only_errors()
            .all
            .iter()
            .map(|p| {
                let at = p.place.unwrap();
                let help = p
                    .help
                    .as_ref()
                    .map(|h| format!(" ({h})"))
                    .unwrap_or_default();
                format!("{}:{} {}: {}{help}", at.line, at.column, p.key, p.message)
            })
            .collect(),
    }
}

const ROUTER: &str = "routers:\n- protocol: http\n  servers: [{port: 4140}]\n";

#[test]
fn spans_travel_as_port_path_or_transport_say() {
    for (keys, want) in [
        ("", Transport::Scribe),
        ("port: 9410", Transport::Scribe),
        ("port: 9411", Transport::Http),
        ("port: 9411, transport: scribe", Transport::Scribe),
        ("port: 80, transport: http", Transport::Http),
        ("port: 80, path: /zipkin/api/v2/spans", Transport::Http),
    ] {
        let text = format!("{ROUTER}telemetry:\n- {{kind: io.l5d.zipkin, {keys}}}\n");
        let config = load("config.yaml", &text, &pod()).unwrap().config;
        let settings::TelemeterSettings::Zipkin {
            port,
            transport,
            path,
            ..
        } = &config.telemetry[0]
        else {
            panic!("{:?}", config.telemetry)
        };
        let effective = transport.unwrap_or(Transport::of(*port, path.as_deref()));
        assert_eq!(effective, want, "{keys}");
    }
}

#[test]
fn telemeters_have_linkerds_defaults() {
    use settings::TelemeterSettings;
    let text = format!(
        "{ROUTER}telemetry:\n- kind: io.l5d.influxdb\n- {{kind: io.l5d.statsd, experimental: true}}\n- kind: io.l5d.tracelog\n- kind: io.l5d.prometheus\n"
    );
    let config = load("config.yaml", &text, &pod()).unwrap().config;
    let statsd = telemetry::metrics::linkerd::StatsdConfig {
        prefix: "linkerd".to_owned(),
        host: "127.0.0.1".to_owned(),
        port: 8125,
        interval: Duration::from_secs(10),
        sample_rate: 0.01,
    };
    assert_eq!(
        config.telemetry,
        [
            TelemeterSettings::Influxdb,
            TelemeterSettings::Statsd(statsd),
            TelemeterSettings::Tracelog {
                sample_rate: 1.0,
                level: tracing::Level::INFO,
            },
            TelemeterSettings::Prometheus {
                path: "/admin/metrics/prometheus".into(),
                prefix: "".into(),
            },
        ]
    );
    for (keys, want) in [
        ("kind: io.l5d.tracelog, host: x", "unknown"),
        ("kind: io.l5d.tracelog, level: LOUD", "LOUD"),
        ("kind: io.l5d.statsd, port: \"8125\"", "8125"),
        ("kind: io.l5d.prometheus, path: prom", "no path of a URL"),
        ("kind: io.l5d.statsd, gaugeIntervalMs: 0", "gaugeIntervalMs"),
        ("kind: io.l5d.recentRequests", "sampleRate"),
        ("kind: io.l5d.recentRequests, sampleRate: 1.1", "sampleRate"),
    ] {
        let all = errors(&format!("{ROUTER}telemetry: [{{{keys}}}]\n"));
        assert!(all.len() == 1 && all[0].contains(want), "{keys}: {all:?}");
    }
}

#[test]
fn namers_of_other_systems_have_linkerds_defaults() {
    use naming::namers::consul::{Consistency, ConsulConfig, Health};
    use settings::NamerSource;
    let namer = |keys: &str| {
        let text = format!("{ROUTER}namers: [{{{keys}}}]\n");
        let config = load("config.yaml", &text, &pod()).unwrap().config;
        config.namers[0].source.clone()
    };
    let default = ConsulConfig {
        prefix: "/io.l5d.consul".parse().unwrap(),
        host: "localhost".to_owned(),
        port: 8500,
        include_tag: false,
        statuses: None,
        token: None,
        set_host: false,
        consistency: Consistency::Default,
        prefer_service_address: true,
        weights: HashMap::new(),
    };
    assert_eq!(
        namer("kind: io.l5d.consul"),
        NamerSource::Consul(Box::new(default.clone()))
    );
    let checked = ConsulConfig {
        prefix: "/c".parse().unwrap(),
        statuses: Some(vec![Health::Passing]),
        ..default
    };
    assert_eq!(
        namer("kind: io.l5d.consul, useHealthCheck: true, prefix: /c"),
        NamerSource::Consul(Box::new(checked))
    );
    assert_eq!(
        namer(
            "kind: io.l5d.dnssrv, dnsHosts: [10.0.0.1, '10.0.0.2:54', 'fd00::1', '[fd00::2]:55', 'dns.local:56', other]"
        ),
        NamerSource::DnsSrv {
            refresh: Duration::from_secs(5),
            servers: [
                ("10.0.0.1", 53),
                ("10.0.0.2", 54),
                ("fd00::1", 53),
                ("fd00::2", 55),
                ("dns.local", 56),
                ("other", 53),
            ]
            .map(|(host, port)| (host.into(), port))
            .to_vec(),
        }
    );
    #[cfg(feature = "zookeeper")]
    for (kind, what) in [
        ("io.l5d.serversets", naming::namers::ZkKind::Serverset),
        ("io.l5d.zkLeader", naming::namers::ZkKind::Leader),
    ] {
        let config = naming::namers::ZkConfig {
            prefix: dtab::Path::utf8([kind]),
            kind: what,
            servers: [("a.local", 2181), ("fd00::1", 2182)]
                .map(|(host, port)| (host.into(), port))
                .to_vec(),
        };
        assert_eq!(
            namer(&format!(
                "kind: {kind}, zkAddrs: [{{host: a.local}}, {{host: 'fd00::1', port: 2182}}]"
            )),
            NamerSource::ZooKeeper(config)
        );
    }
    for (keys, want) in [
        #[cfg(not(feature = "zookeeper"))]
        (
            "kind: io.l5d.serversets, zkAddrs: [{host: a}]",
            "io.l5d.serversets is not supported by this build: ",
        ),
        #[cfg(feature = "zookeeper")]
        ("kind: io.l5d.serversets", "zkAddrs"),
        #[cfg(feature = "zookeeper")]
        ("kind: io.l5d.serversets, zkAddrs: []", "names no server"),
        #[cfg(feature = "zookeeper")]
        (
            "kind: io.l5d.zkLeader, zkAddrs: [{host: 'a:2181'}]",
            "`a:2181` is no host",
        ),
        #[cfg(feature = "zookeeper")]
        (
            "kind: io.l5d.zkLeader, zkAddrs: [{host: a, prot: 1}]",
            "port",
        ),
        ("kind: io.l5d.consul, setHost: true", "not supported"),
        ("kind: io.l5d.consul, healthStatuses: [fine]", "fine"),
        ("kind: io.l5d.consul, consistencyMode: odd", "odd"),
        ("kind: io.l5d.consul, token: \"a\\nb\"", "cannot be sent"),
        ("kind: io.l5d.consul, weights: [{tag: a}]", "weight"),
        ("kind: io.l5d.dnssrv, dnsHosts: ['a b']", "no DNS server"),
        (
            "kind: io.l5d.dnssrv, refreshIntervalMs: 5",
            "refreshIntervalSeconds",
        ),
    ] {
        let all = errors(&format!("{ROUTER}namers: [{{{keys}}}]\n"));
        assert!(all.len() == 1 && all[0].contains(want), "{keys}: {all:?}");
    }
    let all = errors(
        "routers:\n- protocol: http\n  servers: [{port: 4140}]\n  interpreter: {kind: io.l5d.k8s.configMap, name: a}\n",
    );
    assert!(all.len() == 1 && all[0].contains("filename"), "{all:?}");
}

#[test]
fn configurations_that_linkerd_1_takes_are_taken() {
    for file in files("configs/linkerd1") {
        let text = std::fs::read_to_string(&file).unwrap();
        if let Err(problems) = load("config.yaml", &text, &pod()) {
            panic!("{}:\n{}", file.display(), problems.render());
        }
    }
}

/// The shapes of files that people have, by their features; a line `# refused: …` at the top is a problem, and there is
/// no other. The same file as JSON is judged in the same way.
#[test]
fn all_shapes_of_files_are_taken_or_refused_by_name_as_yaml_and_as_json() {
    let files = files("configs/shapes");
    assert!(files.len() >= 13, "{files:?}");
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let wanted: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# refused: "))
            .collect();
        let tree: serde_json::Value = serde_yaml::from_str(&text).unwrap();
        let json = serde_json::to_string_pretty(&tree).unwrap();
        for source in [&text, &json] {
            let found = errors_in(source, &pod());
            let rest: Vec<_> = found
                .iter()
                .map(|one| one.split_once(' ').unwrap().1)
                .collect();
            assert_eq!(rest.len(), wanted.len(), "{}: {found:#?}", file.display());
            for want in &wanted {
                let one = rest.iter().find(|one| one.starts_with(want));
                let one = one.unwrap_or_else(|| panic!("{}: {want}: {rest:#?}", file.display()));
                if want.ends_with("is not supported") {
                    assert!(one.contains("see docs/linkerd1.md"), "{one}");
                }
            }
        }
    }
}

#[test]
fn the_walkthrough_starts_unchanged() {
    let text = std::fs::read_to_string(files("walkthrough").remove(0)).unwrap();
    let loaded = load("config.yaml", &text, &pod()).unwrap_or_else(|p| panic!("{}", p.render()));
    let config = &loaded.config;
    assert_eq!(config.admin.addr.to_string(), "0.0.0.0:9990");
    let [outgoing, incoming] = config.routers.as_slice() else {
        panic!()
    };
    assert_eq!(
        (&*outgoing.router.label, &*incoming.router.label),
        ("outgoing", "incoming")
    );
    assert_eq!(outgoing.router.servers[0].addr.to_string(), "0.0.0.0:4140");
    assert_eq!(outgoing.dtab.entries().len(), 4);
    assert_eq!(
        outgoing.interpreter.transformers[0].prefix.to_string(),
        "/io.l5d.k8s.daemonset/default/incoming/l5d"
    );
    assert_eq!(
        incoming.interpreter.transformers[0].prefix.to_string(),
        "/io.l5d.k8s.localnode/10.1.2.3"
    );
    let service = outgoing
        .router
        .service
        .resolve(&dtab::Path::utf8(["svc", "web"]));
    assert_eq!(
        service.classifier,
        router::settings::Classifier::RetryableRead5xx
    );
    let zipkin = settings::TelemeterSettings::Zipkin {
        host: "zipkin-collector.default.svc.cluster.local".into(),
        port: 9410,
        sample_rate: 1.0,
        transport: None,
        path: None,
    };
    assert_eq!(config.telemetry[1], zipkin);
}

#[test]
fn each_mistake_is_told_with_its_place_and_the_way_out() {
    let with = |more: &str| format!("{ROUTER}{more}");
    let table = [
        (
            with("  dtabb: x\n"),
            "4:3 routers[0].dtabb: unknown key `dtabb` (did you mean `dtab`?)",
        ),
        (
            with("  bindingTimeoutMs: soon\n"),
            "4:21 routers[0].bindingTimeoutMs: `bindingTimeoutMs` must be a number of milliseconds, 0 or more, found the text \"soon\"",
        ),
        (
            with("  dtab: '/svc = /x'\n"),
            "4:16 routers[0].dtab: invalid dtab: expected `=>`, found a blank",
        ),
        (
            with("  dtab: |\n    /a => /b;\n    /c => /d | ;\n"),
            "6:16 routers[0].dtab: invalid dtab: ",
        ),
        (
            with("  dstPrefix: svc\n"),
            "4:14 routers[0].dstPrefix: invalid path: ",
        ),
        (
            with("  timeoutMs: 10\n"),
            "4:3 routers[0].timeoutMs: `timeoutMs` is not a key here any more (write `service: {totalTimeoutMs: …}`",
        ),
        (
            with("  baseDtab: /a => /b\n"),
            "4:3 routers[0].baseDtab: `baseDtab` is not a key here any more (write `dtab:`)",
        ),
        (
            with("  identifier: []\n"),
            "4:15 routers[0].identifier: empty identifier list",
        ),
        (
            with("  identifier: {kind: io.l5d.ingress}\n"),
            "4:22 routers[0].identifier.kind: io.l5d.ingress is not supported: ",
        ),
        (
            with("  identifier: {kind: header.token}\n"),
            "4:22 routers[0].identifier.kind: unknown identifier `header.token` (did you mean `io.l5d.header.token`?)",
        ),
        (
            with("  identifier: {kind: io.l5d.static}\n"),
            "4:16 routers[0].identifier: routers[0].identifier has no `path` (`path` must be given.",
        ),
        (
            with("  identifier: {header: x}\n"),
            "4:16 routers[0].identifier: routers[0].identifier has no `kind` (one of: io.l5d.header.token,",
        ),
        (
            with(
                "  client: {tls: {disableValidation: true, clientAuth: {certPath: c, keyPath: k}}}\n",
            ),
            "4:56 routers[0].client.tls.clientAuth: disableValidation: true is incompatible with clientAuth",
        ),
        (
            with("  client: {tls: {commonName: x, trustCerts: [a], trustCertsBundle: b}}\n"),
            "4:68 routers[0].client.tls.trustCertsBundle: `trustCerts` and `trustCertsBundle` exclude each other",
        ),
        (
            with(
                "  interpreter: {kind: io.l5d.mesh, dst: /$/inet/a/1, tls: {disableValidation: true, clientAuth: {certPath: c, keyPath: k}}}\n",
            ),
            "4:98 routers[0].interpreter.tls.clientAuth: disableValidation: true is incompatible with clientAuth",
        ),
        (
            with(
                "  interpreter: {kind: io.l5d.namerd, dst: /$/inet/a/1, tls: {trustCertsBundle: b}}\n",
            ),
            "4:62 routers[0].interpreter.tls.trustCertsBundle: unknown key `trustCertsBundle`",
        ),
        (
            with("  client: {tls: {commonName: x, protocols: [TLSv1.1]}}\n"),
            "4:44 routers[0].client.tls.protocols: none of TLSv1.1 is spoken here",
        ),
        (
            with("  client: {tls: {commonName: x, commonname: y}}\n"),
            "4:33 routers[0].client.tls.commonname: unknown key `commonname` (did you mean `commonName`?)",
        ),
        (
            with("  client: {loadBalancer: {kind: p3c}}\n"),
            "4:33 routers[0].client.loadBalancer.kind: unknown load balancer `p3c` (did you mean `p2c`?)",
        ),
        (
            with(
                "  client: {failureAccrual: {kind: io.l5d.successRate, successRate: 1.5, requests: 1}}\n",
            ),
            "4:68 routers[0].client.failureAccrual.successRate: `successRate` must be a number from 0 to 1, found the number 1.5",
        ),
        (
            with("  client: {kind: io.l5d.static, configs: [{prefix: nope}]}\n"),
            "4:52 routers[0].client.configs[0].prefix: `prefix` is no pattern: ",
        ),
        (
            with("  client: {requeueBudget: {ttlSecs: 61}}\n"),
            "4:37 routers[0].client.requeueBudget.ttlSecs: `ttlSecs` must be a whole number from 1 to 60, found the number 61",
        ),
        (
            with("  service: {retries: {backoff: {kind: jittered, minMs: 1}}}\n"),
            "4:33 routers[0].service.retries.backoff: routers[0].service.retries.backoff has no `maxMs`",
        ),
        (
            with("  service: {totalTimeoutMs: -1}\n"),
            "4:29 routers[0].service.totalTimeoutMs: `totalTimeoutMs` must be a number of milliseconds, 0 or more, found the number -1",
        ),
        (
            with("  streamingEnabled: false\n  streamAfterContentLengthKB: 5\n"),
            "5:31 routers[0].streamAfterContentLengthKB: `streamAfterContentLengthKB` contradicts",
        ),
        (
            with("- {protocol: http, servers: [{port: 4141}]}\n"),
            "4:4 routers[1]: multiple routers with the label `http` (routers[0] has it, too",
        ),
        (
            with("- {protocol: http, label: b, servers: [{port: 4140}]}\n"),
            "4:47 routers[1].servers[0].port: server conflict on port 4140 (routers[0].servers[0] listens on 127.0.0.1:4140",
        ),
        (
            with("- {protocol: http, label: b, servers: [{port: 9990}]}\n"),
            "4:47 routers[1].servers[0].port: server conflict on port 9990 (the admin port listens on",
        ),
        (
            with("- {protocol: http, label: b, servers: []}\n"),
            "4:39 routers[1].servers: router 'b' has no servers",
        ),
        (
            with("- {protocol: http, label: b}\n"),
            "4:4 routers[1]: routers[1] has no `servers`",
        ),
        (
            with("- {protocol: gopher, servers: [{port: 1}]}\n"),
            "4:14 routers[1].protocol: unknown router `gopher` (one of: http)",
        ),
        (
            with("- {protocol: thrift, servers: [{port: 1}]}\n"),
            "4:14 routers[1].protocol: thrift is not supported: ",
        ),
        (
            with("- {servers: [{port: 1}]}\n"),
            "4:4 routers[1]: routers[1] has no `protocol` (one of: http)",
        ),
        (
            with("namers:\n- {kind: io.l5d.nonesuch}\n"),
            "5:10 namers[0].kind: unknown namer `io.l5d.nonesuch`",
        ),
        (
            with("namers:\n- {kind: io.l5d.marathon}\n"),
            "5:10 namers[0].kind: io.l5d.marathon is not supported: ",
        ),
        (
            with("namers:\n- {kind: io.l5d.fs}\n"),
            "5:4 namers[0]: namers[0] has no `rootDir`",
        ),
        (
            with("namers: {kind: io.l5d.fs}\n"),
            "4:9 namers: `namers` must be a list (lines that begin with `- `), found a mapping",
        ),
        (
            with(
                "namers:\n- {kind: io.l5d.rewrite, prefix: /r, pattern: '/{a}', name: '/b/{c}'}\n",
            ),
            "5:61 namers[0].name: `name` uses {c}, which `pattern` does not capture (captured there: a)",
        ),
        (
            with("telemetry:\n- {kind: io.l5d.recentRequests}\n"),
            "5:4 telemetry[0]: telemetry[0] has no `sampleRate`",
        ),
        (
            with("telemetry:\n- {kind: io.l5d.zipkin, sampleRate: 2}\n"),
            "5:37 telemetry[0].sampleRate: `sampleRate` must be a number from 0 to 1, found the number 2",
        ),
        (
            with("telemetry:\n- {kind: io.l5d.zipkin, transport: thrift}\n"),
            "5:36 telemetry[0].transport: `transport` must be one of scribe, http, found the text \"thrift\"",
        ),
        (
            with("telemetry:\n- {kind: io.l5d.zipkin, transport: scribe, path: /spans}\n"),
            "5:50 telemetry[0].path: `path` contradicts `transport: scribe` (spans are posted to a path by HTTP only",
        ),
        (
            with("telemetry:\n- {kind: io.l5d.zipkin, path: spans}\n"),
            "5:31 telemetry[0].path: `spans` is no path of a URL (it begins with `/`",
        ),
        (
            with("admin: {port: 65536}\n"),
            "4:15 admin.port: 65536 outside valid range for ports",
        ),
        (
            with("admin: {port: '80'}\n"),
            "4:15 admin.port: `port` is a number, found the text \"80\" (write 80 without quotes)",
        ),
        (
            with("admin: {ip: localhost}\n"),
            "4:13 admin.ip: `ip` must be an IP address, not a name, found the text \"localhost\"",
        ),
        (
            with("admin: {metricsIntervalSecs: 60}\n"),
            "4:9 admin.metricsIntervalSecs: `metricsIntervalSecs` is not a key here any more",
        ),
        (
            with("admin: [1]\n"),
            "4:8 admin: `admin` must be a mapping (`key: value`), found a list",
        ),
        (
            with("port: 80\n"),
            "4:1 port: unknown key `port` (known keys here: routers, ",
        ),
        (with("routers: []\n"), "4:1 : duplicate"),
        (
            "admin: {port: 1}\n".into(),
            "1:1 : `routers` is missing (`routers` must be given.",
        ),
        (
            "routers: []\n".into(),
            "1:10 routers: at least one router must be specified",
        ),
        (
            "- a\n".into(),
            "1:1 : the file must be a mapping (`key: value`), found a list",
        ),
        ("routers: [\n".into(), "1:10 : "),
        ("".into(), "1:1 : the file is empty"),
        (
            "{\"routers\": [}".into(),
            "1:14 : the file begins with `{`, so it is read as JSON: ",
        ),
        (
            "{\"routers\": [{\"protocol\": \"http\", \"servers\": [{\"prot\": 1}]}]}".into(),
            "1:48 routers[0].servers[0].prot: unknown key `prot` (did you mean `port`?)",
        ),
    ];
    for (source, want) in table {
        let found = errors(&source);
        assert_eq!(found.len(), 1, "{source}{found:#?}");
        assert!(
            found[0].starts_with(want),
            "{source}\n got: {}\nwant: {want}",
            found[0]
        );
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let found = errors(
        "admin: {port: x, ipp: 1}\nnamers:\n- kind: io.l5d.f\n- {kind: io.l5d.fs, rootdir: /x}\nrouters:\n- protocol: http\n  servers:\n  - {port: 1, tls: {}}\n  - {prot: 1}\n  dtab: ';'\n  nope: 1\n",
    );
    let lines: Vec<&str> = found
        .iter()
        .map(|e| e.split_once(": ").unwrap().0)
        .collect();
    let want = [
        "1:15 admin.port",
        "1:18 admin.ipp",
        "3:9 namers[0].kind",
        "4:4 namers[1]",
        "4:21 namers[1].rootdir",
        // No certPath, no keyPath.
        "8:20 routers[0].servers[0].tls",
        "8:20 routers[0].servers[0].tls",
        "9:6 routers[0].servers[1].prot",
        "10:10 routers[0].dtab",
        "11:3 routers[0].nope",
    ];
    assert_eq!(lines, want, "{found:#?}");
}

#[test]
fn what_only_a_pod_has_is_missed_at_start_and_warned_of_elsewhere() {
    let source = format!(
        "{ROUTER}  interpreter: {{kind: default, transformers: [{{kind: io.l5d.k8s.localnode}}]}}\n"
    );
    let mut here = Environment::default();
    let found = errors_in(&source, &here);
    assert!(
        found[0].contains("POD_IP env variable must be set to the pod's IP"),
        "{found:?}"
    );
    here.purpose = Purpose::Check;
    let loaded = load("x", &source, &here).unwrap();
    assert_eq!(
        (loaded.problems.errors(), loaded.problems.warnings()),
        (0, 1)
    );
    here.in_pod = true;
    assert!(load("x", &source, &here).is_err());
    here.node_name = Some("n1".into());
    let loaded = load("x", &source, &here).unwrap();
    assert_eq!(
        loaded.config.routers[0].interpreter.transformers[0]
            .prefix
            .to_string(),
        "/io.l5d.k8s.localnode/n1"
    );
    let on_host = source.replace("localnode", "localnode, hostNetwork: true");
    here.node_name = None;
    assert!(
        errors_in(&on_host, &here)[0]
            .contains("NODE_NAME env variable must be set to the node's name")
    );
}

#[test]
fn files_must_be_there_unless_only_the_text_is_looked_at() {
    let source = format!("{ROUTER}namers:\n- {{kind: io.l5d.fs, rootDir: /nowhere/at/all}}\n");
    assert_eq!(errors(&source), Vec::<String>::new());
    let found = errors_in(
        &source,
        &Environment {
            purpose: Purpose::Check,
            ..pod()
        },
    );
    assert!(
        found[0]
            .starts_with("5:30 namers[0].rootDir: `rootDir`: /nowhere/at/all is not a directory"),
        "{found:?}"
    );
}

#[test]
fn kubernetes_is_asked_through_a_proxy_when_one_is_named_or_outside_a_pod() {
    let api = |namer: &str, environment: &Environment| {
        let source = format!("{ROUTER}namers:\n- {namer}\n");
        match load("x", &source, environment)
            .unwrap()
            .config
            .namers
            .remove(0)
            .source
        {
            settings::NamerSource::K8s { api, kind, .. } => (api, kind),
            other => panic!("{other:?}"),
        }
    };
    let proxy = |host: &str, port| settings::K8sApi::Proxy {
        host: host.into(),
        port,
    };
    let outside = Environment {
        in_pod: false,
        ..pod()
    };
    assert_eq!(
        api("{kind: io.l5d.k8s}", &pod()),
        (settings::K8sApi::InCluster, settings::K8sKind::Everywhere)
    );
    assert_eq!(
        api("{kind: io.l5d.k8s}", &outside),
        (proxy("localhost", 8001), settings::K8sKind::Everywhere)
    );
    let mut told = outside.clone();
    told.variables
        .insert("KUBECONFIG".to_owned(), "/etc/kubeconfig".to_owned());
    assert_eq!(
        api("{kind: io.l5d.k8s}", &told),
        (settings::K8sApi::InCluster, settings::K8sKind::Everywhere)
    );
    assert_eq!(
        api("{kind: io.l5d.k8s, port: 8002}", &pod()),
        (proxy("localhost", 8002), settings::K8sKind::Everywhere)
    );
    assert_eq!(
        api("{kind: io.l5d.k8s.ns, host: h}", &pod()),
        (
            proxy("h", 8001),
            settings::K8sKind::Namespace("shop".into())
        )
    );
    let mut direct = pod();
    direct
        .variables
        .insert(KUBERNETES_API.to_owned(), "direct".to_owned());
    assert_eq!(
        api("{kind: io.l5d.k8s, host: localhost, port: 8001}", &direct),
        (settings::K8sApi::InCluster, settings::K8sKind::Everywhere)
    );
    assert_eq!(
        api(
            "{kind: io.l5d.k8s, host: api.elsewhere, port: 8001}",
            &direct
        ),
        (proxy("api.elsewhere", 8001), settings::K8sKind::Everywhere)
    );
    // In Linkerd 1 it is experimental, so that files which use it say so; here the key has no effect.
    for more in ["", ", experimental: true"] {
        let namer = format!("{{kind: io.l5d.k8s.external, port: 8001{more}}}");
        assert_eq!(
            api(&namer, &pod()),
            (proxy("localhost", 8001), settings::K8sKind::External)
        );
    }
}

#[test]
fn load_balancers_have_a_prefix_and_a_label_as_the_other_namers() {
    let source = format!(
        "{ROUTER}namers:\n- {{kind: io.l5d.k8s.external, labelSelector: version}}\n- {{kind: io.l5d.k8s.external, prefix: /lb}}\n"
    );
    let namers = load("x", &source, &pod()).unwrap().config.namers;
    let [first, second] = namers.as_slice() else {
        panic!()
    };
    assert_eq!(first.prefix.to_string(), "/io.l5d.k8s.external");
    assert!(matches!(
        &first.source,
        settings::NamerSource::K8s { label_selector: Some(label), .. } if &**label == "version"
    ));
    assert_eq!(second.prefix.to_string(), "/lb");
}

#[test]
fn the_state_directory_need_not_be_there() {
    let state_dir = |more: &str| {
        let loaded = load("x", &format!("{ROUTER}{more}"), &pod()).unwrap();
        loaded.config.state_dir
    };
    assert_eq!(state_dir(""), None);
    assert_eq!(
        state_dir("stateDir: /nowhere/yet\n"),
        Some("/nowhere/yet".into())
    );
    let wrong = load("x", &format!("{ROUTER}stateDir: [a]\n"), &pod()).unwrap_err();
    assert!(wrong.render().contains("stateDir"), "{}", wrong.render());
}

#[test]
fn what_is_accepted_without_effect_is_said() {
    let source = format!("{ROUTER}  originator: true\nusage: {{orgId: me}}\n");
    let loaded = load("x", &source, &pod()).unwrap();
    let said: Vec<_> = loaded
        .problems
        .all
        .iter()
        .map(|p| p.message.as_str())
        .collect();
    assert_eq!(
        said,
        [
            "`originator` has no effect: it only set a gauge",
            "`usage` has no effect: rutter sends no usage data"
        ]
    );
}

#[test]
fn numbers_and_truths_may_be_quoted_as_in_linkerd_1_but_ports_not() {
    let source = format!(
        "{ROUTER}  label: 80\n  bindingTimeoutMs: \"250\"\n  httpAccessLog: /tmp/a\n  httpAccessLogAppend: \"false\"\n  maxHeadersKB: 8.0\n"
    );
    let config = load("x", &source, &pod()).unwrap().config;
    let router = &config.routers[0].router;
    assert_eq!(
        (
            &*router.label,
            router.binding_timeout.as_millis(),
            router.max_head
        ),
        ("80", 250, 8192)
    );
    assert!(!router.access_log.as_ref().unwrap().append);
}

/// Every key of the tables is either read by a conversion or declared without effect: none is accepted and forgotten.
#[test]
fn every_accepted_key_is_read() {
    let mut all = files("configs/linkerd1");
    all.extend(files("configs/rutter"));
    let mut given = std::collections::BTreeSet::new();
    for file in all {
        let text = std::fs::read_to_string(&file).unwrap();
        let tree = yaml::parse(&text).unwrap();
        let reading = Reading::new(Problems::of("x", &text));
        top::file(&At::root(&tree, &reading), &pod()).unwrap();
        let mut unread = Vec::new();
        reading.unread(&tree, "", &mut unread);
        unread.retain(|path| !ignored(path, &tree));
        assert_eq!(unread, Vec::<String>::new(), "{}", file.display());
        names_of_keys(&tree, &mut given);
    }
    let mut known = std::collections::BTreeSet::new();
    known_keys(Ty::Section(&keys::top::FILE), &mut known, &mut Vec::new());
    let missing: Vec<_> = known.difference(&given).collect();
    assert!(
        missing.is_empty(),
        "no example gives {missing:?}: add them to tests/configs/rutter/everything.yaml"
    );
}

fn ignored(path: &str, tree: &Node) -> bool {
    let source = serde_yaml::to_string(&tree.to_json()).unwrap();
    let problems = match load("x", &source, &pod()) {
        Ok(loaded) => loaded.problems,
        Err(problems) => problems,
    };
    problems.all.iter().any(|p| {
        p.message.contains("has no effect")
            && (path == p.key || path.starts_with(&format!("{}.", p.key)))
    })
}

fn names_of_keys(node: &Node, into: &mut std::collections::BTreeSet<String>) {
    for entry in node.entries() {
        into.insert(entry.key.clone());
        names_of_keys(&entry.node, into);
    }
    if let yaml::Value::List(items) = &node.value {
        items.iter().for_each(|i| names_of_keys(i, into));
    }
}

fn known_keys(
    ty: Ty,
    into: &mut std::collections::BTreeSet<String>,
    seen: &mut Vec<*const keys::Section>,
) {
    let sections: Vec<&'static keys::Section> = match ty {
        Ty::Section(s) => vec![s],
        Ty::Kinds(k) => k
            .supported()
            .filter_map(|k| {
                if let keys::Support::Yes(s) = k.support {
                    Some(s)
                } else {
                    None
                }
            })
            .collect(),
        Ty::List(item) | Ty::OneOrMany(item) | Ty::Named(item) => {
            return known_keys(*item, into, seen);
        }
        _ => vec![],
    };
    for section in sections {
        if seen.contains(&std::ptr::from_ref(section)) {
            continue;
        }
        seen.push(section);
        for key in section.all_keys() {
            if matches!(key.effect, keys::Effect::Same | keys::Effect::Ours) {
                into.insert(key.name.to_owned());
                known_keys(key.ty, into, seen);
            }
        }
    }
}

#[test]
fn what_is_shown_is_a_file_that_says_the_same() {
    let mut all = files("configs/linkerd1");
    all.extend(files("configs/rutter"));
    all.extend(files("walkthrough"));
    for file in all {
        let text = std::fs::read_to_string(&file).unwrap();
        let before = load("x", &text, &pod()).unwrap();
        let shown = show::yaml(&before.tree);
        let after = load("x", &shown, &pod()).unwrap_or_else(|p| panic!("{}\n{shown}", p.render()));
        // An absent `client` and one of defaults only mean the same: what counts is how names resolve.
        let plain = |mut c: Config| {
            c.given = serde_json::Value::Null;
            let mut resolved = String::new();
            for router in &mut c.routers {
                for name in [
                    "/svc/web",
                    "/#/files/a",
                    "/svc/st-non",
                    "/#/io.l5d.fs/a-slow",
                    "/svc/x-t",
                ] {
                    let name = dtab::Path::read(name).unwrap();
                    resolved += &format!(
                        "{:?}{:?}\n",
                        router.router.client.resolve(&name),
                        router.router.service.resolve(&name)
                    );
                }
                router.router.client = Default::default();
                router.router.service = Default::default();
            }
            format!("{c:#?}{resolved}")
        };
        assert_eq!(
            plain(before.config),
            plain(after.config),
            "{}\n{shown}",
            file.display()
        );
        assert!(
            shown.contains("bindingTimeoutMs: 10000  # default")
                || text.contains("bindingTimeoutMs"),
            "{shown}"
        );
    }
}

#[test]
fn lint_finds_what_starts_and_leads_nowhere() {
    let source = "admin: {ip: 0.0.0.0}\nnamers:\n- {kind: io.l5d.fs, rootDir: /d}\nrouters:\n- protocol: http\n  servers: [{port: 4140}]\n  dtab: |\n    /svc => /host | /#/io.l5d.k8s/default/http;\n    /hots => /#/io.l5d.fs;\n    /svc/a => /$/io.buoyant.hostportPx/x;\n    /svc/b => /$/inet/127.0.0.1/4140;\n";
    let loaded = load("x", source, &pod()).unwrap();
    let found: Vec<_> = lint::lint(&loaded, &pod())
        .all
        .iter()
        .map(|p| {
            format!(
                "{}:{} {}",
                p.place.unwrap().line,
                p.place.unwrap().column,
                p.message
            )
        })
        .collect();
    let want = [
        "1:13 the admin port listens on 0.0.0.0:9990",
        "8:13 /host leads nowhere",
        "8:21 no configured namer answers /#/io.l5d.k8s/default/http",
        "10:15 there is no built-in namer `/$/io.buoyant.hostportPx`",
        "11:15 /$/inet/127.0.0.1/4140 is this router's own listener",
    ];
    assert_eq!(found.len(), want.len(), "{found:#?}");
    for (found, want) in found.iter().zip(want) {
        assert!(found.starts_with(want), "{found}\n{want}");
    }
    let fine = lint::lint(
        &load(
            "x",
            &std::fs::read_to_string(files("walkthrough").remove(0)).unwrap(),
            &pod(),
        )
        .unwrap(),
        &pod(),
    );
    assert_eq!(fine.errors(), 0);
    assert!(
        !fine.render().contains("leads nowhere"),
        "{}",
        fine.render()
    );
}

#[test]
fn lint_says_nothing_of_names_that_a_store_binds() {
    let source = "routers:\n- protocol: http\n  servers: [{port: 4140}]\n  interpreter: {kind: io.l5d.namerd.http, dst: /$/inet/namerd/4180}\n";
    let found = lint::lint(&load("x", source, &pod()).unwrap(), &pod());
    assert!(found.all.is_empty(), "{}", found.render());
}

#[test]
fn a_problem_is_drawn_with_its_line_and_a_caret() {
    let problems = load(
        "config.yaml",
        "routers:\n- protocol: http\n  servers: [{prot: 80}]\n  dtab: |\n    /svc = /x;\n",
        &pod(),
    )
    .unwrap_err();
    let want = "\
error: unknown key `prot`
  --> config.yaml:3:14  routers[0].servers[0].prot
  |
3 |   servers: [{prot: 80}]
  |              ^^^^
  = help: did you mean `port`?

error: invalid dtab: expected `=>`, found a blank
  --> config.yaml:5:11  routers[0].dtab
  |
5 |     /svc = /x;
  |           ^
  = help: the arrow is `=>`, in one piece

config.yaml: 2 errors
";
    assert_eq!(problems.render(), want);
}

#[test]
fn the_schema_takes_the_examples_keys() {
    let schema = schema::schema();
    assert_eq!(schema["required"], serde_json::json!(["routers"]));
    let http = &schema["properties"]["routers"]["items"]["oneOf"][0];
    assert_eq!(http["properties"]["protocol"]["const"], "http");
    assert_eq!(http["additionalProperties"], false);
    assert_eq!(
        http["properties"]["servers"]["items"]["properties"]["port"]["maximum"],
        65_535
    );
    assert!(http["properties"].get("announcers").is_none());
}

fn document() -> (PathBuf, String) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let text = std::fs::read_to_string(&path).unwrap();
    (path, text)
}

/// After a change of the tables: `UPDATE_DOCS=1 cargo test -p rutter reference`.
#[test]
#[cfg(feature = "zookeeper")]
fn the_reference_has_the_parsers_keys() {
    let (path, text) = document();
    let (before, rest) = text.split_once("<!-- keys -->\n").unwrap();
    let (held, after) = rest.split_once("<!-- /keys -->").unwrap();
    let want = reference::markdown();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let whole = format!("{before}<!-- keys -->\n{want}<!-- /keys -->{after}");
        std::fs::write(path, whole).unwrap();
    } else {
        assert_eq!(
            held, want,
            "docs/configuration.md is not what the tables say: UPDATE_DOCS=1"
        );
    }
}

#[test]
fn every_yaml_block_of_the_reference_is_a_configuration() {
    let (_, text) = document();
    let blocks: Vec<&str> = text
        .split("```yaml\n")
        .skip(1)
        .filter_map(|b| b.split("```").next())
        .collect();
    assert!(blocks.len() >= 3);
    for block in blocks {
        match load("docs/configuration.md", block, &pod()) {
            Ok(loaded) => assert_eq!(lint::lint(&loaded, &pod()).errors(), 0),
            Err(problems) => panic!("{}", problems.render()),
        }
    }
}

#[test]
fn the_example_of_a_mistake_in_the_reference_is_what_is_said() {
    let (_, text) = document();
    let example = text
        .split("```text\n")
        .nth(1)
        .and_then(|b| b.split("```").next())
        .unwrap();
    let source = "namers: []\nrouters:\n- protocol: http\n  dtab: /svc => /#/io.l5d.fs\n\n  servers:\n  - prot: 4140\n";
    let problems = load("config.yaml", source, &pod()).unwrap_err();
    assert!(
        problems.render().starts_with(example),
        "{}",
        problems.render()
    );
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    fn examples() -> Vec<String> {
        let mut all = files("configs/linkerd1");
        all.extend(files("configs/rutter"));
        all.iter()
            .map(|f| std::fs::read_to_string(f).unwrap())
            .collect()
    }

    /// Reads, renders, lints and shows whatever the text is; what loads must be shown as something that loads.
    fn exercise(text: &str) {
        match load("config.yaml", text, &pod()) {
            Ok(loaded) => {
                _ = lint::lint(&loaded, &pod()).render();
                let shown = show::yaml(&loaded.tree);
                assert!(
                    load("config.yaml", &shown, &pod()).is_ok(),
                    "{text}\n---\n{shown}"
                );
            }
            Err(problems) => {
                assert!(problems.errors() > 0, "{text}");
                _ = problems.render();
                _ = problems.to_json();
                for problem in &problems.all {
                    let place = problem.place.unwrap();
                    assert!(
                        place.line >= 1 && place.column >= 1 && place.offset <= text.len(),
                        "{problem:?}\n{text}"
                    );
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_changed_configuration_panics(
            which in any::<prop::sample::Index>(),
            cuts in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..12, "[ -~\n\té]{0,6}"), 1..4),
        ) {
            let all = examples();
            let mut text = all[which.index(all.len())].clone();
            for (at, len, put) in cuts {
                let chars: Vec<(usize, char)> = text.char_indices().collect();
                if chars.is_empty() { break; }
                let from = at.index(chars.len());
                let to = (from + len).min(chars.len() - 1);
                text.replace_range(chars[from].0..chars[to].0, &put);
            }
            exercise(&text);
        }

        #[test]
        fn no_line_moved_or_doubled_panics(which in any::<prop::sample::Index>(), from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>()) {
            let all = examples();
            let mut lines: Vec<&str> = all[which.index(all.len())].lines().collect();
            let line = lines[from.index(lines.len())];
            lines.insert(to.index(lines.len()), line);
            exercise(&lines.join("\n"));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,200}") {
            exercise(&text);
        }
    }
}

#[test]
fn a_store_is_asked_under_tls_with_linkerds_keys_and_its_host_as_the_name_unless_another_is_given()
{
    use router::settings::Trust;
    let tls = |kind: &str, tls: &str| {
        let source = format!(
            "routers:\n- protocol: http\n  servers: [{{port: 4140}}]\n  interpreter: {{kind: {kind}, dst: /$/inet/namerd/1, tls: {tls}}}\n"
        );
        let loaded = load("x.yaml", &source, &pod()).unwrap();
        loaded.config.routers[0].interpreter.store_tls.clone()
    };
    for kind in ["io.l5d.namerd.http", "io.l5d.mesh"] {
        let own = tls(
            kind,
            "{commonName: store, trustCertsBundle: ca, clientAuth: {certPath: c, keyPath: k}}",
        );
        let own = own.unwrap();
        assert_eq!(
            (own.name.as_deref(), own.trust, own.identity.is_some()),
            (Some("store"), Trust::Files(vec!["ca".into()]), true)
        );
        let plain = tls(kind, "{}").unwrap();
        assert_eq!((plain.name, plain.trust), (None, Trust::System));
        assert_eq!(tls(kind, "{enabled: false}"), None);
        let any = tls(kind, "{disableValidation: true}").unwrap();
        assert_eq!(any.trust, Trust::Anything);
    }
    let own = tls("io.l5d.namerd", "{commonName: store, caCert: ca}").unwrap();
    assert_eq!(
        (own.name.as_deref(), own.trust),
        (Some("store"), Trust::Files(vec!["ca".into()]))
    );
}
