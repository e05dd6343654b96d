"""Edge cases of Linkerd 1 that no other test is about; docs/linkerd1-edges.md lists them all, with the tests that stand for each."""
import gzip
import json
import os
import pathlib
import socket
import tempfile
import threading
import time
import unittest

from harness.router import PATIENCE_S, Process, Router, Server, answering, free_port, head, runner, until

from .test_store import Store


def echoing(connection):
    """Answers with the body it got."""
    while True:
        _, fields = connection.head()
        body = connection.reader.body(fields, False)[0]
        connection.send(head("HTTP/1.1 200 OK", f"Content-Length: {len(body)}")).send(body)


class Edges(unittest.TestCase):
    def started(self, script=None, router="", **kwargs):
        server = Server(script or answering())
        self.addCleanup(server.__exit__)
        router = Router(router, names={"web": [server.address]}, **kwargs)
        self.addCleanup(router.__exit__)
        router.ready()
        return server, router

    @staticmethod
    def server(keys):
        """Adds keys to the router's listener."""
        return lambda text: text.replace("port: ", "PORT: ", 1).replace("  - {ip: 127.0.0.1, port: ", "  - {" + keys + ", ip: 127.0.0.1, port: ").replace("PORT: ", "port: ")


class Sockets(Edges):
    def test_a_session_over_its_life_time_ends_with_a_response_and_cuts_nothing(self):
        _, router = self.started(edit=self.server("serverSession: {lifeTimeMs: 300}"))
        with router.connect() as client:
            self.assertEqual(client.get().response()["status"], 200)
            time.sleep(0.5)
            last = client.get().response()
            self.assertEqual((last["status"], last["body"]), (200, b"hello"))
            self.assertIn(("connection", "close"), [(name.lower(), value.lower()) for name, value in last["headers"]])
            self.assertTrue(client.is_closed())

    def test_an_idle_session_is_closed_and_one_with_a_request_under_way_is_not(self):
        def slow(connection):
            while True:
                connection.head()
                time.sleep(1)
                connection.send(head("HTTP/1.1 200 OK", "Content-Length: 4")).send("late")

        _, router = self.started(slow, edit=self.server("serverSession: {idleTimeMs: 300}"))
        with router.connect() as client:
            self.assertEqual(client.get().response()["body"], b"late")
            self.assertTrue(client.is_closed(5))

    def test_some_socket_options_leave_the_others_as_they_were(self):
        _, router = self.started(edit=self.server("socketOptions: {backlog: 7}"))
        shown = Process(["config", "show", router.config], router.directory, name="shown")
        self.assertEqual(shown.wait(), 0)
        self.assertIn("backlog: 7", shown.output())
        self.assertEqual(router.request()["status"], 200)
        self.assertNotIn("noDelay: false", shown.output())

    def test_read_timeout_ms_ends_a_client_that_stops_within_its_head_or_body(self):
        _, router = self.started(echoing, edit=self.server("socketOptions: {readTimeoutMs: 300}"))
        for sent, status in (("GET / HTTP/1.1\r\nHost: w", 408), ("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nhe", 408)):
            with self.subTest(sent=sent), router.connect() as client:
                began = time.monotonic()
                client.send(sent)
                self.assertEqual(client.response()["status"], status)
                self.assertLess(time.monotonic() - began, 5)
        with router.connect() as client:
            # Slow, yet never silent for so long; and an idle connection is within no message.
            client.send("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\n")
            for letter in "hello":
                time.sleep(0.1)
                client.send(letter)
            self.assertEqual(client.response()["body"], b"hello")
            time.sleep(0.6)
            self.assertEqual(client.get().response()["status"], 200)

    def test_read_timeout_ms_says_nothing_of_an_endpoint_that_takes_its_time(self):
        def slow(connection):
            connection.head()
            time.sleep(1)
            connection.send(head("HTTP/1.1 200 OK", "Content-Length: 4")).send("late")

        _, router = self.started(slow, edit=self.server("socketOptions: {readTimeoutMs: 200, writeTimeoutMs: 200}"))
        self.assertEqual(router.request()["body"], b"late")

    def test_write_timeout_ms_ends_a_client_that_takes_nothing(self):
        gone = threading.Event()

        def endless(connection):
            connection.head()
            connection.send(head("HTTP/1.1 200 OK", f"Content-Length: {1 << 30}"))
            try:
                while True:
                    connection.send(b"x" * 65536)
            finally:
                gone.set()

        _, router = self.started(endless, edit=self.server("socketOptions: {writeTimeoutMs: 300}"))
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", router.port))
            client.sendall(head("GET / HTTP/1.1", "Host: web").encode())
            self.assertTrue(gone.wait(PATIENCE_S), "the endpoint is let go")

    def test_with_reuse_port_two_processes_listen_on_one_port_and_without_they_do_not(self):
        server, router = self.started(edit=self.server("socketOptions: {reusePort: true}"))
        for shared in (True, False):
            text = router.config.read_text().replace(f"port: {router.admin}", "port: 0")
            config = pathlib.Path(router.directory, f"second-{shared}.yaml")
            config.write_text(text if shared else text.replace("reusePort: true", "reusePort: false"))
            second = Process(["run", config], router.directory, name=f"second-{shared}")
            self.addCleanup(second.kill)
            if shared:
                # 40 connections, and one process is as likely as the other to get each.
                def both():
                    for _ in range(40):
                        self.assertEqual(router.request()["status"], 200)
                    mine = json.loads(router.get_admin("/admin/metrics.json")["body"])[f"rt/out/server/127.0.0.1/{router.port}/connects"]
                    both.asked += 40
                    return mine < both.asked
                both.asked = 0
                until(both, "the other process gets connections, too")
                second.terminate()
                second.wait()
            else:
                self.assertNotEqual(second.wait(), 0)
                self.assertIn(str(router.port), second.output())

    def test_a_server_without_ip_listens_on_loopback_alone(self):
        _, router = self.started(edit=lambda text: text.replace("  - {ip: 127.0.0.1, port: ", "  - {port: "))
        listening = [line.split()[1] for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[3] == "0A"]
        self.assertEqual([one for one in listening if int(one.split(":")[1], 16) == router.port], [f"0100007F:{router.port:04X}"])


