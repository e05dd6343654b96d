"""The store as a process that is measured, and what it is measured by."""
import http.client
import math
import os
import pathlib
import re
import signal
import subprocess
import time

from harness.router import Process, free_port, listens, until

CONFIG = """\
admin: {{ip: 127.0.0.1, port: {admin}}}
storage: {{kind: file, path: '{folder}/dtabs.redb'}}
namers:
- {{kind: io.l5d.fs, rootDir: '{folder}/disco'}}
interfaces:
- {{kind: io.l5d.httpController, ip: 127.0.0.1, port: {port}}}
"""


class Store:
    """`rutter namerd` with a file in `folder`, and names in files; use as a context manager."""

    def __init__(self, folder, names):
        self.folder = pathlib.Path(folder)
        self.port, self.admin, self.process = free_port(), free_port(), None
        (self.folder / "disco").mkdir()
        for number in range(names):
            (self.folder / "disco" / f"w{number}").write_text("".join(f"10.0.{number}.{host} 8080\n" for host in range(1, 11)))
        self.config = self.folder / "namerd.yaml"
        self.config.write_text(CONFIG.format(folder=self.folder, port=self.port, admin=self.admin))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process:
            self.process.kill()

    def start(self):
        self.process = Process(["namerd", self.config], self.folder, name="namerd")

        def answers():
            if self.process.child.poll() is not None:
                raise AssertionError(f"ended at start:\n{self.process.output()[-2000:]}")
            return listens(self.port)
        until(answers, "the store is up")

    def restart(self):
        """Seconds until it answers again."""
        self.process.child.send_signal(signal.SIGTERM)
        self.process.wait()
        began = time.monotonic()
        self.start()
        Api(self.port).call("GET", 0)
        return time.monotonic() - began

    def pss_mib(self):
        text = pathlib.Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return int(re.search(r"^Pss:\s+(\d+) kB", text, re.M)[1]) / 1024

    def peak_mib(self):
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"^VmHWM:\s+(\d+) kB", text, re.M)[1]) / 1024

    def file_mib(self):
        return (self.folder / "dtabs.redb").stat().st_size / 1024 / 1024

    def cpu_s(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Api:
    """Somebody who changes dtabs, on one connection."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def call(self, method, number, text=None, ours=False):
        """The body of the answer, which is no error."""
        path = f"/api/rutter/1/dtabs/{name(number)}" if ours else f"/api/1/dtabs/{name(number)}"
        headers = {} if text is None else {"content-type": "application/dtab"}
        self.connection.request(method, path, body=text, headers=headers)
        answer = self.connection.getresponse()
        body = answer.read()
        if answer.status >= 300:
            raise AssertionError(f"{method} {path}: {answer.status} {answer.reason} {body[:300]}")
        return body


def name(number):
    """What a namespace is called."""
    return f"ns{number:04}"


def quantile(values, share):
    """The smallest of the values that so many of them do not exceed."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def plain_writes(folder, count):
    """How long the disk itself takes to keep 4 KiB."""
    taken = []
    handle = os.open(folder / "plain", os.O_CREAT | os.O_WRONLY)
    try:
        for number in range(count):
            began = time.monotonic()
            os.pwrite(handle, b"x" * 4096, number % 256 * 4096)
            os.fdatasync(handle)
            taken.append(time.monotonic() - began)
    finally:
        os.close(handle)
    return taken


def disk(folder):
    """The file system below a folder."""
    shown = subprocess.run(["df", "--output=fstype", str(folder)], capture_output=True, text=True)
    return shown.stdout.split()[-1] if shown.returncode == 0 else "of an unknown kind"
