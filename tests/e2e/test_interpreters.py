"""Routers on the store by each of its interfaces: any order of starts, restarts at other ports under load, nonsense; and
what clients of Linkerd 1 send, byte by byte."""
import concurrent.futures
import json
import os
import signal
import socket
import struct
import threading
import time
import unittest

from e2e.test_store import Store
from harness.router import Router, Server, answering, free_port, listens, until

#: How often the store is restarted under load; RUTTER_STORE_RESTARTS asks for another number.
RESTARTS = int(os.environ.get("RUTTER_STORE_RESTARTS", "4"))

#: Of each interpreter: the interface it asks, and its keys.
KINDS = {
    "io.l5d.mesh": ("io.l5d.mesh", "root: /default"),
    "io.l5d.namerd": ("io.l5d.thriftNameInterpreter", "namespace: default"),
    "io.l5d.namerd.http": ("io.l5d.httpController", "namespace: default"),
}

STORE = """\
admin: {{ip: 127.0.0.1, port: {admin}}}
storage: {storage}
namers:
- {{kind: io.l5d.fs, rootDir: {disco}}}
interfaces:
- {{kind: io.l5d.httpController, port: {http}}}
- {{kind: io.l5d.mesh, port: {mesh}}}
- {{kind: io.l5d.thriftNameInterpreter, port: {thrift}}}
"""

ROUTER = """\
admin: {{ip: 127.0.0.1, port: {admin}}}
routers:
- protocol: http
  label: out
  interpreter:
    kind: {kind}
    dst: /$/inet/127.0.0.1/{store}
    {keys}
    retry: {{baseSeconds: 1, maxSeconds: 1}}
  bindingTimeoutMs: 20000
  servers:
  - {{ip: 127.0.0.1, port: {port}}}
"""


class Moving(Store):
    """A store with all three interfaces, at other ports each time it starts."""

    def move(self, storage=None):
        storage = storage or f"{{kind: file, path: '{self.directory}/dtabs.redb'}}"
        self.port, self.admin, self.mesh, self.thrift = (free_port() for _ in range(4))
        self.config.write_text(STORE.format(admin=self.admin, storage=storage, disco=self.disco, http=self.port,
                                            mesh=self.mesh, thrift=self.thrift))
        return self

    def at(self, interface):
        return {"io.l5d.mesh": self.mesh, "io.l5d.thriftNameInterpreter": self.thrift, "io.l5d.httpController": self.port}[interface]

    def start(self):
        super().start()
        until(lambda: listens(self.mesh) and listens(self.thrift), "all interfaces listen")
        return self


class Service:
    """One address in front of what moves, as a Kubernetes Service is; use as a context manager."""

    def __init__(self):
        self.to, self.garbage = None, None
        self.server = Server(self.serve)
        self.port = self.server.address[1]

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.server.__exit__(*args)

    def serve(self, connection):
        if self.garbage is not None:
            connection.send(self.garbage)
            connection.socket.recv(65536)
            return
        if self.to is None:
            return
        with socket.create_connection(("127.0.0.1", self.to), 5) as store:
            store.settimeout(None)
            store.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.copy, args=(store, connection.socket), daemon=True).start()
            self.copy(connection.socket, store)

    @staticmethod
    def copy(from_, to):
        try:
            while data := from_.recv(65536):
                to.sendall(data)
        except OSError:
            pass
        for end in (from_, to):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class OnStore(Router):
    """A router that asks the store at `service`."""

    def __init__(self, kind, service):
        self.own = free_port(), free_port()
        interface, keys = KINDS[kind]
        text = ROUTER.format(admin=self.own[0], port=self.own[1], store=service.port, kind=kind, keys=keys)
        super().__init__(edit=lambda _: text)

    def ready(self):
        self.admin, self.port = self.own
        super().ready()


class Load:
    """Requests without an end, on four threads, until the block ends; `failed` are those that were not answered well."""

    def __init__(self, router):
        self.router, self.failed, self.stop, self.count = router, [], threading.Event(), 0
        self.threads = [threading.Thread(target=self.run) for _ in range(4)]

    def run(self):
        while not self.stop.is_set():
            answer = self.router.request("web")
            self.count += 1
            if answer.get("status") != 200:
                self.failed.append(answer)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()


