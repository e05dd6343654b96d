"""Classes of weaknesses that other proxies had; docs/security.md lists them all, with the tests that stand for each."""
import socketserver
import threading
import time
import unittest

from harness.router import Router, until


class Endpoint(socketserver.StreamRequestHandler):
    """Answers with the fields it got; a body is counted."""

    def handle(self):
        while (line := self.rfile.readline().strip()):
            fields = []
            while (field := self.rfile.readline().strip()):
                fields.append(field)
            names = [field.split(b":")[0].lower() for field in fields]
            size = 0
            if b"transfer-encoding" in names:
                while length := int(self.rfile.readline(), 16):
                    size += len(self.rfile.read(length))
                    self.rfile.readline()
                self.rfile.readline()
            body = b"\n".join([self.server.label, line, *fields, b"size %d" % size])
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


def endpoint(test, label=b"a"):
    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = allow_reuse_address = True
    server = Server(("127.0.0.1", 0), Endpoint)
    server.label = label
    threading.Thread(target=server.serve_forever, daemon=True).start()
    test.addCleanup(server.server_close)
    test.addCleanup(server.shutdown)
    return server.server_address


class Classes(unittest.TestCase):
    def test_s10_many_chunks_of_one_byte_fill_no_memory(self):
        with Router(names={"web": [endpoint(self)]}) as router:
            router.request()
            before = router.resident_kib()
            with router.connect() as conn:
                conn.send("POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n")
                piece = b"1\r\nx\r\n" * 10000
                for _ in range(50):
                    conn.send(piece)
                conn.send("0\r\n\r\n")
                self.assertTrue(conn.response()["body"].endswith(b"size 500000"))
            self.assertLess(router.resident_kib() - before, 4096)

    def test_s11_twenty_thousand_fields_are_refused_at_once(self):
        with Router(names={"web": [endpoint(self)]}, router="maxHeadersKB: 1024") as router:
            with router.connect() as conn:
                began = time.monotonic()
                conn.send("GET / HTTP/1.1\r\nHost: web\r\n" + "a: b\r\n" * 20000 + "\r\n")
                self.assertEqual(conn.response()["status"], 431)
                self.assertLess(time.monotonic() - began, 1)

    def test_s12_a_megabyte_of_a_name_or_a_target_is_refused(self):
        with Router(names={"web": [endpoint(self)]}) as router:
            router.request()
            before = router.resident_kib()
            for text, status in (("GET / HTTP/1.1\r\nHost: web\r\n" + "n" * (1 << 20), 431), ("GET /" + "t" * (1 << 20), 414)):
                with router.connect() as conn:
                    try:
                        conn.send(text)
                    except OSError:
                        pass
                    self.assertEqual(conn.response()["status"], status)
            self.assertLess(router.resident_kib() - before, 6144)

    def test_s22_connection_cannot_name_fields_that_the_router_adds(self):
        with Router(names={"web": [endpoint(self)]}) as router:
            with router.connect() as conn:
                conn.get("/", "web", "Connection: l5d-ctx-trace, l5d-dst-service, l5d-reqid, via, host, x-mine", "X-Mine: 1", "l5d-dtab: /nothing => /x")
                got = conn.response()["body"].lower()
            for name in (b"l5d-ctx-trace:", b"l5d-dst-service:", b"l5d-reqid:", b"l5d-ctx-dtab:", b"via:", b"host: web"):
                self.assertIn(name, got)
            self.assertNotIn(b"x-mine", got)

    def test_s23_space_around_a_host_is_no_part_of_its_name(self):
        with Router(names={"web": [endpoint(self)]}) as router:
            for host in ("web ", "\tweb", "web\t "):
                with router.connect() as conn:
                    conn.send(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")
                    self.assertIn(b"l5d-dst-service: /svc/web\n", conn.response()["body"].lower())
            for host in ("we b", "web\x0b", "web."):
                with router.connect() as conn:
                    conn.send(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")
                    self.assertIn(conn.response()["status"], (400, 502))

    def test_s25_every_copy_and_spelling_of_a_context_field_is_taken(self):
        with Router(names={"web": [endpoint(self)]}) as router:
            with router.connect() as conn:
                conn.get("/", "web", "l5d-dtab: /a => /b", "L5D-DTAB: /c => /d", "l5d-sample: 1.0", "L5d-Sample: 0.0", "l5d-ctx-dtab: /e => /f")
                got = [line for line in conn.response()["body"].lower().split(b"\n")]
            self.assertEqual([line for line in got if line.startswith((b"l5d-dtab", b"l5d-sample"))], [])
            self.assertEqual([line for line in got if line.startswith(b"l5d-ctx-dtab")], [b"l5d-ctx-dtab: /e=>/f;/a=>/b;/c=>/d"])

    def test_s40_one_requests_dtab_never_serves_another(self):
        names = {"web": [endpoint(self, b"a")], "other": [endpoint(self, b"b")]}
        with Router(names=names) as router:
            wrong, wanted = [], {None: b"a", "/svc/web => /#/io.l5d.fs/other": b"b", "/svc/web => /$/nil": None}

            def work(dtab, label):
                with router.connect() as conn:
                    for _ in range(200):
                        conn.get("/", "web", *([f"l5d-dtab: {dtab}"] if dtab else []))
                        answer = conn.response()
                        found = answer["body"].split(b"\n")[0] if answer["status"] == 200 else None
                        if found != label:
                            wrong.append((dtab, answer["status"], found))

            threads = [threading.Thread(target=work, args=case) for case in wanted.items() for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(wrong[:3], [])
            until(lambda: router.request()["status"] == 200, "and the plain name is as it was")


if __name__ == "__main__":
    unittest.main()