class Bodies(Edges):
    def test_a_post_with_retryable_all_5xx_is_repeated_with_its_body_whole(self):
        got = []

        def first_fails(connection):
            while True:
                _, fields = connection.head()
                got.append(connection.reader.body(fields, False)[0])
                status = "503 No" if len(got) == 1 else "200 OK"
                connection.send(head(f"HTTP/1.1 {status}", "Content-Length: 0"))

        _, router = self.started(first_fails, "service: {responseClassifier: {kind: io.l5d.http.retryableAll5XX}}")
        body = "one body, sent twice" * 50
        self.assertEqual(router.request(method="POST", body=body)["status"], 200)
        self.assertEqual(got, [body.encode()] * 2)

    def test_repeats_of_one_request_end_whatever_the_budget(self):
        got = []

        def never(connection):
            while True:
                connection.head()
                got.append(1)
                connection.send(head("HTTP/1.1 503 No", "Content-Length: 0"))

        # Beyond the cap the budget counts: 100 repeats, as Linkerd made of each such request.
        for keys, attempts in (("", 26), ("retries: {maxPerRequest: 3}, ", 4), ("retries: {maxPerRequest: 0}, ", 1),
                               ("retries: {maxPerRequest: 1000}, ", 101)):
            keys = "service: {%sresponseClassifier: {kind: io.l5d.http.retryableRead5XX}}\nclient: {failureAccrual: {kind: none}}" % keys
            _, router = self.started(never, keys)
            got.clear()
            self.assertEqual(router.request()["status"], 503)
            self.assertEqual(len(got), attempts, keys)

    def test_without_streaming_a_request_over_the_limit_is_refused_and_nothing_hangs(self):
        _, router = self.started(echoing, "streamingEnabled: false\nmaxRequestKB: 4")
        for more in ({"body": "x" * 5000}, {"chunked": ["x" * 3000, "x" * 3000]}):
            began = time.monotonic()
            self.assertEqual(router.request(method="POST", **more)["status"], 413)
            self.assertLess(time.monotonic() - began, 5)
        self.assertEqual(router.request(method="POST", body="x" * 4000)["body"], b"x" * 4000)

    def test_a_compressed_body_passes_as_it_is(self):
        packed = gzip.compress(b"text " * 500)
        _, router = self.started(answering(packed, headers=["Content-Encoding: gzip", "Content-Type: text/plain"]), "compressionLevel: 5")
        for accepts in ("gzip", "identity"):
            answer = router.request(headers=[["Accept-Encoding", accepts]])
            self.assertEqual(answer["body"], packed)
            self.assertIn(("content-length", str(len(packed))), [(name.lower(), value) for name, value in answer["headers"]])

    def test_a_response_of_http_1_0_without_a_length_is_delivered_whole(self):
        def old(connection):
            connection.head()
            connection.send("HTTP/1.0 200 OK\r\n\r\n").send(b"all of it " * 1000)

        _, router = self.started(old)
        for version in ("HTTP/1.1", "HTTP/1.0"):
            self.assertEqual(router.request(version=version)["body"], b"all of it " * 1000)

    def test_locations_pass_as_they_are_where_no_host_was_rewritten(self):
        fields = ["Location: http://web/elsewhere?a=%2F", "Refresh: 5; url=http://web/again"]
        _, router = self.started(answering(status="302 Found", headers=fields))
        answer = router.request(target="http://web/first")
        self.assertEqual([f"{n}: {v}" for n, v in answer["headers"] if n.lower() in ("location", "refresh")], fields)