class RoutersOnTheStore(unittest.TestCase):
    def on(self, kind):
        interface, _ = KINDS[kind]
        with Moving() as store, Service() as service, Server(answering(b"one")) as one, Server(answering(b"two")) as two:
            ports = {"one": one.address[1], "two": two.address[1]}
            for name, port in ports.items():
                store.name(name, port)

            def start(storage=None):
                store.move(storage).start()
                service.to = store.at(interface)

            def answers(body):
                return lambda: router.request("web").get("body") == body

            with OnStore(kind, service) as router:  # before the store is there
                first = concurrent.futures.ThreadPoolExecutor(1).submit(router.request, "web")
                start()
                store.put("/svc/web => /#/io.l5d.fs/one ;")
                answer = first.result()
                self.assertEqual((answer["status"], answer["body"]), (200, b"one"), router.output()[-2000:])
                with Load(router) as load:
                    for restart in range(RESTARTS):
                        store.stop(signal.SIGKILL if restart % 2 else signal.SIGTERM)
                        service.to = None
                        time.sleep(0.2)
                        start()
                        name = "two" if restart % 2 == 0 else "one"
                        # The other name's endpoints move, too: what is routed to is told by its answer.
                        store.name(name, ports[name])
                        store.put(f"/svc/web => /#/io.l5d.fs/{name} ;")
                        until(answers(name.encode()), f"the dtab of restart {restart} is in force")
                    # A change that the store tells as it dies.
                    store.put("/svc/web => /#/io.l5d.fs/two ;")
                    store.stop(signal.SIGKILL)
                    # Nonsense, in the store's place.
                    for garbage in (b"HTTP/1.1 500 No\r\n\r\n", b"\0" * 64, b"\xff" * 64, b"", struct.pack(">I", 9) + b"\xfe\0\0\x02\0\0\0ab"):
                        service.garbage = garbage
                        time.sleep(0.3)
                    service.garbage = None
                    # A store that has lost everything is not believed at once.
                    start("{kind: io.l5d.inMemory}")
                    time.sleep(2)
                    store.stop()
                    start()
                    store.put("/svc/web => /#/io.l5d.fs/one ;")
                    until(answers(b"one"), "the dtab after the nonsense")
                self.assertEqual(load.failed, [])
                self.assertGreater(load.count, 100)
                began = time.monotonic()
                store.put("/svc/web => 1 * /#/io.l5d.fs/two & 0 * /#/io.l5d.fs/one ;")
                until(answers(b"two"), "a change")
                self.assertLess(time.monotonic() - began, 5)
                store.name("two", ports["one"])
                until(answers(b"one"), "other addresses")
                state = json.loads(router.get_admin(f"/out/interpreter_state/{kind}.json")["body"] or b"{}")
                self.assertEqual(state.get("bind", [{}])[0].get("path"), "/svc/web", state)

    def test_by_grpc(self):
        self.on("io.l5d.mesh")

    def test_by_thriftmux(self):
        self.on("io.l5d.namerd")

    def test_by_http(self):
        self.on("io.l5d.namerd.http")


