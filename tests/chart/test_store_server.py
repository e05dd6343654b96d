"""The store of the chart on a real API server: the life of its dtabs, its rights, and two nodes' routers that bind there."""
import contextlib
import json
import os
import pathlib
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.request

import chart
import test_server
import yaml
from test_rendering import FIELDS, IN_POD
from test_server import NODES, Router

#: From the start of stores and routers to the first answer, and from a write to its effect.
PATIENCE_S = 30
DTAB = ("get", "dtab", "default", "-n", "rutter")


def setUpModule():
    test_server.setUpModule()


def kubectl(*arguments, **kwargs):
    return test_server.kubectl(*arguments, **kwargs)


class Life(unittest.TestCase):
    """What people wrote outlives what Helm does."""

    def setUp(self):
        kubectl("delete", "crd", "dtabs.l5d.io", "--ignore-not-found", "--wait")
        self.addCleanup(chart.helm, "uninstall", "rutter", "--namespace", "rutter")
        self.one = chart.named("store")

    def helm(self, *arguments):
        done = chart.helm(*arguments, "--namespace", "rutter")
        self.assertEqual(done.returncode, 0, done.stderr)

    def dentries(self):
        return test_server.kubectl.json(*DTAB)["dentries"]

    def test_helm_brings_the_kind_and_a_first_dtab_and_never_touches_them_again(self):
        self.helm("install", "rutter", chart.CHART, *self.one.arguments)
        self.assertEqual(self.dentries()[0], {"prefix": "/srv", "dst": "/#/io.l5d.k8s/default/http"})
        self.assertEqual(len(self.dentries()), 4)
        kubectl("patch", "dtab", "default", "-n", "rutter", "--type=merge", "-p", '{"dentries": [{"prefix": "/svc", "dst": "/mine"}]}')
        mine = [{"prefix": "/svc", "dst": "/mine"}]
        other = ("--set", "dtab=/svc => /other", *self.one.arguments)
        for step in [("upgrade", "rutter", chart.CHART, *other), ("rollback", "rutter", "1"), ("upgrade", "rutter", chart.CHART), ("rollback", "rutter", "1"),
                     ("uninstall", "rutter"), ("install", "rutter", chart.CHART, *other)]:
            self.helm(*step)
            self.assertEqual(self.dentries(), mine, step)
        # One that was deleted is made again by the next upgrade only.
        kubectl("delete", "dtab", "default", "-n", "rutter")
        self.helm("upgrade", "rutter", chart.CHART, *other[2:], "--set", "dtab=/svc => /other")
        self.assertEqual(self.dentries(), [{"prefix": "/svc", "dst": "/other"}])
        self.assertEqual(kubectl("get", "pdb,deployment", "-n", "rutter", "-o", "name").split(), ["poddisruptionbudget.policy/rutter-store", "deployment.apps/rutter-store"])

    def test_an_upgrade_without_the_kind_says_what_to_apply(self):
        self.helm("install", "rutter", chart.CHART, "--skip-crds")
        done = chart.helm("upgrade", "rutter", chart.CHART, "--namespace", "rutter", *self.one.arguments)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("kubectl apply -f charts/rutter/crds/", done.stderr)
        kubectl("apply", "-f", chart.CHART / "crds")
        test_server.kube.established()
        self.helm("upgrade", "rutter", chart.CHART, *self.one.arguments)
        self.assertEqual(len(self.dentries()), 4)


