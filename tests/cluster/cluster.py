"""The cluster: one control plane, two nodes, a cable between them."""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import urllib.request

from harness.router import until

from . import control_plane, images
from .control_plane import ControlPlane
from .machine import run, start
from .node import Node

HERE = pathlib.Path(__file__).resolve().parent

#: On an idle machine all of it takes a tenth of this.
PATIENCE_S = 180


def tool(name):
    """A program that `harness.needs` has made: its directory is in CLUSTER_PROGRAMS."""
    return pathlib.Path(os.environ["CLUSTER_PROGRAMS"]) / name


class Cluster:
    """Use as a context manager, after `machine.enter`: entering brings it up, leaving ends it."""

    def __init__(self, nodes=2):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="rutter-cluster-"))
        self.directory.chmod(0o755)  # pods write below it, as other users
        names = [f"n{index}" for index in range(1, nodes + 1)]
        self.control = ControlPlane(self.directory / "control", tool("."), names)
        self.api = self.control.api
        self.nodes = [Node(index, self.directory / name, tool("."), self.control) for index, name in enumerate(names, 1)]
        self.dns = None
        # What applications note outlives their pods.
        self.ledger = self.directory / "ledger"
        self.ledger.mkdir()
        self.ledger.chmod(0o777)

    def __enter__(self):
        try:
            self.bring_up()
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, failed, *_):
        for node in self.nodes:
            node.stop()
        kept = os.environ.get("RUTTER_CLUSTER_LOGS")
        if kept:
            for log in self.directory.glob("*/*.log"):
                target = pathlib.Path(kept) / log.relative_to(self.directory)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(log, target)
        shutil.rmtree(self.directory, ignore_errors=True)

    def bring_up(self):
        # An address of its own: it would otherwise take a port's, and change it when that node loses its power.
        run("ip", "link", "add", "nodes", "address", "02:00:ac:1e:00:0a", "type", "bridge")
        run("ip", "address", "add", f"{control_plane.ADDRESS}/24", "dev", "nodes")
        run("ip", "link", "set", "nodes", "up")
        run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        self.control.start()
        self.dns = start(self.directory / "dns.log", sys.executable, HERE / "dns.py", self.api.url, self.control.path("ca.crt"),
                         self.control.tokens["admin"])
        apps = self.build_apps()
        pause = images.image(self.directory / "pause.tar", "localhost/pause:test", {"/apps": apps}, ["/apps", "pause"])
        app = images.image(self.directory / "apps.tar", "localhost/apps:test", {"/apps": apps}, ["/apps"])
        for node in self.nodes:
            node.load(pause)
            node.load(app)
            node.plug_in(self.nodes)
        for node in self.nodes:
            node.boot()
        for node in self.nodes:
            self.wait_for_node(node)

    def build_apps(self):
        program = self.directory / "apps"
        environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-trimpath -buildvcs=false", "GOTOOLCHAIN": "local"}
        built = subprocess.run(["go", "build", "-ldflags=-s -w", "-o", program, "."], cwd=HERE / "apps", env=environment,
                               stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if built.returncode != 0:
            raise RuntimeError(f"the pods' programs do not compile:\n{built.stderr}")
        return program

    def wait_for_node(self, node):
        until(node.booted, f"{node.name} is up", patience=PATIENCE_S)
        until(lambda: self.is_ready(node), f"{node.name} is Ready", patience=PATIENCE_S)

    def is_ready(self, node):
        try:
            status = self.api.get(f"/api/v1/nodes/{node.name}")["status"]
        except OSError:
            return False
        return condition(status, "Ready") == "True"

    def kubectl(self, *arguments, stdin=None):
        return run(tool("kubectl"), "--kubeconfig", self.control.kubeconfig(), *arguments, stdin=stdin)

    def helm(self, *arguments):
        private = self.directory / "helm"
        return run("env", f"HELM_CACHE_HOME={private}", f"HELM_CONFIG_HOME={private}", f"HELM_DATA_HOME={private}",
                   os.environ["HELM"], "--kubeconfig", self.control.kubeconfig(), *arguments)

    def apply(self, text):
        self.kubectl("apply", "-f", "-", stdin=text)

    def pods(self, selector, namespace="default"):
        """Pods that are not on their way out."""
        found = self.api.get(f"/api/v1/namespaces/{namespace}/pods?labelSelector={selector}")["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def wait_for_pods(self, selector, count, nodes=None, namespace="default"):
        """Waits until exactly `count` pods match and are ready; gives them."""
        def ready():
            pods = [pod for pod in self.pods(selector, namespace) if condition(pod["status"], "Ready") == "True"]
            return pods if len(pods) == count and len(self.pods(selector, namespace)) == count else None
        try:
            return until(ready, f"{count} pods with {selector} are ready", patience=PATIENCE_S)
        except AssertionError:
            self.tell_about(selector, namespace)
            raise

    def tell_about(self, selector, namespace="default"):
        """Prints why pods may not be ready."""
        for arguments in (("describe", "pods"), ("logs", "--prefix", "--tail=30", "--all-containers")):
            print(run(tool("kubectl"), "--kubeconfig", self.control.kubeconfig(), *arguments, "-n", namespace, "-l", selector, quiet=True)[-6000:], file=sys.stderr)

    def node(self, name):
        return next(node for node in self.nodes if node.name == name)


def condition(status, kind):
    """The status of a condition, None while there is none."""
    return next((one["status"] for one in status.get("conditions", ()) if one["type"] == kind), None)


def fetch(url, data=None, timeout=60):
    """The JSON that a pod or a process answers; None for an empty answer. With `data`, a POST."""
    body = fetch_text(url, None if data is None else json.dumps(data).encode(), timeout)
    return json.loads(body) if body else None


def fetch_text(url, data=None, timeout=60):
    with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=timeout) as answer:
        return answer.read().decode()
