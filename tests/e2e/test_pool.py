"""`hostConnectionPool`: its numbers hold for the router, however many data threads it has."""
import concurrent.futures
import json
import threading
import time
import unittest

from harness.router import Router, Server, head, until


class Counting:
    """A server's script that answers when told to, and knows how many connections there were at once."""

    def __init__(self):
        self.lock, self.open, self.most, self.waiting = threading.Lock(), 0, 0, 0
        self.go = threading.Event()

    def __call__(self, connection):
        with self.lock:
            self.open += 1
            self.most = max(self.most, self.open)
        try:
            while True:
                connection.head()
                with self.lock:
                    self.waiting += 1
                self.go.wait(30)
                with self.lock:
                    self.waiting -= 1
                connection.send(head("HTTP/1.1 200 OK", "Content-Length: 2") + "ok")
        finally:
            with self.lock:
                self.open -= 1


class Pool(unittest.TestCase):
    def setUp(self):
        self.script = Counting()
        self.server = self.enterContext(Server(self.script))

    def router(self, pool, workers):
        return self.enterContext(Router("client: {hostConnectionPool: %s}" % pool, names={"web": [self.server.address]},
                                        edit=lambda text: f"workers: {workers}\n{text}"))

    def at_once(self, router, count):
        """Starts requests, waits until those that can are at the server or waiting, then lets all be answered."""
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            requests = [pool.submit(router.request) for _ in range(count)]
            until(lambda: self.script.waiting > 0, "a request is at the server")
            time.sleep(0.5)
            # Later the server may see a new connection before it notices that the one it stands for was closed.
            self.most = self.script.most
            self.script.go.set()
            return [request.result() for request in requests]

    def test_no_more_connections_than_max_size_on_one_data_thread_and_on_two(self):
        for workers in (1, 2):
            with self.subTest(workers=workers):
                self.script.go.clear()
                self.script.most = self.script.open
                router = self.router("{maxSize: 2}", workers)
                answers = self.at_once(router, 12)
                self.assertEqual([answer["status"] for answer in answers], [200] * 12)
                self.assertLessEqual(self.most, 2)
                router.kill()
                until(lambda: self.script.open == 0, "its connections are closed")

    def test_more_than_max_waiters_are_answered_502_with_the_reason(self):
        for workers in (1, 2):
            with self.subTest(workers=workers):
                self.script.go.clear()
                router = self.router("{maxSize: 1, maxWaiters: 3}", workers)
                answers = self.at_once(router, 10)
                statuses = sorted(answer["status"] for answer in answers)
                self.assertEqual(statuses, [200] * 4 + [502] * 6)
                refused = next(answer for answer in answers if answer["status"] == 502)
                self.assertIn(b"RT-E135", refused["body"])
                self.assertIn(b"maxWaiters", refused["body"])
                # That was no fault of the endpoint.
                self.assertEqual(router.request()["status"], 200)

    def test_a_request_s_own_time_ends_its_waiting(self):
        router = self.enterContext(Router("client: {hostConnectionPool: {maxSize: 1}}\nservice: {totalTimeoutMs: 1000}",
                                          names={"web": [self.server.address]}))
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            answers = [request.result() for request in [pool.submit(router.request) for _ in range(3)]]
        self.assertLess(time.monotonic() - began, 5)
        self.assertEqual({answer["status"] for answer in answers} - {502, 503}, set())
        self.script.go.set()

    def test_what_min_size_keeps_is_used_again_however_long_it_idled(self):
        self.script.go.set()
        router = self.router("{minSize: 1, idleTimeMs: 100}", 1)
        for _ in range(3):
            self.assertEqual(router.request()["status"], 200)
            time.sleep(1.5)
        self.assertEqual(self.server.connections, 1)

    def test_names_that_lead_to_one_address_share_its_connections_unless_their_number_is_limited(self):
        self.script.go.set()
        names = [f"name-{n}" for n in range(5)]
        for pool, connections in (("{}", 1), ("{maxSize: 2}", 5), ("{minSize: 1}", 5)):
            with self.subTest(pool=pool):
                before = self.server.connections
                with Router("client: {hostConnectionPool: %s}" % pool, names={name: [self.server.address] for name in names},
                            edit=lambda text: f"workers: 1\n{text}") as router:
                    for name in names * 2:
                        self.assertEqual(router.request(host=name)["status"], 200)
                    self.assertEqual(self.server.connections - before, connections)
                    # Each has its own bytes; the connection stays with the one that made it.
                    page = json.loads(router.get_admin("/admin/metrics.json")["body"])
                    of = lambda name, what: page[f"rt/out/client/#/io.l5d.fs/{name}/{what}"]
                    self.assertEqual(of("name-0", "connects"), 1)
                    self.assertGreater(of("name-4", "received_bytes"), 0)
                    self.assertEqual(of("name-4", "requests"), 2)


if __name__ == "__main__":
    unittest.main()