def read(stream, length):
    data = b""
    while len(data) < length:
        more = stream.recv(length - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def mux(kind, tag, body=b""):
    return struct.pack(">Ib", 4 + len(body), kind) + tag.to_bytes(3, "big") + body


def answer(stream):
    length, kind = struct.unpack(">Ib", read(stream, 5))
    rest = read(stream, length - 1)
    return kind, int.from_bytes(rest[:3], "big"), rest[3:]


def text(value):
    return struct.pack(">I", len(value)) + value


def field(kind, number, value):
    return struct.pack(">BH", kind, number) + value


def path(*segments):
    return struct.pack(">BI", 11, len(segments)) + b"".join(text(one) for one in segments)


def bind(name, stamp=b"", dtab=b"", sequence=1):
    reference = field(11, 1, text(stamp)) + field(15, 2, path(*name)) + field(11, 3, text(b"default")) + b"\0"
    request = field(11, 1, text(dtab)) + field(12, 2, reference) + field(15, 3, path()) + b"\0"
    return b"\x80\x01\0\x01" + text(b"bind") + struct.pack(">I", sequence) + field(12, 1, request) + b"\0"


def dispatch(payload):
    # A context of Finagle's, no destination, no dtab.
    key = b"com.twitter.finagle.tracing.TraceContext"
    return b"\0\x01" + struct.pack(">H", len(key)) + key + struct.pack(">H", 32) + bytes(32) + b"\0\0\0\0" + payload


class WhatLinkerdSends(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.store = Moving()
        cls.store.move().start()
        cls.store.name("one", 7001)
        cls.store.put("/svc => /#/io.l5d.fs ;")

    @classmethod
    def tearDownClass(cls):
        cls.store.__exit__()

    def mux(self):
        stream = socket.create_connection(("127.0.0.1", self.store.thrift), 20)
        self.addCleanup(stream.close)
        return stream

    def test_finagles_handshake_a_long_poll_and_its_end(self):
        stream = self.mux()
        stream.sendall(mux(-128, 1, b"tinit check"))
        self.assertEqual(answer(stream), (-128, 1, b"tinit check"))
        headers = text(b"mux-framer") + text(struct.pack(">I", 2**31 - 1)) + text(b"tls") + text(b"off")
        stream.sendall(mux(68, 1, b"\0\x01" + headers))
        self.assertEqual(answer(stream), (-68, 1, b"\0\x01"))
        stream.sendall(mux(65, 1))
        self.assertEqual(answer(stream), (-65, 1, b""))
        stream.sendall(mux(2, 2, dispatch(bind([b"svc", b"one"]))))
        kind, tag, body = answer(stream)
        head = b"\0\0\0" + b"\x80\x01\0\x02" + text(b"bind") + struct.pack(">I", 1)
        self.assertEqual((kind, tag, body[:len(head)]), (-2, 2, head))
        self.assertIn(b"\x0c\0\x04" + field(15, 1, path(b"#", b"io.l5d.fs", b"one")) + field(15, 2, path()), body)
        stamp = body[len(head) + 10:][:16]
        # The same answer is not said twice, and what is not waited for any more is not said at all.
        stream.sendall(mux(2, 3, dispatch(bind([b"svc", b"one"], stamp))))
        stream.sendall(mux(65, 1))
        self.assertEqual(answer(stream), (-65, 1, b""))
        stream.sendall(mux(66, 0, (3).to_bytes(3, "big") + b"not wanted"))
        self.assertEqual(answer(stream), (-66, 3, b""))
        # Another server, as another replica would be, knows the stamp, too; a change ends the wait.
        stream = self.mux()
        stream.sendall(mux(2, 4, dispatch(bind([b"svc", b"one"], stamp))))
        stream.sendall(mux(65, 1))
        self.assertEqual(answer(stream), (-65, 1, b""))
        self.store.put("/svc => /#/io.l5d.fs | ~ ; /svc/one => ! ;")
        kind, tag, body = answer(stream)
        self.assertEqual((kind, tag), (-2, 4))
        self.assertIn(b"\x0c\0\x03\0", body, "a failed name")
        self.store.put("/svc => /#/io.l5d.fs ;")

    def test_a_method_that_there_is_not_and_a_message_that_nobody_knows(self):
        stream = self.mux()
        stream.sendall(mux(2, 2, dispatch(b"\x80\x01\0\x01" + text(b"steal") + bytes(4) + b"\0")))
        kind, tag, body = answer(stream)
        self.assertEqual((kind, tag), (-2, 2))
        self.assertIn(b"\x80\x01\0\x03", body)
        stream.sendall(mux(33, 5))
        self.assertEqual(answer(stream)[:2], (-128, 5))
        stream.sendall(mux(2, 6, dispatch(b"no thrift")))
        self.assertEqual(answer(stream)[2][:1], b"\x01")

    def test_frames_that_are_none_end_the_connection_and_no_other(self):
        other = self.mux()
        for frame in (b"\xff" * 16, b"\0\0\0\x01\0", mux(2, 1 << 22 | 1 << 23), mux(2, 1, b"\xff\xff"), b"GET / HTTP/1.1\r\n\r\n"):
            with self.mux() as stream:
                stream.sendall(frame)
                stream.shutdown(socket.SHUT_WR)
                self.assertEqual(stream.recv(100), b"", frame)
        other.sendall(mux(65, 1))
        self.assertEqual(answer(other), (-65, 1, b""))

    def test_grpc_without_an_authority_and_without_a_media_type(self):
        with socket.create_connection(("127.0.0.1", self.store.mesh), 20) as stream:
            name = b"/io.linkerd.mesh.Resolver/GetReplicas"
            block = b"\x83\x86\x81\x44" + bytes([len(name)]) + name
            elems = b"".join(b"\x0a" + bytes([len(one)]) + one for one in (b"#", b"io.l5d.fs", b"one"))
            message = b"\x0a" + bytes([len(elems)]) + elems
            data = b"\0" + text(message)

            def frame(kind, flags, stream_id, payload):
                return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + struct.pack(">I", stream_id) + payload
            stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b""))
            for stream_id in (1, 3):
                stream.sendall(frame(1, 4, stream_id, block) + frame(0, 1, stream_id, data))
                said, kinds = b"", []
                while kinds.count(1) < 2:
                    head = read(stream, 9)
                    payload = read(stream, int.from_bytes(head[:3], "big"))
                    self.assertNotEqual(head[3], 3, f"a reset: {payload}")
                    if struct.unpack(">I", head[5:])[0] == stream_id:
                        kinds.append(head[3])
                        said += payload if head[3] == 0 else b""
                self.assertEqual(kinds, [1, 0, 1], "the head, the message, the status behind it")
                # IPv4 is written although it is 0: Linkerd leaves out endpoints without it.
                self.assertIn(b"\x08\x00\x12\x04\x7f\x00\x00\x01\x18" + b"\xd9\x36", said)


if __name__ == "__main__":
    unittest.main()
