//! The program as it is typed: what it prints where, and how it ends.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;

use assert_cmd::Command;
use serde_json::Value;

fn rutter() -> Command {
    let mut command = Command::cargo_bin("rutter").unwrap();
    for name in [
        "POD_IP",
        "NODE_NAME",
        "KUBERNETES_SERVICE_HOST",
        "RUTTER_ADMIN",
        "LANG",
        "LC_ALL",
        "LC_CTYPE",
    ] {
        command.env_remove(name);
    }
    command
}

fn walkthrough() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/walkthrough/config.yaml")
}

/// Status, stdout, stderr.
fn ends(command: &mut Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn an_invalid_configuration_ends_the_start_and_names_the_key() {
    let head = "admin: {ip: 127.0.0.1, port: 0}\nusage: {enabled: false}\n";
    let router = "routers:\n- protocol: http\n  dtab: /svc => /#/io.l5d.fs;\n  servers: [{port: 0, ip: 127.0.0.1}]\n";
    for (config, mentions) in [
        (
            format!("{head}{}", router.replace("/svc =>", "/svc =")),
            "dtab",
        ),
        (
            format!("{head}{router}  bindingTimeoutMs: soon\n"),
            "bindingTimeoutMs",
        ),
        (head.to_owned(), "router"),
        ("routers: [\n".to_owned(), ""),
        (format!("{head}{router}  dtabb: x\n"), "dtabb"),
        (
            format!("{head}namers:\n- {{kind: io.l5d.nonesuch}}\n{router}"),
            "io.l5d.nonesuch",
        ),
        (
            format!("{head}{}", router.replace("http", "gopher")),
            "gopher",
        ),
    ] {
        for arguments in [
            &["-"][..],
            &["run", "-"],
            &["-validate", "-"],
            &["config", "check", "-"],
        ] {
            let (code, out, err) = ends(rutter().args(arguments).write_stdin(config.clone()));
            assert_eq!(code, 1, "{config}{err}");
            assert!(
                err.contains(mentions) && err.contains("error"),
                "{config}{err}"
            );
            assert_eq!(out, "");
        }
    }
}

#[test]
fn the_walkthrough_is_valid_outside_a_pod_and_needs_one_to_start() {
    let (code, _, err) = ends(rutter().args(["config", "check"]).arg(walkthrough()));
    assert_eq!(code, 0, "{err}");
    assert!(
        err.contains("warning: POD_IP env variable must be set to the pod's IP"),
        "{err}"
    );
    let (code, out, _) = ends(
        rutter()
            .args(["config", "check", "-o", "json"])
            .arg(walkthrough()),
    );
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &json["schema"], &json["valid"]),
        (0, &"rutter/config-check/v1".into(), &true.into())
    );
    let (code, _, err) = ends(rutter().arg("-validate").arg(walkthrough()));
    assert_eq!(code, 1);
    assert!(err.contains("POD_IP"), "{err}");
    let (code, out, _) = ends(
        rutter()
            .env("POD_IP", "10.0.0.1")
            .arg("-validate")
            .arg(walkthrough()),
    );
    assert_eq!(code, 0);
    assert!(out.ends_with("valid\n"), "{out}");
}

#[test]
fn wrong_usage_ends_with_2_and_a_suggestion() {
    for (arguments, says) in [
        (&["chekc"][..], "'check'"),
        (&["run"], "Usage"),
        (&["delegate", "svc"], "not a path"),
        (&["delegate", "/svc", "--dtab", "/svc = /x"], "not a dtab"),
        (&["run", "x.yaml", "y.yaml"], "unexpected argument"),
        (&[], "Usage"),
    ] {
        let (code, out, err) = ends(rutter().args(arguments));
        assert_eq!(code, 2, "{arguments:?}{err}");
        assert!(err.contains(says), "{arguments:?}{err}");
        assert_eq!(out, "");
    }
}

#[test]
fn a_file_that_is_not_there_is_told_with_its_neighbour() {
    let near = walkthrough().with_file_name("confg.yaml");
    let (code, _, err) = ends(rutter().arg(near));
    assert_eq!(code, 1);
    assert!(
        err.contains("config is not a file") && err.contains("did you mean config.yaml?"),
        "{err}"
    );
}

