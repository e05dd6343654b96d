"""The configuration file changes while requests go on: what is valid comes into force, and nothing is lost."""
import concurrent.futures
import json
import os
import random
import re
import signal
import socket
import threading
import unittest

from harness.router import CONFIG, Router, Server, answering, free_port, head, listens, runner, until

#: How often the file is exchanged under load; RUTTER_RELOADS asks for another number.
SWAPS = int(os.environ.get("RUTTER_RELOADS", "100"))


class Reloading(Router):
    """A router whose file is put in place in the way that Kubernetes does it with a mounted ConfigMap."""

    def __init__(self, *args, **kwargs):
        self.versions = 0
        super().__init__(*args, **kwargs)

    def text(self, router="", **other):
        values = {"admin": self.admin, "port": self.port, "disco": self.directory / "disco"} | other
        return CONFIG.format(router="\n".join("  " + line for line in router.strip("\n").splitlines()), **values)

    def put(self, text):
        """Exchanges the whole folder behind `..data`, as the kubelet does."""
        self.versions += 1
        version = self.directory / f"..version-{self.versions}"
        version.mkdir()
        (version / "config.yaml").write_text(text)
        link = self.directory / "..data_tmp"
        link.symlink_to(version.name)
        link.rename(self.directory / "..data")
        if self.versions == 1:
            own = self.directory / "config.new"
            own.symlink_to("..data/config.yaml")
            own.rename(self.config)
        else:
            old = self.directory / f"..version-{self.versions - 1}"
            (old / "config.yaml").unlink()
            old.rmdir()

    def ready(self):
        super().ready()
        # The page is there a moment before this counter is on it.
        until(lambda: self.reloads("ok") is not None, "readings of the file are counted")

    def metric(self, name):
        page = self.get_admin("/metrics")["body"].decode()
        values = [float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(name)]
        return sum(values) if values else None

    def reloads(self, result):
        return self.metric(f'rutter_config_reloads_total{{result="{result}"}}')

    def readiness(self):
        answer = self.get_admin("/ready")
        return answer["status"], json.loads(answer["body"])["conditions"]

    def change(self, text, result="ok"):
        """Puts the text in place and waits until it was looked at."""
        before = self.reloads(result)
        self.put(text)
        until(lambda: self.reloads(result) > before, f"the change is {result}:\n{self.output()[-2000:]}")


def echoing(connection):
    """Answers with the head that came."""
    while True:
        first, fields = connection.head()
        connection.reader.body(fields, False)
        body = "\n".join([first] + [f"{name}: {value}" for name, value in fields]).encode()
        connection.send(head("HTTP/1.1 200 OK", f"Content-Length: {len(body)}")).send(body)