class Rights(unittest.TestCase):
    def test_the_stores_account_may_what_is_listed_and_nothing_else(self):
        one = chart.named("store")
        done = chart.helm("install", "rutter", chart.CHART, "--namespace", "rutter", *one.arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.addCleanup(chart.helm, "uninstall", "rutter", "--namespace", "rutter")
        store = "--as=system:serviceaccount:rutter:rutter-store"

        def may(verb, what, *where):
            return test_server.kubectl.run("auth", "can-i", verb, what, *where, store).stdout.strip() == "yes"
        here, there = ("-n", "rutter"), ("-n", "default")
        everything = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
        for what, where, allowed in [("dtabs.l5d.io", here, {"get", "list", "watch", "create", "update", "delete"}),
                                     ("controllerrevisions.apps", here, {"get", "list", "create", "delete"}),
                                     ("services", there, {"list", "watch"}), ("endpointslices.discovery.k8s.io", there, {"list", "watch"}),
                                     ("tokenreviews.authentication.k8s.io", (), {"create"}),
                                     ("dtabs.l5d.io", there, set()), ("secrets", here, set()), ("configmaps", here, set()), ("pods", here, set())]:
            self.assertEqual({verb for verb in everything if may(verb, what, *where)}, allowed, (what, where))
        routers = test_server.kubectl.run("auth", "can-i", "get", "dtabs.l5d.io", *here, "--as=system:serviceaccount:rutter:rutter").stdout.strip()
        self.assertEqual(routers, "no")


class Nodes(unittest.TestCase):
    """Two stores and two routers with the files, tokens and rights that their pods would have."""

    MORE = ("--set-json", 'store.access.grants=[{"to":["system:serviceaccount:rutter:deploy"],"may":["write"]}]')

    def setUp(self):
        one = chart.named("store")
        self.objects = chart.objects(one, *self.MORE)
        kubectl("delete", "dtab", "default", "-n", "rutter", "--ignore-not-found")
        installed = chart.helm("install", one.release, chart.CHART, "--namespace", one.namespace, *one.arguments, *self.MORE)
        self.assertEqual(installed.returncode, 0, installed.stderr)
        self.addCleanup(chart.helm, "uninstall", one.release, "--namespace", one.namespace)
        for account in ("deploy", "stranger"):
            kubectl("create", "serviceaccount", account, "-n", "rutter")
            self.addCleanup(kubectl, "delete", "serviceaccount", account, "-n", "rutter")
        self.directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory(prefix="rutter-chart-")))
        self.store_rights = self.rights(chart.store_of(self.objects)[0], "store")
        self.router_rights = self.rights(chart.pod_of(self.objects)[0], "router")
        self.stores = {node: self.enterContext(Store(self.objects, address, self.store_rights, self.directory / f"{node}-store")) for node, address in NODES.items()}
        pods = test_server.Nodes("test_the_chart_as_it_is")
        self.addCleanup(pods.doCleanups)
        for node, address in NODES.items():
            test_server.kubectl.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}})
            pods.pod(self.objects, node, address)
            home = self.directory / node
            home.mkdir()
            (home / "token").write_text(self.token("rutter"))
            self.enterContext(Router(self.objects, node, address, self.router_rights, self.directory, {"rutter-store-replicas.rutter.svc": address}))

    def rights(self, template, name):
        """A kubeconfig with the rights of a pod's account, and no others."""
        token = kubectl("create", "token", template["spec"]["serviceAccountName"], "-n", "rutter").strip()
        config = yaml.safe_load(test_server.kubectl.config.read_text())
        config["users"][0]["user"] = {"token": token}
        file = self.directory / f"{name}.kubeconfig"
        file.write_text(yaml.safe_dump(config))
        return file

    def token(self, account, audience="rutter-store"):
        return kubectl("create", "token", account, "-n", "rutter", *(["--audience", audience] if audience else [])).strip()

    def ask(self, method, token, node="n1", body=None, path="/api/1/dtabs/default"):
        """The status of a question to a store."""
        headers = {"Content-Type": "application/dtab", **({"Authorization": f"Bearer {token}"} if token else {})}
        asked = urllib.request.Request(f"http://{NODES[node]}:4180{path}", method=method, headers=headers, data=body and body.encode())
        try:
            with urllib.request.urlopen(asked, timeout=PATIENCE_S) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def logs(self):
        return "".join(f"{file.name}:\n{file.read_text()[-3000:]}\n" for file in sorted(self.directory.rglob("*.log")))

    def request(self, node, *arguments):
        done = chart.rutter("curl", f"--proxy={NODES[node]}:4140", *arguments)
        return done.returncode, f"{done.stdout}{done.stderr}{self.logs()}", done.stdout.strip()

    def test_routers_bind_there_and_only_who_may_changes_where_they_go(self):
        for store in self.stores.values():
            store.until_ready(self.logs)
        # The request of `helm test`: its own rule is bound at the store, through both routers.
        [test] = chart.of_kind(self.objects, "Pod")
        for address in NODES.values():
            done = chart.rutter(*(argument.replace("$(NODE_IP)", address) for argument in test["spec"]["containers"][0]["args"]))
            self.assertEqual((done.returncode, done.stdout.strip()), (0, "pong"), f"{done.stdout}{done.stderr}{self.logs()}")
        deploy, router = self.token("deploy"), self.token("rutter")
        rules = "/svc/pong => /#/io.l5d.k8s/rutter/admin/rutter"
        for who, token, wanted in [("nobody", None, 401), ("a token that is none", "x", 401), ("for another audience", self.token("deploy", None), 401),
                                   ("without a grant", self.token("stranger"), 403), ("a router", router, 403)]:
            self.assertEqual(self.ask("PUT", token, body=rules), wanted, who)
        self.assertEqual((self.ask("GET", router), self.ask("GET", deploy), self.ask("GET", self.token("stranger"))), (200, 200, 403))
        status, said, _ = self.request("n2", "--expect=200", "http://pong/admin/ping")
        self.assertNotEqual(status, 0, said)
        # Written at one store, in force on the routers of both.
        self.assertEqual(self.ask("PUT", deploy, body=rules), 204, self.logs())
        for node in NODES:
            status, said, answer = self.request(node, f"--retry-for={PATIENCE_S}", "--expect=200", "http://pong/admin/ping")
            self.assertEqual((status, answer), (0, "pong"), said)
        self.assertEqual(test_server.kubectl.json(*DTAB)["dentries"], [{"prefix": "/svc/pong", "dst": "/#/io.l5d.k8s/rutter/admin/rutter"}])
        # Both routers of both nodes have told their stores of themselves.
        self.assertEqual(self.ask("POST", self.token("stranger"), body="{}", path="/api/rutter/1/routers/x"), 403)
        known = {}
        limit = time.monotonic() + PATIENCE_S
        while time.monotonic() < limit and known != {node: {"incoming", "outgoing"} for node in NODES}:
            time.sleep(0.5)
            known = {node: self.routers(node, deploy) for node in NODES}
        self.assertEqual(known, {node: {"incoming", "outgoing"} for node in NODES}, self.logs())

    def routers(self, node, token):
        """Labels of the routers that a store knows."""
        asked = urllib.request.Request(f"http://{NODES[node]}:4180/api/rutter/1/routers?namespace=default", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(asked, timeout=PATIENCE_S) as answer:
            return {router["router"] for router in json.load(answer)["routers"]}


class Store:
    """A store of the Deployment: a process with what its pod would have."""

    def __init__(self, objects, address, kubeconfig, home):
        _, container, text = chart.store_of(objects)
        home.mkdir()
        self.file, self.address = home / "namerd.yaml", address
        self.file.write_text(text.replace("ip: 0.0.0.0", f"ip: {address}"))
        env = {**chart.environment(container, {**FIELDS, "status.podIP": address}), **IN_POD, "KUBECONFIG": str(kubeconfig)}
        checked = chart.rutter("config", "check", "--strict", self.file, env=env)
        assert checked.returncode == 0, f"{checked.stdout}{checked.stderr}"
        self.log = open(home / "store.log", "wb")
        self.child = subprocess.Popen([os.environ["RUTTER"], *container["args"][:-1], self.file], env={**os.environ, **env}, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def until_ready(self, logs):
        limit = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(OSError):
                with urllib.request.urlopen(f"http://{self.address}:9991/ready", timeout=5):
                    return
            assert time.monotonic() < limit and self.child.poll() is None, logs()
            time.sleep(0.2)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.child.wait(20)
        self.child.kill()
        self.child.wait()
        self.log.close()
