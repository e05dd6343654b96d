"""Trace contexts of every spelling, over two hops: taken, continued by both routers, and passed on to the application."""
import os
import pathlib
import tempfile
import unittest

from harness.router import Collector, Router, Server, answering, head, runner, until

#: 128 bits, as W3C has them; Linkerd's own header carries the lower half as its trace id and the upper half behind the flags.
TRACE, SPAN = "463ac35c9f6413ad48485a3953bb6124", "a2fb4a1d1a96d312"


class Hops:
    """Two routers, one behind the other, and what the application and the far router's own client were told."""

    def __init__(self, test, router=""):
        self.seen = []

        def application(connection):
            while True:
                _, fields = connection.head()
                self.seen.append({name.lower(): value for name, value in fields})
                connection.send(head("HTTP/1.1 200 OK", "Content-Length: 0"))

        server = test.enterContext(Server(application))
        far = test.enterContext(Router(router, names={"web": [server.address]}))
        self.near = test.enterContext(Router(router, names={"web": [("127.0.0.1", far.port)]}))

    def ask(self, *headers):
        """What the application got."""
        answer = self.near.request("web", headers=[list(one) for one in headers])
        assert answer.get("status") == 200, answer
        return self.seen[-1]


class Renamed(unittest.TestCase):
    def test_a_collector_whose_name_leads_elsewhere_later_is_found_there(self):
        """The name is in a file of hosts that only this router sees."""
        hosts = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory())) / "hosts"
        hosts.write_text("127.0.0.2 collector\n")
        old = self.enterContext(Collector("127.0.0.2"))
        new = self.enterContext(Collector("127.0.0.3", old.port))
        root = [] if os.geteuid() == 0 else ["--map-root-user"]
        alone = ["unshare", *root, "--mount", "sh", "-ec", 'mount --bind "$1" /etc/hosts; shift; exec "$@"', "sh", hosts]
        edit = lambda text: text.replace("telemetry:\n", f"telemetry:\n{old.exporter('collector')}\n")
        server = self.enterContext(Server(answering()))
        router = self.enterContext(Router(names={"web": [server.address]}, edit=edit, within=alone))
        for collector, other in ((old, new), (new, old)):
            self.assertEqual(router.request("web").get("status"), 200)
            until(lambda: len(collector.spans) >= 2, "the request's spans are there")
            self.assertEqual(other.spans, [])
            old.spans.clear()
            hosts.write_text("127.0.0.3 collector\n")


class TwoHops(unittest.TestCase):
    def ids(self, told):
        return runner.trace_ids(told["l5d-ctx-trace"])

    def continued(self, told, sampled=None):
        """Linkerd's own spelling continues the trace: same trace, a span of its own."""
        ids = self.ids(told)
        self.assertEqual(ids["trace"], TRACE[16:], told)
        self.assertNotIn(ids["span"], (SPAN, TRACE[16:]))
        self.assertEqual(told["l5d-reqid"], TRACE[16:])
        return ids

    def test_traceparent(self):
        for flags in ("01", "00"):
            with self.subTest(flags):
                told = Hops(self).ask(("traceparent", f"00-{TRACE}-{SPAN}-{flags}"), ("tracestate", "vendor=1,other=2"))
                ids = self.continued(told)
                self.assertEqual(told["traceparent"], f"00-{TRACE}-{ids['span']}-{flags}")
                self.assertEqual(told["tracestate"], "vendor=1,other=2")

    def test_b3_in_several_headers(self):
        for sampled in ("1", "0"):
            with self.subTest(sampled):
                told = Hops(self).ask(("X-B3-TraceId", TRACE), ("X-B3-SpanId", SPAN), ("X-B3-ParentSpanId", "05e3ac9a4f6e3b90"), ("X-B3-Sampled", sampled))
                ids = self.continued(told)
                self.assertEqual((told["x-b3-traceid"], told["x-b3-spanid"], told["x-b3-sampled"]), (TRACE, ids["span"], sampled))
                self.assertEqual(told["x-b3-parentspanid"], ids["parent"])

    def test_b3_in_one_header(self):
        for decision in ("1", "0", "d"):
            with self.subTest(decision):
                told = Hops(self).ask(("b3", f"{TRACE}-{SPAN}-{decision}-05e3ac9a4f6e3b90"))
                ids = self.continued(told)
                self.assertEqual(told["b3"], f"{TRACE}-{ids['span']}-{decision}-{ids['parent']}")

    def test_linkerds_own_header(self):
        hops = Hops(self)
        first = hops.ask()
        given = first["l5d-ctx-trace"]
        told = hops.ask(("l5d-ctx-trace", given))
        before, after = runner.trace_ids(given), self.ids(told)
        self.assertEqual(after["trace"], before["trace"])
        # Two spans a router lie between: its server's and its client's.
        self.assertNotIn(after["parent"], (before["span"], after["span"]))
        self.assertEqual(told["l5d-reqid"], before["trace"])

    def test_only_the_spellings_that_came_are_passed_on(self):
        hops = Hops(self)
        for headers, wanted in (((), set()), ((("traceparent", f"00-{TRACE}-{SPAN}-01"),), {"traceparent"}), ((("b3", f"{TRACE}-{SPAN}-1"),), {"b3"})):
            told = hops.ask(*headers)
            there = {name for name in told if name in ("traceparent", "b3") or name.startswith("x-b3")}
            self.assertEqual(there, wanted)

    def test_what_cannot_be_read_begins_a_trace_of_its_own_and_costs_nothing(self):
        hops = Hops(self)
        for name, value in (("traceparent", "00-zz"), ("traceparent", f"ff-{TRACE}-{SPAN}-01"), ("b3", "-"), ("b3", f"{TRACE}-{SPAN}-x"),
                            ("X-B3-TraceId", "not hexadecimal"), ("l5d-ctx-trace", "AAAA"), ("l5d-ctx-trace", "!!!"), ("traceparent", "x" * 4000)):
            told = hops.ask((name, value))
            ids = self.ids(told)
            self.assertNotEqual(ids["trace"], TRACE[16:], (name, value))
            self.assertEqual(told["l5d-reqid"], ids["trace"])

    def test_the_zipkin_propagator_speaks_b3_alone(self):
        told = Hops(self, "tracePropagator: {kind: io.l5d.zipkin}").ask(
            ("X-B3-TraceId", TRACE), ("X-B3-SpanId", SPAN), ("X-B3-Sampled", "1"))
        self.assertEqual(told["x-b3-traceid"], TRACE)
        self.assertNotEqual(told["x-b3-spanid"], SPAN)
        self.assertNotIn("l5d-ctx-trace", told)


if __name__ == "__main__":
    unittest.main()
