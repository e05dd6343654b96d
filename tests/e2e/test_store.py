"""The store as a process: what survives, who may, how it ends; and a router that binds its names by asking it."""
import concurrent.futures
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import unittest

from harness.router import Process, Router, Server, answering, free_port, listens, runner, until

#: How often the store is restarted under load; RUTTER_STORE_RESTARTS asks for another number.
RESTARTS = int(os.environ.get("RUTTER_STORE_RESTARTS", "5"))

STORE = """\
admin: {{ip: 127.0.0.1, port: {admin}}}
storage: {storage}
namers:
- {{kind: io.l5d.fs, rootDir: {disco}}}
interfaces:
- {{kind: io.l5d.httpController, ip: 127.0.0.1, port: {port}}}
"""

ROUTER = """\
admin: {{ip: 127.0.0.1, port: {admin}}}
routers:
- protocol: http
  label: out
  interpreter:
    kind: io.l5d.namerd.http
    dst: /$/inet/127.0.0.1/{store}
    retry: {{baseSeconds: 1, maxSeconds: 1}}
  bindingTimeoutMs: 15000
  servers:
  - {{ip: 127.0.0.1, port: {port}}}
"""


class Store:
    """`rutter namerd` with a file; use as a context manager. It can be stopped and started again, at the same port."""

    def __init__(self, storage=None):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="rutter-store-"))
        self.disco = self.directory / "disco"
        self.disco.mkdir()
        self.port, self.admin = free_port(), free_port()
        self.config = self.directory / "namerd.yaml"
        storage = storage or f"{{kind: file, path: '{self.directory}/dtabs.redb'}}"
        self.config.write_text(STORE.format(admin=self.admin, port=self.port, disco=self.disco, storage=storage))
        self.process = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process:
            self.process.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self):
        self.process = Process(["namerd", self.config], self.directory, name="namerd")

        def answers():
            if self.process.child.poll() is not None:
                raise AssertionError(f"ended at start:\n{self.process.output()[-2000:]}")
            return listens(self.port) and listens(self.admin)
        until(answers, "the store is up")
        return self

    def stop(self, how=signal.SIGTERM):
        self.process.child.send_signal(how)
        return self.process.wait()

    def name(self, name, *ports):
        (self.disco / name).write_text("".join(f"127.0.0.1 {port}\n" for port in ports))

    def ask(self, target, **request):
        return runner.http_call(("127.0.0.1", self.port), {"target": target, "timeout_ms": 20000, **request})

    def put(self, dtab, namespace="default", **headers):
        fields = [["Content-Type", "application/dtab"], *headers.items()]
        answer = self.ask(f"/api/1/dtabs/{namespace}", method="PUT", headers=fields, body=dtab)
        assert answer["status"] == 204, answer


def command(*arguments, env=None, text=None):
    """A command of the program: its exit status, stdout, stderr."""
    from harness.needs import program
    done = subprocess.run([os.environ.get("RUTTER") or str(program()), *map(str, arguments)], input=text, text=True,
                          capture_output=True, timeout=60, env={**os.environ, **(env or {})})
    return done.returncode, done.stdout, done.stderr


class TheProcess(unittest.TestCase):
    def test_everything_is_there_after_a_kill(self):
        with Store() as store:
            store.start()
            for version in range(1, 21):
                store.put(f"/svc => /v/{version} ;")
            store.stop(signal.SIGKILL)
            store.start()
            answer = store.ask("/api/1/dtabs/default", headers=[["Accept", "application/dtab"]])
            self.assertEqual(answer["body"], b"/svc=>/v/20\n")
            page = runner.http_call(("127.0.0.1", store.admin), {"target": "/", "timeout_ms": 5000})
            self.assertIn(b"<caption>Namespaces</caption>", page["body"])
            self.assertIn(b'href="/dtab/default"', page["body"])
            self.assertEqual(runner.http_call(("127.0.0.1", store.admin), {"target": "/admin/ping"})["body"], b"pong")

    def test_it_ends_at_once_with_streams_open(self):
        with Store() as store:
            store.start().put("/svc => /a ;")
            streams = [runner.socket.create_connection(("127.0.0.1", store.port)) for _ in range(20)]
            for stream in streams:
                stream.sendall(b"GET /api/1/dtabs/default?watch=true HTTP/1.1\r\nHost: x\r\n\r\n")
                self.assertIn(b"200", stream.recv(4096))
            began = time.monotonic()
            self.assertEqual(store.stop(), 0)
            self.assertLess(time.monotonic() - began, 5)
            for stream in streams:
                stream.close()

    def test_on_another_address_than_loopback_it_must_be_told_that_everybody_may(self):
        with Store() as store:
            text = store.config.read_text().replace("ip: 127.0.0.1, port: %d}\n" % store.port, "ip: 0.0.0.0, port: %d}\n" % store.port)
            store.config.write_text(text)
            status, _, said = command("config", "check", store.config)
            self.assertEqual(status, 1, said)
            self.assertIn("allowAnonymous: true", said)
            status, _, said = command("namerd", store.config)
            self.assertEqual(status, 1, said)
            store.config.write_text(text.replace("ip: 0.0.0.0, ", "ip: 0.0.0.0, allowAnonymous: true, "))
            self.assertEqual(command("config", "check", store.config)[0], 0)

    def test_two_hundred_watchers_see_a_change_and_one_that_does_not_read_keeps_nobody(self):
        with Store() as store:
            store.start().put("/svc => /0 ;")
            watchers = [runner.socket.create_connection(("127.0.0.1", store.port), 20) for _ in range(201)]
            for watcher in watchers:
                watcher.sendall(b"GET /api/1/dtabs/default?watch=true HTTP/1.1\r\nHost: x\r\nAccept: text/plain\r\n\r\n")
            def read_until(watcher, mark):
                data = b""
                while mark not in data:
                    more = watcher.recv(1 << 20)
                    assert more, data[-200:]
                    data += more
                return data
            *quick, slow = watchers
            for watcher in quick:
                read_until(watcher, b"/svc=>/0")
            large = "".join(f"/svc/{'x' * 200}{i} => /a ;" for i in range(2000))
            for version in range(1, 41):  # 16 MB in all: more than the socket of the slow one takes
                store.put(f"{large} /svc => /{version} ;")
            store.put("/svc => /last ;")
            with concurrent.futures.ThreadPoolExecutor(16) as pool:
                began = time.monotonic()
                list(pool.map(lambda watcher: read_until(watcher, b"/svc=>/last"), quick))
                self.assertLess(time.monotonic() - began, 20)
            data = read_until(slow, b"/svc=>/last")
            self.assertLess(data.count(b"/svc=>/"), 40, "the slow one was spared most of what came between")
            for watcher in watchers:
                watcher.close()


