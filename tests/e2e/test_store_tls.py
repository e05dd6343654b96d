"""The store asked over TLS: by routers on each of the three interpreters, and by the commands; and who is not believed."""
import json
import unittest

from e2e.test_store import OnStore, Store, command
from harness.certificates import Authority
from harness.router import Server, answering, free_port, until

#: Interpreter, the store's interface for it, and how its `tls` names what is trusted.
WAYS = [("io.l5d.namerd.http", "io.l5d.httpController", "trustCertsBundle"), ("io.l5d.mesh", "io.l5d.mesh", "trustCertsBundle"),
        ("io.l5d.namerd", "io.l5d.thriftNameInterpreter", "caCert")]


class Secured(unittest.TestCase):
    def setUp(self):
        self.store = self.enterContext(Store())
        self.authority, self.stranger = Authority(self.store.directory, "ours"), Authority(self.store.directory, "theirs")
        self.own = self.authority.issue("store.test", ["DNS:store.test", "DNS:localhost", "IP:127.0.0.1"])
        self.client = self.authority.issue("node-a", ["URI:spiffe://test/node-a"])
        self.ports = {"io.l5d.httpController": self.store.port, "io.l5d.mesh": free_port(), "io.l5d.thriftNameInterpreter": free_port()}
        self.store.name("one", 1)

    def start(self, **more):
        tls = {"certPath": str(self.own.cert), "keyPath": str(self.own.key), **more}
        text = self.store.config.read_text()
        text = text[:text.index("interfaces:")] + "interfaces:\n"
        for kind, port in self.ports.items():
            text += f"- {json.dumps({'kind': kind, 'ip': '127.0.0.1', 'port': port, 'tls': tls})}\n"
        self.store.config.write_text(text)
        self.store.start()

    def command(self, *arguments, **variables):
        """A command that asks the store by HTTPS."""
        return command(*arguments, env={"RUTTER_BASE_URL": f"https://localhost:{self.store.port}", **{name: str(value) for name, value in variables.items()}})

    def put(self, target, **variables):
        text = self.store.directory / "text.dtab"
        text.write_text(f"/svc => /#/io.l5d.fs/{target} ;\n")
        status, _, said = self.command("dtab", "put", "default", text, "--no-wait", "--allow-break", RUTTER_CA_FILE=self.authority.cert, **variables)
        self.assertEqual(status, 0, said)

    def router(self, way, **tls):
        interpreter, interface, _ = way

        def edit(text):
            text = text.replace("io.l5d.namerd.http", interpreter).replace(f"/$/inet/127.0.0.1/{self.store.port}", f"/$/inet/localhost/{self.ports[interface]}")
            return text.replace("    retry:", f"    tls: {json.dumps(tls)}\n    retry:").replace("bindingTimeoutMs: 15000", "bindingTimeoutMs: 3000")
        return OnStore(self.store, edit)

    def test_routers_bind_under_tls_by_each_protocol_and_follow_changes(self):
        self.start()
        with Server(answering(b"one")) as one, Server(answering(b"two")) as two:
            self.store.name("one", one.address[1])
            self.store.name("two", two.address[1])
            for way in WAYS:
                with self.subTest(interpreter=way[0]):
                    self.put("one")
                    with self.router(way, **{way[2]: str(self.authority.cert), "commonName": "store.test"}) as router:
                        until(lambda: router.request("web")["body"] == b"one", f"it is bound: {router.output()[-1500:]}", 20)
                        self.put("two")
                        until(lambda: router.request("web")["body"] == b"two", "it follows", 20)
                        if way[0] == "io.l5d.namerd.http":
                            reported = lambda: self.command("dtab", "history", "default", "-o", "json", RUTTER_CA_FILE=self.authority.cert)[1]
                            until(lambda: json.loads(reported())["routers"] == 1, "it reports under TLS", 30)

    def test_a_store_that_is_not_the_one_that_was_meant_is_not_asked_and_it_is_said_why(self):
        self.start()
        self.put("one")
        for way in WAYS:
            for tls, why in [({way[2]: str(self.stranger.cert)}, "is not signed by a trusted authority"),
                             ({way[2]: str(self.authority.cert), "commonName": "other.test"}, "is not for other.test: its names are")]:
                with self.subTest(interpreter=way[0], tls=tls), self.router(way, **tls) as router:
                    self.assertGreaterEqual(router.request("web")["status"], 500)
                    until(lambda: why in router.output(), "the log says why", 20)

    def test_who_shows_no_certificate_gets_in_nowhere_when_one_is_required(self):
        self.start(caCertPath=str(self.authority.cert), requireClientAuth=True)
        shown = {"RUTTER_CERT_FILE": self.client.cert, "RUTTER_KEY_FILE": self.client.key}
        self.put("one", **shown)
        with Server(answering(b"one")) as one:
            self.store.name("one", one.address[1])
            for way in WAYS[:2]:
                trusted = {way[2]: str(self.authority.cert)}
                own = {"certPath": str(self.client.cert), "keyPath": str(self.client.key)}
                with self.subTest(interpreter=way[0]):
                    with self.router(way, clientAuth=own, **trusted) as router:
                        until(lambda: router.request("web")["body"] == b"one", f"it is bound: {router.output()[-1500:]}", 20)
                    with self.router(way, **trusted) as router:
                        self.assertNotEqual(router.request("web")["status"], 200)
        status, _, said = self.command("dtab", "list", RUTTER_CA_FILE=self.authority.cert)
        self.assertEqual(status, 5, said)

    def test_commands_ask_by_https_and_say_whom_they_do_not_trust(self):
        self.start()
        self.put("one")
        for what in (["dtab", "get", "default"], ["namerctl", "dtab", "get", "default"]):
            with self.subTest(command=what[0]):
                status, out, said = self.command(*what, "--ca-file", self.authority.cert)
                self.assertEqual(status, 0, said)
                self.assertIn("/#/io.l5d.fs/one", out)
                for files, why in [(("--ca-file", self.stranger.cert), f"TLS, trusting {self.stranger.cert}: the other side's certificate is not signed by a trusted authority"),
                                   ((), "(--ca-file names others)")]:
                    status, _, said = self.command(*what, *files)
                    self.assertEqual(status, 5, said)
                    self.assertIn(why, said)
                for files, why in [(("--ca-file", "/nowhere/ca.pem"), "/nowhere/ca.pem cannot be read"), (("--cert-file", self.client.cert), "--cert-file needs --key-file"),
                                   (("--base-url", f"http://localhost:{self.store.port}", "--ca-file", self.authority.cert), "certificates are for https://HOST:PORT only")]:
                    status, _, said = self.command(*what, *files)
                    self.assertEqual(status, 2, said)
                    self.assertIn(why, said)
        status, _, said = self.command("dtab", "get", "default", RUTTER_BASE_URL=f"http://localhost:{self.store.port}")
        self.assertEqual(status, 5, said)


if __name__ == "__main__":
    unittest.main()
