"""Prometheus beside the cluster, finding the pods by what their annotations ask for."""
import contextlib
import json
import pathlib
import re
import threading
import urllib.error
import urllib.parse
import urllib.request

from .machine import start

PORT = 9090

#: The usual way: pods that ask for it by annotation, at the port and path that they name.
CONFIG = """\
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
- job_name: kubernetes-pods
  file_sd_configs: [{{files: [{targets}], refresh_interval: 1s}}]
  relabel_configs:
  - {{source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_scrape], action: keep, regex: "true"}}
  - {{source_labels: [__meta_kubernetes_pod_phase], action: drop, regex: Succeeded|Failed|Pending}}
  - {{source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_path], target_label: __metrics_path__, regex: (.+)}}
  - source_labels: [__meta_kubernetes_pod_ip, __meta_kubernetes_pod_annotation_prometheus_io_port]
    target_label: __address__
    separator: ":"
  - {{source_labels: [__meta_kubernetes_namespace], target_label: namespace}}
  - {{source_labels: [__meta_kubernetes_pod_name], target_label: pod}}
  - {{source_labels: [__meta_kubernetes_pod_node_name], target_label: node}}
"""

#: What Grafana fills in by itself.
BUILT_IN = {"__rate_interval": "30s", "__interval": "10s", "__range": "5m"}


class Prometheus:
    """Debian's Prometheus is built without discovery in Kubernetes: the pods are told to it by a file, with the same labels."""

    def __init__(self, cluster):
        self.cluster, self.ended = cluster, threading.Event()
        directory = cluster.directory / "prometheus"
        directory.mkdir(exist_ok=True)
        self.targets = directory / "targets.json"
        self.tell()
        config = directory / "prometheus.yml"
        config.write_text(CONFIG.format(targets=self.targets))
        self.child = start(directory / "prometheus.log", "prometheus", f"--config.file={config}", f"--storage.tsdb.path={directory / 'data'}",
                           f"--web.listen-address=127.0.0.1:{PORT}")
        self.teller = threading.Thread(target=self.keep_telling, daemon=True)
        self.teller.start()

    def keep_telling(self):
        while not self.ended.wait(1.0):
            self.tell()

    def tell(self):
        """Writes the pods as `kubernetes_sd_configs` with `role: pod` would give them."""
        try:
            pods = self.cluster.api.get("/api/v1/pods")["items"]
        except OSError:
            return  # the pods that were known stay
        part = self.targets.with_suffix(".part")
        part.write_text(json.dumps([target(pod) for pod in pods if pod["status"].get("podIP")]))
        part.replace(self.targets)

    def query(self, expression):
        """Label sets and values of an instant query; empty while there are none."""
        url = f"http://127.0.0.1:{PORT}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                result = json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{expression}: {error.read().decode(errors='replace')}") from error
        except OSError:
            return []
        return [(row["metric"], float(row["value"][1])) for row in result if isinstance(row, dict)] if isinstance(result, list) else []

    def stop(self):
        self.ended.set()
        self.teller.join()
        self.child.terminate()
        with contextlib.suppress(Exception):
            self.child.wait(20)


def target(pod):
    meta, labels = pod["metadata"], {}
    for name, value in meta.get("annotations", {}).items():
        labels[f"__meta_kubernetes_pod_annotation_{re.sub('[^a-zA-Z0-9_]', '_', name)}"] = value
    labels |= {"__meta_kubernetes_namespace": meta["namespace"], "__meta_kubernetes_pod_name": meta["name"],
               "__meta_kubernetes_pod_ip": pod["status"]["podIP"], "__meta_kubernetes_pod_phase": pod["status"]["phase"],
               "__meta_kubernetes_pod_node_name": pod["spec"].get("nodeName", "")}
    return {"targets": [pod["status"]["podIP"]], "labels": labels}


def dashboard_queries(directory):
    """Every query of every dashboard below `directory`: (dashboard, panel, expression), its variables filled in."""
    found = []
    for path in sorted(pathlib.Path(directory).rglob("*.json")):
        dashboard = json.loads(path.read_text())
        for panel in panels(dashboard.get("panels", ())):
            found += [(path.stem, panel.get("title", "?"), filled_in(target["expr"])) for target in panel.get("targets", ()) if target.get("expr")]
    return found


def panels(listed):
    for panel in listed:
        yield panel
        yield from panels(panel.get("panels", ()))


def filled_in(expression):
    """The query as Grafana sends it when every variable stands at `All`."""
    def value(match):
        return BUILT_IN.get(match["name"] or match["braced"], ".*")
    return re.sub(r"\$(?:\{(?P<braced>\w+)(?::\w+)?\}|(?P<name>\w+))", value, expression)
