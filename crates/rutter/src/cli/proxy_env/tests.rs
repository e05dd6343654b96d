use super::*;

fn add() -> Change {
    Change::Add(Box::new(Proxy::new(4140, None, &[]).unwrap()))
}

fn apply(text: &str, change: &Change) -> String {
    changed(text, change, &mut Vec::new()).unwrap()
}

const DEPLOYMENT: &str = "\
# The shop's front.
apiVersion: apps/v1
kind: Deployment
metadata: {name: hello}
spec:
  template:
    metadata:
      labels: {app: hello}
    spec:
      initContainers:
      - image: busybox   # waits
        name: wait
      containers:
      - name: hello
        # the image of last week
        image: hello:1
        ports:
        - containerPort: 80
        env:
        # its own
        - name: GREETING
          value: yes
        volumeMounts:
        - {name: config, mountPath: /etc/hello}
      volumes:
      - name: config
        configMap: {name: hello, defaultMode: 0644}
";

const DEPLOYMENT_WITH: &str = "\
# The shop's front.
apiVersion: apps/v1
kind: Deployment
metadata: {name: hello}
spec:
  template:
    metadata:
      labels: {app: hello}
    spec:
      initContainers:
      - image: busybox   # waits
        env:
        - name: RUTTER_NODE_IP
          valueFrom:
            fieldRef:
              fieldPath: status.hostIP
        - name: http_proxy
          value: \"http://$(RUTTER_NODE_IP):4140\"
        - name: no_proxy
          value: \"localhost,127.0.0.1,::1,169.254.169.254,$(RUTTER_NODE_IP)\"
        name: wait
      containers:
      - name: hello
        # the image of last week
        image: hello:1
        ports:
        - containerPort: 80
        env:
        # its own
        - name: RUTTER_NODE_IP
          valueFrom:
            fieldRef:
              fieldPath: status.hostIP
        - name: http_proxy
          value: \"http://$(RUTTER_NODE_IP):4140\"
        - name: no_proxy
          value: \"localhost,127.0.0.1,::1,169.254.169.254,$(RUTTER_NODE_IP)\"
        - name: GREETING
          value: yes
        volumeMounts:
        - {name: config, mountPath: /etc/hello}
      volumes:
      - name: config
        configMap: {name: hello, defaultMode: 0644}
";

#[test]
fn a_deployment_gets_the_variables_and_nothing_else_changes() {
    assert_eq!(apply(DEPLOYMENT, &add()), DEPLOYMENT_WITH);
}