class Naming(Edges):
    def test_a_name_that_flaps_ends_in_its_true_state(self):
        server, router = self.started()
        place = router.directory / "disco" / "web"
        for _ in range(20):
            place.unlink()
            router.request()
            router.name("web", server.address)
        until(lambda: router.request()["status"] == 200, "it is there in the end", 5)
        place.unlink()
        until(lambda: router.request()["status"] == 502, "and gone in the end", 5)

    def test_a_name_that_goes_while_nobody_asks_fails_at_once_and_comes_back(self):
        server, router = self.started()
        self.assertEqual(router.request()["status"], 200)
        place = router.directory / "disco" / "web"
        place.unlink()
        time.sleep(0.5)
        began = time.monotonic()
        self.assertEqual(router.request()["status"], 502)
        self.assertLess(time.monotonic() - began, 2)
        router.name("web", server.address)
        until(lambda: router.request()["status"] == 200, "it is back", 5)

    def test_rewriting_files_leaves_no_watch_behind(self):
        server, router = self.started()

        def watches():
            count = 0
            for info in pathlib.Path(f"/proc/{router.pid}/fdinfo").iterdir():
                try:
                    count += info.read_text().count("inotify ")
                except OSError:
                    pass
            return count, len(list(pathlib.Path(f"/proc/{router.pid}/fd").iterdir()))

        self.assertEqual(router.request()["status"], 200)
        time.sleep(0.3)
        before = watches()
        for number in range(300):
            place = router.directory / "disco" / ".new"
            place.write_text(f"127.0.0.1 {server.address[1]}\n# {number}\n")
            place.replace(router.directory / "disco" / "web")
        self.assertEqual(router.request()["status"], 200)
        until(lambda: all(now <= then + 2 for now, then in zip(watches(), before)), f"as many watches as before: {before}, {watches()}", 5)

    def test_an_idle_name_goes_after_idle_ttl_secs_with_its_metrics(self):
        _, router = self.started(router="bindingCache: {idleTtlSecs: 1}")
        other = Server(answering())
        self.addCleanup(other.__exit__)
        router.name("busy", other.address)

        def names():
            until(lambda: router.request("busy")["status"] == 200, "`busy` is bound")
            page = json.loads(router.get_admin("/admin/metrics.json")["body"])
            return {key.split("/service/svc/")[1].split("/")[0] for key in page if "/service/svc/" in key}

        self.assertEqual(router.request()["status"], 200)
        self.assertEqual(names(), {"web", "busy"})
        # A worker looks every ten seconds.
        until(lambda: names() == {"busy"}, "`web` has no metrics any more", 40)
        self.assertEqual(json.loads(router.get_admin("/admin/metrics.json")["body"]).get("rt/out/client/#/io.l5d.fs/web/requests"), None)
        self.assertEqual(router.request()["status"], 200)
        self.assertEqual(json.loads(router.get_admin("/admin/metrics.json")["body"])["rt/out/service/svc/web/requests"], 1)


