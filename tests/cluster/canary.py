"""A second version of world, and the commands that change where requests go, as an account of the cluster gives them."""
import json
import os
import subprocess

from harness.needs import program

from . import workload

SELECTOR = "app.kubernetes.io/instance=rutter,app.kubernetes.io/component=store"

#: Who changes rules, and that it may. The store asks for a token that is meant for it.
ACCOUNT, AUDIENCE = "deploy", "rutter-store"
STORE = {"enabled": True, "access": {"grants": [{"to": [f"system:serviceaccount:default:{ACCOUNT}"], "may": ["write"]}]}}

#: A command that has not ended by then hangs.
PATIENCE_S = 120


def deploy(cluster):
    """world-v2, which is world-v1 by another name."""
    parts = (workload.HERE / "pods.yaml").read_text().split("---\n")
    text = "---\n".join(part for part in parts if "metadata: {name: world-v1}" in part)
    cluster.apply(text.replace("world-v1", "world-v2").replace("$LEDGER", str(cluster.ledger)))
    cluster.kubectl("rollout", "status", "--timeout=180s", "deployment/world-v2")


class Store:
    """The store's pods."""

    def __init__(self, cluster):
        self.cluster = cluster
        cluster.kubectl("create", "serviceaccount", ACCOUNT)

    def pods(self):
        return self.cluster.wait_for_pods(SELECTOR, 2)

    def delete(self, *pods):
        self.cluster.kubectl("delete", "pod", "--wait=false", *(pod["metadata"]["name"] for pod in pods))

    def begin(self, pod, *command):
        """A command of the program that asks this pod."""
        token = self.cluster.kubectl("create", "token", ACCOUNT, "--audience", AUDIENCE).strip()
        return subprocess.Popen([os.environ.get("RUTTER") or program(), *command, "--base-url", f"http://{pod['status']['podIP']}:4180"], text=True,
                                env={**os.environ, "RUTTER_TOKEN": token}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def end(self, command):
        """Its status and what it said."""
        said, _ = command.communicate(timeout=PATIENCE_S)
        return command.returncode, said


def answered(cluster, node):
    """Status and pod of the world that answers a program on this node."""
    answer = workload.in_pod(cluster, node, "http://world/")
    return answer["status"], json.loads(answer["body"])["pod"] if answer["status"] == 200 else ""