class Namerctl(unittest.TestCase):
    def test_it_prints_what_namerctl_prints(self):
        with Store() as store:
            store.start()
            url = f"http://127.0.0.1:{store.port}"
            ctl = lambda *arguments, **more: command("namerctl", "dtab", *arguments, env={"NAMERCTL_BASE_URL": url}, **more)
            self.assertEqual(ctl("create", "default", "-", text="/svc => /#/io.l5d.fs ;\n/svc/world => /svc/a ;")[:2], (0, "Created default\n"))
            self.assertEqual(ctl("list")[:2], (0, "default\n"))
            shown = "# version AAAAAAAAAAE=\n/svc        => /#/io.l5d.fs ;\n/svc/world  => /svc/a ;\n"
            self.assertEqual(ctl("get", "default"), (0, shown, ""))
            self.assertEqual(ctl("get", "default", "--json")[1],
                             '{"version":"AAAAAAAAAAE=","dtab":[{"prefix":"/svc","dst":"/#/io.l5d.fs"},{"prefix":"/svc/world","dst":"/svc/a"}]}\n')
            self.assertEqual(ctl("update", "default", "-", text=shown), (0, "Updated default\n", ""))
            status, out, said = ctl("up", "default", "-", text=shown)
            self.assertEqual((status, out), (4, ""))
            self.assertIn("412", said)
            self.assertIn("has version AAAAAAAAAAI= now", said)
            status, out, said = ctl("update", "default", "-", "--force", text=shown)
            self.assertEqual((status, out), (0, "Updated default\n"))
            self.assertIn("overwritten", said)
            status, out, said = ctl("create", "default", "-", text="/a => /b")
            self.assertEqual((status, out), (4, ""))
            status, _, said = ctl("create", "other", "-", text="/a = /b")
            self.assertEqual(status, 1)
            self.assertIn("'>' expected", said)
            self.assertEqual(ctl("delete", "default"), (0, "Deleted default\n", ""))
            self.assertEqual(ctl("get", "default")[0], 3)
            store.stop()
            self.assertEqual(ctl("list")[0], 5)


class OnStore(Router):
    """A router that binds its names by asking a store. `edit` changes its configuration."""

    def __init__(self, store, edit=lambda text: text):
        self.ports = free_port(), free_port()
        text = edit(ROUTER.format(admin=self.ports[0], port=self.ports[1], store=store.port))
        super().__init__(edit=lambda _: text)

    def ready(self):
        self.admin, self.port = self.ports
        super().ready()