/// Documents of every form that people write: each is changed, stays so, and comes back.
fn forms() -> Vec<(&'static str, String)> {
    let pod = "containers: [{name: a, image: b}]";
    let deeper = "
spec:
  template:
    spec:
        containers:
            - name: a
              image: \"b\"
              args: [\"--x\", 'y: z']
            - image: c
              name: d
              env:
                  - name: X
                    value: |
                      several
                      lines
                  - {name: Y, value: \"{\"}
";
    let job = "spec: {jobTemplate: {spec: {template: {spec: {containers: [{name: a, env: [{name: X, value: ']'}]}]}}}}}";
    vec![
        ("a pod in braces", format!("kind: Pod\nspec: {{{pod}}}\n")),
        ("no line end", "kind: Pod\nspec:\n  containers:\n  - name: a".to_owned()),
        ("lists deeper than their keys", format!("kind: StatefulSet{deeper}")),
        ("a daemonset", format!("kind: DaemonSet{deeper}")),
        ("a job", format!("kind: Job{deeper}")),
        ("a cron job in braces", format!("kind: CronJob\n{job}\n")),
        ("an empty env", "kind: Pod\nspec:\n  containers:\n  - name: a\n    env:\n    image: x\n".to_owned()),
        (
            "json",
            serde_json::to_string_pretty(&serde_json::json!({
                "kind": "Deployment", "metadata": {"name": "a"},
                "spec": {"template": {"spec": {"containers": [{"name": "a", "image": "b:1"}, {"env": [{"name": "X", "value": "}"}], "name": "c"}]}}},
            }))
            .unwrap(),
        ),
        (
            "a list",
            format!("apiVersion: v1\nkind: List\nitems:\n- kind: Pod\n  spec:\n    {pod}\n- kind: Service\n  spec: {{}}\n- kind: DeploymentList\n  items:\n  - kind: Deployment\n    spec:\n      template:\n        spec:\n          containers:\n          - name: z\n"),
        ),
        (
            "several documents",
            format!("# first\n---\nkind: ConfigMap\ndata:\n  a: |\n    --- not a separator\n--- # second\nkind: Pod\nspec: {{{pod}}}\n...\n---\nkind: Pod\nspec:\n  containers:\n  - image: x\n    name: y # last\n---\n"),
        ),
        ("windows line ends", "kind: Pod\r\nspec:\r\n  containers:\r\n  - name: a\r\n    image: b\r\n".to_owned()),
    ]
}

#[test]
fn twice_is_once_and_undo_brings_back_what_was_there() {
    for (form, text) in forms() {
        let with = apply(&text, &add());
        assert_ne!(with, text, "{form}");
        assert_eq!(
            with.matches("http_proxy").count(),
            with.matches("no_proxy").count(),
            "{form}\n{with}"
        );
        assert_eq!(apply(&with, &add()), with, "{form}");
        let back = apply(&with, &Change::Undo);
        if form == "an empty env" || form == "no line end" {
            assert_eq!(back.matches("proxy").count(), 0, "{form}\n{back}");
        } else {
            assert_eq!(back, text, "{form}");
        }
        assert_eq!(apply(&back, &Change::Undo), back, "{form}");
    }
}

#[test]
fn another_port_takes_the_place_of_the_one_before() {
    let other = Change::Add(Box::new(
        Proxy::new(4150, None, &[".corp".to_owned()]).unwrap(),
    ));
    for (form, text) in forms() {
        let with = apply(&apply(&text, &add()), &other);
        assert!(
            with.contains(":4150") && with.contains(",.corp,") && !with.contains(":4140"),
            "{form}\n{with}"
        );
        assert_eq!(apply(&with, &other), with, "{form}");
    }
}

#[test]
fn a_service_is_named_in_full() {
    let change = Change::Add(Box::new(
        Proxy::new(4140, Some("rutter.mesh"), &[]).unwrap(),
    ));
    let with = apply(DEPLOYMENT, &change);
    assert!(
        with.contains("value: \"rutter.mesh.svc.cluster.local\""),
        "{with}"
    );
    assert!(
        with.contains("http://$(RUTTER_SERVICE):4140") && !with.contains("RUTTER_NODE_IP"),
        "{with}"
    );
    assert_eq!(apply(&with, &Change::Undo), DEPLOYMENT);
    for bad in ["rutter", "a b.c", ".", "a."] {
        assert!(
            Proxy::new(4140, Some(bad), &[])
                .unwrap_err()
                .contains("NAME.NAMESPACE"),
            "{bad}"
        );
    }
    assert!(Proxy::new(4140, None, &["a b".to_owned()]).is_err());
}

#[test]
fn what_somebody_set_is_kept_and_said() {
    let text = "kind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  - name: a\n    env:\n    - name: http_proxy\n      value: http://corp:3128\n  - name: b\n    env: [{name: no_proxy, value: x}]\n";
    let mut notes = Vec::new();
    let with = changed(text, &add(), &mut notes).unwrap();
    assert!(with.contains("http://corp:3128"), "{with}");
    assert_eq!(with.matches("\"name\":\"no_proxy\"").count(), 0, "{with}");
    assert_eq!(
        notes,
        [
            "pod/p, container a: keeps its own http_proxy (http://corp:3128)",
            "pod/p, container b: keeps its own no_proxy; see that localhost is in it",
            "1 container changed",
        ]
    );
    assert_eq!(apply(&with, &Change::Undo), text);
}

#[test]
fn routers_and_objects_without_pods_pass_as_they_came() {
    for text in [
        "kind: DaemonSet\nspec: {template: {metadata: {labels: {app.kubernetes.io/name: rutter}}, spec: {containers: [{name: a}]}}}\n",
        "kind: Service\nspec: {ports: [{port: 80}]}\n",
        "# nothing\n",
        "",
        "kind: Deployment\n",
        "- a\n- b\n",
        "kind: Pod\nspec: {containers: nonsense}\n",
    ] {
        assert_eq!(apply(text, &add()), text, "{text}");
    }
}

#[test]
fn what_is_not_yaml_is_said_with_its_line() {
    let mut notes = Vec::new();
    let error = changed("kind: Pod\n---\nkind: [\n", &add(), &mut notes).unwrap_err();
    assert!(error.starts_with("line "), "{error}");
    let aliased = "kind: Pod\nx: &c [{name: a}]\nspec: {containers: *c}\n";
    let error = changed(aliased, &add(), &mut notes).unwrap_err();
    assert!(error.contains("cannot be edited in place"), "{error}");
}

#[test]
fn documents_end_at_separators_in_the_first_column() {
    let text = "a\n---\nb: |\n  ---\n--- c\n...\n";
    let found: Vec<(&str, &str)> = documents(text)
        .into_iter()
        .map(|d| (&text[d.before], &text[d.content]))
        .collect();
    assert_eq!(
        found,
        [
            ("", "a\n"),
            ("---", "\nb: |\n  ---\n"),
            ("---", " c\n"),
            ("...", "\n")
        ]
    );
    assert_eq!(documents("").len(), 1);
}
