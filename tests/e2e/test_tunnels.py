"""Tunnels through the built program, over two hops: WebSockets of real clients, CONNECT, and what a drain does to them."""
import base64
import hashlib
import os
import shutil
import socket
import socketserver
import struct
import subprocess
import threading
import unittest

from harness.router import PATIENCE_S, Router, free_port, until

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

CONFIG = """\
admin: {{ip: 127.0.0.1, port: {admin}, shutdownGraceMs: {grace}}}
namers:
- {{kind: io.l5d.fs, prefix: /endpoints, rootDir: {directory}/endpoints}}
- {{kind: io.l5d.fs, prefix: /routers, rootDir: {directory}/routers}}
routers:
- protocol: http
  label: in
  dtab: /svc => /#/endpoints
  servers:
  - {{ip: 127.0.0.1, port: {inner}}}
- protocol: http
  label: out
  dtab: /svc => /#/routers
  client: {{httpProxy: true}}
  servers:
  - {{ip: 127.0.0.1, port: {port}, tunnelIdleMs: {idle}}}
"""


def frame(opcode, payload, masked):
    """A WebSocket frame (RFC 6455 5.2)."""
    mask = os.urandom(4) if masked else b""
    length = len(payload)
    bit = 0x80 if masked else 0
    if length < 126:
        head = struct.pack("!BB", 0x80 | opcode, bit | length)
    elif length < 1 << 16:
        head = struct.pack("!BBH", 0x80 | opcode, bit | 126, length)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, bit | 127, length)
    body = bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload)) if masked else payload
    return head + mask + body


def read_frame(exact):
    """Opcode and payload; `exact(n)` reads so many bytes."""
    first, second = exact(2)
    length = second & 0x7F
    if length == 126:
        length, = struct.unpack("!H", exact(2))
    elif length == 127:
        length, = struct.unpack("!Q", exact(8))
    mask = exact(4) if second & 0x80 else b"\0\0\0\0"
    payload = exact(length)
    return first & 0x0F, bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload))


def accept_of(key):
    return base64.b64encode(hashlib.sha1(key + GUID).digest())


class WebSocketServer(socketserver.StreamRequestHandler):
    """Says what it hears. What it was asked stands in `asked`, what came after a close in `ended`."""

    asked, ended = [], threading.Event()
    refuse = False

    def exact(self, n):
        data = self.rfile.read(n)
        if len(data) < n:
            raise ConnectionError
        return data

    def handle(self):
        lines = []
        while (line := self.rfile.readline().strip()):
            lines.append(line)
        if not lines:
            return
        self.asked.append(lines)
        fields = dict(line.lower().split(b": ", 1) for line in lines[1:])
        key = next((line.split(b": ")[1] for line in lines if line.lower().startswith(b"sec-websocket-key")), b"")
        if b"/refused" in lines[0] or fields.get(b"upgrade") != b"websocket":
            self.wfile.write(b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nno")
            return
        self.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n"
                         % accept_of(key))
        try:
            while True:
                opcode, payload = read_frame(self.exact)
                self.wfile.write(frame(opcode, payload, masked=False))
                if opcode == 8:
                    break
        except ConnectionError:
            pass
        self.ended.set()


class Echo(socketserver.StreamRequestHandler):
    """Bytes: says what it hears, and `bye` at the end."""

    heard = []

    def handle(self):
        got = b""
        try:
            while data := self.request.recv(65536):
                got += data
                self.request.sendall(data)
        except ConnectionError:
            return
        self.heard.append(got)
        self.request.sendall(b"bye")


