"""Telemeters beside Prometheus and Zipkin, in one running router."""
import json
import re
import socket
import time
import unittest

from harness.router import Router, Server, answering, until

TELEMETRY = """telemetry:
- kind: io.l5d.influxdb
- kind: io.l5d.statsd
  prefix: mesh
  hostname: localhost
  port: %d
  gaugeIntervalMs: 100
  sampleRate: 1.0
- kind: io.l5d.tracelog
  sampleRate: 1.0
  level: WARNING
- kind: io.l5d.recentRequests
  sampleRate: 1.0
  capacity: 2
"""


class Telemeters(unittest.TestCase):
    def setUp(self):
        self.statsd = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.statsd.bind(("127.0.0.1", 0))
        self.statsd.settimeout(10)
        self.lines = []
        self.addCleanup(self.statsd.close)
        server = Server(answering())
        self.enterContext(server)
        telemetry = TELEMETRY % self.statsd.getsockname()[1]
        edit = lambda text: re.sub(r"(?s)^telemetry:.*?^namers:", telemetry + "namers:", text, flags=re.M)
        router = Router(names={"web": [server.address]}, edit=edit)
        self.router = self.enterContext(router)

    def pushed(self, pattern, deadline_s=10):
        """Waits for such a line."""
        end = time.monotonic() + deadline_s
        while not any(re.fullmatch(pattern, line) for line in self.lines):
            self.assertLess(time.monotonic(), end, pattern)
            self.lines += self.statsd.recv(65536).decode().split("\n")

    def test_statsd_gets_counters_gauges_and_values(self):
        self.pushed(r"mesh\.jvm\.uptime:[0-9.]+\|g")
        for _ in range(3):
            self.assertEqual(self.router.request()["status"], 200)
        self.pushed(r"mesh\.rt\.out\.service\.svc\.web\.request_latency_ms:[0-9.]+\|ms")
        counter = r"mesh\.rt\.out\.service\.svc\.web\.requests:(\d+)\|c"
        total = lambda: sum(int(found[1]) for line in self.lines if (found := re.fullmatch(counter, line)))
        while total() < 3:
            self.lines += self.statsd.recv(65536).decode().split("\n")
        # The last ones come although the router ends before the next interval.
        self.router.request()
        self.router.terminate()
        while total() < 4:
            self.lines += self.statsd.recv(65536).decode().split("\n")
        self.assertEqual(total(), 4)

    def test_influxdb_has_a_page(self):
        self.router.request()
        answer = self.router.get_admin("/admin/metrics/influxdb")
        self.assertEqual(answer["status"], 200)
        text = answer["body"].decode()
        self.assertRegex(text, r"(?m)^rt:service,host=[^ ,]+,rt=out,service=svc/web .*\brequests=1\b")
        for line in text.splitlines():
            self.assertRegex(line, r"^[\w:]+(,\w+=(\\.|[^ ,=\\])+)+ ((\\.|[^ ,=\\])+=-?[0-9.e+-]+,?)+$")

    def test_tracelog_logs_spans_with_its_level(self):
        self.router.request()
        spans = lambda: [line for line in map(json.loads, self.router.output().splitlines()) if line["target"] == "io.l5d.tracelog"]
        until(lambda: len(spans()) == 2, "a server span and a client span are logged")
        self.assertEqual({line["level"] for line in spans()}, {"WARN"})
        self.assertEqual({line["kind"] for line in spans()}, {"server", "client"})
        self.assertEqual(len({line["trace"] for line in spans()}), 1)

    def test_recent_requests_keeps_as_many_as_it_is_told(self):
        for _ in range(4):
            self.router.request()
        rows = lambda: json.loads(self.router.get_admin("/requests.json")["body"])["requests"]
        until(lambda: len(rows()) == 2, "two requests are shown")
        row = rows()[0]
        self.assertEqual((row["router"], row["logical"], row["concrete"], row["status"]), ("out", "/svc/web", "/#/io.l5d.fs/web", 200))
        self.assertTrue(row["source"] and row["server"] and row["destination"] and row["timestamp"])


if __name__ == "__main__":
    unittest.main()
