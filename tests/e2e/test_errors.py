"""Every error that the router answers has one code: in body, `l5d-err`, metric, span and log. None is the application's fault."""
import contextlib
import json
import re
import socket
import threading
import time
import unittest
import urllib.parse

from harness.router import Collector, Router, Server, answering, free_port, head, runner, until

CODE = re.compile(r"RT-E\d{3}")


def closes(connection):
    connection.head()


def garbage(connection):
    connection.head()
    connection.send("SMTP ready\r\n\r\n")


def silent(connection):
    connection.head()
    connection.reader.rest()


def counted(router, code):
    page = router.get_admin("/metrics")["body"].decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(f'rutter_errors_total{{code="{code}"}}'))


class OneCode(unittest.TestCase):
    """Each way to fail that a client can bring about with a router of its own."""

    @classmethod
    def setUpClass(cls):
        enter = cls.enterClassContext
        cls.collector = enter(Collector())
        ok, cls.closes, cls.garbage, cls.silent = (enter(Server(script)) for script in (answering(), closes, garbage, silent))
        names = {"web": [ok.address], "closes": [cls.closes.address], "garbage": [cls.garbage.address], "silent": [cls.silent.address],
                 "refused": [("127.0.0.1", free_port())], "empty": []}
        dtab = ("/svc => /#/io.l5d.fs; /svc/fail => !; /svc/empty-rule => $; /svc/round => /svc/round; /svc/nobodys => /#/io.l5d.nobody;"
                "/svc/far => /$/inet/240.0.0.1/80; /svc/stuck => /$/inet/no-such-host.invalid/80; /svc/own => /$/inet/127.0.0.1/{port};")
        router = "client: {requestAttemptTimeoutMs: 2000, connectTimeoutMs: 1000, failureAccrual: {kind: none}}\nbindingTimeoutMs: 3000"
        edit = lambda text: text.replace("telemetry:\n", f"telemetry:\n{cls.collector.exporter()}\n").replace(
            "servers:\n", "maxInitialLineKB: 4\n  maxHeadersKB: 8\n  servers:\n").replace(
            "ip: 127.0.0.1, port: {0}".format("PORT"), "")
        cls.router = enter(Router(router, names=names, dtab=dtab, edit=edit, env={"RUTTER_LOG": "info,router=debug"}))
        (cls.router.directory / "disco" / "empty").write_text("# nobody\n")

    def fails(self, code, status, raw=None, host="web", router=None, **request):
        router = router or self.router
        before = counted(router, code)
        logged, spans_before = len(router.output()), len(self.collector.spans)
        if raw is None:
            answer = router.request(host, target="/" + code, **request)
        else:
            with router.connect() as client:
                client.send(raw)
                answer = client.response()
        self.assertEqual(answer.get("status"), status, answer)
        fields = {name.lower(): urllib.parse.unquote_plus(value) for name, value in answer["headers"]}
        body = answer["body"].decode()
        self.assertTrue(fields["l5d-err"].startswith(code), fields["l5d-err"])
        self.assertEqual(set(CODE.findall(body)), {code}, body)
        self.assertEqual(set(CODE.findall(fields["l5d-err"])), {code})
        self.assertTrue(body.startswith(f"rutter: {code} "), body)
        until(lambda: counted(router, code) == before + 1, f"rutter_errors_total of {code} is {before + 1}", 5)
        until(lambda: code in router.output()[logged:], f"{code} in the log (debug)", 5)
        mine = lambda: [span for span in self.collector.spans[spans_before:]
                        if span.get("kind") == "SERVER" and span["tags"].get("rutter.code") == code]
        found = until(mine, f"a server span with {code}", 10)
        self.assertEqual(len(found), 1)
        self.assertIn("error", found[0]["tags"])
        return body

    def test_e100_not_identified(self):
        self.fails("RT-E100", 400, raw="GET / HTTP/1.0\r\n\r\n")

    def test_e101_nobody_knows_the_name(self):
        body = self.fails("RT-E101", 502, host="nobody")
        self.assertIn("/svc/nobody", body)
        self.assertNotIn("Did you mean", body)

    def test_e101_says_which_name_was_perhaps_meant(self):
        self.assertIn("Did you mean /svc/web ?", self.fails("RT-E101", 502, host="wbe"))

    def test_e102_a_rule_refuses(self):
        self.fails("RT-E102", 502, host="fail")

    def test_e105_no_endpoint(self):
        self.fails("RT-E105", 502, host="empty")

    def test_e105_a_rule_says_empty(self):
        self.fails("RT-E105", 502, host="empty-rule")

    def test_e110_refused(self):
        self.fails("RT-E110", 502, host="refused")

    def test_e111_no_connection_in_time(self):
        # A queue that is full drops further connections without a word.
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as waiting:
            for _ in range(3):
                client = waiting.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex(full.getsockname())
            self.router.name("full", full.getsockname())
            until(lambda: b"RT-E101" not in self.router.request("full", target="/bound")["body"], "the name is bound", 40)
            until(lambda: counted(self.router, "RT-E111") > 0, "the answer to that is counted", 5)
            self.fails("RT-E111", 502, host="full")

    def test_e112_no_answer_in_time(self):
        self.fails("RT-E112", 503, host="silent")

    def test_e115_a_loop(self):
        self.fails("RT-E115", 400, headers=[["Via", ", ".join(["1.1 x"] * 33)]])

    def test_e116_round_in_a_circle(self):
        self.fails("RT-E116", 502, headers=[["l5d-dtab", "/svc/web => /svc/web"]])

    def test_e116_branches_without_end(self):
        self.fails("RT-E116", 502, headers=[["l5d-dtab", "/svc/web => /svc/web & /svc/web"]])

    def test_e103_a_namer_that_does_not_answer(self):
        with Server(silent) as api, self.with_namer(f"- {{kind: io.l5d.k8s, host: 127.0.0.1, port: {api.address[1]}}}", "/svc => /#/io.l5d.k8s/default/http;") as router:
            self.fails("RT-E103", 502, router=router)

    def test_e104_a_transformer_leaves_no_address(self):
        port = free_port()
        api = runner.K8s("127.0.0.1", port)
        self.addCleanup(api.close)
        api.put({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
                 "spec": {"ports": [{"name": "http", "port": 80}]}})
        api.put({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "web", "namespace": "default"},
                 "subsets": [{"addresses": [{"ip": "10.1.2.3", "nodeName": "n1"}], "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}]})
        routers = ("interpreter: {kind: default, transformers: [{kind: io.l5d.k8s.daemonset, k8sHost: 127.0.0.1, "
                   f"k8sPort: {port}, namespace: default, port: incoming, service: l5d}}]}}")
        with self.with_namer(f"- {{kind: io.l5d.k8s, host: 127.0.0.1, port: {port}}}", "/svc => /#/io.l5d.k8s/default/http;", routers) as router:
            until(lambda: router.get_admin("/ready")["status"] == 200, "names are known")
            self.fails("RT-E104", 502, router=router)

    def test_e117_a_namer_that_fails(self):
        self.fails("RT-E117", 502, headers=[["l5d-dtab", "/svc/web => /$/io.buoyant.hostportPfx/inet/:80"]])

    def test_e101_a_namer_that_is_not_there(self):
        self.assertIn("no namer knows /#/io.l5d.nobody", self.fails("RT-E101", 502, host="nobodys"))

    def with_namer(self, namer, dtab, more=""):
        """A router of its own with one more namer, its spans to the same collector."""
        edit = lambda text: text.replace("namers:\n", f"namers:\n{namer}\n").replace("telemetry:\n", f"telemetry:\n{self.collector.exporter()}\n")
        return Router(f"bindingTimeoutMs: 1000\n{more}", dtab=dtab, edit=edit, env={"RUTTER_LOG": "info,router=debug"})

    def test_e118_a_bad_dtab(self):
        for header in ("l5d-dtab", "l5d-ctx-dtab"):
            with self.subTest(header):
                self.assertIn(header, self.fails("RT-E118", 400, headers=[[header, "/a = /b"]]))

    def test_e119_the_own_listener(self):
        self.fails("RT-E119", 403, host="own")

    def test_e121_a_head_that_cannot_be_read(self):
        for raw in ("GET /\r\n\r\n", "GET / HTTP/1.1\r\nHost: web\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                    "GET / HTTP/1.1\nHost: web\n\n", "GET / HTTP/1.1\r\nHost : web\r\n\r\n", "GET / HTTP/1.1\r\nHost: web\r\nX: \0\r\n\r\n"):
            with self.subTest(raw):
                self.fails("RT-E121", 400, raw=raw)

    def test_e121_a_chunk_size_that_cannot_be_read(self):
        for size in ("x", "-1", "fffffffffffffffff", "1 ", "+1", "0x1", ""):
            with self.subTest(size):
                self.fails("RT-E121", 400, raw=f"POST / HTTP/1.1\r\nHost: silent\r\nTransfer-Encoding: chunked\r\n\r\n{size}\r\na\r\n0\r\n\r\n")

    def test_e122_too_long(self):
        self.fails("RT-E122", 414, raw=f"GET /{'x' * 5000} HTTP/1.1\r\nHost: web\r\n\r\n")
        self.fails("RT-E122", 431, raw=f"GET / HTTP/1.1\r\nHost: web\r\nX: {'x' * 9000}\r\n\r\n")

    def test_e123_a_head_that_does_not_end(self):
        self.fails("RT-E123", 408, raw="GET / HTTP/1.1\r\nHost: we")

    def test_e124_too_many_at_once(self):
        edit = lambda text: text.replace("telemetry:\n", f"telemetry:\n{self.collector.exporter()}\n").replace(
            "servers:\n  - {", "servers:\n  - {maxConcurrentRequests: 1, ")
        with Server(silent) as server, Router(names={"silent": [server.address]}, edit=edit, env={"RUTTER_LOG": "info,router=debug"}) as router:
            with router.connect() as first:
                first.get("/", "silent")
                until(lambda: server.connections, "the first one is under way")
                self.fails("RT-E124", 503, host="silent", router=router)

    def test_e125_connect(self):
        self.fails("RT-E125", 403, raw="CONNECT web:80 HTTP/1.1\r\nHost: web\r\n\r\n")

    def test_e131_closed_without_an_answer(self):
        self.fails("RT-E131", 502, host="closes")

    def test_e133_not_http(self):
        self.fails("RT-E133", 502, host="garbage")

    def test_a_name_that_is_looked_up_in_vain_has_one_code_too(self):
        answer = self.router.request("stuck")
        self.assertEqual(answer["status"], 502)
        self.assertEqual(len(set(CODE.findall(answer["body"].decode()))), 1)

    def test_json_for_those_who_ask_for_it(self):
        answer = self.router.request("nobody", headers=[["Accept", "application/json"]])
        said = json.loads(answer["body"])
        self.assertEqual((said["code"], said["status"]), ("RT-E101", 502))

    def test_a_client_that_goes_away_is_counted(self):
        before = counted(self.router, "RT-E126")
        with self.router.connect() as client:
            client.get("/", "silent")
            time.sleep(0.1)
            client.reset()
        until(lambda: counted(self.router, "RT-E126") == before + 1, "RT-E126 is counted", 5)


class NotTheApplicationsFault(unittest.TestCase):
    """`l5d-err`: the endpoint behind the router that made the error is not judged by it."""

    def test_errors_of_the_next_router_eject_nobody_and_those_of_an_application_do(self):
        for headers, ejected in (((), True), (("l5d-err: RT-E101+no+such+destination",), False)):
            with self.subTest(headers=headers), Server(answering(b"", "502 Bad Gateway", headers)) as gateway:
                with Router(names={"web": [gateway.address]}) as router:
                    for _ in range(12):
                        self.assertEqual(router.request()["status"], 502)
                    removals = json.loads(router.get_admin("/admin/metrics.json")["body"])
                    removed = removals["rt/out/client/#/io.l5d.fs/web/failure_accrual/removals"]
                    self.assertEqual(removed > 0, ejected)

    def test_two_hops_the_gateway_stays_and_the_code_of_the_far_router_is_passed_on(self):
        with Router(names={"gone": [("127.0.0.1", free_port())]}) as far:
            with Router(names={"nobody": [("127.0.0.1", far.port)], "gone": [("127.0.0.1", far.port)]}) as near:
                for host, code in (("nobody", "RT-E101"), ("gone", "RT-E110")):
                    for _ in range(8):
                        answer = near.request(host)
                        self.assertEqual(answer["status"], 502)
                        codes = [value for name, value in answer["headers"] if name.lower() == "l5d-err"]
                        self.assertEqual([value[:7] for value in codes], [code])
                    metrics = json.loads(near.get_admin("/admin/metrics.json")["body"])
                    self.assertEqual(metrics[f"rt/out/client/#/io.l5d.fs/{host}/failure_accrual/removals"], 0)
                # What the far router answered is not an error that the near one made.
                self.assertEqual(counted(near, "RT-E101") + counted(near, "RT-E110"), 0)
                self.assertEqual((counted(far, "RT-E101"), counted(far, "RT-E110")), (8, 8))


if __name__ == "__main__":
    unittest.main()
