"""A private corner of this machine, in which a cluster is made and with which all of it ends.

The program that calls `enter` first goes on in namespaces of its own: network, mounts and processes. Nothing listens
in the machine's own network, nothing is mounted in its own tree, and when the program ends, however it ends, the kernel
ends every process that it started.
"""
import contextlib
import os
import pathlib
import signal
import subprocess
import sys

#: Set in the program that has entered.
MARK = "RUTTER_CLUSTER_INSIDE"

#: Where cgroup v1 has its hierarchies.
CGROUPS = pathlib.Path("/sys/fs/cgroup")

#: What this cluster's cgroups are called, with the number of the process that made them.
PREFIX = "rutter-cluster"


def entered():
    """Whether this program is in there already."""
    return MARK in os.environ


def enter():
    """Starts this program anew in namespaces of its own; returns in there."""
    if entered():
        # A first process of its namespace has no default reaction to SIGTERM.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        os.makedirs("/run/netns", exist_ok=True)
        run("mount", "-t", "tmpfs", "tmpfs", "/run/netns")
        run("ip", "link", "set", "lo", "up")
        remove_old_cgroups()
        return
    if os.geteuid() != 0:
        sys.exit("a cluster needs root: namespaces, mounts and cgroups are made for its nodes")
    if not (CGROUPS / "memory").is_dir():
        sys.exit("a cluster needs cgroup v1 (or both): this machine has none of its hierarchies under /sys/fs/cgroup")
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]
    os.execvpe(command[0], [*command, sys.executable, *sys.argv], {**os.environ, MARK: str(os.getpid())})


def run(*command, stdin=None, quiet=False):
    """Runs a command to its end and gives what it printed; an error holds what it complained of."""
    done = subprocess.run([str(part) for part in command], input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL,
                          capture_output=True, text=True)
    if done.returncode != 0 and not quiet:
        raise RuntimeError(f"{' '.join(map(str, command))} exited with {done.returncode}:\n{done.stderr[-3000:] or done.stdout[-3000:]}")
    return done.stdout


def start(log, *command, **kwargs):
    """Starts a command that goes on, its output in the file `log`."""
    with open(log, "ab") as output:
        return subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                                start_new_session=True, **kwargs)


def in_network(name, *command):
    """The command, to be run in the network namespace `name`. (`ip netns exec` would hide the cgroups.)"""
    return ["nsenter", f"--net=/run/netns/{name}", "--", *command]


def cgroups_for(name):
    """Makes a cgroup called `name` in every hierarchy, below this process's own; gives them by hierarchy."""
    made = {}
    for hierarchy, own in own_cgroups().items():
        group = CGROUPS / hierarchy / own / f"{PREFIX}-{os.environ[MARK]}-{name}"
        group.mkdir(exist_ok=True)
        if hierarchy == "cpuset":
            # A new cpuset is empty and takes no process.
            for setting in ("cpuset.cpus", "cpuset.mems"):
                (group / setting).write_text((group.parent / setting).read_text())
        made[hierarchy] = group
    return made


def own_cgroups():
    """This process's own cgroup by hierarchy, as a path relative to the hierarchy's mount."""
    found = {}
    for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        directory = controllers.removeprefix("name=") or "unified"
        if (CGROUPS / directory).is_dir():
            found[directory] = path.lstrip("/")
    return found


def remove_cgroups(group):
    """Removes a cgroup and those in it, as far as no process is left in them."""
    for directory, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(directory)


def remove_old_cgroups():
    """What a run left that was killed: cgroups are the one thing that outlives the namespaces."""
    for hierarchy, own in own_cgroups().items():
        for group in (CGROUPS / hierarchy / own).glob(f"{PREFIX}-*"):
            remove_cgroups(group)
