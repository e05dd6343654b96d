"""Addresses that a request may name, and those it may not."""
import unittest

from harness.router import Router, Server, answering, head, runner


class Addresses(unittest.TestCase):
    def test_what_only_this_machine_should_reach_cannot_be_named_by_a_request(self):
        with Server(answering(b"secret")) as server, Router(listen="0.0.0.0", dtab="/svc => /$/inet;") as router:
            host, port = server.address
            for path in (f"/$/inet/{host}/{port}", f"/$/inet/{port}", f"/$/inet/localhost/{port}", f"/$/inet/169.254.169.254/{port}"):
                answer = router.request("web", headers=[["l5d-dtab", f"/svc/web => {path}"]])
                self.assertEqual(answer["status"], 403, path)
                self.assertIn(b"RT-E119", answer["body"])

    def test_what_the_configured_dtab_names_is_reached(self):
        with Server(answering(b"here")) as server:
            host, port = server.address
            with Router(listen="0.0.0.0", dtab=f"/svc/web => /$/inet/{host}/{port};") as router:
                self.assertEqual(router.request("web")["body"], b"here")

    def test_on_a_listener_of_this_machine_alone_a_request_may_name_it(self):
        with Server(answering(b"here")) as server, Router(dtab="/svc => /$/inet;") as router:
            host, port = server.address
            answer = router.request("web", headers=[["l5d-dtab", f"/svc/web => /$/inet/{host}/{port}"]])
            self.assertEqual(answer["body"], b"here")

    def test_a_router_never_sends_to_its_own_listener(self):
        for listen in ("127.0.0.1", "0.0.0.0"):
            with self.subTest(listen=listen), Router(listen=listen, dtab="/svc => /$/inet/127.0.0.1/{port};") as router:
                answer = router.request("web")
                self.assertEqual((answer["status"], b"own listener" in answer["body"]), (403, True))

    def test_listeners_and_endpoints_of_ipv6(self):
        seen = []

        def answer(connection):
            while True:
                seen.append(connection.head())
                connection.send(head("HTTP/1.1 200 OK", "Content-Length: 3") + "six")

        for listen in ("'::1'", "'::'"):
            with self.subTest(listen=listen), Server(answer, "::1") as server, Router(names={"web": [server.address]}, listen=listen) as router:
                for asked in ({"host": "web"}, {"host": f"[::1]:{router.port}", "headers": [["l5d-dtab", "/svc => /#/io.l5d.fs/web"]]},
                              {"host": "web", "target": "http://web/absolute"}):
                    answer6 = runner.http_call(("::1", router.port), asked)
                    self.assertEqual((answer6.get("status"), answer6.get("body")), (200, b"six"), asked)
        self.assertIn("GET /absolute HTTP/1.1", [start for start, _ in seen])

    def test_ipv4_reaches_a_listener_of_all_addresses_too(self):
        with Server(answering(b"four")) as server, Router(names={"web": [server.address]}, listen="'::'") as router:
            self.assertEqual(router.request("web").get("body"), b"four")
