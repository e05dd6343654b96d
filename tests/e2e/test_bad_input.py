"""What comes in and is not as it should be: address files, headers, names, heads. A clear answer, nothing lost, no panic."""
import os
import random
import socket
import time
import unittest

from harness.router import Router, Server, answering, head, until


class Files(unittest.TestCase):
    """Address files, as people and programs write them."""

    BAD = {"no port": b"127.0.0.1\n", "port 0": b"127.0.0.1 0\n", "port too large": b"127.0.0.1 65536\n", "no number": b"127.0.0.1 http\n",
           "a third word": b"127.0.0.1 80 90\n", "a weight that is none": b"127.0.0.1 80 * x\n", "bytes": bytes(range(256)), "zeros": b"\0" * 4096,
           "yaml": b"- host: 127.0.0.1\n  port: 80\n", "too large": b"# padding\n" * 60_000, "an endless line": b"1" * 300_000}

    def test_a_file_that_gets_bad_keeps_its_last_addresses_and_is_named(self):
        with Server(answering()) as server, Router(names={"web": [server.address], "good": [server.address]}) as router:
            good = (router.directory / "disco" / "web").read_bytes()
            for what, text in self.BAD.items():
                with self.subTest(what):
                    self.assertEqual(router.request("web")["status"], 200)
                    logged = len(router.output())
                    (router.directory / "disco" / "web").write_bytes(text)
                    until(lambda: "web" in router.output()[logged:], "the log names the file")
                    for _ in range(20):
                        self.assertEqual((router.request("web")["status"], router.request("good")["status"]), (200, 200))
                    (router.directory / "disco" / "web").write_bytes(good)
                    time.sleep(0.2)
            self.assertNotIn("panicked", router.output())

    def test_a_file_that_was_always_bad_is_said_in_the_answer_and_heals(self):
        with Server(answering()) as server, Router("bindingTimeoutMs: 1000", names={"other": [server.address]}) as router:
            file = router.directory / "disco" / "web"
            file.write_text("127.0.0.1 http\n")
            until(lambda: b"http" in router.request("web")["body"], "the answer shows the line")
            answer = router.request("web")
            self.assertEqual(answer["status"], 502)
            self.assertEqual(router.request("other")["status"], 200)
            file.write_text("{} {}\n".format(*server.address))
            until(lambda: router.request("web").get("status") == 200, "it is right now")

    def test_replaced_by_rename_and_written_in_pieces_under_load(self):
        """No request is lost, whichever way the file is written, though its old content goes first."""
        with Server(answering(b"a")) as one, Server(answering(b"b")) as two:
            with Router(names={"web": [one.address]}) as router:
                file, temporary = router.directory / "disco" / "web", router.directory / "web.new"
                for turn in range(12):
                    address, body = ((two.address, b"b"), (one.address, b"a"))[turn % 2]
                    text = "# as an editor writes it\n{} {}\n".format(*address)
                    if turn % 3 == 0:
                        temporary.write_text(text)
                        os.replace(temporary, file)
                    else:
                        with open(file, "w") as out:
                            for piece in (text[:9], text[9:-3], text[-3:]):
                                out.write(piece)
                                out.flush()
                                self.assertEqual(router.request("web").get("status"), 200, f"turn {turn}")
                    until(lambda: router.request("web")["body"] == body, f"turn {turn}: the new address is used")