#[test]
fn help_version_schema_show_and_completion_answer_on_stdout() {
    for (arguments, says) in [
        (&["--help"][..], "what does the dtab do to a path?"),
        (&["--version"], "rutter 0."),
        (&["version"], "rutter 0."),
        (&["config", "schema"], "\"$schema\""),
        (&["completion", "bash"], "complete"),
        (&["explain", "e101"], "RT-E101"),
        (&["explain"], "RT-C021"),
        (&["help", "why"], "Examples:"),
    ] {
        let (code, out, err) = ends(rutter().args(arguments));
        assert_eq!((code, err.as_str()), (0, ""), "{arguments:?}");
        assert!(out.contains(says), "{arguments:?}{out}");
    }
    let (code, out, _) = ends(rutter().args(["config", "show"]).arg(walkthrough()));
    assert!(
        code == 0 && out.contains("bindingTimeoutMs: 10000  # default"),
        "{out}"
    );
    let (code, _, err) = ends(rutter().args(["explain", "RT-E1O1"]));
    assert!(code == 3 && err.contains("did you mean RT-E101?"), "{err}");
}

#[test]
fn a_dtab_is_explained_without_a_router() {
    let (code, out, _) = ends(
        rutter()
            .args(["delegate", "/svc/world", "--config"])
            .arg(walkthrough()),
    );
    assert_eq!(code, 0);
    let want = "\
/svc/world
`- /svc => /host   /host/world
   |- /host/world => /srv/world-v1   /srv/world-v1
   |  `- /srv => /#/io.l5d.k8s/default/http   [ok] /#/io.l5d.k8s/default/http/world-v1   (nobody asked: this is what the dtab alone says)
   `- /host => /srv   /srv/world
      `- /srv => /#/io.l5d.k8s/default/http   [ok] /#/io.l5d.k8s/default/http/world   (nobody asked: this is what the dtab alone says)
";
    assert_eq!(out, want);
    let (code, out, _) = ends(
        rutter()
            .args(["delegate", "/nope", "-o", "json", "--config"])
            .arg(walkthrough()),
    );
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &json["bound"], &json["tree"]["type"]),
        (1, &false.into(), &"neg".into())
    );
    let (code, _, err) = ends(
        rutter()
            .args(["delegate", "/svc/x", "--router", "nope", "--config"])
            .arg(walkthrough()),
    );
    assert!(code == 3 && err.contains("outgoing, incoming"), "{err}");
}

/// An admin port that answers a few pages; `None` for the port of one that does not exist.
fn admin(pages: &'static [(&'static str, u16, &'static str)]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            let target = head.split(' ').nth(1).unwrap_or_default();
            let found = pages.iter().find(|(path, _, _)| target.starts_with(path));
            let (status, body) = found.map_or((404, ""), |(_, status, body)| (*status, *body));
            let answer = format!(
                "HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            _ = stream.write_all(answer.as_bytes());
        }
    });
    addr
}

const CONFIG: &str = r#"{"routers": [{"protocol": "http", "label": "out", "dtab": "/svc => /#/io.l5d.fs", "servers": [{"port": 0}]}]}"#;
const BOUND: &str = r##"{"type": "delegate", "path": "/svc/web", "delegate": {"type": "leaf", "path": "/#/io.l5d.fs/web",
    "dentry": {"prefix": "/svc", "dst": "/#/io.l5d.fs"},
    "bound": {"id": "/#/io.l5d.fs/web", "path": "/", "addr": {"type": "bound", "meta": {}, "addrs": [{"ip": "10.0.0.1", "port": 80, "meta": {}}]}}}}"##;
const NEG: &str = r##"{"type": "delegate", "path": "/svc/wbe", "delegate": {"type": "neg", "path": "/#/io.l5d.fs/wbe",
    "dentry": {"prefix": "/svc", "dst": "/#/io.l5d.fs"}}}"##;