class Change(unittest.TestCase):
    def setUp(self):
        self.server = self.enterContext(Server(answering(b"one")))
        self.other = self.enterContext(Server(answering(b"two")))
        names = {"web": [self.server.address], "web2": [self.other.address]}
        self.router = self.enterContext(Reloading(names=names))

    def dtab(self, dtab):
        return self.router.text().replace("/svc => /#/io.l5d.fs;", dtab)

    def body(self, **request):
        return self.router.request(**request)["body"]

    def test_a_dtab_that_changes_is_in_force_for_open_connections_too(self):
        with self.router.connect() as client:
            self.assertEqual(client.get().response()["body"], b"one")
            self.router.change(self.dtab("/svc => /#/io.l5d.fs; /svc/web => /#/io.l5d.fs/web2;"))
            self.assertEqual(client.get().response()["body"], b"two")
            self.assertEqual(self.body(), b"two")
        self.assertEqual(self.router.metric("rutter_dtab_apply_seconds_count"), 1)
        self.assertIn(b"web2", self.router.get_admin("/config.json")["body"])
        bound = self.router.metric('rutter_delegations_total{result="bound"}')
        self.assertGreaterEqual(bound, 2, "under the old dtab and under the new one")
        self.router.change(self.dtab("/svc => /#/io.l5d.fs;") + "  client: {requestAttemptTimeoutMs: 20000}\n")
        self.assertEqual(self.body(), b"one")
        self.assertEqual(self.router.metric("rutter_dtab_apply_seconds_count"), 2)
        self.assertGreater(self.router.metric('rutter_delegations_total{result="bound"}'), bound)
        versions = [line for line in self.router.get_admin("/metrics")["body"].decode().splitlines() if line.startswith("rutter_dtab_version_info{")]
        self.assertEqual(len(versions), 1, versions)

    def test_a_file_written_in_place_and_one_renamed_over_it_are_taken(self):
        before = self.router.reloads("ok")
        self.router.config.write_text(self.dtab("/svc => /#/io.l5d.fs/web2;"))
        until(lambda: self.router.reloads("ok") > before, "written in place")
        self.assertEqual(self.body(), b"two")
        new = self.router.directory / "new.yaml"
        new.write_text(self.router.text())
        new.rename(self.router.config)
        until(lambda: self.router.reloads("ok") > before + 1, "renamed")
        self.assertEqual(self.body(), b"one")

    def test_what_is_not_valid_changes_nothing_and_is_said_in_three_places(self):
        since = self.router.metric("rutter_config_last_reload_success_timestamp_seconds")
        self.assertEqual(self.router.metric("rutter_config_last_reload_successful"), 1)
        self.router.change(self.router.text("lable: wrong"), "rejected")
        self.assertEqual(self.body(), b"one")
        status, conditions = self.router.readiness()
        self.assertEqual(status, 200, "still ready")
        self.assertIn("lable", conditions["configuration"]["detail"])
        self.assertIn("did you mean `label`?", self.router.output())
        self.assertEqual(self.router.metric("rutter_config_last_reload_successful"), 0)
        self.assertEqual(self.router.metric("rutter_config_last_reload_success_timestamp_seconds"), since)
        # Back to what is in force: that is a success, though nothing changes.
        self.router.change(self.router.text())
        self.assertNotIn("lable", self.router.readiness()[1]["configuration"]["detail"])
        self.assertEqual(self.router.metric("rutter_config_last_reload_successful"), 1)

    def test_a_file_that_is_gone_changes_nothing(self):
        before = self.router.reloads("rejected")
        self.router.config.unlink()
        until(lambda: self.router.reloads("rejected") > before, "the file is missed")
        self.assertEqual(self.body(), b"one")
        self.assertEqual(self.router.readiness()[0], 200)

    def test_a_port_that_is_taken_changes_nothing(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            self.router.change(self.router.text(f"servers:\n- {{port: {self.router.port}}}\n- {{port: {port}}}")
                               .replace(f"  servers:\n  - {{ip: 127.0.0.1, port: {self.router.port}}}\n", ""), "rejected")
            self.assertIn(f"127.0.0.1:{port}", self.router.output())
        self.assertEqual(self.body(), b"one")

    def test_listeners_come_and_go(self):
        more, old = free_port(), self.router.port
        with self.router.connect() as idle:
            self.assertEqual(idle.get().response()["body"], b"one")
            self.router.change(self.router.text().replace(f"port: {old}", f"port: {more}"))
            until(lambda: listens(more) and not listens(old), "the listener has moved")
            self.assertTrue(idle.is_closed(), "a connection of the old listener is closed")
        answer = runner.http_call(("127.0.0.1", more), {"host": "web", "timeout_ms": 5000})
        self.assertEqual(answer["body"], b"one")

    def test_a_kubernetes_api_that_is_new_and_away_does_not_make_it_unready(self):
        away = f"- {{kind: io.l5d.k8s, host: 127.0.0.1, port: {free_port()}}}\n"
        self.router.change(self.router.text().replace("namers:\n", "namers:\n" + away))
        name = until(lambda: next((name for name in self.router.readiness()[1] if name.startswith("kubernetes")), None), "the API is on /ready")
        status, conditions = self.router.readiness()
        self.assertEqual(status, 200, "it has served before")
        self.assertIn("new with a changed configuration", conditions[name]["detail"])
        self.assertEqual(self.body(), b"one")

    def test_what_needs_a_restart_is_said_by_its_key(self):
        self.router.change(self.router.text(admin=free_port()) + "workers: 1\n")
        for key in ("admin.port", "workers"):
            self.assertIn(key, self.router.output())
        self.assertEqual(self.router.get_admin("/admin/ping")["status"], 200, "where it was")

    def test_sighup_reads_the_file_again(self):
        before = self.router.reloads("ok")
        self.router.child.send_signal(signal.SIGHUP)
        until(lambda: self.router.reloads("ok") > before, "SIGHUP was heard")
        self.assertEqual(self.body(), b"one")

    def test_sighup_begins_the_access_log_anew_where_that_is_the_policy(self):
        log = self.router.directory / "access.log"
        self.router.change(self.router.text(f"httpAccessLog: {log}\nhttpAccessLogRollPolicy: sighup"))
        self.body(target="/before")
        until(lambda: "/before" in log.read_text(), "the line is written")
        log.rename(log.with_suffix(".old"))
        self.router.child.send_signal(signal.SIGHUP)
        until(log.exists, "a new file")
        self.body(target="/after")
        until(lambda: "/after" in log.read_text(), "the line is in the new file")
        self.assertNotIn("/after", log.with_suffix(".old").read_text())

    def test_a_namer_that_changes_is_exchanged_and_pages_follow(self):
        folder = self.router.directory / "elsewhere"
        folder.mkdir()
        (folder / "web").write_text("%s %s\n" % self.other.address)
        self.router.change(self.router.text(disco=folder))
        self.assertEqual(self.body(), b"two")
        self.assertIn(b"elsewhere", self.router.get_admin("/config.json")["body"])

    def test_exporters_come_and_go(self):
        with socket.create_server(("127.0.0.1", 0)) as collector:
            port = collector.getsockname()[1]
            exporter = f"telemetry:\n- {{kind: io.l5d.zipkin, host: 127.0.0.1, port: {port}, transport: http, sampleRate: 1.0}}\n"
            text = re.sub(r"telemetry:\n(- .*\n)+", exporter, self.router.text())
            self.router.change(text)
            self.assertEqual(self.router.get_admin("/admin/metrics/prometheus")["status"], 404)
            self.assertEqual(self.body(), b"one")
            collector.settimeout(20)
            sent, _ = collector.accept()
            with sent:
                self.assertIn(b"POST /api/v2/spans", sent.recv(65536))
        self.router.change(self.router.text())
        self.assertEqual(self.router.get_admin("/admin/metrics/prometheus")["status"], 200)


class UnderLoad(unittest.TestCase):
    def test_random_changes_under_load_lose_no_request(self):
        seed = int(os.environ.get("RUTTER_SEED", random.randrange(1 << 32)))
        chance = random.Random(seed)
        with Server(echoing) as server, Reloading(names={"web": [server.address]}) as router:
            stop = threading.Event()
            with concurrent.futures.ThreadPoolExecutor(8) as threads:
                running = [threads.submit(load, router.port, stop, n) for n in range(8)]
                try:
                    swaps = [swap(router, chance) for _ in range(SWAPS)]
                    # The last one is valid, and is in force in the end.
                    last = "x-at-last"
                    router.change(router.text().replace(f"port: {router.port}", f"port: {router.port}, timestampHeader: {last}"))
                    self.assertIn(last.encode(), router.request()["body"].lower())
                finally:
                    stop.set()
                results = [future.result() for future in running]
            self.assertEqual(server.errors, [])
            rejected = swaps.count("rejected")
            self.assertEqual((router.reloads("rejected"), router.reloads("ok")), (rejected, SWAPS - rejected + 1), f"seed {seed}")
        failures = [failure for _, failures in results for failure in failures]
        self.assertEqual(failures, [], f"seed {seed}")
        served = sum(count for count, _ in results)
        self.assertGreater(served, SWAPS, f"seed {seed}")
        print(f"{served} requests through {SWAPS} changes, {rejected} of them not valid; none lost (seed {seed})")


def swap(router, chance):
    """Puts one random text in place; gives what became of it."""
    kind = chance.choice(["dtab", "server", "client", "service", "namer", "router", "bad key", "bad dtab", "bad yaml", "empty"])
    text, n = router.text(), chance.randrange(10 ** 9)
    own = f"port: {router.port}"
    text = {
        "dtab": lambda: text.replace("/svc => /#/io.l5d.fs;", f"/svc => /#/io.l5d.fs; /other-{n} => /svc;"),
        "server": lambda: text.replace(own, f"{own}, timestampHeader: x-{n}"),
        "client": lambda: text + f"  client: {{requestAttemptTimeoutMs: {30000 + n % 1000}}}\n",
        "service": lambda: text + f"  service: {{totalTimeoutMs: {30000 + n % 1000}, retries: {{budget: {{minRetriesPerSec: {1 + n % 50}}}}}}}\n",
        "namer": lambda: text.replace("namers:\n", f"namers:\n- {{kind: io.l5d.fs, prefix: /more-{n}, rootDir: {router.directory / 'disco'}}}\n"),
        "router": lambda: text + f"- protocol: http\n  label: more-{n}\n  servers: [{{ip: 127.0.0.1, port: {free_port()}}}]\n",
        "bad key": lambda: text.replace("label: out", f"label: out\n  wrong-{n}: 1"),
        "bad dtab": lambda: text.replace("/svc =>", f"/svc-{n} ="),
        "bad yaml": lambda: text + f"  : [{n}\n",
        "empty": lambda: f"# {n}\n",
    }[kind]()
    result = "rejected" if kind.startswith("bad") or kind == "empty" else "ok"
    router.change(text, result)
    return result


def load(port, stop, n):
    """Requests one after the other until told to stop: how many were answered rightly, and what went wrong."""
    count, failures, connection = 0, [], None
    keep, post = n % 2 == 0, n % 4 < 2
    while not stop.is_set():
        count += 1
        body = f"{n}-{count}".encode() * 50
        try:
            if connection is None:
                connection = socket.create_connection(("127.0.0.1", port), 20)
                reader = runner.Reader(connection)
            lines = [f"{'POST' if post else 'GET'} /{n}/{count} HTTP/1.1", "Host: web"]
            lines += [f"Content-Length: {len(body)}"] if post else []
            lines += [] if keep else ["Connection: close"]
            connection.sendall(head(*lines).encode() + (body if post else b""))
            answer = runner.read_response(reader, "GET")
            if answer["status"] != 200 or f"/{n}/{count} ".encode() not in answer["body"]:
                failures.append((n, count, answer["status"], answer["body"][:300]))
            closed = any(name.lower() == "connection" and value == "close" for name, value in answer["headers"])
            if closed and keep:
                failures.append((n, count, "closed"))
        except (OSError, runner.Closed) as error:
            failures.append((n, count, repr(error)))
            closed = True
        if closed or not keep:
            if connection is not None:
                connection.close()
            connection = None
    return count, failures


if __name__ == "__main__":
    unittest.main()