class Requests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.seen = []

        def script(connection):
            while True:
                start, fields = connection.head()
                connection.reader.body(fields, False)
                cls.seen.append(start)
                connection.send(head("HTTP/1.1 200 OK", "Content-Length: 2") + "ok")

        server = cls.enterClassContext(Server(script))
        cls.router = cls.enterClassContext(Router(names={"web": [server.address]}, env={"RUTTER_LOG": "info,router=debug"}))

    def tearDown(self):
        self.assertEqual(self.router.request("web")["status"], 200)
        self.assertNotIn("panicked", self.router.output())
        self.assertNotIn("RT-E140", self.router.output())

    def test_context_headers_that_cannot_be_read_cost_the_request_nothing(self):
        for name in ("l5d-ctx-deadline", "l5d-sample", "l5d-ctx-trace", "l5d-reqid", "l5d-retryable", "l5d-success-class", "l5d-dst-client", "l5d-err",
                     "traceparent", "b3", "X-B3-Flags", "Via", "Forwarded", "Connection", "TE", "Keep-Alive", "Expect", "Upgrade"):
            for value in ("", ",", ";;", "-1", "1e400", "\x80\xff", "%00", "NaN", "x" * 3000, '"', "1 2 3", "99999999999999999999 1"):
                with self.subTest(name=name, value=value[:10]):
                    answer = self.router.request("web", headers=[[name, value]])
                    # An expectation that nobody can meet is refused.
                    self.assertIn(answer.get("status"), (200, 417) if name == "Expect" else (200,), answer)

    def test_hosts_that_are_none(self):
        for host in ("..", "../..", "*", "%2e%2e", "a b", "a;b", "a|b", "a&b", "~", "!", "$", "#", "/", "//", "/#/io.l5d.fs/web", "[::1", "[::1]:x", ":", ":80", "web:",
                     "web:99999", "\x80", "\xff" * 200, "a" * 5000, "{}", "\\", "'", '"', "<script>", "a\tb", "web,web"):
            with self.subTest(host=host[:20]):
                answer = self.router.request(host)
                self.assertIn(answer.get("status"), (400, 502), answer)
                fields = [value for name, value in answer["headers"] if name.lower() == "l5d-err"]
                self.assertEqual(len(fields), 1)
                self.assertTrue(fields[0].isascii() and fields[0].isprintable(), fields)
                self.assertLess(len(fields[0]), 4096)

    def test_targets_that_are_odd(self):
        for target in ("*", "//", "/%", "/%zz", "/\x80", "/?\xff", "/a|b", "/{}", "/..//../", "http://web", "http://web/%00", "http://web:99999/", "http://user:pw@web/",
                       "HTTP://WEB/", "https://web/", "ftp://web/", "http:///x", "http://", "/" + "x" * 4000):
            with self.subTest(target=target[:20]):
                answer = self.router.request("web", target=target)
                self.assertIsNotNone(answer.get("status"), answer)
                self.assertLess(answer["status"], 503)

    def test_random_changes_of_a_request_are_answered_or_refused(self):
        """Each mutant gets one answer at the least, or the end of the connection; never the next request's body as a request."""
        rng = random.Random(20_261_121)
        whole = (b"POST /upload HTTP/1.1\r\nHost: web\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\nl5d-dtab: /svc/x => /svc/web\r\n"
                 b"l5d-ctx-trace: AAAAAAAACrwAAAAAAAAKvHd3d3d3d3d4AAAAAAAAAAY=\r\nConnection: close\r\n\r\n5\r\nhello\r\n3;x=1\r\nabc\r\n0\r\nX: y\r\n\r\n")
        words = [b"\r", b"\n", b"\r\n", b" ", b"\t", b"\0", b":", b",", b";", b"\xff", b"Content-Length: 5\r\n", b"Transfer-Encoding: gzip\r\n", b"HTTP/1.1", b"-", b"0", b"f" * 20]
        for number in range(400):
            mutant = bytearray(whole)
            for _ in range(rng.randint(1, 4)):
                at, kind = rng.randrange(len(mutant)), rng.random()
                if kind < 0.3:
                    mutant[at] = rng.randrange(256)
                elif kind < 0.6:
                    mutant[at:at] = rng.choice(words)
                elif kind < 0.8:
                    del mutant[at:at + rng.randint(1, 9)]
                else:
                    mutant[at:at] = mutant[rng.randrange(len(mutant)):][:rng.randint(1, 40)]
            with socket.create_connection(("127.0.0.1", self.router.port), 15) as client:
                client.sendall(mutant)
                client.shutdown(socket.SHUT_WR)
                got = b""
                try:
                    while piece := client.recv(65536):
                        got += piece
                except ConnectionResetError:
                    pass
                except TimeoutError:
                    self.fail(f"mutant {number} hangs: {bytes(mutant)!r}")
            self.assertTrue(got == b"" or got.startswith(b"HTTP/1."), (number, bytes(mutant), got[:200]))
        starts = {start.split(" ")[0] for start in self.seen}
        self.assertFalse([start for start in starts if start in ("hello", "abc", "5", "3;x=1")], starts)


if __name__ == "__main__":
    unittest.main()