#[test]
fn why_tells_the_way_and_the_verdict() {
    let admin = admin(&[
        ("/config.json", 200, CONFIG),
        ("/delegator.json?namespace=out&path=/svc/web&", 200, BOUND),
        ("/delegator.json?namespace=out&path=/svc/wbe&", 200, NEG),
        (
            "/near.json?router=out&path=/svc/wbe",
            200,
            r#"{"near": "/svc/web"}"#,
        ),
    ]);
    let (code, out, err) = ends(rutter().args(["why", "http://web/x", "--admin", &admin]));
    assert_eq!(code, 0, "{err}");
    assert!(
        out.contains("1 identify -> /svc/web")
            && out.contains("[ok] /#/io.l5d.fs/web   1 endpoint: 10.0.0.1:80"),
        "{out}"
    );
    let (code, out, _) = ends(rutter().args(["why", "wbe"]).env("RUTTER_ADMIN", &admin));
    assert_eq!(code, 1);
    assert!(
        out.contains("RT-E101") && out.contains("near       /svc/web leads to endpoints"),
        "{out}"
    );
    let (code, out, _) = ends(rutter().args(["why", "wbe", "-o", "json", "--admin", &admin]));
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &json["code"], &json["near"]),
        (1, &"RT-E101".into(), &"/svc/web".into())
    );
    let (code, out, _) = ends(rutter().args(["delegate", "/svc/web", "--admin", &admin]));
    assert!(
        code == 0 && out.starts_with("/svc/web\n`- /svc => /#/io.l5d.fs   [ok]"),
        "{out}"
    );
}

#[test]
fn a_router_that_does_not_answer_is_said_so() {
    let gone = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    for command in [&["why", "web"][..], &["delegate", "/svc/web"]] {
        let (code, _, err) = ends(rutter().args(command).args(["--admin", &gone]));
        assert!(code == 5 && err.contains(&gone), "{err}");
    }
    let (code, out, _) = ends(rutter().args(["check", "--admin", &gone]));
    assert!(
        code == 1 && out.contains("[FAIL]") && out.contains("1 error, 0 warnings"),
        "{out}"
    );
}

#[test]
fn check_finds_the_service_that_the_walkthrough_never_creates() {
    let api = admin(&[
        (
            "/api/v1/namespaces/default/services/there",
            200,
            r#"{"spec": {"ports": [{"name": "incoming", "port": 4141}]}}"#,
        ),
        (
            "/apis/discovery.k8s.io/v1",
            200,
            r#"{"items": [{"endpoints": [{"nodeName": "n1"}]}]}"#,
        ),
    ]);
    let port = api.rsplit_once(':').unwrap().1;
    let config = |service: &str| -> &'static str {
        let text = format!(
            r#"{{"routers": [{{"protocol": "http", "label": "outgoing", "servers": [{{"port": 0}}], "interpreter": {{"kind": "default", "transformers":
            [{{"kind": "io.l5d.k8s.daemonset", "namespace": "default", "service": "{service}", "port": "incoming", "k8sHost": "127.0.0.1", "k8sPort": {port}}}]}}}}]}}"#
        );
        Box::leak(text.into_boxed_str())
    };
    for (service, status, says) in [
        ("l5d", 1, "RT-C021  router \"outgoing\""),
        (
            "there",
            0,
            "[ok] router outgoing: Service default/there exists",
        ),
    ] {
        let pages = vec![
            ("/admin/ping", 200, "pong"),
            ("/config.json", 200, config(service)),
            (
                "/ready",
                200,
                r#"{"ready": true, "conditions": {"listeners": {"met": true, "detail": "1 open"}}}"#,
            ),
            (
                "/metrics",
                200,
                "process_open_fds 10\nprocess_max_fds 1000\nrutter_namer_watch_age_seconds{namer=\"a\"} 3\n",
            ),
        ];
        let admin = admin(Box::leak(pages.into_boxed_slice()));
        let (code, out, err) = ends(rutter().args(["check", "--admin", &admin]));
        assert_eq!(code, status, "{out}{err}");
        assert!(
            out.contains(says)
                && out.contains("listeners: 1 open")
                && out.contains("10 of 1000 file descriptors"),
            "{out}"
        );
        let (_, out, _) = ends(rutter().args(["check", "-o", "json", "--admin", &admin]));
        let json: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(json["errors"], status);
    }
}
