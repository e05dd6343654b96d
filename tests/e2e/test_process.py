"""Start, refusal to start, shutdown, and the limits of a process."""
import concurrent.futures
import os
import resource
import signal
import socket
import tempfile
import threading
import time
import unittest

from harness.router import CONFIG, Process, Router, Server, answering, free_port, head, listens, until


class Shutdown(unittest.TestCase):
    def test_a_request_in_flight_is_finished_before_the_process_ends(self):
        arrived, go = threading.Event(), threading.Event()

        def slow(connection):
            connection.head()
            arrived.set()
            go.wait(20)
            connection.send(head("HTTP/1.1 200 OK", "Content-Length: 4")).send("late")

        with Server(slow) as server, Router(names={"web": [server.address]}) as router:
            with router.connect() as client:
                client.get()
                self.assertTrue(arrived.wait(20), "the request reached the endpoint")
                router.terminate()
                time.sleep(0.5)  # long enough for a process that does not drain to be gone
                self.assertIsNone(router.child.poll(), "ended although a request was in flight")
                go.set()
                self.assertEqual(client.response()["body"], b"late")
            self.assertEqual(router.wait(), 0, router.output())

    def test_a_body_that_streams_is_finished_before_the_process_ends(self):
        go = threading.Event()

        def streaming(connection):
            connection.head()
            connection.send(head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + "3\r\none\r\n")
            go.wait(20)
            connection.send("3\r\ntwo\r\n0\r\n\r\n")

        with Server(streaming) as server, Router(names={"web": [server.address]}) as router:
            with router.connect() as client:
                client.get().head()
                self.assertEqual(client.chunk(), b"one")
                router.terminate()
                time.sleep(0.3)
                go.set()
                self.assertEqual((client.chunk(), client.chunk()), (b"two", b""))
            self.assertEqual(router.wait(), 0, router.output())

    def test_idle_connections_do_not_hold_up_the_end(self):
        with Server(answering()) as server, Router(names={"web": [server.address]}) as router:
            with router.connect() as idle, router.connect() as untouched:
                self.assertEqual(idle.get().response()["status"], 200)
                began = time.monotonic()
                router.terminate()
                self.assertEqual(router.wait(), 0, router.output())
                self.assertLess(time.monotonic() - began, 5)
                self.assertTrue(idle.is_closed())
                self.assertTrue(untouched.is_closed())

    def test_a_second_signal_ends_the_process_at_once(self):
        def never(connection):
            connection.head()
            time.sleep(60)

        with Server(never) as server, Router(names={"web": [server.address]}) as router:
            with router.connect() as client:
                client.get()
                time.sleep(0.3)
                router.terminate()
                time.sleep(0.5)
                self.assertIsNone(router.child.poll(), "ended although a request was in flight")
                began = time.monotonic()
                router.terminate()
                router.wait()
                self.assertLess(time.monotonic() - began, 2)

    def test_what_is_not_finished_in_time_is_cut_and_said(self):
        def never(connection):
            connection.head()
            time.sleep(60)

        limit = lambda text: text.replace("}", ", shutdownGraceMs: 700}", 1)
        with Server(never) as server, Router(names={"web": [server.address]}, edit=limit) as router:
            with router.connect() as client:
                client.get()
                time.sleep(0.3)
                began = time.monotonic()
                router.terminate()
                self.assertEqual(router.wait(), 1, router.output())
                took, said = time.monotonic() - began, router.output()
        self.assertGreater(took, 0.6)
        self.assertLess(took, 5)
        self.assertIn("1 connections were still busy after 700ms (admin.shutdownGraceMs)", said)

    def test_a_collector_that_hangs_delays_the_end_by_two_seconds_at_most(self):
        with socket.create_server(("127.0.0.1", 0)) as hanging, Server(answering()) as server:
            with traced(hanging.getsockname()[1], server) as router:
                self.assertEqual(router.request()["status"], 200)
                began = time.monotonic()
                router.terminate()
                self.assertEqual(router.wait(), 0, router.output())
                took = time.monotonic() - began
        self.assertGreater(took, 1.5, "nobody waited for the collector: does this test still reach it?")
        self.assertLess(took, 4)

    def test_the_last_spans_are_sent_before_the_process_ends(self):
        received = []

        def collector(connection):
            _, fields = connection.head()
            received.append(connection.reader.body(fields, False)[0])
            connection.send(head("HTTP/1.1 202 Accepted", "Content-Length: 0"))

        with Server(collector) as spans, Server(answering()) as server:
            with traced(spans.address[1], server) as router:
                self.assertEqual(router.request(target="/last")["status"], 200)
                # At once: a span waits longer than this for others to travel with.
                router.terminate()
                self.assertEqual(router.wait(), 0, router.output())
        self.assertIn(b"/last", b"".join(received))

    def test_sigint_is_as_sigterm(self):
        with Server(answering()) as server, Router(names={"web": [server.address]}) as router:
            router.child.send_signal(signal.SIGINT)
            self.assertEqual(router.wait(), 0, router.output())


