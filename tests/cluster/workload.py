"""The applications on the cluster, and the load that accounts for every request."""
import collections
import contextlib
import dataclasses
import pathlib
import re
import time

from harness.router import until

from . import control_plane
from .cluster import fetch

HERE = pathlib.Path(__file__).resolve().parent

#: How an application finds its node's router: at the node's own address, or through a Service that stays on the node.
HOST_PORT = "http://$(NODE_IP):4140"
NODE_LOCAL_SERVICE = "http://rutter:4140"

#: What each of the two load generators sends. Together some 170 requests a second and 40 streams at a time.
KINDS = [
    {"name": "get", "url": "http://world/", "perSecond": 25},
    {"name": "get-close", "url": "http://world/", "perSecond": 15, "close": True},
    {"name": "post", "url": "http://world/", "perSecond": 25, "post": 2000},
    {"name": "post-close", "url": "http://world/", "perSecond": 15, "post": 2000, "close": True},
    {"name": "hello", "url": "http://hello/", "perSecond": 5},
    {"name": "stream", "url": "http://world/stream", "perSecond": 1 / 3, "streamSeconds": 60},
]


def deploy(cluster, proxy):
    """hello, world and the load generators, with `proxy` as their http_proxy."""
    text = (HERE / "pods.yaml").read_text()
    for name, value in (("$PROXY", proxy), ("$LEDGER", str(cluster.ledger)), ("$SPANS", control_plane.ADDRESS)):
        text = text.replace(name, value)
    cluster.apply(text)
    for name in ("deployment/hello", "deployment/world-v1", "daemonset/load"):
        cluster.kubectl("rollout", "status", "--timeout=180s", name)
    cluster.wait_for_pods("app=hello", 2)
    cluster.wait_for_pods("app=world-v1", 4)
    return cluster.wait_for_pods("app=load", len(cluster.nodes))


def in_pod(cluster, node, url, *headers):
    """The answer that a program in a pod on `node` gets: status, headers, body."""
    pod = next(pod for pod in cluster.wait_for_pods("app=load", len(cluster.nodes)) if pod["spec"]["nodeName"] == node)
    query = "&".join([f"url={url}", *(f"header={header}" for header in headers)])
    return fetch(f"http://{pod['status']['podIP']}:8090/fetch?{query}")


@dataclasses.dataclass
class Told:
    """One request as its generator tells of it: lost, or slow."""

    kind: str
    node: str
    begun: float
    ended: float
    why: str
    pod: str
    #: The node that answered, as far as one did.
    by: str
    reused: bool
    id: str

    @classmethod
    def of(cls, record, node):
        begun = record["begun"] / 1000
        return cls(record["kind"], node, begun, begun + record["tookMs"] / 1000, record.get("lost", ""), record.get("pod", ""),
                   record.get("node", ""), record.get("reused", False), record["id"])

    def reason(self):
        """Why, in a few words that many have in common."""
        return " ".join(re.sub(r'^\w+ "[^"]*": |:\d+->\S+', "", self.why).split()[:8])

    def __str__(self):
        where = f", from {self.pod} on {self.by}" if self.pod else ""
        return f"{self.id} on {self.node}, begun {clock(self.begun)}, ended {clock(self.ended)}{where}, reused={self.reused}: {self.why[:600]}"


