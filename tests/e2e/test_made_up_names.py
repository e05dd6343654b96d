"""Names that clients make up: they cost no call to an API, leave no memory, no table entry and no label."""
import json
import os
import pathlib
import time
import unittest

from harness.router import Connection, Router, Server, answering, free_port, head, runner, until

#: Names a test makes up; `RUTTER_NAMES=100000` for the full number.
NAMES = int(os.environ.get("RUTTER_NAMES", 6_000))
#: Requests that are on their way at once on a connection; the router holds as much as one head behind the present one.
PIPELINED = 40
#: After this, what is kept for a while only (Linkerd's counters of a name that led nowhere) has gone.
PASSING_S = 30
#: What allocators and caches may hold back.
SLACK_KIB = 8 * 1024


def ask(router, requests):
    """Sends all of these on one connection, a few at a time; gives how often each status came."""
    statuses = {}
    with router.connect() as client:
        for at in range(0, len(requests), PIPELINED):
            batch = requests[at:at + PIPELINED]
            client.send("".join(batch))
            for _ in batch:
                status = client.response()["status"]
                statuses[status] = statuses.get(status, 0) + 1
    return statuses


def series(router):
    """The name and labels of every line of our page of metrics."""
    page = router.get_admin("/metrics")["body"].decode()
    return {line.rsplit(" ", 1)[0] for line in page.splitlines() if line and not line.startswith("#")}


def tables(router):
    """What the router's other tables hold."""
    bound = json.loads(router.get_admin("/bound-names.json")["body"])
    clients = json.loads(router.get_admin("/client_state.json")["body"])
    return sorted(bound), sorted(clients)


def linkerds(router):
    return set(json.loads(router.get_admin("/admin/metrics.json")["body"]))


