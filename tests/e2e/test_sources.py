"""Names from Consul and SRV records, and a dtab from a ConfigMap, through the built program."""
import http.server
import json
import socket
import struct
import threading
import unittest

from harness.router import Router, Server, answering, free_port, runner, until


class Consul(http.server.ThreadingHTTPServer):
    """Knows one service; a question with the present index waits."""

    daemon_threads = True

    def __init__(self, address):
        self.changed = threading.Condition()
        self.index, self.nodes, self.broken, self.asked = 7, self.node(address), False, []
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @staticmethod
    def node(address):
        host, port = address
        return [{"Address": host, "ServiceAddress": "", "ServicePort": port, "ServiceTags": ["prod"]}]

    def set(self, **changes):
        with self.changed:
            for name, value in changes.items():
                setattr(self, name, value)
            self.index += 1
            self.changed.notify_all()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        consul = self.server
        consul.asked.append((self.path, self.headers.get("X-Consul-Token")))
        with consul.changed:
            if f"index={consul.index}&" in self.path:
                consul.changed.wait(20)
            status = 500 if consul.broken else 200
            body = json.dumps(consul.nodes if "/web?" in self.path else []).encode()
            index = consul.index
        self.send_response(status)
        self.send_header("X-Consul-Index", str(index))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Dns:
    """A DNS server whose SRV records are `places`; None is a server that fails. Addresses of `127.0.0.1.test` are their name."""

    SRV, A, IN, SERVFAIL, NXDOMAIN = 33, 1, 1, 2, 3

    def __init__(self, places):
        self.places, self.asked = places, set()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                query, client = self.socket.recvfrom(2000)
                self.socket.sendto(self.answer(query), client)
            except OSError:
                return

    @staticmethod
    def written(name):
        return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"

    def answer(self, query):
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode())
            at += 1 + query[at]
        name, kind, end = ".".join(labels).lower(), struct.unpack_from("!H", query, at + 1)[0], at + 5
        self.asked.add((name, kind))
        code, records = 0, []
        if self.places is None:
            code = self.SERVFAIL
        elif name == "_http._tcp.web.test" and kind == self.SRV:
            records = [struct.pack("!HHH", 1, 1, port) + self.written(f"{host}.test") for host, port in self.places]
        elif name.endswith(".test") and name[0].isdigit():
            records = [socket.inet_aton(name.removesuffix(".test"))] if kind == self.A else []
        else:
            code = self.NXDOMAIN
        body = b"".join(b"\xc0\x0c" + struct.pack("!HHIH", kind, self.IN, 1, len(record)) + record for record in records)
        return query[:2] + struct.pack("!HHHHH", 0x8580 | code, 1, len(records), 0, 0) + query[12:end] + body


class Sources(unittest.TestCase):
    def server(self, body):
        return self.enterContext(Server(answering(body)))

    def body(self, router, host="web"):
        return router.request(host)["body"]

    def test_consul(self):
        one, two = self.server(b"one"), self.server(b"two")
        consul = Consul(one.address)
        self.addCleanup(consul.server_close)
        self.addCleanup(consul.shutdown)
        namer = f"namers:\n- {{kind: io.l5d.consul, host: 127.0.0.1, port: {consul.server_port}, includeTag: true, token: secret, consistencyMode: stale}}\n"
        dtab = "/svc => /#/io.l5d.fs; /svc => /#/io.l5d.consul/dc1/prod;"
        names = {"other": [two.address]}
        with Router(names=names, dtab=dtab, edit=lambda text: text.replace("namers:\n", namer)) as router:
            self.assertEqual(self.body(router), b"one")
            self.assertEqual(consul.asked[0], ("/v1/catalog/service/web?stale=true&dc=dc1&tag=prod", "secret"))
            # What Consul does not know is looked for elsewhere.
            self.assertEqual(self.body(router, "other"), b"two")
            consul.set(nodes=Consul.node(two.address))
            until(lambda: self.body(router) == b"two", "the other instance answers")
            consul.set(broken=True, nodes=[])
            state = lambda: json.loads(router.get_admin("/namer_state/io.l5d.consul.json")["body"])["/dc1/prod/web"]
            until(lambda: state()["poll"]["error"], "Consul's failure shows")
            self.assertEqual(self.body(router), b"two")
            self.assertEqual(state()["state"]["value"]["addrs"][0]["port"], two.address[1])
            consul.set(broken=False)
            until(lambda: router.request()["status"] == 502, "the service has gone")

    def test_srv_records(self):
        one, two = self.server(b"one"), self.server(b"two")
        dns = Dns([one.address])
        self.addCleanup(dns.socket.close)
        namer = f"namers:\n- {{kind: io.l5d.dnssrv, refreshIntervalSeconds: 1, dnsHosts: ['127.0.0.1:{dns.port}']}}\n"
        dtab = "/svc => /#/io.l5d.fs; /svc/web => /#/io.l5d.dnssrv/_http._tcp.web.test; /svc/other => /#/io.l5d.dnssrv/_http._tcp.other.test | /#/io.l5d.fs/other;"
        with Router(names={"other": [two.address]}, dtab=dtab, edit=lambda text: text.replace("namers:\n", namer)) as router:
            self.assertEqual(self.body(router), b"one")
            self.assertEqual(self.body(router, "other"), b"two")
            self.assertIn(("_http._tcp.web.test", Dns.SRV), dns.asked)
            dns.places = [two.address]
            until(lambda: self.body(router) == b"two", "the record's new target answers")
            dns.places, dns.asked = None, set()
            until(lambda: ("_http._tcp.web.test", Dns.SRV) in dns.asked, "the server that fails is asked")
            self.assertEqual(self.body(router), b"two")
            dns.places = [one.address]
            until(lambda: self.body(router) == b"one", "the server that is well again is believed")

    def test_a_dtab_in_a_config_map(self):
        one, two = self.server(b"one"), self.server(b"two")
        port = free_port()
        kube = runner.K8s("127.0.0.1", port)
        self.addCleanup(kube.close)

        def put(data):
            kube.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "dtabs", "namespace": "mesh"}, "data": data})

        put({"live": "/svc/web => /#/io.l5d.fs/one;"})
        interpreter = f"interpreter: {{kind: io.l5d.k8s.configMap, name: dtabs, filename: live, namespace: mesh, host: 127.0.0.1, port: {port}}}"
        names = {"one": [one.address], "two": [two.address]}
        with Router(interpreter, names=names, dtab="/x => /y;") as router:
            self.assertEqual(self.body(router), b"one")
            put({"live": "/svc/web => /#/io.l5d.fs/two;"})
            until(lambda: self.body(router) == b"two", "the new dtab is in force")
            put({"live": "/svc/web => ;"})
            page = "/out/interpreter_state/io.l5d.k8s.configmap.json"
            state = lambda: json.loads(router.get_admin(page)["body"])
            until(lambda: state()["problem"], "the mistake shows")
            self.assertEqual(self.body(router), b"two")
            kube.remove(("/api/v1", "configmaps", "mesh", "dtabs"))
            until(lambda: router.request()["status"] == 502, "without a ConfigMap the dtab is empty")


if __name__ == "__main__":
    unittest.main()