def clock(seconds):
    return time.strftime("%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds * 1000) % 1000:03d}"


@dataclasses.dataclass
class Account:
    """One scenario: what was sent while it went on, and what was lost."""

    name: str
    began: float
    ended: float = 0.0
    requests: dict = dataclasses.field(default_factory=collections.Counter)
    again: int = 0
    slowest: dict = dataclasses.field(default_factory=dict)
    p99: dict = dataclasses.field(default_factory=dict)
    nodes: dict = dataclasses.field(default_factory=collections.Counter)
    lost: list = dataclasses.field(default_factory=list)
    slow: list = dataclasses.field(default_factory=list)
    #: What was lost because of what the scenario itself took away, and why that could not be served.
    excused: list = dataclasses.field(default_factory=list)
    notes: list = dataclasses.field(default_factory=list)

    def __str__(self):
        sent = sum(self.requests.values())
        lines = [f"{self.name}: {sent} requests in {self.ended - self.began:.0f} s, lost {len(self.lost)}, could not be served {len(self.excused)}, "
                 f"repeated by the client's library {self.again}"]
        lines.append("  " + ", ".join(f"{kind} {count} (p99 {self.p99.get(kind, 0):.0f} ms, slowest {self.slowest.get(kind, 0):.0f} ms)"
                                      for kind, count in sorted(self.requests.items())))
        lines += [f"  note: {note}" for note in self.notes]
        reasons = collections.Counter((one.node, one.reason()) for one in self.lost)
        lines += [f"  lost on {node}, {count} times: {why}" for (node, why), count in reasons.most_common(12)]
        lines += [f"  slow {one}" for one in self.slow[:20]]
        lines += [f"  LOST {one}" for one in self.lost[:10]]
        lines += [f"  not served ({why}) {one}" for one, why in self.excused[:10]]
        return "\n".join(lines)


class Load:
    """The generators on all nodes. Streams go on across scenarios: a stream is accounted for where it ends."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.accounts, self.excuses = [], []
        self.pods = {}

    def start(self, *nodes):
        """Starts the load on these nodes, all of them by default."""
        for pod in self.cluster.wait_for_pods("app=load", len(self.cluster.nodes)):
            if not nodes or pod["spec"]["nodeName"] in nodes:
                self.pods[pod["spec"]["nodeName"]] = pod["status"]["podIP"]
                fetch(f"http://{pod['status']['podIP']}:8090/start", KINDS)

    def gone(self, node):
        """The generator of a dead node tells nothing any more."""
        self.pods.pop(node, None)

    def stop(self):
        """Begins nothing further, and waits for the end of what goes on."""
        for pod in self.pods.values():
            fetch(f"http://{pod}:8090/stop", {})
        until(lambda: not any(sum(self.report(pod)["open"].values()) for pod in self.pods.values()), "all requests have ended", patience=120)

    def report(self, pod, since=0.0, before=None):
        query = f"from={int(since * 1000)}" + (f"&to={int(before * 1000)}" if before else "")
        return fetch(f"http://{pod}:8090/report?{query}")

    @contextlib.contextmanager
    def account(self, name, settle=2.0):
        """Accounts for what ended while the block ran, and `settle` seconds after it."""
        account = Account(name, time.time())
        self.accounts.append(account)
        yield account
        time.sleep(settle)
        account.ended = time.time()
        self.collect(account)

    def collect(self, account):
        for pod in self.pods.values():
            told = self.report(pod, account.began, account.ended)
            for kind, of in told["kinds"].items():
                account.requests[kind] += of["begun"]
                account.again += of["again"]
                account.slowest[kind] = max(account.slowest.get(kind, 0), of["maxMs"])
                account.p99[kind] = max(account.p99.get(kind, 0), of["p99Ms"])
            account.nodes.update(told["answeredOn"])
            account.lost += [Told.of(one, told["node"]) for one in told["lost"]]
            account.slow += [Told.of(one, told["node"]) for one in told["slow"]]

        self.set_aside(account)

    def excuse(self, why, test):
        """From now on, and in accounts already made, lost requests for which `test` holds could not have been served."""
        self.excuses.append((why, test))
        for account in self.accounts:
            self.set_aside(account)

    def set_aside(self, account):
        for why, test in self.excuses:
            account.excused += [(one, why) for one in account.lost if test(one)]
            account.lost = [one for one in account.lost if not test(one)]

    def check_ledger(self):
        """How many POSTs arrived, and those that arrived more than once: none may, whatever happened."""
        seen = collections.Counter()
        for book in self.cluster.ledger.iterdir():
            seen.update(book.read_text().split())
        return len(seen), [name for name, times in seen.items() if times > 1]
