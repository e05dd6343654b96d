"""The built program as a child process, its names in files, and scripted servers around it."""
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from .needs import program

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "conformance"))
import runner  # noqa: E402  (the suite's HTTP/1 client, fake Kubernetes API and free ports)

#: The longest wait for something that takes milliseconds on an idle machine.
PATIENCE_S = 20

CONFIG = """\
admin: {{ip: 127.0.0.1, port: {admin}}}
telemetry:
- {{kind: io.l5d.prometheus}}
- {{kind: io.l5d.recentRequests, sampleRate: 1.0}}
namers:
- {{kind: io.l5d.fs, rootDir: {disco}}}
routers:
- protocol: http
  label: out
  dtab: |
    /svc => /#/io.l5d.fs;
{router}
  servers:
  - {{ip: 127.0.0.1, port: {port}}}
"""


def free_port():
    return runner.PORTS.get()


def until(condition, what, patience=PATIENCE_S):
    """Waits for `condition()` to give something true, and gives it."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {patience} s: {what}")


class Process:
    """A process of the program, with its output in a file. `within` is a command that runs the program in its own place."""

    def __init__(self, arguments, directory, env=None, name="rutter", within=(), **kwargs):
        self.log = pathlib.Path(directory) / f"{name}.log"
        with self.log.open("ab") as log:
            self.child = subprocess.Popen([*map(str, within), os.environ.get("RUTTER") or str(program()), *map(str, arguments)], cwd=directory,
                                          stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                          env={**os.environ, **(env or {})}, start_new_session=True, **kwargs)

    @property
    def pid(self):
        return self.child.pid

    def output(self):
        return self.log.read_text(errors="replace")

    def terminate(self):
        self.child.send_signal(signal.SIGTERM)

    def wait(self, patience=PATIENCE_S):
        """The exit status."""
        try:
            return self.child.wait(patience)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"did not end within {patience} s:\n{self.output()[-2000:]}") from None

    def kill(self):
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()

    def resident_kib(self):
        for line in pathlib.Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise AssertionError("no VmRSS")


class Router(Process):
    """`rutter run` with one `http` router, names in files; use as a context manager.

    `edit` gets the text of the configuration and gives another one.
    """

    def __init__(self, router="", config=None, names=None, env=None, listen="127.0.0.1", dtab=None, edit=None, **kwargs):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="rutter-e2e-"))
        self.port, self.admin = free_port(), free_port()
        (self.directory / "disco").mkdir()
        for name, addresses in (names or {}).items():
            self.name(name, *addresses)
        indented = "\n".join("  " + line for line in router.strip("\n").splitlines())
        text = config or CONFIG.format(admin=self.admin, port=self.port, disco=self.directory / "disco", router=indented)
        text = text.replace(f"ip: 127.0.0.1, port: {self.port}", f"ip: {listen}, port: {self.port}")
        if dtab is not None:
            text = text.replace("/svc => /#/io.l5d.fs;", dtab.replace("{port}", str(self.port)))
        self.config = self.directory / "config.yaml"
        self.config.write_text(edit(text) if edit else text)
        super().__init__(["run", self.config], self.directory, env=env, **kwargs)

    def name(self, name, *addresses):
        (self.directory / "disco" / name).write_text("".join(f"{host} {port}\n" for host, port in addresses))

    def __enter__(self):
        try:
            self.ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def ready(self):
        def answers():
            if self.child.poll() is not None:
                raise AssertionError(f"ended with {self.child.returncode} at start:\n{self.output()[-2000:]}")
            return self.get_admin("/admin/ping").get("status") == 200 and (listens(self.port) or listens(self.port, "::1"))
        until(answers, "the router is up")

    def get_admin(self, path):
        return runner.http_call(("127.0.0.1", self.admin), {"target": path, "timeout_ms": 5000})

    def request(self, host="web", **request):
        """One request on a connection of its own, as the conformance runner's `request`."""
        return runner.http_call(("127.0.0.1", self.port), {"host": host, "timeout_ms": PATIENCE_S * 1000, **request})

    def connect(self, timeout=PATIENCE_S):
        return Connection(self.port, timeout)


def listens(port, host="127.0.0.1"):
    try:
        socket.create_connection((host, port), 1).close()
        return True
    except OSError:
        return False


class Connection:
    """A client's connection, byte by byte; use as a context manager."""

    def __init__(self, port, timeout=PATIENCE_S):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = runner.Reader(self.socket)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else data.encode("latin-1"))
        return self

    def get(self, path="/", host="web", *headers):
        return self.send(head(f"GET {path} HTTP/1.1", f"Host: {host}", *headers))

    def response(self, method="GET"):
        return runner.read_response(self.reader, method)

    def head(self):
        """Start line and header fields of a message, whose body is read by the caller."""
        return self.reader.line().decode("latin-1"), self.reader.headers()

    def chunk(self):
        """The next chunk of a chunked body, empty at its end."""
        size = int(self.reader.line().split(b";")[0], 16)
        data = self.reader.exact(size)
        self.reader.line()
        return data

    def reset(self):
        """Closes with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def is_closed(self, patience=PATIENCE_S):
        """Whether the other side closes within `patience`, without another byte."""
        self.socket.settimeout(patience)
        try:
            return not self.reader.b and self.socket.recv(1) == b""
        except TimeoutError:
            return False
        except OSError:
            return True


def head(*lines):
    return "".join(line + "\r\n" for line in lines) + "\r\n"


class Server:
    """A backend: `script(connection)` is called in a thread for each connection; use as a context manager.

    A script gets a `Connection`-like object with `send`, `head`, `chunk` and `reader`. What it raises besides a lost
    connection is kept in `errors`, for the test to look at.
    """

    def __init__(self, script, host="127.0.0.1", port=0):
        self.script, self.errors, self.connections = script, [], 0
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.create_server((host, port), family=family, backlog=256)
        self.address = self.socket.getsockname()[:2]
        threading.Thread(target=self.accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # A blocked accept keeps a listening socket alive that is merely closed.
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()

    def accept(self):
        while True:
            try:
                accepted, _ = self.socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self.serve, args=(accepted,), daemon=True).start()

    def serve(self, accepted):
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection.__new__(Connection)
        connection.socket, connection.reader = accepted, runner.Reader(accepted)
        try:
            self.script(connection)
        except (runner.Closed, OSError):
            pass
        except Exception as error:  # shown by the test
            self.errors.append(error)
        finally:
            accepted.close()


class Collector:
    """Zipkin's HTTP API, as far as spans are sent there; use as a context manager."""

    def __init__(self, host="127.0.0.1", port=0):
        self.spans, self.server = [], Server(self.serve, host, port)
        self.port = self.server.address[1]

    def serve(self, connection):
        while True:
            _, fields = connection.head()
            self.spans += json.loads(connection.reader.body(fields, False)[0])
            connection.send(head("HTTP/1.1 202 Accepted", "Content-Length: 0", "Connection: close"))
            return

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.server.__exit__(*args)

    def exporter(self, host="127.0.0.1"):
        return f"- {{kind: io.l5d.zipkin, host: {host}, port: {self.port}, transport: http, sampleRate: 1.0}}"


def answering(body=b"hello", status="200 OK", headers=()):
    """A script that answers every request of a connection in the same way."""
    def script(connection):
        while True:
            _, fields = connection.head()
            connection.reader.body(fields, False)
            connection.send(head(f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers)).send(body)
    return script
