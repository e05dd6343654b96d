"""rutter on the cluster: its image, made from the program under test, and its chart."""
import json
import os
import pathlib

from harness.needs import ROOT, program

from .cluster import fetch, fetch_text
from .machine import run

CHART = ROOT / "charts" / "rutter"
NAME = "localhost/rutter:test"

#: Values that every installation here needs: the image was imported and can be pulled from nowhere.
HERE = {"image": {"repository": "localhost/rutter", "tag": "test", "pullPolicy": "Never"}}


def make_image(directory):
    """The program under test, in the image that is shipped."""
    path = pathlib.Path(directory) / "rutter.tar"
    run(ROOT / "image" / "build", "--program", os.environ.get("RUTTER") or program(), "--name", NAME, "--out", path)
    return path


def install(cluster, release, values, *arguments, wait=True):
    """`helm upgrade --install`, with values as a file."""
    file = cluster.directory / f"{release}-values.json"
    file.write_text(json.dumps({**HERE, **values}))
    try:
        return cluster.helm("upgrade", "--install", *(["--wait", "--timeout=120s"] if wait else []), release, CHART, "-f", file, *arguments)
    except RuntimeError:
        cluster.tell_about(f"app.kubernetes.io/instance={release}")
        raise


class Routers:
    """The router pods of one release, as their admin ports tell."""

    def __init__(self, cluster, release):
        self.cluster, self.selector = cluster, f"app.kubernetes.io/instance={release},app.kubernetes.io/component=router"

    def pods(self):
        return self.cluster.wait_for_pods(self.selector, len(self.cluster.nodes))

    def addresses(self):
        """Pod addresses by node."""
        return {pod["spec"]["nodeName"]: pod["status"]["podIP"] for pod in self.pods()}

    def admin(self, address, path):
        return fetch(f"http://{address}:9990{path}", timeout=5)

    def metric(self, name, **labels):
        """The sum of a family's values by node, of those lines that have all these labels."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        found = {}
        for node, address in self.addresses().items():
            lines = [line for line in fetch_text(f"http://{address}:9990/metrics").splitlines() if line.split("{")[0].split(" ")[0] == name]
            found[node] = sum(float(line.rsplit(" ", 1)[1]) for line in lines if all(label in line for label in wanted))
        return found

    def logs(self):
        return self.cluster.kubectl("logs", "-l", self.selector, "--prefix", "--tail=400", "--timestamps")
