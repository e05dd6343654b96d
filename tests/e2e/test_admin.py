"""The admin port of a running router: Linkerd's routes with the router's own data, and what people may type there by mistake."""
import json
import re
import unittest
import urllib.parse

from harness.router import Router, Server, answering, free_port, head, runner, until


class Admin(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(Server(answering()))
        router = "bindingTimeoutMs: 500\nclient: {failureAccrual: {kind: none}}"
        cls.router = cls.enterClassContext(Router(router, names={"web": [cls.server.address], "gone": [("127.0.0.1", free_port())]}))
        for host in ("web", "gone", "nobody"):
            cls.router.request(host, target="/shown?x=1")

    def ask(self, target, method="GET", **more):
        return runner.http_call(("127.0.0.1", self.router.admin), {"target": target, "method": method, "timeout_ms": 8000, **more})

    def json(self, target, status=200, **more):
        answer = self.ask(target, **more)
        self.assertEqual(answer.get("status"), status, answer)
        self.assertIn("application/json", dict((n.lower(), v) for n, v in answer["headers"])["content-type"])
        return json.loads(answer["body"])


class Routes(Admin):
    """Each of Linkerd 1's routes, as it answers there."""

    def test_ping(self):
        answer = self.ask("/admin/ping")
        self.assertEqual((answer["status"], answer["body"]), (200, b"pong"))

    def test_config_has_the_keys_that_were_given(self):
        config = self.json("/config.json")
        self.assertEqual(config["routers"][0]["label"], "out")
        self.assertEqual(config["routers"][0]["bindingTimeoutMs"], 500)
        self.assertEqual(config["namers"][0]["kind"], "io.l5d.fs")
        self.assertNotIn("identifier", config["routers"][0], "a key that was not given")

    def test_delegator_by_query_and_by_body(self):
        for tree in (self.json("/delegator.json?namespace=out&path=/svc/web&dtab=/svc%20%3D%3E%20/%23/io.l5d.fs"),
                     self.json("/delegator.json", method="POST", headers=[["Content-Type", "application/json"]],
                               body=json.dumps({"namespace": "out", "path": "/svc/web", "dtab": "/svc => /#/io.l5d.fs"}))):
            self.assertEqual((tree["type"], tree["path"], tree["delegate"]["type"]), ("delegate", "/svc/web", "leaf"))
            self.assertEqual(tree["delegate"]["dentry"], {"prefix": "/svc", "dst": "/#/io.l5d.fs"})
            bound = tree["delegate"]["bound"]
            self.assertEqual((bound["id"], bound["path"]), ("/#/io.l5d.fs/web", "/"))
            self.assertEqual([a["port"] for a in bound["addr"]["addrs"]], [self.server.address[1]])
        self.assertEqual(self.json("/delegator.json?namespace=out&path=/svc/nobody&dtab=/svc%3D%3E/%23/io.l5d.fs")["delegate"]["type"], "neg")

    def test_what_the_delegator_says_is_what_requests_experience(self):
        """The same names through both: who binds is routed, who does not is not."""
        rules = {"web": "/svc => /#/io.l5d.fs", "nobody": "/svc => /#/io.l5d.fs", "x": "/svc/x => /#/io.l5d.fs/web", "y": "/svc/y => ! | /#/io.l5d.fs/web",
                 "z": "/svc/z => ~ | /#/io.l5d.fs/web", "u": "/svc/u => 1 * /#/io.l5d.fs/web & 1 * /#/io.l5d.fs/web", "v": "/svc/v => /svc/v"}
        for host, rule in rules.items():
            with self.subTest(rule):
                dtab = "/svc => /#/io.l5d.fs ; " + rule
                tree = json.dumps(self.json("/delegator.json?" + urllib.parse.urlencode({"namespace": "out", "path": f"/svc/{host}", "dtab": dtab})))
                answer = self.router.request(host, headers=[["l5d-dtab", rule]])
                self.assertEqual(answer["status"] == 200, '"leaf"' in tree and host != "y", (tree, answer["status"]))

    def test_bound_names(self):
        self.assertEqual(self.json("/bound-names.json"), ["/#/io.l5d.fs/gone", "/#/io.l5d.fs/web"])

    def test_client_state(self):
        host, port = self.server.address
        self.assertEqual(self.json("/client_state.json")["/#/io.l5d.fs/web"], {"state": "bound", "addresses": [f"{host}:{port}"]})

    def test_namer_state(self):
        self.assertIsInstance(self.json("/namer_state/io.l5d.fs.json"), dict)
        self.assertEqual(self.ask("/namer_state/io.l5d.none.json")["status"], 404)

    def test_interpreter_state(self):
        self.json("/out/interpreter_state/default.json")

    def test_logging(self):
        root = [one for one in self.json("/logging.json") if one["logger"] == "root"]
        self.assertEqual(len(root), 1)
        form = [["Content-Type", "application/x-www-form-urlencoded"]]
        self.assertEqual(self.ask("/logging.json", "POST", headers=form, body="logger=router&level=DEBUG")["status"], 200)
        self.assertIn({"logger": "router", "level": "DEBUG"}, self.json("/logging.json"))
        # It is in force, not only listed.
        self.router.request("nobody")
        until(lambda: "request refused" in self.router.output(), "the level is in force")
        self.assertEqual(self.ask("/logging.json", "POST", headers=form, body="logger=router&level=INFO")["status"], 200)

    def test_the_last_requests(self):
        def named(name):
            rows = json.loads(self.ask("/requests", headers=[["Accept", "application/json"]])["body"])
            rows = rows if isinstance(rows, list) else rows["requests"]
            return [row for row in rows if row["logical"] == name]

        # They come there a moment after their answers.
        mine = until(lambda: named("/svc/web"), "the request is shown")
        self.assertEqual((mine[0]["router"], mine[0]["concrete"], mine[0]["destination"], mine[0]["status"]),
                         ("out", "/#/io.l5d.fs/web", "{}:{}".format(*self.server.address), 200))
        refused = until(lambda: named("/svc/nobody"), "the refused one is shown")
        self.assertEqual(refused[0]["code"], "RT-E101")
        taken = json.loads(self.ask("/requests.json")["body"])["passed"]
        self.assertEqual(taken, self.json("/admin/metrics.json")[f"rt/out/server/127.0.0.1/{self.router.port}/requests"])
        page = self.ask("/requests")["body"].decode()
        self.assertIn("/svc/web", page)

    def test_metrics(self):
        flat = self.json("/admin/metrics.json")
        self.assertEqual(flat["rt/out/service/svc/web/success"], flat["rt/out/service/svc/web/requests"])
        tree = self.json("/admin/metrics.json?tree=1")
        self.assertEqual(tree["rt"]["out"]["service"]["svc/web"]["requests"]["counter"], flat["rt/out/service/svc/web/requests"])
        self.assertEqual(self.json("/admin/metrics.json?q=a/b", status=404), {"error": "No such subtree: a/b"})
        self.assertIn('rt:service:requests{rt="out", service="svc/web"}', self.ask("/admin/metrics/prometheus")["body"].decode())

    def test_live_and_ready(self):
        self.assertEqual((self.ask("/live")["status"], self.ask("/ready")["status"]), (200, 200))

    def test_head_is_get_without_a_body_and_an_unknown_path_is_404(self):
        self.assertEqual(self.ask("/admin/ping", "HEAD")["body"], b"")
        self.assertEqual(self.ask("/nothing/here")["status"], 404)

    def test_a_get_changes_nothing(self):
        self.assertEqual(self.ask("/admin/shutdown")["status"], 405)
        self.assertEqual(self.ask("/logging.json?logger=root&level=TRACE")["status"], 200)
        self.assertNotIn({"logger": "root", "level": "TRACE"}, self.json("/logging.json"))


class Mistakes(Admin):
    """Bad input: a clear error, no defect of ours, and the router goes on."""

    def tearDown(self):
        self.assertEqual(self.ask("/admin/ping")["body"], b"pong")
        self.assertEqual(self.router.request("web")["status"], 200)
        self.assertNotIn("panicked", self.router.output())

    def delegation(self, **query):
        return self.ask("/delegator.json?" + urllib.parse.urlencode(query))

    def test_paths_and_dtabs_that_are_none(self):
        for path in ("svc/web", "", "//", "/svc//web", "/svc/we b", "/" + "x/" * 2000, "/\\xzz", "/svc/\0", "/é"):
            with self.subTest(path=path[:20]):
                answer = self.delegation(namespace="out", path=path, dtab="/svc => /#/io.l5d.fs")
                self.assertLess(answer["status"], 500)
                if answer["status"] == 400:
                    self.assertTrue(answer["body"].startswith(b"Invalid path: "), answer["body"][:200])
        for dtab in ("/svc", "/svc =>", "/svc => ;", "=> /a", "/svc => /a | ;", "/a => (/b", "/a => " + "(" * 5000, "/a => /b;" * 50_000, "\0", "é => /a",
                     "/a => 1e999 * /b & /c", "/a => -1 * /b & 1 * /c", "/*/ => /a"):
            with self.subTest(dtab=dtab[:20]):
                answer = self.ask("/delegator.json", "POST", headers=[["Content-Type", "application/json"]],
                                  body=json.dumps({"namespace": "out", "path": "/svc/web", "dtab": dtab}))
                self.assertLess(answer["status"], 500)
                self.assertTrue(answer["status"] == 200 or answer["body"].startswith(b"Invalid dtab: ") or answer["status"] == 413, answer["body"][:200])

    def test_rules_without_end(self):
        for dtab in ("/a => /a", "/a => /a & /a", "/a => /a | /a", "/a => /b ; /b => /a", "/a => /a/b", "/a => /a/b & /a/b"):
            with self.subTest(dtab):
                answer = self.delegation(namespace="out", path="/a", dtab=dtab)
                self.assertEqual(answer["status"], 200)
                self.assertLess(len(answer["body"]), 2_000_000)

    def test_bodies_that_are_none(self):
        kind = [["Content-Type", "application/json"]]
        for body in ("", "{", "[]", "null", '{"path": 1}', '{"path": "/a", "dtab": []}', "\xff\xfe", "[" * 100_000, '{"path":' * 10_000):
            with self.subTest(body=body[:20]):
                answer = self.ask("/delegator.json", "POST", headers=kind, body=body)
                self.assertEqual(answer["status"], 400, answer["body"][:200])
        self.assertEqual(self.ask("/delegator.json", "POST", headers=[["Content-Type", "text/plain"]], body="{}")["status"], 415)
        self.assertEqual(self.ask("/delegator.json", "DELETE")["status"], 405)

    def test_targets_that_are_none(self):
        for target in ("/delegator.json?path=%zz", "/delegator.json?path=%ff%fe&dtab=", "/admin/metrics.json?q=%00", "/admin/metrics.json?q=" + "a/" * 3000,
                       "/admin/metrics.json?tree=%ff", "/namer_state/..%2f..%2fetc%2fpasswd", "/namer_state/../../../etc/passwd", "/files/../../Cargo.toml",
                       "/files/%2e%2e/%2e%2e/etc/passwd", "/requests?q=%ff", "/?router=%00", "/delegator?path=%22%3E%3Cscript%3E&dtab=%3Cscript%3Ealert(1)%3C/script%3E",
                       "/identify.json?%zz", "/near.json?%ff", "/logging.json?%zz", "/" + "x" * 5000):
            with self.subTest(target[:40]):
                answer = self.ask(target)
                self.assertIsNotNone(answer.get("status"), answer)
                self.assertLess(answer["status"], 500, target)
                self.assertNotIn(b"root:", answer["body"])
                self.assertNotIn(b"<script>alert", answer["body"])

    def test_log_levels_that_are_none(self):
        kind = [["Content-Type", "application/x-www-form-urlencoded"]]
        before = self.json("/logging.json")
        for body, status in (("", 400), ("logger=root", 400), ("level=INFO", 400), ("logger=root&level=LOUD", 200), ("logger=no+such&level=nothing", 200),
                             ("logger=%zz&level=%zz", 200)):
            with self.subTest(body):
                answer = self.ask("/logging.json", "POST", headers=kind, body=body)
                # As Linkerd: what cannot be set is left as it is, without an error.
                self.assertEqual(answer["status"], status)
        names = {one["logger"]: one["level"] for one in self.json("/logging.json")}
        self.assertEqual(names["root"], {one["logger"]: one["level"] for one in before}["root"])

    def test_what_is_no_http(self):
        for raw in (b"\0\0\0\0\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
                    b"POST /delegator.json HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n{"):
            connection = runner.connect(("127.0.0.1", self.router.admin), 5)
            connection.sendall(raw)
            connection.close()


if __name__ == "__main__":
    unittest.main()
