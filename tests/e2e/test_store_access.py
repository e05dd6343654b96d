"""Who may do what with the store: by token, by certificate, over plain HTTP and TLS; and what is told of each change."""
import hashlib
import http.client
import json
import ssl
import threading
import unittest

from e2e.test_store import OnStore, Store, command
from harness.certificates import Authority
from harness.router import Server, answering, until

RULES = """
access:
  tokens: {tokens}
  grants:
  - {{to: [ci], namespaces: [default, 'team-*'], may: [write]}}
  - {{to: ['group:ops'], may: [write, force]}}
  - {{to: [reader, 'certificate:spiffe://test/node-a'], namespaces: [default], may: [read, report]}}
  - {{to: [anonymous], namespaces: [public], may: [read]}}
auditLog: {audit}
"""

TOKENS = {"ci": "secret-of-the-ci-system", "ann": "secret-of-ann-who-operates", "reader": "secret-of-a-router"}
DTAB = b"/svc => /#/io.l5d.fs"


class Guarded(unittest.TestCase):
    def setUp(self):
        self.store = self.enterContext(Store())
        self.tokens = self.store.directory / "tokens"
        self.audit = self.store.directory / "audit.log"
        hashed = hashlib.sha256(TOKENS["ann"].encode()).hexdigest()
        self.tokens.write_text(f"ci {TOKENS['ci']}\nann sha256:{hashed} ops\nreader {TOKENS['reader']}\n")

    def start(self, edit=lambda text: text):
        text = self.store.config.read_text() + RULES.format(tokens=self.tokens, audit=self.audit)
        self.store.config.write_text(edit(text))
        return self.store.start()

    def ask(self, method, path, body=None, token=None, context=None, **headers):
        """The status and the body of an answer."""
        kind = http.client.HTTPSConnection if context else http.client.HTTPConnection
        options = {"context": context} if context else {}
        connection = kind("127.0.0.1", self.store.port, timeout=10, **options)
        if token:
            headers["Authorization"] = f"Bearer {TOKENS.get(token, token)}"
        if body is not None:
            headers.setdefault("Content-Type", "application/dtab")
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def told(self):
        return [json.loads(line) for line in self.audit.read_text().splitlines()]


