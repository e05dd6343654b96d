"""The chart on a real API server: every value set, the life of a release, and two nodes' routers on what it wrote.

There is no kubelet here: pods are objects, made of the DaemonSet's own template, and the routers are processes with the
addresses, the configuration, the variables and the rights that the pods would have.
"""
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import unittest

import chart
import yaml
from harness.kube import Kube

#: What `check` has given this network namespace.
NODES = {"n1": "10.99.1.1", "n2": "10.99.2.1"}
#: From the start of the routers to the first answer through both of them.
FIRST_ANSWER_S = 10


def setUpModule():
    global kube, kubectl
    directory = unittest.enterModuleContext(tempfile.TemporaryDirectory(prefix="rutter-chart-"))
    kube = Kube(directory)
    unittest.addModuleCleanup(kube.stop)
    kubectl = Kubectl(pathlib.Path(kube.kubeconfig))
    os.environ["KUBECONFIG"] = kube.kubeconfig
    kubectl("create", "namespace", "rutter")
    kubectl("create", "-f", chart.HERE / "crds.yaml", "-f", chart.CHART / "crds")
    kube.established()


class Kubectl:
    def __init__(self, config):
        self.program, self.config = Kube.kubectl(), config

    def run(self, *arguments, text=None):
        return subprocess.run([self.program, "--kubeconfig", self.config, *map(str, arguments)], capture_output=True, text=True, timeout=120, input=text)

    def __call__(self, *arguments, text=None):
        done = self.run(*arguments, text=text)
        if done.returncode != 0:
            raise AssertionError(f"kubectl {' '.join(map(str, arguments[:6]))}: {done.stderr}")
        return done.stdout

    def json(self, *arguments, text=None):
        return json.loads(self(*arguments, "-o", "json", text=text))

    def apply(self, *objects):
        return self("apply", "-f", "-", text=yaml.safe_dump_all(objects))


class DryRun(unittest.TestCase):
    def test_an_api_server_takes_every_value_set(self):
        for one in chart.sets():
            with self.subTest(set=one.name):
                done = kubectl.run("apply", "--dry-run=server", "--validate=strict", "-f", "-", text=chart.rendered(one))
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertNotIn("Warning", done.stderr)
                self.assertEqual(len(done.stdout.splitlines()), len(chart.objects(one)))

    def test_the_schemas_kubernetes_types_are_this_api_servers(self):
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            file.write(kubectl("get", "--raw", "/openapi/v2"))
            file.flush()
            done = subprocess.run([sys.executable, chart.ROOT / "charts" / "schema.py", "--program", os.environ["RUTTER"], "--kubernetes", file.name, "--check"],
                                  capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_reached_at_the_service_it_needs_no_rights_beyond_restricted(self):
        self.assertEqual(self.violations("node-local"), None)

    def test_the_store_needs_no_rights_beyond_restricted(self):
        self.assertEqual(self.violations("store-node-local"), None)

    def test_a_host_port_is_all_that_a_restricted_namespace_objects_to(self):
        text = self.violations("defaults")
        self.assertIn("hostPort (container \"rutter\" uses hostPort 4140)", text)
        self.assertEqual(text.count("("), 1, text)

    def test_the_notes_say_what_to_paste(self):
        for one, wanted in [(chart.named("defaults"), ["$(NODE_IP)", "http://rutter.rutter:4140", "curl -H 'Host: web'", "pod-security", "/host => /srv"]),
                            (chart.named("node-local"), ["http://rutter.rutter:4140", "curl -H 'Host: web'", "--service rutter.rutter deployment.yaml"]),
                            (chart.named("linkerd1-pasted"), ["daemonset/l5d", "$(NODE_IP)"]),
                            (chart.named("store"), ["Deployment rutter/rutter-store", "create token ACCOUNT --audience rutter-store", "Nobody but the routers"]),
                            (chart.named("store-more"), ["`edge`", "--base-url http://127.0.0.1:14180", "`store.access.grants`", "rutter dtab create edge"]),
                            (chart.named("store-etcd"), ["There is no authentication"])]:
            done = chart.helm("install", one.release, chart.CHART, "--dry-run=server", "--namespace", one.namespace, *one.arguments)
            self.assertEqual(done.returncode, 0, done.stderr)
            notes = done.stdout.partition("NOTES:")[2]
            for words in wanted:
                self.assertIn(words, notes, one.name)
            self.assertNotIn("%!", notes)
            self.assertNotIn("<no value>", notes)

    def violations(self, name):
        """What pod security says of the router's and the test's pods; none when it lets them in."""
        kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "held", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}})
        objects = chart.objects(chart.named(name))
        stores = [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "store"}, "spec": chart.store_of(objects)[0]["spec"]}] if chart.has_store(objects) else []
        for pod in [pod_object(objects, "router", None), *chart.of_kind(objects, "Pod"), *stores]:
            pod["metadata"]["namespace"] = "held"
            done = kubectl.run("create", "--dry-run=server", "-f", "-", text=yaml.safe_dump(pod))
            if done.returncode != 0:
                return done.stderr.partition("violates PodSecurity")[2]
        return None


