//! The table behind [`Check`] and [`Lint`]: what `rutter check` and `rutter config check` find.

use super::Entry;

catalogue! {
    /// What `rutter check` may find in an installation.
    Check:
    C001 "no router answers" [];
    "Nobody listens at the admin address that was asked, or nobody answers there within five seconds.";
    causes "the router does not run, or has just ended with an error", "its `admin.port` or `admin.ip` is another one (without `ip` it listens on loopback only)", "a network policy or firewall lies between";
    fix "Start a router with `rutter run FILE`, or say where one is: `--admin HOST:PORT` or the variable RUTTER_ADMIN. In a cluster, `kubectl logs` of the router's pod has the reason of its end.";
    see "`rutter check`; `/live` of the router.";

    C002 "that is no router's admin port" [];
    "Something answers at the admin address, but not as a router does: `/admin/ping` is not answered with `pong`.";
    causes "the port is the router's 4140 or 4141, not its admin port", "another program has taken the port", "`admin.security` closes the page";
    fix "Give the admin port, 9990 by default, and see that nothing else listens there.";
    see "`rutter check`; `curl http://HOST:9990/admin/ping`.";

    C003 "the router is not ready" [];
    "A condition of `/ready` is not met; the finding names it. Kubernetes sends the pod no traffic until all are met.";
    causes "the Kubernetes API has not answered one whole list yet", "a permission is missing, so that it never will (see RT-C011)", "the router is draining";
    fix "Look at the condition's own words: they have the error of the last attempt. The other findings usually say why.";
    see "`/ready` on the admin port; `rutter check`.";

    C004 "a listener accepts no connections" [];
    "The router's configuration has a server at this address, and no connection to it can be made from here.";
    causes "the container's port is not open from here (no `hostPort`, a network policy)", "the accept queue is full: the router is overloaded", "the router is draining";
    fix "Try it from a pod on the router's node. If that works, only the way from here is closed, which may be as you want it.";
    see "`rutter check`; `rutter_accepted_connections_total` of that server.";

    C005 "file descriptors run out" [];
    "More than nine tenths of the process's file descriptors are in use. At the limit new connections are refused, those of clients and those to endpoints.";
    causes "the limit is that of a login shell (1024)", "clients that open connections and never close them", "a slow service behind the router, so that requests pile up";
    fix "Raise the limit (`ulimit -n`, `LimitNOFILE=`, or the container runtime's), or find the client with most connections.";
    see "`process_open_fds` and `process_max_fds` on `/metrics`.";

    C006 "the running configuration cannot be read" [];
    "`/config.json` of the running router is not to be had, or has keys that this program does not know. What depends on it was not looked at.";
    causes "the router is of another version than this program", "`admin.security` closes the page";
    fix "Use the `rutter` of the router's version: in its pod there is one (`kubectl exec`).";
    see "`rutter check`; `/config.json` on the admin port.";

    C007 "a changed configuration was refused" [];
    "The configuration file has been changed since the router started, and the change is not valid: the old configuration stays in force, and will be gone with the next restart.";
    causes "a typing error in the ConfigMap", "a listener's port that another process has";
    fix "`rutter config check FILE` says what is wrong with the new one.";
    see "`configuration` in `/ready`; `rutter_config_last_reload_successful`; the router's log.";

    C010 "the Kubernetes API cannot be reached" [];
    "No answer comes from the API server at the address that the configuration, the service account or the kubeconfig names. Routers keep serving what they knew; one that starts now knows nothing.";
    causes "`host` and `port` of the namer are those of a `kubectl proxy` that does not run", "the API server is down or cut off", "neither a service account nor a kubeconfig is there";
    fix "Within a cluster leave `host` and `port` out: the pod's service account is used. Elsewhere start `kubectl proxy`, or set KUBECONFIG.";
    see "`rutter check`; `/ready`, `rutter_namer_watch_errors_total`.";

    C011 "a permission is missing" [];
    "The API server refuses something that rutter needs; the finding names verb, resource and namespace. Without it endpoints are not known, or not known to change.";
    causes "the ClusterRole or its binding was not created, or is for another service account", "the role has `list` without `watch`, or the other way round", "only namespaces are allowed, and the dtab names others";
    fix "Give the routers' service account `list` and `watch` on `services` (core) and `endpointslices` (discovery.k8s.io), in all namespaces or in those that the dtab names.";
    see "`rutter check`; `/ready` and the log have the API server's words.";

    C012 "the Kubernetes API refuses the credentials" [];
    "The API server answers 401: it does not know who is asking. No permission helps before it does.";
    causes "the service account was deleted and made anew: its old token is worthless", "a kubeconfig of another cluster, or one that has expired", "`automountServiceAccountToken: false`";
    fix "Restart the pod for a new token, or renew the kubeconfig. `kubectl auth whoami` tells who one is.";
    see "`rutter check`; `rutter_namer_watch_errors_total`.";

    C013 "the Kubernetes API has no EndpointSlices" [];
    "`discovery.k8s.io/v1` is not served. Endpoints are watched instead: they are cut at 1,000 addresses a service, and every change sends all of them.";
    causes "a Kubernetes older than 1.21", "a proxy in front of the API server that lets only some paths through";
    fix "Use Kubernetes 1.21 or later; 1.26 has all that the chart offers.";
    see "`rutter check`; `/state` shows which kind is watched.";

    C014 "nothing offers the Kubernetes API to the routers" [];
    "The configuration asks the Kubernetes API through a proxy in the router's own pod, as Linkerd 1's examples did (`host: localhost`, `port: 8001`), and there is no other container in the pod that would be it.";
    causes "the walkthrough's file was taken over, and its side container (`kubectl proxy`) was not";
    fix "Remove `host` and `port` from the namer and `k8sHost`, `k8sPort` from transformers: the pod's service account is used then. Or add the side container.";
    see "`rutter check`; `/ready`: the condition `kubernetes`.";

    C020 "there are no routers in the cluster" [];
    "No DaemonSet labelled `app.kubernetes.io/name: rutter`, and none called `rutter` or `l5d`, is there in the namespaces that were looked at.";
    causes "rutter has not been installed yet: `rutter check --pre` looks at what it needs", "it is in another namespace (`-N`)", "the DaemonSet has another name and no such label";
    fix "Install it, or name the namespace with `-N`; give a DaemonSet of your own the label.";
    see "`rutter check`; `kubectl get daemonsets -A`.";

    C021 "a transformer's Service does not exist" [];
    "A daemonset transformer names the Service by which routers on other nodes are found, and no such Service exists. Every request over that router ends with RT-E104.";
    causes "the Service was never created: the published walkthrough has only the DaemonSet", "it is in another namespace, or has another name";
    fix "Create a headless Service that selects the routers' pods and has the port that the transformer names, usually `incoming`.";
    see "`rutter check`; `rutter_errors_total{code=\"RT-E104\"}`.";

    C022 "the endpoints' nodes are guessed" [];
    "Which node an endpoint or the router itself runs on is not known, so that the router guesses by the /24 network of addresses as Linkerd 1 did. On clusters with other network sizes that is wrong.";
    causes "NODE_NAME is not set in the routers' DaemonSet", "the API server is too old to have EndpointSlices with nodeName";
    fix "Set NODE_NAME from `spec.nodeName` in the DaemonSet; use a cluster with discovery.k8s.io/v1.";
    see "`rutter check`; a `warn` line at start.";

    C023 "the transformer's Service has no such port" [];
    "The Service that a daemonset transformer names exists, but none of its ports has the name that the transformer wants. Every request over that router ends with RT-E104.";
    causes "the port's name in the Service differs from `port` of the transformer", "the Service is another one, not that of the routers";
    fix "Name the port as the transformer does, usually `incoming`, or change `port` there. It is the name that counts, not the number.";
    see "`rutter check`; `rutter_errors_total{code=\"RT-E104\"}`.";

    C024 "no router is ready behind the transformer's Service" [];
    "The Service that a daemonset transformer names has no ready endpoint: requests to other nodes find no router there and end with RT-E104.";
    causes "its selector matches no pod of the DaemonSet", "no router is ready (see RT-C025)";
    fix "Compare `spec.selector` of the Service with the labels of the routers' pods; `kubectl get endpointslices` shows what it selects.";
    see "`rutter check`; `rutter_errors_total{code=\"RT-E104\"}`.";

    C025 "a router's pod is not ready" [];
    "A pod of the DaemonSet is not ready; the finding names it, its node and the reason that Kubernetes gives. Pods on that node have no router, and others cannot reach its pods.";
    causes "the image cannot be pulled", "the router ends at its start: its log has the reason", "a port of the node is taken (see RT-C080)";
    fix "`kubectl describe pod` and `kubectl logs --previous` of the pod tell more.";
    see "`rutter check`; `kubectl get pods -o wide`.";

    C026 "a node has no router" [];
    "No pod of the DaemonSet is on this node, although pods with endpoints are or may be: they are not reached through the incoming router, and their own requests find nobody.";
    causes "the node has a taint that the DaemonSet does not tolerate", "a nodeSelector or affinity leaves it out", "a port of the node is taken, so that the pod is not scheduled";
    fix "Add the toleration to the DaemonSet, or keep pods that use the mesh off such nodes.";
    see "`rutter check`; `kubectl describe daemonset`.";

    C027 "a variable is missing in the DaemonSet" [];
    "The configuration needs a variable that the routers' container does not get: a router does not start without it, or cannot tell its own node's pods from others.";
    causes "the DaemonSet was written for another configuration", "a variable was set in a shell and not in the manifest";
    fix "Set POD_IP from `status.podIP` and NODE_NAME from `spec.nodeName` with `valueFrom.fieldRef`.";
    see "`rutter check`; the router's last log line.";

    C028 "the routers' configuration is missing" [];
    "The ConfigMap that the DaemonSet mounts does not exist, or has no entry of the name that the router is started with. New pods do not start.";
    causes "the ConfigMap was renamed or deleted", "its key differs from the file's name in the container's arguments";
    fix "Create the ConfigMap with that key, or correct the volume or the arguments.";
    see "`rutter check`; `kubectl describe pod` of a router.";

    C029 "routers differ" [];
    "Not all routers of the DaemonSet run the same version or the same configuration, so that a request's fate depends on its node.";
    causes "an update is under way, or has stopped half-way", "the ConfigMap was changed and some routers have refused it", "updateStrategy is OnDelete";
    fix "`kubectl rollout status` of the DaemonSet tells whether an update runs; delete the pods that are behind.";
    see "`rutter check`; `rutter_build_info`.";

    C030 "the routers' port is not open to the pods" [];
    "The outgoing port has no `hostPort` in the DaemonSet, and no Service with `internalTrafficPolicy: Local` leads to it: pods have no address for the router on their own node.";
    causes "`hostPort` was left out, or is another number", "the Service sends requests to any node's router";
    fix "Set `hostPort` to the port (`reach: hostPort` of the chart), or `internalTrafficPolicy: Local` on the Service (`reach: nodeLocalService`).";
    see "`rutter check --proxy`; connections refused in the applications' logs.";

    C031 "pods use a proxy address that does not resolve" [];
    "Pods have `http_proxy` set to a name, usually the node's, that cannot be resolved from inside the pod; all their requests fail before they reach a router.";
    causes "`spec.nodeName` is used where node names are not in DNS", "the Service in the address does not exist";
    fix "Use `status.hostIP` in the pod's environment instead of `spec.nodeName`: `rutter proxy-env` writes it.";
    see "`rutter check --proxy`; no requests from these pods on `/requests`.";

    C032 "http_proxy has a port that no router listens on" [];
    "Pods send their requests to the right address and to a port that is not the outgoing router's; they are refused, or taken by the incoming router, which knows only its own node's pods.";
    causes "the incoming port (4141) or the admin port (9990) was written instead of 4140", "the configuration was changed and the applications were not";
    fix "Set the port of the outgoing router; `rutter proxy-env --port` writes it.";
    see "`rutter check --proxy`.";

    C033 "http_proxy has an address that is no router's" [];
    "Pods send their requests to an address that is neither their node's, nor a router's, nor that of a Service in front of routers.";
    causes "a router's pod address was written down, and the pod is gone", "another proxy was set for the whole cluster";
    fix "Use the node's own address, `status.hostIP`: `rutter proxy-env` writes it.";
    see "`rutter check --proxy`.";

    C034 "https_proxy leads to the router" [];
    "Requests for https:// addresses ask the router for a tunnel (CONNECT), to a name with its port: `/svc/web:443`. Where the dtab has no such name they are answered 502 (RT-E101), and on ports other than 443 403 (RT-E125).";
    causes "http_proxy and https_proxy were set alike by habit", "the dtab leads names with a port nowhere";
    fix "Remove `https_proxy` (and HTTPS_PROXY), or have the dtab lead such names somewhere, as `/svc => /$/io.buoyant.hostportPfx/tls` does.";
    see "`rutter check --proxy`; `rutter_errors_total{code=\"RT-E101\"}`.";

    C035 "no_proxy does not have localhost" [];
    "Requests of a container to itself or its sidecars go to the router, which refuses loopback addresses (RT-E119) or knows no such name (RT-E101).";
    causes "`no_proxy` is missing beside `http_proxy`, or lists other names only";
    fix "Add `localhost,127.0.0.1` to `no_proxy`; `rutter proxy-env` does.";
    see "`rutter check --proxy`; `rutter_errors_total{code=\"RT-E119\"}`.";

    C036 "http_proxy refers to a variable that is not set" [];
    "Kubernetes replaces `$(NAME)` by variables that stand *before* in the list; what is not there, or comes later, stays as it is written and is no address.";
    causes "the variable is defined below the one that uses it", "a misspelt name", "the variable comes from `envFrom`, which is not looked at for this";
    fix "Put the variable with the node's address above `http_proxy` in `env`.";
    see "`rutter check --proxy`; `kubectl exec … -- env`.";

    C037 "only HTTP_PROXY in capitals is set" [];
    "curl and some libraries read `http_proxy` in small letters only, since a request header can set the one in capitals where programs run as CGI.";
    causes "the variable was set as it is in many manuals";
    fix "Set `http_proxy` (and `no_proxy`) in small letters, too; `rutter proxy-env` does.";
    see "`rutter check --proxy`.";

    C038 "a pod that uses the router is on a node without one" [];
    "The pod's `http_proxy` leads to its own node, and no ready router is there: all its requests fail.";
    causes "a taint keeps the DaemonSet off the node", "the router there is not ready (see RT-C025)";
    fix "Repair the router on that node, or move the pod.";
    see "`rutter check --proxy`; connections refused in the application's log.";

    C040 "spans are dropped" [];
    "The collector does not take spans as fast as they come, or not at all: those that do not fit into the queue are dropped. Requests are not held up by it.";
    causes "the collector is down, slow or was renamed", "`sampleRate` is more than it can keep";
    fix "Repair the collector, or lower `sampleRate`.";
    see "`rutter_spans_total{result=\"dropped\"}`; a `warn` line of the exporter.";

    C041 "a service does not forward trace headers" [];
    "A service receives trace headers and makes requests without them, so that every trace ends there and the next one looks like a new request.";
    causes "the application does not copy the `l5d-ctx-*` headers (or B3, or traceparent) to the requests it makes";
    fix "Copy all headers that start with `l5d-ctx-` from the request being answered to those made for it, or use a tracing library.";
    see "`rutter check`; traces in Zipkin that consist of one hop only.";

    C042 "the collector's Service does not exist" [];
    "The name of the span collector is that of a Kubernetes Service, and no such Service exists. All spans are dropped.";
    causes "Zipkin was not deployed, or under another name", "another namespace in the name";
    fix "Deploy the collector, or correct `host` of the telemeter `io.l5d.zipkin`.";
    see "`rutter check`; `rutter_spans_total{result=\"dropped\"}`.";

    C043 "the collector cannot be reached" [];
    "No connection to the span collector could be made, and no span was sent so far.";
    causes "no pod of the collector is ready", "its port is another one: 9410 is Scribe's (with SCRIBE_ENABLED=true), 9411 HTTP's", "it is reachable from within the cluster only, and this was asked from outside";
    fix "Look at the collector's pods and the port; ask from a router's pod when the name is known there only.";
    see "`rutter check`; `rutter_spans_total`.";

    C050 "a watch is stale" [];
    "The source of a namer has not confirmed for more than ten minutes what it said; an audit is due every five. What was known last is served, right or not.";
    causes "the API server is down or cut off from this router", "its credentials have expired (see RT-C012)";
    fix "Look at the watch's error on `/state` and repair the way to the API server; a router that cannot be repaired may be restarted elsewhere.";
    see "`rutter_namer_watch_age_seconds`; `/state` on the admin port.";

    C051 "a namespace of the dtab does not exist" [];
    "A rule of the dtab leads to a Kubernetes namespace that is not there; names that take it end with RT-E101.";
    causes "a misspelt namespace", "the namespace was deleted, or belongs to another cluster";
    fix "Correct the rule; the finding has the nearest namespace that exists.";
    see "`rutter check`; `rutter delegate PATH`.";

    C052 "a Service of the dtab does not exist" [];
    "A rule of the dtab leads to this Service by name, and it is not there. Requests that take the rule end with RT-E101, unless there is an alternative behind `|`.";
    causes "the Service is yet to be deployed", "a misspelt name", "the Service was deleted and its rule was not";
    fix "Deploy the Service, or correct the rule; the finding has the nearest name that exists.";
    see "`rutter check`; `rutter delegate PATH`.";

    C053 "a Service of the dtab has no such port" [];
    "The Service that a rule of the dtab leads to exists and has no port of that name or number.";
    causes "the Service's port has no name: a Service with one port may leave it out", "a port's name differs (`web` instead of `http`)";
    fix "Name the Service's port as the dtab does, or change the rule; the finding lists the ports there are.";
    see "`rutter check`; `rutter delegate PATH`.";

    C054 "a Service of the dtab has no ready endpoint" [];
    "The Service that a rule of the dtab leads to has no ready pod; requests that take the rule end with RT-E105.";
    causes "the workload is scaled to zero or fails its readiness probe", "the Service's selector matches no pod";
    fix "`kubectl get endpointslices` for the Service shows what the routers see; repair the workload or the selector.";
    see "`rutter check`; `rutter_errors_total{code=\"RT-E105\"}`.";

    C060 "the configuration is not valid" [];
    "A router does not start with this configuration; the finding has the place and what was expected there.";
    causes "a misspelt key or kind", "indentation", "a kind that Linkerd 1 had and rutter has not";
    fix "Correct the place; `rutter config check FILE` shows all of them with the lines around.";
    see "`rutter check FILE`; the end of the router's log.";

    C061 "the configuration has a likely mistake" [];
    "A router starts with this configuration, and something in it is probably not meant; the finding says what.";
    causes "a rule of the dtab that leads nowhere", "a namer that is not configured", "an admin port open to all networks";
    fix "Correct it, or leave it when it is meant: it is a warning.";
    see "`rutter config check FILE`.";

    C070 "a probe failed" [];
    "A real request was sent through the router, as an application's would be, and its answer was an error; the finding has status and code.";
    causes "the name does not exist: see the answer's code", "the service answers with an error of its own";
    fix "`rutter why URL` shows the way of the name step by step; `rutter explain CODE` tells what the code means.";
    see "`rutter check --probe HOST`.";

    C080 "a port of the nodes is taken" [];
    "Another workload has one of the routers' ports as `hostPort`, or uses the host's network with it. Kubernetes does not place two such pods on a node: routers stay Pending there.";
    causes "Linkerd 1 or an earlier rutter is still installed", "another proxy or an ingress controller uses the port";
    fix "Remove the other workload, or choose another port or `reach: nodeLocalService`.";
    see "`rutter check --pre`; `kubectl describe pod` of a router that is Pending.";

    C081 "the namespace forbids hostPort" [];
    "The namespace enforces a pod security level (`baseline` or `restricted`) that refuses pods with `hostPort`; the DaemonSet would have no pods.";
    causes "the label `pod-security.kubernetes.io/enforce` of the namespace, or the cluster's default";
    fix "Install with `reach: nodeLocalService`, which needs no hostPort, or into a namespace with level `privileged`.";
    see "`rutter check --pre`; `kubectl describe daemonset`.";

    C082 "Kubernetes is too old" [];
    "The API server's version is older than what rutter is made for.";
    causes "an old cluster";
    fix "Use Kubernetes 1.21 or later; `reach: nodeLocalService` needs 1.26.";
    see "`rutter check --pre`.";
}