class Tokens(Guarded):
    def test_each_verb_is_401_for_nobody_403_elsewhere_and_2xx_where_it_is_granted(self):
        self.start()
        plan = ("POST", "/api/rutter/1/dtabs/{}/plan", DTAB)
        force = ("PUT", "/api/rutter/1/dtabs/{}?allow-break=true", DTAB)
        for namespace in ("default", "other", "public"):
            self.assertEqual(self.ask("POST", f"/api/1/dtabs/{namespace}", DTAB, "ann")[0], 204)
        calls = {
            "read": [("GET", "/api/1/dtabs/{}", None), ("GET", "/api/1/bind/{}?path=/svc/x", None),
                     ("GET", "/api/rutter/1/dtabs/{}/history", None)],
            "plan": [plan],
            "write": [("PUT", "/api/1/dtabs/{}", DTAB), ("PUT", "/api/rutter/1/dtabs/{}", DTAB)],
            "force": [force],
        }
        # Who may how much in `default`; nobody but ann, who is one of ops, anything elsewhere.
        granted = {"reader": ["read"], "ci": ["read", "plan", "write"], "ann": list(calls)}
        for verb, asked in calls.items():
            for method, path, body in asked:
                with self.subTest(verb=verb, path=path):
                    status, text = self.ask(method, path.format("default"), body)
                    self.assertEqual(status, 401, text)
                    self.assertIn("Authorization: Bearer", text)
                    for who, verbs in granted.items():
                        status, text = self.ask(method, path.format("default"), body, who)
                        self.assertEqual(status // 100 if verb in verbs else status, 2 if verb in verbs else 403, f"{who}: {text}")
                        status, text = self.ask(method, path.format("other"), body, who)
                        self.assertEqual(status // 100 if who == "ann" else status, 2 if who == "ann" else 403, f"{who}: {text}")
        self.assertEqual(self.ask("GET", "/api/1/dtabs/default", token="not-a-token-of-anybody")[0], 401)
        self.assertEqual(self.ask("GET", "/api/1/dtabs/default", token="not-a-token", Authorization="Basic YTpi")[0], 401)
        # Lists have what one may see.
        for who, seen in ((None, ["public"]), ("reader", ["default"]), ("ann", ["default", "other", "public"])):
            self.assertEqual(json.loads(self.ask("GET", "/api/1/dtabs", token=who)[1]), seen, who)

    def test_a_change_is_by_whose_token_it_is_and_the_log_has_it_before_and_after(self):
        self.start()
        self.assertEqual(self.ask("PUT", "/api/1/dtabs/default", DTAB, "ci", **{"rutter-author": "somebody else"})[0], 204)
        self.assertEqual(self.ask("POST", "/api/1/dtabs/default", DTAB, "ci")[0], 409)
        self.assertEqual(self.ask("PUT", "/api/1/dtabs/default", DTAB)[0], 401)
        history = json.loads(self.ask("GET", "/api/rutter/1/dtabs/default/history", token="ci")[1])
        self.assertEqual(history["versions"][0]["author"], "ci")
        lines = self.told()
        self.assertEqual([line["told"] for line in lines], ["asked", "done", "asked", "refused"])
        self.assertEqual((lines[0]["author"], lines[0]["namespace"], lines[0]["what"]), ("ci", "default", "put"))
        self.assertEqual(lines[0]["sha256"], hashlib.sha256(DTAB).hexdigest())
        self.assertEqual(lines[1]["version"], 1)
        # It goes on where it was after a restart.
        self.store.stop()
        self.store.start()
        self.assertEqual(self.ask("DELETE", "/api/1/dtabs/default", token="ann")[0], 204)
        self.assertEqual(len(self.told()), 6)

    def test_a_token_that_is_taken_back_opens_nothing_any_more(self):
        self.start()
        self.assertEqual(self.ask("PUT", "/api/1/dtabs/default", DTAB, "ci")[0], 204)
        self.tokens.write_text("new another-secret-of-the-ci\n")
        until(lambda: self.ask("GET", "/api/1/dtabs/default", token="ci")[0] == 401, "the token is not known any more")


class Showing(Guarded):
    def test_the_command_line_shows_a_token(self):
        self.start()
        address = {"RUTTER_BASE_URL": f"http://127.0.0.1:{self.store.port}"}
        for what in (["dtab"], ["namerctl", "dtab"]):
            with self.subTest(command=what):
                status, _, said = command(*what, "get", "default", env=address)
                self.assertEqual(status, 1, said)
                self.assertIn("401" if "namerctl" in what else "Authorization: Bearer", said)
                self.assertEqual(self.ask("PUT", "/api/1/dtabs/default", DTAB, "ci")[0], 204)
                status, out, said = command(*what, "get", "default", env={**address, "RUTTER_TOKEN": TOKENS["reader"]})
                self.assertEqual(status, 0, said)
                self.assertIn("/#/io.l5d.fs", out)
                shown = self.store.directory / "token-of-ci"
                shown.write_text(TOKENS["ci"] + "\n")
                status, _, said = command(*what, "delete", "default", "--token-file", shown, env={**address, "RUTTER_TOKEN": TOKENS["reader"]})
                self.assertEqual(status, 0, said)

    def test_a_router_shows_a_token_and_reports_with_it(self):
        self.start()
        self.assertEqual(self.ask("PUT", "/api/1/dtabs/default", DTAB, "ci")[0], 204)
        shown = self.store.directory / "token-of-the-router"
        shown.write_text(TOKENS["reader"] + "\n")
        with Server(answering()) as web:
            self.store.name("web", web.address[1])
            with OnStore(self.store, lambda text: text.replace("    dst: ", f"    tokenPath: {shown}\n    dst: ")) as router:
                self.assertEqual(router.request()["status"], 200)
                seen = lambda: json.loads(self.ask("GET", "/api/rutter/1/routers", token="ann")[1])["routers"]
                until(lambda: seen(), "the router has reported", 20)


class Shifting(Guarded):
    """`rutter shift` by somebody who may write, and not break names in use."""

    def setUp(self):
        super().setUp()
        self.start()
        for name, port in (("v1", 9001), ("v2", 9002)):
            self.name(name, port)
        self.assertEqual(self.ask("PUT", "/api/1/dtabs/default", b"/svc => /host ; /host/world => /#/io.l5d.fs/v1", "ci")[0], 204)

    def name(self, name, port):
        """A file of addresses that the store has seen: a plan takes names as they are bound when it is made."""
        self.store.name(name, port)
        until(lambda: f'"port":{port}' in self.bound(name), f"the store knows {name}", 20)

    def report(self, failures):
        """A router that has requests for the name, and so many failures of 100 at v2."""
        clients = [{"id": "/#/io.l5d.fs/v1", "requests": 100, "successes": 100},
                   {"id": "/#/io.l5d.fs/v2", "requests": 100 if failures else 0, "successes": 100 - failures if failures else 0, "failures": failures}]
        report = {"namespace": "default", "router": "out", "interval": 60, "names": [{"path": "/svc/world", "rps": 1}], "clients": clients}
        status, said = self.ask("POST", "/api/rutter/1/routers/n1", json.dumps(report).encode(), "reader")
        self.assertEqual(status, 200, said)

    def aborted(self, who, gone):
        """Shifts all to v2, whose requests then fail, while the endpoint of `gone` goes: status, stderr, and where the name leads then."""
        self.report(0)
        shifting = []
        arguments = ["shift", "/host/world", "--to", "/#/io.l5d.fs/v2", "--steps", "100", "--every", "60s", "--poll", "100ms", "--abort-if", "success<99"]
        env = {"RUTTER_BASE_URL": f"http://127.0.0.1:{self.store.port}", "RUTTER_TOKEN": TOKENS[who]}
        thread = threading.Thread(target=lambda: shifting.append(command(*arguments, env=env)))
        thread.start()
        leads_to = lambda: json.loads(self.ask("GET", "/api/rutter/1/dtabs/default", token="reader")[1])["entries"][1]["dst"]
        until(lambda: leads_to() == "/#/io.l5d.fs/v2", "the step is written", 20)
        if gone:
            self.store.name(gone)
            until(lambda: '"addrs":[]' in self.bound(gone) or '"neg"' in self.bound(gone), "its endpoint is gone", 20)
        self.report(50)
        thread.join(60)
        [(status, _, said)] = shifting
        return status, said, leads_to()

    def bound(self, name):
        return self.ask("GET", f"/api/1/resolve/default?path=/%23/io.l5d.fs/{name}", token="reader")[1].replace(" ", "")

    def test_the_way_back_needs_no_right_to_break_names_when_it_breaks_none(self):
        status, said, leads_to = self.aborted("ci", None)
        self.assertEqual((status, leads_to), (7, "/#/io.l5d.fs/v1"), said)
        self.assertIn("aborted at 100 %", said)

    def test_a_way_back_that_breaks_names_is_written_by_who_may_and_told_to_who_may_not(self):
        status, said, leads_to = self.aborted("ci", "v1")
        self.assertEqual((status, leads_to), (1, "/#/io.l5d.fs/v2"), said)
        self.assertIn("ci may not force", said)
        self.assertIn("/host/world still leads to /#/io.l5d.fs/v2; it was /#/io.l5d.fs/v1", said)
        self.assertIn("by somebody who has the right `force`: `rutter dtab rollback default --to 1 --allow-break`", said)
        env = {"RUTTER_BASE_URL": f"http://127.0.0.1:{self.store.port}", "RUTTER_TOKEN": TOKENS["ann"]}
        status, _, said = command("dtab", "rollback", "default", "--to", "1", "--allow-break", "--no-wait", env=env)
        self.assertEqual(status, 0, said)
        self.name("v1", 9001)
        status, said, leads_to = self.aborted("ann", "v1")
        self.assertEqual((status, leads_to), (7, "/#/io.l5d.fs/v1"), said)
        self.assertIn("the way back breaks names in use, it is written all the same", said)

    def test_linkerds_api_asks_for_write_alone_and_guards_nothing(self):
        self.report(0)
        breaking = b"/svc => /host ; /host/world => /#/io.l5d.fs/none"
        status, said = self.ask("PUT", "/api/rutter/1/dtabs/default", breaking, "ci")
        self.assertEqual((status, json.loads(said)["code"]), (409, "would-break"), said)
        self.assertEqual(self.ask("PUT", "/api/rutter/1/dtabs/default?allow-break=true", breaking, "ci")[0], 403)
        self.assertEqual(self.ask("PUT", "/api/1/dtabs/default", breaking, "ci")[0], 204)
        self.assertEqual(self.ask("DELETE", "/api/1/dtabs/default", token="ci")[0], 204)


class Certificates(Guarded):
    def test_over_tls_a_certificate_says_who_somebody_is(self):
        authority = Authority(self.store.directory)
        server = authority.issue("store.test", ["DNS:localhost", "IP:127.0.0.1"])
        node = authority.issue("node-a", ["URI:spiffe://test/node-a"])
        tls = json.dumps({"certPath": str(server.cert), "keyPath": str(server.key), "caCertPath": str(authority.cert), "requireClientAuth": True})
        self.start(lambda text: text.replace("{kind: io.l5d.httpController,", "{kind: io.l5d.httpController, tls: %s," % tls))
        context = ssl.create_default_context(cafile=str(authority.cert))
        with self.assertRaises((ssl.SSLError, ConnectionError)):
            self.ask("GET", "/api/1/dtabs", context=context)
        context.load_cert_chain(node.cert, node.key)
        self.assertEqual(self.ask("PUT", "/api/1/dtabs/default", DTAB, "ci", context)[0], 204, "a token counts for more")
        self.assertEqual(self.ask("GET", "/api/1/dtabs/default", context=context)[0], 200)
        status, text = self.ask("PUT", "/api/1/dtabs/default", DTAB, context=context)
        self.assertEqual(status, 403, text)
        self.assertIn("certificate:spiffe://test/node-a may not write", text)


if __name__ == "__main__":
    unittest.main()