class Release(unittest.TestCase):
    def setUp(self):
        self.addCleanup(chart.helm, "uninstall", "life", "--namespace", "rutter")

    def helm(self, *arguments):
        done = chart.helm(*arguments, "--namespace", "rutter")
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_install_upgrade_rollback_uninstall(self):
        ours = ("-l", "app.kubernetes.io/instance=life", "-n", "rutter")
        kinds = "daemonset,service,configmap,serviceaccount,clusterrole,clusterrolebinding,networkpolicy"

        def dtab():
            return kubectl.json("get", "configmap", "life-rutter-config", "-n", "rutter")["data"]["config.yaml"]

        def template():
            return kubectl.json("get", "daemonset", "life-rutter", "-n", "rutter")["spec"]["template"]

        self.helm("install", "life", chart.CHART, "--set", "restartOnConfigChange=true")
        first = template()
        self.assertIn("/host => /srv", dtab())
        self.helm("upgrade", "life", chart.CHART, "--set", "restartOnConfigChange=true,networkPolicy.enabled=true,reach=nodeLocalService", "--set", "dtab=/svc => /elsewhere")
        second = template()
        self.assertIn("/svc => /elsewhere", dtab())
        self.assertNotEqual(first["metadata"]["annotations"]["checksum/config"], second["metadata"]["annotations"]["checksum/config"])
        self.assertEqual(kubectl.json("get", "daemonset", "life-rutter", "-n", "rutter")["spec"]["updateStrategy"]["rollingUpdate"], {"maxSurge": 1, "maxUnavailable": 0})
        self.helm("rollback", "life", "1")
        self.assertEqual(template()["spec"], first["spec"])
        self.assertNotIn("elsewhere", dtab())
        self.assertEqual(kubectl("get", "networkpolicy", *ours, "-o", "name"), "")
        self.helm("uninstall", "life")
        self.assertEqual(kubectl("get", kinds, *ours, "-o", "name"), "")

    def test_the_routers_account_may_list_and_watch_and_nothing_else(self):
        self.helm("install", "life", chart.CHART)
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": "default"}}

        def rules(account):
            who = f"system:serviceaccount:rutter:{account}"
            answer = kubectl.json("create", "--validate=false", "-f", "-", f"--as={who}", text=yaml.safe_dump(review))
            return {(group, resource, verb) for rule in answer["status"]["resourceRules"] for group in rule["apiGroups"] for resource in rule["resources"] for verb in rule["verbs"]}
        self.assertEqual(rules("life-rutter") - rules("nobody"),
                         {(group, resource, verb) for group, resource in [("", "services"), ("discovery.k8s.io", "endpointslices")] for verb in ("list", "watch")})


