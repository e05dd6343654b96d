"""A real Kubernetes API server for a test, and the objects a test makes in it."""
import contextlib
import functools
import json
import pathlib
import ssl
import subprocess
import urllib.error
import urllib.request

from .needs import ROOT

SCRIPTS = ROOT / "tests" / "apiserver"


class Kube:
    """etcd, kube-apiserver and the controllers that make EndpointSlices; all files in `directory`."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        try:
            self.kubeconfig = self.script("up.sh")
        except BaseException:
            self.stop()  # of what had started
            raise
        self.url = "https://127.0.0.1:" + (self.directory / "apiserver.port").read_text().strip()
        self.token = (self.directory / "admin.token").read_text().strip()
        self.tls = ssl.create_default_context(cafile=self.directory / "ca.crt")

    def script(self, name, *arguments):
        done = subprocess.run([SCRIPTS / name, self.directory, *arguments], stdout=subprocess.PIPE, text=True, check=True)
        return done.stdout.strip()

    @staticmethod
    @functools.cache
    def kubectl():
        """The program, of the API server's version."""
        where = subprocess.run([SCRIPTS / "build.sh", "--where"], capture_output=True, text=True, check=True)
        return pathlib.Path(where.stdout.strip()) / "kubectl"

    def stop(self):
        self.script("down.sh")

    def call(self, method, path, body=None, kind="application/json"):
        """The answer as JSON; `urllib.error.HTTPError` when it is none of success."""
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(self.url + path, data=data, method=method,
                                       headers={"Authorization": f"Bearer {self.token}", "Content-Type": kind})
        with urllib.request.urlopen(asked, context=self.tls, timeout=30) as answer:
            return json.load(answer)

    def established(self):
        """Waits until the API server serves all kinds it was told of."""
        self.script("established.sh")

    def create(self, path, body):
        return self.call("POST", path, body)

    def delete(self, path):
        return self.call("DELETE", path, {"gracePeriodSeconds": 0})

    def node(self, name):
        self.create("/api/v1/nodes", {"metadata": {"name": name}})

    def service(self, name, app, ports, namespace="default"):
        """`ports`: name to number; the pods listen on the same."""
        listed = [{"name": port, "port": number, "targetPort": number} for port, number in ports.items()]
        self.create(f"/api/v1/namespaces/{namespace}/services", {"metadata": {"name": name}, "spec": {"selector": {"app": app}, "ports": listed}})

    def pod(self, name, app, ip, node, namespace="default"):
        """A pod that is ready, as its node's kubelet would report it."""
        self.create(f"/api/v1/namespaces/{namespace}/pods",
                    {"metadata": {"name": name, "labels": {"app": app}}, "spec": {"nodeName": node, "containers": [{"name": "c", "image": "none"}]}})
        self.call("PATCH", f"/api/v1/namespaces/{namespace}/pods/{name}/status", kind="application/merge-patch+json",
                  body={"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [{"type": "Ready", "status": "True"}]}})

    def delete_pod(self, name, namespace="default"):
        self.delete(f"/api/v1/namespaces/{namespace}/pods/{name}")

    def delete_service(self, name, namespace="default"):
        """With its slices: nobody collects garbage here."""
        self.delete(f"/api/v1/namespaces/{namespace}/services/{name}")
        slices = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        for one in self.call("GET", f"{slices}?labelSelector=kubernetes.io/service-name%3D{name}")["items"]:
            with contextlib.suppress(urllib.error.HTTPError):
                self.delete(f"{slices}/{one['metadata']['name']}")

    def allow(self, user, *rules):
        """The user may `verbs` on `resources` of `group`, in all namespaces: each rule is (group, resources, verbs)."""
        api = "/apis/rbac.authorization.k8s.io/v1"
        self.create(f"{api}/clusterroles", {"metadata": {"name": user}, "rules": [
            {"apiGroups": [group], "resources": resources, "verbs": verbs} for group, resources, verbs in rules]})
        self.create(f"{api}/clusterrolebindings", {
            "metadata": {"name": user}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user},
            "subjects": [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}]})