def serve(handler):
    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = allow_reuse_address = True
    server = Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class Two(Router):
    """Two routers in a row in one process. `names` are the endpoints' ports."""

    def __init__(self, names, idle=3600000, grace=10000):
        self.idle, self.grace, self.endpoints, self.open = idle, grace, names, []
        super().__init__(edit=self.written)

    def written(self, _):
        inner = free_port()
        for place, of in (("endpoints", lambda port: port), ("routers", lambda _: inner)):
            (self.directory / place).mkdir()
            for name, port in self.endpoints.items():
                (self.directory / place / name.replace("SELF", str(self.port))).write_text(f"127.0.0.1 {of(port)}\n")
        return CONFIG.format(admin=self.admin, inner=inner, port=self.port, directory=self.directory, idle=self.idle, grace=self.grace)

    def connect(self, timeout=PATIENCE_S):
        self.open.append(super().connect(timeout))
        return self.open[-1]

    def __exit__(self, *error):
        super().__exit__(*error)
        for conn in self.open:
            conn.socket.close()

    def metric(self, name):
        for line in self.get_admin("/metrics")["body"].decode().splitlines():
            if line.startswith(name):
                return float(line.rsplit(" ", 1)[1])
        return None

    def upgrade(self, path="/chat", more=b"", early=b""):
        conn = self.connect()
        key = base64.b64encode(os.urandom(16))
        conn.send(b"GET %s HTTP/1.1\r\nHost: ws\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                  b"Sec-WebSocket-Key: %s\r\n%s\r\n%s" % (path.encode(), key, more, early))
        return conn, accept_of(key).decode()


class Tunnels(unittest.TestCase):
    def setUp(self):
        WebSocketServer.asked.clear()
        WebSocketServer.ended.clear()
        Echo.heard.clear()
        self.ws, self.echo = serve(WebSocketServer), serve(Echo)
        for server in (self.ws, self.echo):
            self.addCleanup(server.server_close)
            self.addCleanup(server.shutdown)
        self.names = {"ws": self.ws.server_address[1], "127.0.0.1:SELF": self.ws.server_address[1], "echo:443": self.echo.server_address[1]}

    def test_a_websocket_goes_through_both_hops_and_is_counted(self):
        with Two(self.names) as router:
            conn, accept = router.upgrade()
            status, headers = conn.head()
            self.assertIn(" 101 ", status)
            found = {name.lower(): value for name, value in headers}
            self.assertEqual((found["upgrade"], found["connection"], found["sec-websocket-accept"]), ("websocket", "Upgrade", accept))
            for payload in (b"hello", os.urandom(70000), b""):
                conn.send(frame(2, payload, masked=True))
                self.assertEqual(read_frame(conn.reader.exact), (2, payload))
            until(lambda: router.metric('rutter_tunnels{router="out"') == 1, "the tunnel is counted")
            conn.send(frame(8, b"\x03\xe8", masked=True))
            self.assertEqual(read_frame(conn.reader.exact), (8, b"\x03\xe8"))
            self.assertTrue(conn.is_closed())
            conn.socket.close()
            until(lambda: router.metric('rutter_tunnels{router="out"') == 0, "the tunnel has ended")
            self.assertGreater(router.metric('rutter_tunnel_bytes_total{router="out"'), 70000)
            asked = [line.lower() for line in WebSocketServer.asked[0]]
            self.assertIn(b"connection: upgrade", asked)
            self.assertEqual([line for line in asked if line.startswith(b"upgrade")], [b"upgrade: websocket"])

    def test_early_frames_are_not_lost_and_are_no_request(self):
        with Two(self.names) as router:
            early = frame(1, b"GET /smuggled HTTP/1.1\r\n\r\n", masked=True)
            conn, _ = router.upgrade(early=early)
            self.assertIn(" 101 ", conn.head()[0])
            self.assertEqual(read_frame(conn.reader.exact), (1, b"GET /smuggled HTTP/1.1\r\n\r\n"))
            conn, _ = router.upgrade("/refused", early=b"GET /smuggled HTTP/1.1\r\nHost: ws\r\n\r\n")
            self.assertEqual(conn.response()["status"], 426)
            self.assertTrue(conn.is_closed())
            self.assertEqual([lines[0].split()[1] for lines in WebSocketServer.asked], [b"/chat", b"/refused"])

    def test_h2c_is_never_offered_on(self):
        with Two(self.names) as router:
            conn = router.connect()
            conn.send("GET /plain HTTP/1.1\r\nHost: ws\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n")
            self.assertEqual(conn.response()["status"], 426)
        asked = b"\n".join(WebSocketServer.asked[0]).lower()
        self.assertNotIn(b"h2c", asked)
        self.assertNotIn(b"http2-settings", asked)

    @unittest.skipUnless(shutil.which("node"), "node is not installed")
    def test_nodes_own_websocket(self):
        script = """
            const ws = new WebSocket(process.argv[1]);
            ws.onmessage = (event) => { console.log(event.data); ws.close(1000); };
            ws.onclose = (event) => { console.log("closed", event.code); process.exit(0); };
            ws.onerror = (event) => { console.log("error", event.message); process.exit(1); };
            ws.onopen = () => ws.send("from node");
        """
        with Two(self.names) as router:
            done = subprocess.run(["node", "--no-warnings", "--experimental-websocket", "-e", script, f"ws://127.0.0.1:{router.port}/chat"],
                                  capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        self.assertEqual(done.stdout.split("\n")[:2], ["from node", "closed 1000"], done.stderr)

    def connect(self, router, target="echo:443"):
        conn = router.connect()
        conn.send(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n")
        return conn

    def test_connect_passes_a_half_close_both_ways(self):
        with Two(self.names) as router:
            conn = self.connect(router)
            self.assertIn(" 200 ", conn.head()[0])
            conn.send("hello")
            self.assertEqual(conn.reader.exact(5), b"hello")
            conn.socket.shutdown(socket.SHUT_WR)
            self.assertEqual(conn.reader.exact(3), b"bye")
            self.assertTrue(conn.is_closed())
            self.assertEqual(Echo.heard, [b"hello"])

    def test_a_client_that_is_gone_takes_its_endpoint_along(self):
        with Two(self.names) as router:
            conn = self.connect(router)
            self.assertIn(" 200 ", conn.head()[0])
            conn.reset()
            until(lambda: router.metric('rutter_tunnels{router="in"') == 0 and router.metric('rutter_tunnels{router="out"') == 0, "both ended")

    def test_connect_to_another_port_and_to_an_unknown_name(self):
        with Two(self.names) as router:
            for target, status, code in (("echo:22", 403, "RT-E125"), ("nobody:443", 502, "RT-E101")):
                answer = self.connect(router, target).response("CONNECT")
                self.assertEqual(answer["status"], status)
                headers = {name.lower(): value for name, value in answer["headers"]}
                self.assertTrue(headers["l5d-err"].startswith(code), headers)
                if status == 403:
                    self.assertIn(b"connectPorts", answer["body"])

    def test_an_idle_tunnel_is_cut(self):
        with Two(self.names, idle=300) as router:
            conn = self.connect(router)
            self.assertIn(" 200 ", conn.head()[0])
            with self.assertRaises(ConnectionResetError):
                if conn.socket.recv(1) == b"":
                    raise AssertionError("an orderly end")

    def test_a_drain_waits_for_tunnels_and_cuts_them_at_its_limit(self):
        for grace, ends in ((10000, True), (1000, False)):
            with Two(self.names, grace=grace) as router:
                conn = self.connect(router)
                self.assertIn(" 200 ", conn.head()[0])
                router.terminate()
                until(lambda: "drain" in router.output(), "the drain has begun")
                conn.send("still")
                self.assertEqual(conn.reader.exact(5), b"still")
                if ends:
                    conn.socket.shutdown(socket.SHUT_WR)
                    self.assertEqual(conn.reader.exact(3), b"bye")
                self.assertEqual(router.wait(), 0 if ends else 1, router.output()[-1500:])


if __name__ == "__main__":
    unittest.main()