class Errors(Edges):
    def test_e110_names_the_address_and_the_bound_name(self):
        port = free_port()
        with Router(names={"web": [("127.0.0.1", port)]}) as router:
            answer = router.request()
        self.assertEqual(answer["status"], 502)
        for word in (f"127.0.0.1:{port}", "/#/io.l5d.fs/web", "/svc/web"):
            self.assertIn(word, answer["body"].decode())


class StoreApi(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.store = cls.enterClassContext(Store("{kind: io.l5d.inMemory, namespaces: {default: '/svc => /#/io.l5d.fs'}}")).start()

    def ask(self, target, port=None, **request):
        return runner.http_call(("127.0.0.1", port or self.store.port), {"target": target, "timeout_ms": 5000, **request})

    def test_a_dtab_of_null_is_refused_and_changes_nothing(self):
        before = self.ask("/api/1/dtabs/default")["body"]
        for body in ("null", "[null]", '[{"prefix": "/svc", "dst": null}]', '[{"prefix": null, "dst": "/a"}]'):
            answer = self.ask("/api/1/dtabs/default", method="PUT", body=body, headers=[["Content-Type", "application/json"]])
            self.assertEqual(answer["status"], 400, body)
        self.assertEqual(self.ask("/api/1/dtabs/default")["body"], before)

    def test_a_bind_without_a_path_is_a_clients_mistake(self):
        for what in ("bind", "addr", "resolve"):
            self.assertEqual(self.ask(f"/api/1/{what}/default")["status"], 400, what)


class AdminAndLogs(Edges):
    def test_admin_answers_while_every_request_waits(self):
        go = threading.Event()

        def waiting(connection):
            connection.head()
            go.wait(PATIENCE_S)
            connection.send(head("HTTP/1.1 200 OK", "Content-Length: 0"))

        _, router = self.started(waiting)
        clients = [router.connect() for _ in range(200)]
        try:
            for client in clients:
                client.get()
            key = f"rt/out/server/127.0.0.1/{router.port}/pending"
            until(lambda: json.loads(router.get_admin("/admin/metrics.json")["body"])[key] == 200, "200 requests wait")
            for page in ("/admin/ping", "/admin/metrics/prometheus", "/delegator", "/"):
                began = time.monotonic()
                self.assertEqual(router.get_admin(page)["status"], 200)
                self.assertLess(time.monotonic() - began, 2, page)
        finally:
            go.set()
            for client in clients:
                client.socket.close()

    def test_admin_shutdown_lets_what_is_under_way_finish(self):
        arrived, go = threading.Event(), threading.Event()

        def slow(connection):
            connection.head()
            arrived.set()
            go.wait(PATIENCE_S)
            connection.send(head("HTTP/1.1 200 OK", "Content-Length: 4")).send("late")

        _, router = self.started(slow)
        with router.connect() as client:
            client.get()
            self.assertTrue(arrived.wait(PATIENCE_S))
            asked = socket.create_connection(("127.0.0.1", router.admin), PATIENCE_S)
            asked.sendall(head("POST /admin/shutdown HTTP/1.1", f"Host: 127.0.0.1:{router.admin}", "Content-Length: 0", "Connection: close").encode())
            self.assertIn(b"200", asked.recv(4096).split(b"\r\n")[0])
            asked.close()
            time.sleep(0.5)
            self.assertIsNone(router.child.poll(), "ended although a request was in flight")
            go.set()
            self.assertEqual(client.response()["body"], b"late")
        self.assertEqual(router.wait(), 0)

    def test_an_access_log_of_json_has_an_object_a_line_and_none_can_be_forged(self):
        with tempfile.TemporaryDirectory() as logs:
            _, router = self.started(router=f"httpAccessLog: {logs}/log\nhttpAccessLogFormat: json")
            agent = '"}, {"status": 500, \\u000a \xe9 \tend'
            with router.connect() as client:
                client.send(head('GET /a"b\\n?c={} HTTP/1.1', "Host: web", f"User-Agent: {agent}", 'Referer: "'))
                self.assertEqual(client.response()["status"], 200)
            self.assertEqual(router.request(target="/second")["status"], 200)
            lines = until(lambda: (found := pathlib.Path(logs, "log").read_text().splitlines()) and len(found) == 2 and found, "two lines")
            first, second = map(json.loads, lines)
            self.assertEqual((first["status"], first["method"], first["service"], first["bound"]), (200, "GET", "/svc/web", "/#/io.l5d.fs/web"))
            # What is no UTF-8 is one character that stands for it.
            self.assertEqual((first["userAgent"], first["referer"]), (agent.replace("\xe9", "\ufffd"), '"'))
            self.assertEqual(first["target"], 'GET /a"b\\n?c={}'.split()[1])
            self.assertIn("/second", json.dumps(second))

    def test_an_access_log_that_cannot_be_written_holds_up_no_request(self):
        with tempfile.TemporaryDirectory() as logs:
            # A pipe that is full: whoever writes to it waits.
            pipe = pathlib.Path(logs, "log")
            os.mkfifo(pipe)
            reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
            self.addCleanup(os.close, reader)
            _, router = self.started(router=f"httpAccessLog: {pipe}")
            with router.connect(5) as client:
                for _ in range(100):
                    client.get("/", "web", "User-Agent: " + "x" * 8000)
                    self.assertEqual(client.response()["status"], 200)
            self.assertGreater(len(os.read(reader, 1 << 20)), 8000, "some of it was written")

    def test_a_servers_timeout_ms_is_503_and_the_endpoint_is_let_go(self):
        gone = threading.Event()

        def silent(connection):
            connection.head()
            connection.reader.rest()
            gone.set()

        _, router = self.started(silent, edit=self.server("timeoutMs: 300"))
        began = time.monotonic()
        self.assertEqual(router.request()["status"], 503)
        self.assertLess(time.monotonic() - began, 5)
        self.assertTrue(gone.wait(PATIENCE_S))

    def test_two_routers_keep_their_access_logs_apart(self):
        with tempfile.TemporaryDirectory() as logs:
            def two(text):
                before, routers = text.split("routers:\n")
                second = routers.replace("label: out", "label: second").replace("port: ", "port: 0 #")
                second = second.split("  servers:")[0] + "  servers:\n  - {ip: 127.0.0.1, port: 0}\n"
                return before + "routers:\n" + routers.replace("label: out", f"label: out\n  httpAccessLog: {logs}/one") + second.replace(
                    "label: second", f"label: second\n  httpAccessLog: {logs}/two")

            _, router = self.started(edit=two)
            page = json.loads(router.get_admin("/admin/metrics.json")["body"])
            other = next(int(key.split("/")[4]) for key in page if key.startswith("rt/second/server/"))
            for port in [router.port, other] * 20:
                self.assertEqual(runner.http_call(("127.0.0.1", port), {"host": "web", "target": f"/of/{port}"})["status"], 200)
            for name, port in (("one", router.port), ("two", other)):
                lines = until(lambda: (found := pathlib.Path(logs, name).read_text().splitlines()) and len(found) == 20 and found, f"20 lines in {name}")
                self.assertEqual([line for line in lines if f"/of/{port} " not in line], [])


if __name__ == "__main__":
    unittest.main()