def traced(port, server):
    """A router that sends all spans to this port by HTTP."""
    exporter = f"- {{kind: io.l5d.zipkin, host: 127.0.0.1, port: {port}, transport: http, sampleRate: 1.0}}"
    return Router(names={"web": [server.address]}, edit=lambda text: text.replace("telemetry:\n", f"telemetry:\n{exporter}\n"))


class Refusal(unittest.TestCase):
    """A process that cannot do what it was told says what was wrong, and where, and ends."""

    def refusal(self, text=None, arguments=None, env=None):
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "config.yaml")
            if text is not None:
                with open(path, "w") as file:
                    file.write(text.replace("DIRECTORY", directory))
            process = Process(arguments or ["run", path], directory, env=env)
            try:
                status = process.wait()
            finally:
                process.kill()
            self.assertNotEqual(status, 0)
            self.assertGreater(status, 0, "ended by a signal")
            self.assertNotIn("panicked", process.output())
            return process.output()

    def test_a_port_in_use_is_named(self):
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            said = self.refusal(CONFIG.format(admin=free_port(), port=port, disco="DIRECTORY", router=""))
        self.assertIn(f"127.0.0.1:{port}", said)

    def test_an_admin_port_in_use_is_named(self):
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            said = self.refusal(CONFIG.format(admin=port, port=free_port(), disco="DIRECTORY", router=""))
        self.assertIn(f"127.0.0.1:{port}", said)

    def test_a_missing_file_is_named(self):
        self.assertIn("/nowhere/config.yaml", self.refusal(arguments=["run", "/nowhere/config.yaml"]))

    def test_a_directory_is_no_configuration(self):
        self.assertIn("/tmp", self.refusal(arguments=["run", "/tmp"]))

    def test_a_wrong_key_is_shown_with_its_line(self):
        text = CONFIG.format(admin=free_port(), port=free_port(), disco="DIRECTORY", router="  lable: wrong")
        said = self.refusal(text)
        line = text.splitlines().index("  lable: wrong") + 1
        self.assertIn("lable", said)
        self.assertIn(f"{line}", said)

    def test_a_dtab_error_is_shown_with_its_place(self):
        text = CONFIG.format(admin=free_port(), port=free_port(), disco="DIRECTORY", router="").replace("/svc =>", "/svc =")
        self.assertIn("dtab", self.refusal(text))

    def test_a_node_transformer_without_an_address_names_the_variable(self):
        router = "  interpreter:\n    kind: default\n    transformers:\n    - kind: io.l5d.k8s.localnode"
        text = CONFIG.format(admin=free_port(), port=free_port(), disco="DIRECTORY", router=router)
        # A value that is not there and one that is empty are the same mistake of a manifest.
        self.assertIn("POD_IP", self.refusal(text, env={"POD_IP": "", "NODE_NAME": ""}))


class Descriptors(unittest.TestCase):
    def test_running_out_of_descriptors_costs_new_connections_only(self):
        limit = 160

        def lower():
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

        with Server(answering()) as server, Router(names={"web": [server.address]}, preexec_fn=lower) as router:
            with router.connect() as early:
                self.assertEqual(early.get().response()["status"], 200)
                crowd = []
                try:
                    for _ in range(2 * limit):
                        crowd.append(socket.create_connection(("127.0.0.1", router.port), 5))
                    time.sleep(1)
                    self.assertIsNone(router.child.poll(), router.output()[-2000:])
                    self.assertIn("cannot accept connections", router.output())
                    self.assertEqual(early.get().response()["status"], 200, "a connection from before goes on")
                    self.assertLess(cpu_seconds(router.pid, during=1), 0.5, "does not spin while it cannot accept")
                finally:
                    for connection in crowd:
                        connection.close()
            self.assertEqual(until(lambda: served(router), "requests are served again"), 200)


def served(router):
    answer = router.request()
    return answer["status"] if answer.get("status") == 200 else None


def cpu_seconds(pid, during):
    def used():
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    before = used()
    time.sleep(during)
    return used() - before


class Load(unittest.TestCase):
    def test_endpoints_that_come_and_go_cost_no_request(self):
        with Server(answering(b"a")) as first, Server(answering(b"b")) as second:
            with Router(names={"web": [first.address, second.address]}) as router:
                stop = threading.Event()

                def load(_):
                    statuses = []
                    with router.connect() as client:
                        while not stop.is_set():
                            statuses.append(client.get().response()["status"])
                    return statuses

                with concurrent.futures.ThreadPoolExecutor(8) as threads:
                    running = [threads.submit(load, n) for n in range(8)]
                    for turn in range(10):
                        time.sleep(0.1)
                        router.name("web", *([first.address], [second.address], [first.address, second.address])[turn % 3])
                    stop.set()
                    statuses = [status for future in running for status in future.result()]
        self.assertGreater(len(statuses), 50)
        self.assertEqual(set(statuses), {200})

    def test_the_port_is_free_again_when_the_process_has_ended(self):
        with Server(answering()) as server, Router(names={"web": [server.address]}) as router:
            router.terminate()
            router.wait()
            self.assertFalse(listens(router.port))


if __name__ == "__main__":
    unittest.main()