class SafeChanges(unittest.TestCase):
    def test_a_write_is_in_force_when_it_is_answered_and_a_router_that_lags_is_named(self):
        with Store() as store, Server(answering(b"one")) as one, Server(answering(b"two")) as two:
            store.name("one", one.address[1])
            store.name("two", two.address[1])
            store.start()
            env = {"RUTTER_BASE_URL": f"http://127.0.0.1:{store.port}", "LANG": "C", "LC_ALL": "C", "USER": "ops"}
            dtab = lambda *arguments, **more: command("dtab", *arguments, env=env, **more)
            text = "/svc/web => /#/io.l5d.fs/%s ;\n"
            self.assertEqual(dtab("create", "default", "-", text=text % "one")[0], 0)
            with OnStore(store) as router:
                self.assertEqual(router.request("web")["body"], b"one", router.output()[-2000:])
                reported = lambda: json.loads(store.ask("/api/rutter/1/routers")["body"])["routers"]
                until(lambda: reported() and reported()[0].get("number") == 1, "the router reports", 30)
                for target in ["two", "one", "two", "one"]:
                    status, out, said = dtab("put", "default", "-", text=text % target)
                    self.assertEqual(status, 0, said)
                    self.assertIn("1/1 applied", out)
                    self.assertEqual(router.request("web")["body"], target.encode(), "at once")

                def rated():
                    names = json.loads(store.ask("/api/rutter/1/dtabs/default/names")["body"])["names"]
                    return any(name["name"] == "/svc/web" and (name["rps"] or 0) > 0 for name in names)
                until(rated, "the name's rate is reported", 40)
                status, out, said = dtab("plan", "default", "-", "--fail-on", "break", text="/svc/other => /#/io.l5d.fs/one ;")
                self.assertEqual(status, 7, said)
                self.assertRegex(out, r"/svc/web +[0-9.]+ +/#/io.l5d.fs/one \(1\) +no match +\[FAIL\] would break")
                status, _, said = dtab("put", "default", "-", text="/svc/other => /#/io.l5d.fs/one ;")
                self.assertEqual(status, 7, said)
                self.assertEqual(router.request("web")["body"], b"one")

                router.child.send_signal(signal.SIGSTOP)
                try:
                    status, out, said = dtab("put", "default", "-", "--wait", "500ms", text=text % "two")
                finally:
                    router.child.send_signal(signal.SIGCONT)
                self.assertEqual(status, 6, out + said)
                self.assertIn("/out", said)
                number = json.loads(store.ask("/api/rutter/1/dtabs/default")["body"])["number"]
                acks = json.loads(store.ask(f"/api/rutter/1/dtabs/default/acks?number={number}&wait=30s")["body"])["acks"]
                self.assertEqual([ack["applied"] for ack in acks], [True], acks)
                self.assertEqual(router.request("web")["body"], b"two")

    def test_a_change_that_nobody_confirms_ends_though_the_store_was_killed_meanwhile(self):
        with Store() as store:
            store.start()
            env = {"RUTTER_BASE_URL": f"http://127.0.0.1:{store.port}"}
            dtab = lambda *arguments, **more: command("dtab", *arguments, env=env, **more)
            self.assertEqual(dtab("create", "default", "-", text="/svc => /a ;")[0], 0)
            self.assertEqual(dtab("put", "default", "-", "--confirm-within", "2s", text="/svc => /b ;")[0], 0)
            store.stop(signal.SIGKILL)
            store.start()
            until(lambda: b'"/svc => /a ;' in store.ask("/api/rutter/1/dtabs/default")["body"], "the change ends", 30)
            _, out, _ = dtab("history", "default")
            self.assertIn("version 2 was not confirmed: back to 1", out)


class ARouterOnIt(unittest.TestCase):
    def test_requests_go_on_through_restarts_of_the_store_and_follow_its_dtab(self):
        with Store() as store, Server(answering(b"one")) as one, Server(answering(b"two")) as two:
            store.name("one", one.address[1])
            store.name("two", two.address[1])
            with OnStore(store) as router:  # before the store is there
                first = concurrent.futures.ThreadPoolExecutor(1).submit(router.request, "web")
                store.start().put("/svc/web => /#/io.l5d.fs/one ;")
                answer = first.result()
                self.assertEqual((answer["status"], answer["body"]), (200, b"one"), router.output()[-2000:])
                failed, stop = [], threading.Event()

                def load():
                    while not stop.is_set():
                        answer = router.request("web")
                        if answer.get("status") != 200:
                            failed.append(answer)
                loaders = [threading.Thread(target=load) for _ in range(4)]
                for loader in loaders:
                    loader.start()
                try:
                    for restart in range(RESTARTS):
                        store.stop(signal.SIGKILL if restart % 2 else signal.SIGTERM)
                        time.sleep(0.3)
                        store.start()
                        target = "two" if restart % 2 == 0 else "one"
                        store.put(f"/svc/web => /#/io.l5d.fs/{target} ;")
                        until(lambda: router.request("web").get("body") == target.encode(), f"the dtab of restart {restart} is in force")
                finally:
                    stop.set()
                    for loader in loaders:
                        loader.join()
                self.assertEqual(failed, [])
                began = time.monotonic()
                store.put("/svc/web => /#/io.l5d.fs/two | /#/io.l5d.fs/one ;")
                until(lambda: router.request("web").get("body") == b"two", "a change")
                self.assertLess(time.monotonic() - began, 1)
                store.name("two", one.address[1])
                until(lambda: router.request("web").get("body") == b"one", "other addresses")
                state = json.loads(router.get_admin("/out/interpreter_state/io.l5d.namerd.http.json")["body"] or b"{}")
                self.assertEqual(state.get("bind", [{}])[0].get("path"), "/svc/web", state)


if __name__ == "__main__":
    unittest.main()
