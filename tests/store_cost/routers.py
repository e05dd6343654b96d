"""Routers as the store sees them: the connections of the interpreter io.l5d.namerd.http, and its reports."""
import http.client
import json
import re
import selectors
import socket
import time

from measured import name

#: Until all routers have what they wait for.
PATIENCE_S = 60
NUMBER = re.compile(rb'"number":(\d+)')


class Stream:
    """One connection with one question, whose answer goes on."""

    def __init__(self, port, namespace, question):
        self.namespace, self.bytes, self.version, self.has_addresses, self.tail = namespace, 0, 0, False, b""
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(f"GET {question} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n\r\n".encode())
        self.socket.setblocking(False)

    def take(self):
        """What has come. A stream that ends is an error: none does while the store runs."""
        data = self.socket.recv(65536)
        if not data:
            raise AssertionError(f"the store ended a stream of {name(self.namespace)}: {self.tail}")
        self.bytes += len(data)
        text = self.tail + data
        for said in NUMBER.findall(text):
            self.version = max(self.version, int(said))
        self.has_addresses |= b'"addrs"' in text
        self.tail = text[-40:]


class Tree(Stream):
    """Follows the tree of a name."""

    def __init__(self, port, namespace, number):
        super().__init__(port, namespace, f"/api/1/bind/{name(namespace)}?path=/svc/w{number}&dtab=&watch=true&versions=true")

    def begun(self):
        return self.version > 0


class Addresses(Stream):
    """Follows the addresses of a bound name."""

    def __init__(self, port, namespace, number):
        super().__init__(port, namespace, f"/api/1/addr/{name(namespace)}?path=/%23/io.l5d.fs/w{number}&watch=true")

    def begun(self):
        return self.has_addresses


class Fleet:
    """Routers, of which every other one follows the first namespace and the rest have one each."""

    def __init__(self, port, routers, names):
        self.port, self.names, self.streams = port, names, []
        self.namespaces = [0 if number % 2 == 0 else 1 + number // 2 for number in range(routers)]
        self.selector = selectors.DefaultSelector()

    def connect(self):
        """Gives back when all of them know their names."""
        for namespace in self.namespaces:
            for number in range(self.names):
                for kind in (Tree, Addresses):
                    stream = kind(self.port, namespace, number)
                    self.streams.append(stream)
                    self.selector.register(stream.socket, selectors.EVENT_READ, stream)
            self.read(0)
        self.until(self.streams, lambda stream: stream.begun(), "know their names")
        self.received()

    def read(self, seconds):
        """All that comes within a time."""
        end = time.monotonic() + seconds
        while True:
            ready = self.selector.select(max(0, end - time.monotonic()))
            for key, _ in ready:
                key.data.take()
            if not ready and time.monotonic() >= end:
                return

    def until(self, streams, done, what):
        end = time.monotonic() + PATIENCE_S
        waiting = {stream for stream in streams if not done(stream)}
        while waiting:
            if time.monotonic() > end:
                raise AssertionError(f"{len(waiting)} streams do not {what} after {PATIENCE_S} s, such as one of {name(waiting.pop().namespace)}")
            for key, _ in self.selector.select(1):
                key.data.take()
                if done(key.data):
                    waiting.discard(key.data)

    def received(self):
        """Bytes since this was asked for last."""
        count = sum(stream.bytes for stream in self.streams)
        for stream in self.streams:
            stream.bytes = 0
        return count

    def followers(self, namespace):
        """The routers of a namespace."""
        return [number for number, of in enumerate(self.namespaces) if of == namespace]

    def follow(self, namespace, version):
        """Gives back when all who follow a namespace have this version."""
        trees = [stream for stream in self.streams if isinstance(stream, Tree) and stream.namespace == namespace]
        self.until(trees, lambda stream: stream.version >= version, f"have version {version}")

    def report(self, number):
        """What a router tells of itself, on a connection of its own."""
        namespace = self.namespaces[number]
        used = [{"path": f"/svc/w{which}", "rps": 10.0} for which in range(self.names)]
        report = {"namespace": name(namespace), "router": "out", "node": f"node{number}", "program": "rutter", "versions": True,
                  "interval": 10, "number": 1, "names": used}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("POST", f"/api/rutter/1/routers/router{number}", body=json.dumps(report))
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200:
                raise AssertionError(f"a report is answered {answer.status}: {text[:300]}")
        finally:
            connection.close()

    def close(self):
        for stream in self.streams:
            self.selector.unregister(stream.socket)
            stream.socket.close()
        self.selector.close()
