"""What others see of a router that ends: balancers, clients with kept connections, new clients."""
import json
import threading
import time
import unittest

from harness.router import Router, Server, answering, head, listens, until


def closing(answer):
    """Whether the answer says that its connection closes."""
    return ["close"] == [value.lower() for name, value in answer["headers"] if name.lower() == "connection"]


class Drain(unittest.TestCase):
    def slow(self):
        """A server that answers `/slow` when it is told to, all else at once."""
        arrived, go = threading.Event(), threading.Event()

        def script(connection):
            while True:
                start, _ = connection.head()
                if "/slow" in start:
                    arrived.set()
                    go.wait(20)
                connection.send(head("HTTP/1.1 200 OK", "Content-Length: 2") + "ok")

        return self.enterContext(Server(script)), arrived, go

    def test_the_port_is_open_and_readiness_stays_until_what_was_under_way_has_ended(self):
        """Nobody else can listen on a node's port while this one lives; Kubernetes knows by itself that a pod ends."""
        server, arrived, go = self.slow()
        with Router(names={"web": [server.address]}) as router, router.connect() as client:
            client.get("/slow")
            self.assertTrue(arrived.wait(20))
            router.terminate()
            until(lambda: b"ending" in router.get_admin("/ready").get("body", b""), "/ready says that it ends")
            began = time.monotonic()
            while time.monotonic() - began < 2:
                answer = router.request()
                self.assertEqual((answer["status"], closing(answer)), (200, True), "served, and told to close")
            self.assertEqual(router.get_admin("/ready")["status"], 200)
            go.set()
            self.assertEqual(client.response()["body"], b"ok")
            until(lambda: not listens(router.port), "new connections are refused")
            self.assertEqual(router.wait(), 0, router.output())

    def test_at_the_end_of_its_time_it_accepts_nothing_and_readiness_goes_before_liveness(self):
        server, arrived, go = self.slow()
        limit = lambda text: text.replace("}", ", shutdownGraceMs: 4000}", 1)
        with Router(names={"web": [server.address]}, edit=limit) as router, router.connect() as client:
            client.get("/slow")
            self.assertTrue(arrived.wait(20))
            began = time.monotonic()
            router.terminate()
            until(lambda: not listens(router.port), "new connections are refused")
            self.assertGreater(time.monotonic() - began, 2.5)
            ready = router.get_admin("/ready")
            self.assertEqual(ready["status"], 503)
            self.assertIn(b"draining", ready["body"])
            self.assertEqual(router.get_admin("/live").get("status"), 200)
            go.set()
            self.assertEqual(client.response()["body"], b"ok")
            client.socket.close()
            self.assertEqual(router.wait(), 0, router.output())

    def test_a_kept_connection_is_told_to_close_with_the_request_that_is_under_way(self):
        server, arrived, go = self.slow()
        with Router(names={"web": [server.address]}) as router, router.connect() as client:
            client.get("/")
            self.assertFalse(closing(client.response()))
            client.get("/slow")
            self.assertTrue(arrived.wait(20))
            router.terminate()
            until(lambda: b"ending" in router.get_admin("/ready").get("body", b""), "/ready says that it ends")
            go.set()
            answer = client.response()
            self.assertEqual((answer["status"], closing(answer)), (200, True))
            self.assertTrue(client.is_closed())
            self.assertEqual(router.wait(), 0, router.output())

    def test_a_request_on_a_kept_connection_is_answered_for_a_second_more(self):
        with Server(answering(b"ok")) as server, Router(names={"web": [server.address]}) as router:
            with router.connect() as client:
                self.assertFalse(closing(client.get().response()))
                router.terminate()
                time.sleep(0.3)
                answer = client.get().response()
                self.assertEqual((answer["status"], closing(answer)), (200, True))
            self.assertEqual(router.wait(), 0, router.output())

    def test_requests_without_a_pause_from_clients_that_reconnect_lose_nothing_that_was_accepted(self):
        """What a client got a connection for is answered; who comes later is refused, and never cut off half way."""
        with Server(answering(b"ok")) as server, Router(names={"web": [server.address]}) as router:
            broken, answered, stop = [], [0], threading.Event()

            def load():
                while not stop.is_set():
                    try:
                        client = router.connect()
                    except OSError:
                        return
                    with client:
                        try:
                            while not stop.is_set():
                                client.get()
                                answer = client.response()
                                answered[0] += 1
                                if closing(answer):
                                    break
                        except Exception as error:  # a connection that ended without an answer
                            broken.append(repr(error))

            threads = [threading.Thread(target=load) for _ in range(4)]
            for thread in threads:
                thread.start()
            time.sleep(0.5)
            router.terminate()
            self.assertEqual(router.wait(), 0, router.output())
            stop.set()
            for thread in threads:
                thread.join()
            self.assertGreater(answered[0], 20)
            # Each of their connections is used again within the second for which an idle one is kept. What is left is one
            # that is made in the very moment in which the listener is closed.
            self.assertLessEqual(len(broken), 1, broken)


if __name__ == "__main__":
    unittest.main()