class MadeUpNames(unittest.TestCase):
    def leave_nothing(self, router, request, status, names=NAMES):
        """`request(n)` is the n-th one of a client that makes names up."""
        asked = lambda numbers: ask(router, [request(n) for n in numbers])
        self.assertEqual(router.request("web")["status"], 200)
        self.assertEqual(asked(range(names // 4)), {status: names // 4})  # every cache is full now
        before, grown = (series(router), tables(router)), []
        for first in (names // 4, names + names // 4):
            memory = router.resident_kib()
            self.assertEqual(asked(range(first, first + names)), {status: names})
            grown.append(router.resident_kib() - memory)
            self.assertEqual((series(router), tables(router)), before)
        # What leaves something behind does so each time; an allocator may hold something back once.
        self.assertLess(min(grown), SLACK_KIB, f"KiB that have come, each time: {grown}")
        self.assertNotIn("made-up", "".join(series(router)))
        until(lambda: not any("made-up" in name for name in linkerds(router)), "Linkerd's counters forget them", PASSING_S)

    def test_names_that_nothing_knows(self):
        with Server(answering()) as server, Router(names={"web": [server.address]}) as router:
            self.leave_nothing(router, lambda n: head("GET / HTTP/1.1", f"Host: made-up-{n}"), 502)

    def test_names_that_a_rule_refuses(self):
        with Server(answering()) as server, Router(names={"web": [server.address]}, dtab="/svc => /#/io.l5d.fs | !;") as router:
            self.leave_nothing(router, lambda n: head("GET / HTTP/1.1", f"Host: made-up-{n}"), 502)

    def test_names_that_a_rule_answers(self):
        dtab = "/svc => /#/io.l5d.fs | /$/io.buoyant.http.status/404;"
        with Server(answering()) as server, Router(names={"web": [server.address]}, dtab=dtab) as router:
            self.leave_nothing(router, lambda n: head("GET / HTTP/1.1", f"Host: made-up-{n}"), 404)

    def test_addresses_that_a_request_may_not_name(self):
        with Server(answering()) as server, Router(names={"web": [server.address]}, listen="0.0.0.0") as router:
            rule = "l5d-dtab: /svc/web => /$/inet/127.1.{0}.{1}/80/made-up"
            self.leave_nothing(router, lambda n: head("GET / HTTP/1.1", "Host: web", rule.format(n // 250, n % 250)), 403)

    def test_rules_of_requests_that_lead_nowhere(self):
        with Server(answering()) as server, Router(names={"web": [server.address]}) as router:
            rule = "l5d-dtab: /svc/web => /#/io.l5d.fs/made-up-{0} | ! ; /made-up-{0} => /#/io.l5d.nobody/made-up"
            self.leave_nothing(router, lambda n: head("GET / HTTP/1.1", "Host: web", rule.format(n)), 502)

    def test_rules_of_requests_that_change_nothing(self):
        with Server(answering()) as server, Router(names={"web": [server.address]}) as router:
            self.leave_nothing(router, lambda n: head("GET / HTTP/1.1", "Host: web", f"l5d-dtab: /made-up-{n} => /nothing"), 200)

    def test_headers_queries_and_methods_are_no_labels(self):
        with Server(answering()) as server, Router(names={"web": [server.address]}) as router:
            self.leave_nothing(router, lambda n: head(f"MADE-UP-{n} /made-up-{n}?made-up={n} HTTP/1.1", "Host: web",
                                                      f"X-Made-Up-{n}: made-up", f"User-Agent: made-up-{n}"), 200, NAMES // 4)


class MadeUpNamesAndKubernetes(unittest.TestCase):
    def test_no_service_and_no_namespace_that_a_client_makes_up_is_asked_for(self):
        api = free_port()
        kubernetes = runner.K8s("127.0.0.1", api)
        self.addCleanup(kubernetes.close)
        with Server(answering()) as server:
            host, port = server.address
            kubernetes.put({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "web", "namespace": "default"},
                            "subsets": [{"addresses": [{"ip": host}], "ports": [{"name": "http", "port": port, "protocol": "TCP"}]}]})
            kubernetes.put({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
                            "spec": {"ports": [{"name": "http", "port": port, "targetPort": port}]}})
            namer = f"namers:\n- {{kind: io.l5d.k8s, host: 127.0.0.1, port: {api}}}\n"
            identifier = "identifier:\n- {kind: io.l5d.header, header: asked}\n- {kind: io.l5d.header.token}"
            with Router(identifier, dtab="/svc => /#/io.l5d.k8s/default/http;",
                        edit=lambda text: text.replace("namers:\n", namer)) as router:
                until(lambda: router.request("web").get("status") == 200, "a Service is known")
                time.sleep(1)  # what the start asks for has been asked

                def made_up(numbers):
                    for form in ("/svc/made-up-{0}", "/#/io.l5d.k8s/default/made-up-{0}/web", "/#/io.l5d.k8s/made-up-{0}/http/web"):
                        asked = [head("GET / HTTP/1.1", "Host: web", "asked: " + form.format(n)) for n in numbers]
                        self.assertEqual(ask(router, asked), {502: len(asked)}, form)

                calls, known = len(kubernetes.calls), series(router)
                made_up(range(NAMES // 10))  # every cache is full now
                memory = router.resident_kib()
                made_up(range(NAMES // 10, NAMES // 3))
                self.assertEqual(kubernetes.calls[calls:], [])
                self.assertEqual([one for one in series(router) - known if "made-up" in one], [])
                self.assertLess(router.resident_kib() - memory, SLACK_KIB)


class Cost(unittest.TestCase):
    def test_a_request_costs_the_same_whether_ten_names_are_known_or_thousands(self):
        """Best of several rounds: other work on the machine makes a round slower, never faster."""
        def microseconds(names, rules):
            with Server(answering()) as server:
                dtab = "".join(f"/svc/other-{n} => /host/other-{n};" for n in range(rules)) + "/svc => /#/io.l5d.fs;"
                with Router(names={f"n{n}": [server.address] for n in range(names)} | {"web": [server.address]}, dtab=dtab) as router:
                    batch = [head("GET / HTTP/1.1", "Host: web")] * 400
                    ask(router, batch)
                    used = lambda: sum(map(int, pathlib.Path(f"/proc/{router.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]))
                    rounds = []
                    for _ in range(5):
                        before = used()
                        ask(router, batch * 5)
                        rounds.append((used() - before) / os.sysconf("SC_CLK_TCK") / 2000 * 1e6)
                    return min(rounds)
        few, many = microseconds(10, 10), microseconds(2000, 10_000)
        self.assertLess(many, few * 1.7 + 60, f"{few:.0f} µs with 10 names, {many:.0f} µs with thousands")


if __name__ == "__main__":
    unittest.main()
