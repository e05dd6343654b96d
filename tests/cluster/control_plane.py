"""etcd, kube-apiserver, kube-controller-manager and kube-scheduler, in the network that `machine.enter` made."""
import base64
import csv
import json
import pathlib
import secrets
import ssl
import urllib.error
import urllib.request

from harness.router import until

from .machine import run, start

#: The control plane's address on the nodes' network.
ADDRESS = "172.30.0.10"

#: What pods find the API under.
SERVICE_ADDRESS = "10.96.0.1"

#: Once a node is silent for so long, its pods count as not ready. Kubernetes' default is 50 s.
NODE_GRACE_S = 16

#: What goes away with the control plane's machine; etcd's data would come back with it.
CONTROL = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")

KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: test
contexts: [{{name: test, context: {{cluster: test, user: test}}}}]
clusters: [{{name: test, cluster: {{server: "https://{address}:6443", certificate-authority-data: {authority}}}}}]
users: [{{name: test, user: {{token: {token}}}}}]
"""


class ControlPlane:
    """The API and what works on it. `directory` holds certificates, data and logs."""

    def __init__(self, directory, programs, nodes):
        self.directory, self.programs = pathlib.Path(directory), pathlib.Path(programs)
        self.directory.mkdir(parents=True)
        self.running = {}
        self.tokens = {name: secrets.token_hex(16) for name in ("admin", "proxy", *nodes)}
        self.certificates()
        with open(self.directory / "tokens.csv", "w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow([self.tokens["admin"], "admin", "admin", "system:masters"])
            rows.writerow([self.tokens["proxy"], "system:kube-proxy", "proxy"])
            for node in nodes:
                rows.writerow([self.tokens[node], f"system:node:{node}", node, "system:nodes"])
        for user in self.tokens:
            self.kubeconfig(user).write_text(KUBECONFIG.format(
                address=ADDRESS, token=self.tokens[user], authority=base64.b64encode(self.path("ca.crt").read_bytes()).decode()))
        self.api = Api(f"https://{ADDRESS}:6443", self.path("ca.crt"), self.tokens["admin"])

    def path(self, name):
        return self.directory / name

    def kubeconfig(self, user="admin"):
        return self.path(f"kubeconfig-{user}")

    def certificates(self):
        def openssl(*arguments):
            run("openssl", *arguments)
        def key(name):
            openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", self.path(f"{name}.key"))
        def signed(name, subject, extensions=""):
            key(name)
            self.path(f"{name}.ext").write_text(extensions)
            openssl("req", "-new", "-key", self.path(f"{name}.key"), "-subj", subject, "-out", self.path(f"{name}.csr"))
            openssl("x509", "-req", "-in", self.path(f"{name}.csr"), "-CA", self.path("ca.crt"), "-CAkey", self.path("ca.key"),
                    "-CAcreateserial", "-days", "30", "-extfile", self.path(f"{name}.ext"), "-out", self.path(f"{name}.crt"))
        key("ca")
        openssl("req", "-x509", "-new", "-key", self.path("ca.key"), "-subj", "/CN=rutter-tests", "-days", "30", "-out", self.path("ca.crt"))
        signed("serving", "/CN=kube-apiserver", "subjectAltName=DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,"
               f"IP:127.0.0.1,IP:{SERVICE_ADDRESS},IP:{ADDRESS}\n")
        # How the API server shows itself to kubelets, for logs and exec.
        signed("client", "/O=system:masters/CN=kube-apiserver")
        key("accounts")
        openssl("ec", "-in", self.path("accounts.key"), "-pubout", "-out", self.path("accounts.pub"))

    def start(self):
        # The data need not outlive the test: etcd is spared the wait for the disk.
        self.launch("etcd", "--data-dir", self.path("etcd"), "--listen-client-urls=http://127.0.0.1:2379",
                    "--advertise-client-urls=http://127.0.0.1:2379", "--listen-peer-urls=http://127.0.0.1:2380",
                    "--initial-advertise-peer-urls=http://127.0.0.1:2380", "--initial-cluster=default=http://127.0.0.1:2380",
                    "--unsafe-no-fsync", "--log-level=warn")
        self.start_api()
        self.start_controllers()

    def start_controllers(self):
        common = [f"--{kind}kubeconfig={self.kubeconfig()}" for kind in ("", "authentication-", "authorization-")]
        common += ["--bind-address=127.0.0.1", "--leader-elect=false", "--kube-api-qps=200", "--kube-api-burst=200", f"--cert-dir={self.directory}"]
        self.launch("kube-controller-manager", *common, f"--service-account-private-key-file={self.path('accounts.key')}",
                    f"--root-ca-file={self.path('ca.crt')}", f"--node-monitor-grace-period={NODE_GRACE_S}s", "--node-monitor-period=1s")
        self.launch("kube-scheduler", *common)

    def launch(self, name, *arguments):
        self.running[name] = start(self.path(f"{name}.log"), self.programs / name, *arguments)

    def start_api(self):
        self.launch("kube-apiserver", "--etcd-servers=http://127.0.0.1:2379", "--bind-address=0.0.0.0", f"--advertise-address={ADDRESS}",
                    "--secure-port=6443", f"--tls-cert-file={self.path('serving.crt')}", f"--tls-private-key-file={self.path('serving.key')}",
                    f"--client-ca-file={self.path('ca.crt')}", f"--kubelet-client-certificate={self.path('client.crt')}",
                    f"--kubelet-client-key={self.path('client.key')}", "--kubelet-preferred-address-types=InternalIP",
                    f"--token-auth-file={self.path('tokens.csv')}", "--authorization-mode=Node,RBAC", "--allow-privileged=true",
                    "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={self.path('accounts.pub')}",
                    f"--service-account-signing-key-file={self.path('accounts.key')}", "--service-cluster-ip-range=10.96.0.0/16",
                    "--profiling=false", f"--cert-dir={self.directory}")
        until(self.answers, "the API server is ready", patience=120)

    def answers(self):
        if self.running["kube-apiserver"].poll() is not None:
            raise RuntimeError(f"the API server ended:\n{self.path('kube-apiserver.log').read_text()[-3000:]}")
        try:
            return self.api.get("/readyz", raw=True) == b"ok"
        except OSError:
            return False

    def go_away(self):
        """The control plane ends at once, as with its machine: nobody is told. (Controllers end by themselves soon after the
        API server has gone: they lose their lease.)"""
        for name in CONTROL:
            self.running[name].kill()
            self.running[name].wait()

    def come_back(self):
        self.start_api()
        self.start_controllers()


class Api:
    """The API by HTTP, for what a test looks at again and again."""

    def __init__(self, url, authority, token):
        self.url, self.token = url, token
        self.context = ssl.create_default_context(cafile=str(authority))

    def get(self, path, raw=False):
        return self.call("GET", path, raw=raw)

    def patch(self, path, change):
        return self.call("PATCH", path, change, "application/merge-patch+json")

    def call(self, method, path, body=None, kind="application/json", raw=False):
        request = urllib.request.Request(self.url + path, method=method, data=None if body is None else json.dumps(body).encode(),
                                         headers={"Authorization": f"Bearer {self.token}", "Content-Type": kind})
        try:
            with urllib.request.urlopen(request, timeout=10, context=self.context) as answer:
                data = answer.read()
        except urllib.error.HTTPError as error:
            raise OSError(f"{method} {path}: {error.code} {error.read()[:500].decode(errors='replace')}") from error
        return data if raw else json.loads(data)