catalogue! {
    /// What `rutter config check` and `rutter dtab lint` may warn of in a dtab.
    Lint:
    D01 "shadowed dentry" [];
    "A later rule takes every name that this one takes and never passes one on, so that this one is never used. Of several rules the later one is tried first; the earlier one counts when the later one leads to `~` or to a name that no namer has.";
    causes "the same rule twice", "a later rule with a wider prefix that ends in `!`, `$` or `/$/inet/…`", "rules in the wrong order: the general one belongs before the special one";
    fix "Remove the rule, or put it behind the one that shadows it; the finding names its line.";
    see "`rutter dtab lint NS FILE`; `rutter dtab plan NS FILE`.";

    D02 "a destination that leads nowhere" [];
    "A rule's destination is a path that no rule takes further, and that is no namer's: whatever gets there ends with RT-E101.";
    causes "a misspelt prefix", "the rule that led further was removed";
    fix "Add a rule with that prefix, or correct the destination.";
    see "`rutter config check FILE`; `rutter delegate PATH --config FILE`.";

    D03 "cycle" [];
    "Rules rewrite a name into itself; a request that gets there ends with RT-E116.";
    causes "`/a => /b ; /b => /a`", "a destination under its own prefix";
    fix "Break the circle; `rutter delegate PATH --config FILE` shows its steps.";
    see "`rutter config check FILE`; `rutter_errors_total{code=\"RT-E116\"}`.";

    D04 "unknown namer" [];
    "A destination starts with `/#/` or `/$/`, and there is no such namer.";
    causes "the namer is missing from `namers:`", "its `prefix` was changed", "a misspelt name";
    fix "Add the namer to the configuration, or correct the path.";
    see "`rutter config check FILE`; `rutter_errors_total{code=\"RT-E117\"}`.";

    D05 "a name in use leads nowhere" [];
    "A name that routers asked for within the last 15 minutes leads nowhere now, and would lead nowhere with this dtab either.";
    causes "its service is gone, or was never there", "a misspelt host in a client", "its namer does not answer";
    fix "`rutter dtab plan NS FILE` shows the names; correct the rule, or find out who still asks for it.";
    see "`rutter dtab lint NS FILE`; RT-E101 in the routers' metrics.";

    D06 "all weights of a union are zero" [];
    "No branch of the union can ever be chosen, so that names leading here have no destination.";
    causes "a shift of traffic that set both sides to zero";
    fix "Give at least one branch a weight above zero.";
    see "`rutter config check FILE`; RT-E105 answers for these names.";

    D07 "a name in use would lead nowhere" [];
    "A name that routers asked for within the last 15 minutes is bound now, and would not be with this dtab, or a share of its requests would not: those would be answered with an error.";
    causes "the rule that leads it on was removed or misspelt", "a rule with `!` that now takes the name first", "a service that is not there yet";
    fix "Correct the rule, or write with `--allow-break` if the name is to end.";
    see "`rutter dtab plan NS FILE`; without `--allow-break` a write ends with 7.";

    D08 "unreachable dentry" [];
    "No name gets to this rule: requests are named under `/svc` or as the names in use, and no rule's destination begins as this one's prefix.";
    causes "the rule that led here was removed", "a misspelt prefix", "it is there for requests that bring a dtab of their own, or routers with another `dstPrefix`";
    fix "Remove the rule or correct its prefix; leave it if requests or other routers' dtabs lead to it.";
    see "`rutter dtab lint NS FILE`.";
}
