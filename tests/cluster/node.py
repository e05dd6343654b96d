"""One node: containerd, runc, CNI, kubelet and kube-proxy, in namespaces of its own."""
import contextlib
import os
import pathlib
import shutil
import time

from harness.router import until

from . import control_plane
from .machine import cgroups_for, in_network, remove_cgroups, run, start

HERE = pathlib.Path(__file__).resolve().parent

#: The namespaces of a node beside its network, which is there before it and survives it.
NAMESPACES = ["unshare", "--cgroup", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]


class Node:
    """Node number `index`: `NAME` = n1, address 172.30.0.11, pods in 10.244.1.0/24."""

    def __init__(self, index, directory, programs, control):
        self.index, self.name, self.programs, self.control = index, f"n{index}", programs, control
        self.address, self.pods = f"172.30.0.1{index}", f"10.244.{index}.0/24"
        self.directory = pathlib.Path(directory)
        (self.directory / "images").mkdir(parents=True)
        self.init, self.groups = None, {}

    def plug_in(self, others):
        """The node's network, with a cable to the bridge `nodes` and routes to the pods of the others."""
        run("ip", "netns", "add", self.name)
        self.inside("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", f"to-{self.name}", "type", "veth", "peer", "name", "eth0", "netns", self.name)
        run("ip", "link", "set", f"to-{self.name}", "master", "nodes", "up")
        self.inside("ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        self.inside("ip", "link", "set", "eth0", "up")
        self.inside("ip", "route", "add", "default", "via", control_plane.ADDRESS)
        self.inside("sysctl", "-qw", "net.ipv4.ip_forward=1")
        run("ip", "route", "replace", self.pods, "via", self.address)
        for other in others:
            if other is not self:
                self.inside("ip", "route", "add", other.pods, "via", other.address)

    def inside(self, *command):
        return run(*in_network(self.name, *command))

    def boot(self):
        """Starts the node; it is not Ready yet."""
        self.groups = cgroups_for(self.name)
        (self.directory / "state").unlink(missing_ok=True)
        environment = {**os.environ, "NODE": self.name, "NODE_IP": self.address, "POD_RANGE": self.pods, "DIRECTORY": str(self.directory),
                       "PROGRAMS": str(self.programs), "CONTROL": str(self.control.directory), "CGROUPS": " ".join(self.groups),
                       "DNS": control_plane.ADDRESS}
        # The shell joins the node's cgroups before the cgroup namespace is made: its root is where it then stands.
        join = "".join(f"echo $$ > {group}/cgroup.procs; " for group in self.groups.values())
        self.init = start(self.directory / "init.log", "sh", "-c", f'{join} exec "$@"', "node", *in_network(self.name, *NAMESPACES, HERE / "node-init.sh"),
                          env=environment)

    def booted(self):
        if self.init.poll() is not None:
            raise RuntimeError(f"node {self.name} ended:\n{(self.directory / 'init.log').read_text()[-3000:]}")
        return (self.directory / "state").exists()

    def first_process(self):
        """The node's process 1, as it is numbered out here."""
        return pathlib.Path(f"/proc/{self.init.pid}/task/{self.init.pid}/children").read_text().split()[0]

    def on(self, *command):
        """Runs a command on the node, in all its namespaces."""
        return run("nsenter", "-t", self.first_process(), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--", *command)

    def load(self, image):
        """Gives the node an image, now and whenever it boots."""
        shutil.copy(image, self.directory / "images")
        if self.init is not None:
            self.on("ctr", "-n", "k8s.io", "images", "import", image)

    def processes(self, name):
        """Numbers, out here, of the node's processes that are called `name`."""
        found = []
        for group, _, _ in os.walk(self.groups["pids"]):  # it passes over groups that go meanwhile
            with contextlib.suppress(OSError):
                for pid in (pathlib.Path(group) / "cgroup.procs").read_text().split():
                    with contextlib.suppress(OSError):  # it has ended
                        if pathlib.Path(f"/proc/{pid}/comm").read_text().strip() == name:
                            found.append(int(pid))
        return found

    def cut_power(self):
        """Everything on the node ends at once, and nobody is told: its cable goes dead first. Gives when that was."""
        run("ip", "link", "set", f"to-{self.name}", "down")
        dead = time.time()
        self.init.kill()
        self.init.wait()
        until(self.empty, f"the processes of {self.name} are gone")
        run("ip", "link", "delete", f"to-{self.name}")
        run("ip", "netns", "delete", self.name)
        return dead

    def empty(self):
        """Removes the node's cgroups, as far as they are empty; whether all were."""
        for group in self.groups.values():
            remove_cgroups(group)
        return not any(group.exists() for group in self.groups.values())

    def stop(self):
        """The end of the test."""
        if self.init is not None and self.init.poll() is None:
            self.init.kill()
            self.init.wait()
            end = time.monotonic() + 10
            while not self.empty() and time.monotonic() < end:
                time.sleep(0.05)