class Nodes(unittest.TestCase):
    """Two routers on what the chart wrote; the request of `helm test` goes through both."""

    def test_the_chart_as_it_is(self):
        self.routed("defaults")

    def test_with_rights_for_its_own_namespaces_only(self):
        self.routed("namespaces")

    def test_the_published_walkthroughs_file_as_it_is(self):
        self.routed("linkerd1-pasted")

    def routed(self, name):
        one = chart.named(name)
        objects = chart.objects(one)
        installed = chart.helm("install", one.release, chart.CHART, "--namespace", one.namespace, *one.arguments)
        self.assertEqual(installed.returncode, 0, installed.stderr)
        self.addCleanup(chart.helm, "uninstall", one.release, "--namespace", one.namespace)
        directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory(prefix="rutter-chart-")))
        [service] = chart.of_kind(chart.part(objects, "router"), "Service")
        config = own_rights(one.namespace, objects, directory)
        for node, address in NODES.items():
            kubectl.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}})
            self.pod(objects, node, address)
        began = time.monotonic()
        for node, address in NODES.items():
            self.enterContext(Router(objects, node, address, config, directory))
        [test] = chart.of_kind(objects, "Pod")
        arguments = test["spec"]["containers"][0]["args"]
        for address in NODES.values():
            done = chart.rutter(*(argument.replace("$(NODE_IP)", address) for argument in arguments))
            self.assertEqual(done.returncode, 0, f"{done.stdout}{done.stderr}{(directory / 'n1.log').read_text()}")
            self.assertEqual(done.stdout.strip(), "pong")
        self.assertLess(time.monotonic() - began, FIRST_ANSWER_S)
        # Both nodes answer in turn, so both hops are used.
        for _ in range(20):
            chart.rutter(*(argument.replace("$(NODE_IP)", NODES["n1"]) for argument in arguments))
        for node, address in NODES.items():
            page = chart.rutter("curl", "--proxy", f"{address}:9990", f"http://{address}:9990/metrics").stdout
            self.assertGreater(counted(page, 'rutter_requests_total{router="incoming"'), 0, f"{node}: {service['metadata']['name']}")

    def pod(self, objects, node, address):
        """The pod that the DaemonSet would have there, running."""
        pod = pod_object(objects, f"router-{node}", node)
        kubectl.apply(pod)
        where = ("-n", pod["metadata"]["namespace"])
        self.addCleanup(kubectl, "delete", "pod", pod["metadata"]["name"], *where, "--force", "--grace-period=0")
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": [{"type": "Ready", "status": "True"}]}
        kubectl("patch", "pod", pod["metadata"]["name"], *where, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))


class Router:
    """A node's router: a process with what its pod would have."""

    def __init__(self, objects, node, address, kubeconfig, directory, hosts=None):
        """`hosts`: what DNS would know."""
        template, container = chart.pod_of(objects)
        # Both are on this machine: each listens at its own address only, and has its own state.
        home = directory / node
        home.mkdir(exist_ok=True)
        text = chart.configuration(objects).replace("ip: 0.0.0.0", f"ip: {address}")
        for host, known in (hosts or {}).items():
            text = text.replace(host, known)
        for mount in container["volumeMounts"]:
            text = text.replace(mount["mountPath"], str(home))
        file = home / "config.yaml"
        file.write_text(text)
        fields = {"status.podIP": address, "status.hostIP": f"172.30.0.1{node[1:]}", "spec.nodeName": node, "metadata.name": f"router-{node}", "metadata.namespace": template_namespace(objects)}
        env = {**os.environ, **chart.environment(container, fields), "KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBECONFIG": str(kubeconfig)}
        self.log = open(directory / f"{node}.log", "wb")
        self.child = subprocess.Popen([os.environ["RUTTER"], *container["args"][:-1], file], env=env, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.child.wait(20)
        self.child.kill()
        self.child.wait()
        self.log.close()


def template_namespace(objects):
    [daemonset] = chart.of_kind(objects, "DaemonSet")
    return daemonset["metadata"]["namespace"]


def pod_object(objects, name, node):
    """A pod of the DaemonSet's template."""
    template, _ = chart.pod_of(objects)
    spec = {**template["spec"], **({"nodeName": node} if node else {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": template_namespace(objects), "labels": template["metadata"]["labels"]}, "spec": spec}


def own_rights(namespace, objects, directory):
    """A kubeconfig with the rights of the release's service account, and no others."""
    template, _ = chart.pod_of(objects)
    token = kubectl("create", "token", template["spec"]["serviceAccountName"], "-n", namespace).strip()
    config = yaml.safe_load(kubectl.config.read_text())
    config["users"][0]["user"] = {"token": token}
    file = directory / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    return file


def counted(page, beginning):
    return sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(beginning))
