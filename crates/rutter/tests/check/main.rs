//! `rutter check` on set-ups with one fault each: every fault yields its own finding, a healthy set-up none.

mod world;

use std::process::{Command, Output};

use serde_json::{Value, json};
use world::{Admin, World};

/// What `rutter check ARGS -o json` finds: status of the process, and the findings that are not fine.
fn check(arguments: &[&str]) -> (i32, Vec<(String, String)>) {
    let output = run(arguments, "json");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let json: Value = serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("{e}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    let findings = json["checks"].as_array().unwrap().iter();
    let bad = findings.filter(|f| f["status"] == "error" || f["status"] == "warning");
    let told = bad.map(|f| {
        assert!(
            f["fix"].as_str().is_some_and(|fix| !fix.is_empty()),
            "no fix: {f}"
        );
        let text = |key: &str| f[key].as_str().unwrap_or_default().to_owned();
        (
            text("code"),
            format!("{} | {}", text("message"), text("fix")),
        )
    });
    (output.status.code().unwrap(), told.collect())
}

fn run(arguments: &[&str], form: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rutter"))
        .arg("check")
        .args(arguments)
        .args(["-o", form])
        .env_clear()
        .output()
        .unwrap()
}

/// A fault of the cluster: what is changed, the code it must yield, and words of the finding.
type Fault = (&'static str, &'static str, &'static str, fn(&mut World));

const FAULTS: &[Fault] = &[
    (
        "the credentials are refused",
        "RT-C012",
        "does not know who asks",
        |w| {
            w.answer(
                "/version",
                401,
                "{\"message\": \"Unauthorized\", \"code\": 401}",
            );
        },
    ),
    (
        "no EndpointSlices are served",
        "RT-C013",
        "no EndpointSlices",
        |w| {
            w.answer("/apis/discovery.k8s.io/v1", 404, "{}");
        },
    ),
    ("an old cluster", "RT-C082", "v1.19.3 is older", |w| {
        w.answer("/version", 200, "{\"gitVersion\": \"v1.19.3\"}");
    }),
    (
        "may not list slices",
        "RT-C011",
        "service account mesh/rutter may not list endpointslices of discovery.k8s.io",
        |w| {
            w.deny("list", "endpointslices");
        },
    ),
    (
        "may not watch slices",
        "RT-C011",
        "may not watch endpointslices",
        |w| w.deny("watch", "endpointslices"),
    ),
    (
        "may not list services",
        "RT-C011",
        "may not list services of the core group",
        |w| w.deny("list", "services"),
    ),
    (
        "may not watch services",
        "RT-C011",
        "may not watch services",
        |w| w.deny("watch", "services"),
    ),
    (
        "nothing offers the API in the pod",
        "RT-C014",
        "at localhost:8001",
        |w| {
            w.dtab(
                "- kind: io.l5d.k8s\n",
                "- {kind: io.l5d.k8s, host: localhost, port: 8001}\n",
            );
        },
    ),
    ("no DaemonSet", "RT-C020", "no DaemonSet of routers", |w| {
        w.delete("daemonsets", "rutter");
    }),
    (
        "the transformer's Service is gone",
        "RT-C021",
        "names Service mesh/rutter, which does not exist",
        |w| {
            w.delete("services", "rutter");
        },
    ),
    (
        "the transformer's port has another name",
        "RT-C023",
        "wants port incoming of Service mesh/rutter, which has inbound (4141)",
        |w| {
            w.change("services", "rutter", |s| {
                s["spec"]["ports"][0]["name"] = json!("inbound");
            });
        },
    ),
    (
        "the Service selects nobody",
        "RT-C024",
        "its selector",
        |w| {
            w.change("services", "rutter", |s| {
                s["spec"]["selector"] = json!({"app": "router"});
            });
            w.change("endpointslices", "rutter-x", |s| s["endpoints"] = json!([]));
        },
    ),
    (
        "slices without nodes",
        "RT-C022",
        "do not say which node",
        |w| {
            w.change("endpointslices", "rutter-x", |s| {
                for endpoint in s["endpoints"].as_array_mut().unwrap() {
                    endpoint.as_object_mut().unwrap().remove("nodeName");
                }
            });
        },
    ),
    (
        "a router's image is missing",
        "RT-C025",
        "pod mesh/rutter-n2 (node n2) is not ready: rutter: ImagePullBackOff",
        |w| {
            w.change("pods", "rutter-n2", |p| {
            p["status"] = json!({"phase": "Pending", "conditions": [{"type": "Ready", "status": "False"}],
                "containerStatuses": [{"name": "rutter", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]});
        });
            w.delete("pods", "hello-2");
        },
    ),
    (
        "a node with a taint has no router",
        "RT-C026",
        "node n3 has no router; its taints: gpu:NoSchedule",
        |w| {
            w.add("/api/v1/nodes", json!({"metadata": {"name": "n3"}, "spec": {"taints": [{"key": "gpu", "effect": "NoSchedule"}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}}));
        },
    ),
    ("POD_IP is not set", "RT-C027", "does not set POD_IP", |w| {
        w.without_variable("POD_IP");
    }),
    (
        "NODE_NAME is not set",
        "RT-C022",
        "does not set NODE_NAME",
        |w| w.without_variable("NODE_NAME"),
    ),
    (
        "the ConfigMap is gone",
        "RT-C028",
        "ConfigMap mesh/rutter does not exist",
        |w| w.delete("configmaps", "rutter"),
    ),
    (
        "the ConfigMap has another key",
        "RT-C028",
        "has no config.yaml",
        |w| {
            w.change("configmaps", "rutter", |c| {
                c["data"] = json!({"linkerd.yaml": "x"});
            });
        },
    ),
    ("the ConfigMap is not valid", "RT-C060", "routers[0]", |w| {
        w.change("configmaps", "rutter", |c| {
            let text = c["data"]["config.yaml"]
                .as_str()
                .unwrap()
                .replace("label: outgoing", "lable: outgoing");
            c["data"]["config.yaml"] = json!(text);
        });
    }),
    ("a rule leads to no namer", "RT-C061", "RT-D04", |w| {
        w.dtab("/srv =>", "/x => /#/io.l5d.consul/dc ;\n    /srv =>");
    }),
    ("two images", "RT-C029", "rutter:0.2 on n2", |w| {
        w.change("pods", "rutter-n2", |p| {
            p["spec"]["containers"][0]["image"] = json!("rutter:0.2");
        });
    }),
    (
        "one tag, two images",
        "RT-C029",
        "different images of the same name",
        |w| {
            for (pod, id) in [("rutter-n1", "sha256:1"), ("rutter-n2", "sha256:2")] {
                w.change("pods", pod, |p| {
                    p["status"]["containerStatuses"] =
                        json!([{"name": "rutter", "imageID": id, "state": {"running": {}}}]);
                });
            }
        },
    ),
    ("no hostPort", "RT-C030", "port 4140 has no hostPort", |w| {
        w.change("daemonsets", "rutter", |d| {
            d["spec"]["template"]["spec"]["containers"][0]["ports"][0]
                .as_object_mut()
                .unwrap()
                .remove("hostPort");
        });
    }),
    (
        "a namespace that is not there",
        "RT-C051",
        "namespace defualt",
        |w| w.dtab("/default/", "/defualt/"),
    ),
    (
        "a Service that is not there",
        "RT-C052",
        "did you mean world-v1?",
        |w| w.dtab("/srv/world-v1", "/srv/wolrd-v1"),
    ),
    (
        "a port that is not there",
        "RT-C053",
        "has no port grpc",
        |w| {
            w.dtab(
                "/host/world =>",
                "/host/x => /#/io.l5d.k8s/default/grpc/world-v1 ;\n    /host/world =>",
            );
        },
    ),
    (
        "nobody is ready",
        "RT-C054",
        "Service default/world-v1",
        |w| {
            w.change("endpointslices", "world-v1-x", |s| {
                s["endpoints"][0]["conditions"]["ready"] = json!(false);
            });
        },
    ),
    (
        "no collector",
        "RT-C042",
        "there is no Service default/zipkin",
        |w| w.delete("services", "zipkin"),
    ),
    (
        "the collector is down",
        "RT-C043",
        "Service default/zipkin of the collector has no ready endpoint",
        |w| {
            w.change("endpointslices", "zipkin-x", |s| s["endpoints"] = json!([]));
        },
    ),
    (
        "http_proxy is the node's name",
        "RT-C031",
        "use status.hostIP",
        |w| {
            w.variable(
                "hello-1",
                "RUTTER_NODE_IP",
                json!({"valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}),
            );
        },
    ),
    (
        "http_proxy is a Service that is not there",
        "RT-C031",
        "no Service default/l5d",
        |w| w.proxy("hello-1", "l5d:4140"),
    ),
    (
        "http_proxy has the incoming port",
        "RT-C032",
        "has port 4141",
        |w| w.proxy("hello-1", "http://$(RUTTER_NODE_IP):4141"),
    ),
    (
        "http_proxy is some address",
        "RT-C033",
        "neither the pod's node",
        |w| w.proxy("hello-1", "http://10.9.9.9:4140"),
    ),
    (
        "http_proxy is another Service",
        "RT-C033",
        "does not lead to routers",
        |w| w.proxy("hello-1", "http://zipkin.default:4140"),
    ),
    (
        "https_proxy is the router",
        "RT-C034",
        "makes no tunnels",
        |w| {
            w.variable(
                "hello-1",
                "https_proxy",
                json!({"value": "http://$(RUTTER_NODE_IP):4140"}),
            );
        },
    ),
    ("no_proxy lacks localhost", "RT-C035", "no_proxy", |w| {
        w.variable("hello-1", "no_proxy", json!({"value": "a,b"}));
    }),
    ("http_proxy refers to nothing", "RT-C036", "$(NODE)", |w| {
        w.proxy("hello-1", "http://$(NODE):4140");
    }),
    ("capitals only", "RT-C037", "HTTP_PROXY", |w| {
        w.change("pods", "hello-1", |p| {
            p["spec"]["containers"][0]["env"][1]["name"] = json!("HTTP_PROXY");
        });
    }),
    (
        "a pod where no router is",
        "RT-C038",
        "node n9 has no ready router",
        |w| {
            w.change("pods", "hello-1", |p| p["spec"]["nodeName"] = json!("n9"));
        },
    ),
];

#[test]
fn a_healthy_cluster_has_no_findings() {
    let world = World::healthy().serve();
    let (status, found) = check(&["--api", &world, "--proxy"]);
    assert_eq!((status, found), (0, vec![]));
    let table = run(&["--api", &world, "--proxy"], "table");
    let table = String::from_utf8(table.stdout).unwrap();
    for line in [
        "[ok] service account mesh/rutter may list and watch",
        "[ok] DaemonSet mesh/rutter: 2 of 2 routers are ready",
        "[ok] every node has a router (2)",
        "[ok] ConfigMap mesh/rutter, config.yaml is valid",
        "[ok] POD_IP and NODE_NAME are set",
        "[ok] pods reach port 4140 at their node's address",
        "[ok] router outgoing: Service mesh/rutter exists, and has 2 routers",
        "[ok] all 2 places that the dtab names are there",
        "[ok] 2 pods use the routers",
        "[ok] Service default/zipkin of the collector is there",
        "0 errors, 0 warnings",
    ] {
        assert!(table.contains(line), "{line}\n{table}");
    }
}

#[test]
fn each_fault_of_a_cluster_yields_its_own_finding() {
    let mut seen = std::collections::BTreeSet::new();
    for (fault, code, says, change) in FAULTS {
        let mut world = World::healthy();
        change(&mut world);
        let api = world.serve();
        let (_, found) = check(&["--api", &api, "--proxy"]);
        assert!(
            found
                .iter()
                .any(|(c, message)| c == code && message.contains(says)),
            "{fault}: no {code} with {says:?} among {found:#?}"
        );
        // The fault alone: what follows from it may be told, too, but nothing is told twice.
        let firsts: Vec<_> = found.iter().filter(|(c, _)| c == code).collect();
        assert!(firsts.len() <= 2, "{fault}: {firsts:#?}");
        assert!(
            seen.insert((*code, *says)),
            "{fault} is no fault of its own"
        );
    }
    assert!(FAULTS.len() >= 25);
}

#[test]
fn errors_end_with_1_and_warnings_with_0() {
    let with = |change: fn(&mut World)| {
        let mut world = World::healthy();
        change(&mut world);
        check(&["--api", &world.serve()]).0
    };
    assert_eq!(with(|w| w.delete("services", "rutter")), 1);
    assert_eq!(with(|w| w.delete("services", "zipkin")), 0);
}

#[test]
fn node_local_services_are_as_good_as_a_host_port() {
    let mut world = World::healthy();
    world.change("daemonsets", "rutter", |d| {
        d["spec"]["template"]["spec"]["containers"][0]["ports"][0]
            .as_object_mut()
            .unwrap()
            .remove("hostPort");
    });
    world.change("services", "rutter", |s| {
        s["spec"]["internalTrafficPolicy"] = json!("Local");
        s["spec"]["ports"]
            .as_array_mut()
            .unwrap()
            .push(json!({"name": "outgoing", "port": 4140}));
    });
    world.proxy("hello-1", "http://rutter.mesh.svc.cluster.local:4140");
    assert_eq!(check(&["--api", &world.serve(), "--proxy"]), (0, vec![]));
}

#[test]
fn what_a_user_may_not_see_is_no_finding() {
    let mut world = World::healthy();
    let refused = "{\"message\": \"nodes is forbidden\", \"code\": 403}";
    world.answer("/api/v1/nodes", 403, refused);
    world.answer(
        "/apis/authorization.k8s.io/v1/subjectaccessreviews",
        403,
        refused,
    );
    world.answer("/api/v1/pods", 403, refused);
    assert_eq!(check(&["--api", &world.serve(), "--proxy"]), (0, vec![]));
}

#[test]
fn before_the_installation_the_ports_rights_and_levels_are_looked_at() {
    let (status, found) = check(&["--pre", "--api", &World::empty().serve()]);
    assert_eq!((status, found), (0, vec![]));
    type BeforeFault = (&'static str, &'static str, fn(&mut World));
    let faults: [BeforeFault; 4] = [
        (
            "RT-C080",
            "port 4140 is taken by DaemonSet linkerd/l5d on n1",
            |w| {
                w.add("/api/v1/namespaces/linkerd/pods", json!({"metadata": {"name": "l5d-x", "namespace": "linkerd", "ownerReferences": [{"kind": "DaemonSet", "name": "l5d"}]},
                "spec": {"nodeName": "n1", "containers": [{"ports": [{"containerPort": 4140, "hostPort": 4140}]}]}}));
            },
        ),
        ("RT-C081", "enforces pod security level restricted", |w| {
            w.change("namespaces", "default", |n| {
                n["metadata"]["labels"] =
                    json!({"pod-security.kubernetes.io/enforce": "restricted"});
            });
        }),
        ("RT-C011", "may not create clusterroles", |w| {
            w.deny("create", "clusterroles");
        }),
        (
            "RT-C011",
            "may not create daemonsets in namespace default",
            |w| w.deny("create", "daemonsets"),
        ),
    ];
    for (code, says, change) in faults {
        let mut world = World::empty();
        change(&mut world);
        let (status, found) = check(&["--pre", "--api", &world.serve()]);
        assert_eq!(status, 1);
        assert!(
            found.len() == 1 && found[0].0 == code && found[0].1.contains(says),
            "{says}: {found:?}"
        );
    }
}

#[test]
fn an_api_that_does_not_answer_is_told_with_its_address() {
    let gone = world::free_address();
    let (status, found) = check(&["--api", &gone]);
    assert_eq!(status, 1);
    assert!(
        found.len() == 1 && found[0].0 == "RT-C010" && found[0].1.contains(&gone),
        "{found:?}"
    );
    let (status, found) = check(&["--kubeconfig", "/nowhere/config"]);
    assert_eq!(status, 1);
    assert!(
        found.len() == 1 && found[0].0 == "RT-C010" && found[0].1.contains("/nowhere/config"),
        "{found:?}"
    );
}

/// A fault of the router that is asked: code, words, and what its admin port answers otherwise.
const OF_THE_ROUTER: &[(&str, &str, &str, u16, &str)] = &[
    ("RT-C002", "no router's admin port", "/admin/ping", 404, ""),
    (
        "RT-C003",
        "kubernetes: waits: the API server answers 403",
        "/ready",
        503,
        r#"{"ready": false, "conditions": {"kubernetes": {"met": false, "detail": "the API server answers 403"}}}"#,
    ),
    (
        "RT-C005",
        "990 of 1000 file descriptors",
        "/metrics",
        200,
        "process_open_fds 990\nprocess_max_fds 1000\n",
    ),
    (
        "RT-C006",
        "its configuration is not shown",
        "/config.json",
        404,
        "",
    ),
    (
        "RT-C007",
        "a changed configuration was refused",
        "/metrics",
        200,
        "rutter_config_reloads_total{result=\"ok\"} 1\nrutter_config_last_reload_successful 0\n",
    ),
    (
        "RT-C040",
        "7 spans for",
        "/metrics",
        200,
        "rutter_spans_total{result=\"dropped\"} 7\nrutter_spans_total{result=\"sent\"} 5\n",
    ),
    (
        "RT-C041",
        "/svc/deaf received 3 traces",
        "/requests.json",
        200,
        r#"{"requests": [
        {"source": "9.9.9.9:1", "destination": "10.0.0.1:80", "trace": "a1", "logical": "/svc/deaf"},
        {"source": "9.9.9.9:1", "destination": "10.0.0.1:80", "trace": "a2", "logical": "/svc/deaf"},
        {"source": "9.9.9.9:1", "destination": "10.0.0.1:80", "trace": "a3", "logical": "/svc/deaf"},
        {"source": "10.0.0.1:4", "destination": "10.0.0.2:80", "trace": "b1", "logical": "/svc/world"},
        {"source": "10.0.0.1:5", "destination": "10.0.0.2:80", "trace": "b2", "logical": "/svc/world"},
        {"source": "10.0.0.1:6", "destination": "10.0.0.2:80", "trace": "b3", "logical": "/svc/world"}]}"#,
    ),
    (
        "RT-C050",
        "confirmed 900 s ago",
        "/metrics",
        200,
        "rutter_namer_watch_age_seconds{namer=\"io.l5d.k8s\"} 900\n",
    ),
];

#[test]
fn each_fault_of_a_router_yields_its_own_finding() {
    let healthy = Admin::healthy();
    let (status, found) = check(&["--admin", &healthy.serve()]);
    assert_eq!((status, found), (0, vec![]));
    for (code, says, path, answer, body) in OF_THE_ROUTER {
        let mut admin = Admin::healthy();
        admin.answer(path, *answer, body);
        let (_, found) = check(&["--admin", &admin.serve()]);
        assert!(
            found.len() == 1 && found[0].0 == *code && found[0].1.contains(says),
            "{code}: {found:#?}"
        );
    }
}

#[test]
fn a_listener_that_is_closed_and_a_collector_that_is_gone_are_told() {
    let mut admin = Admin::healthy();
    admin.listener = world::free_address();
    let (status, found) = check(&["--admin", &admin.serve()]);
    assert!(
        status == 1 && found.len() == 1 && found[0].0 == "RT-C004",
        "{found:?}"
    );
    let mut admin = Admin::healthy();
    admin.collector = world::free_address();
    admin.answer("/metrics", 200, "");
    let (status, found) = check(&["--admin", &admin.serve()]);
    assert!(
        status == 0 && found.len() == 1 && found[0].0 == "RT-C043",
        "{found:?}"
    );
    let gone = world::free_address();
    let (status, found) = check(&["--admin", &gone]);
    assert!(
        status == 1 && found.len() == 1 && found[0].0 == "RT-C001" && found[0].1.contains(&gone),
        "{found:?}"
    );
}

#[test]
fn a_probe_is_a_request_through_the_router() {
    let admin = Admin::healthy();
    let at = admin.serve();
    let (status, found) = check(&[
        "--admin",
        &at,
        "--probe",
        "hello",
        "--probe",
        "http://hello/x",
    ]);
    assert_eq!((status, found), (0, vec![]));
    let (status, found) = check(&["--admin", &at, "--probe", "nobody"]);
    assert_eq!(status, 1);
    assert!(
        found.len() == 1
            && found[0].0 == "RT-C070"
            && found[0]
                .1
                .contains("502, by the router: RT-E101 no such destination"),
        "{found:?}"
    );
}

#[test]
fn the_forms_of_the_answer_agree() {
    let mut world = World::healthy();
    world.delete("services", "zipkin");
    world.delete("services", "rutter");
    let api = world.serve();
    let text = |form: &str, more: &[&str]| {
        let mut arguments = vec!["--api", &api];
        arguments.extend(more);
        String::from_utf8(run(&arguments, form).stdout).unwrap()
    };
    let short = text("short", &[]);
    assert!(short.starts_with("error   RT-C021 names: "), "{short}");
    assert!(
        short.contains("\nwarning RT-C042 traces: ") && short.ends_with("1 error, 1 warning\n"),
        "{short}"
    );
    let junit = text("junit", &[]);
    assert!(
        junit.starts_with("<?xml")
            && junit.contains("failures=\"1\"")
            && junit.contains("<failure type=\"RT-C021\""),
        "{junit}"
    );
    let only = text("short", &["--only", "traces"]);
    assert!(
        only.contains("RT-C042")
            && !only.contains("RT-C021")
            && only.ends_with("0 errors, 1 warning\n"),
        "{only}"
    );
    assert_eq!(
        run(&["--api", &api, "--wait", "1s"], "short").status.code(),
        Some(6)
    );
    assert_eq!(
        run(&["--api", &api, "--only", "nonsense"], "short")
            .status
            .code(),
        Some(2)
    );
}
