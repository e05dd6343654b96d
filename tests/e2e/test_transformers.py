"""Every transformer where Linkerd allows it: behind an interpreter, and behind one namer."""
import json
import unittest

from harness.router import Router, Server, answering, free_port, runner

NOBODY = ("127.0.0.1", 1)


def at_namer(kinds):
    return lambda text: text.replace("rootDir: ", f"transformers: [{kinds}], rootDir: ")


def at_interpreter(kinds):
    return lambda text: text.replace("  servers:", f"  interpreter: {{kind: default, transformers: [{kinds}]}}\n  servers:", 1)


PLACES = {"namer": at_namer, "interpreter": at_interpreter}


class Transformers(unittest.TestCase):
    def setUp(self):
        self.server = self.enterContext(Server(answering(b"here")))

    def ends(self, kinds, addresses, status=200, prefix=None, env=None, host="web", more=None):
        """What a request comes to when `web` has these addresses, with the transformers in either position."""
        for place, edit in PLACES.items():
            with self.subTest(kinds=kinds, place=place):
                change = edit(kinds)
                both = lambda text, change=change: more(change(text)) if more else change(text)
                with Router("client: {failureAccrual: {kind: none}}", names={"web": addresses}, edit=both, env=env) as router:
                    answer = router.request(host)
                    self.assertEqual(answer.get("status"), status, answer)
                    if status == 200:
                        self.assertEqual(answer["body"], b"here")
                    if prefix:
                        clients = json.loads(router.get_admin("/client_state.json")["body"])
                        self.assertTrue(any(client.startswith(prefix) for client in clients), clients)
                        self.assertIn(f"rt/out/client{prefix}/requests", json.loads(router.get_admin("/admin/metrics.json")["body"]))

    def test_port(self):
        host, port = self.server.address
        self.ends(f"{{kind: io.l5d.port, port: {port}}}", [(host, 1)], prefix=f"/%/io.l5d.port/{port}/#/io.l5d.fs/web")

    def test_specific_host(self):
        host, port = self.server.address
        kind = f"{{kind: io.l5d.specificHost, host: {host}}}"
        self.ends(kind, [self.server.address, ("127.9.9.9", port)], prefix=f"/%/io.l5d.specificHost/#/io.l5d.fs/web")
        self.ends(kind, [("127.9.9.9", port)], status=502)

    def test_localhost(self):
        # This machine's addresses are its interfaces'; 127.9.9.9 is none of them.
        host, port = self.server.address
        self.ends("{kind: io.l5d.localhost}", [self.server.address, ("127.9.9.9", port)], prefix="/%/io.l5d.localhost/#/io.l5d.fs/web")
        self.ends("{kind: io.l5d.localhost}", [("240.0.0.1", port)], status=502)

    def test_const(self):
        path = "/$/inet/{}/{}".format(*self.server.address)
        self.ends(f"{{kind: io.l5d.const, path: {path}}}", [NOBODY])

    def test_replace(self):
        path = "/$/inet/{}/{}".format(*self.server.address)
        self.ends(f"{{kind: io.l5d.replace, path: {path}}}", [NOBODY])
        self.ends(f"{{kind: io.l5d.replace, path: {path}}}", [NOBODY], status=502, host="nobody")

    def test_local_node_by_subnet(self):
        host, port = self.server.address
        env = {"POD_IP": "127.0.0.7", "NODE_NAME": ""}
        self.ends("{kind: io.l5d.k8s.localnode}", [self.server.address, ("127.9.9.9", port)], env=env)
        self.ends("{kind: io.l5d.k8s.localnode}", [("127.9.9.9", port)], status=502, env=env)

    def test_several_are_applied_in_their_order(self):
        host, port = self.server.address
        kinds = f"{{kind: io.l5d.specificHost, host: {host}}}, {{kind: io.l5d.port, port: {port}}}"
        self.ends(kinds, [(host, 1), ("127.9.9.9", 1)], prefix=f"/%/io.l5d.port/{port}/%/io.l5d.specificHost/#/io.l5d.fs/web")

    def test_daemonset(self):
        """The gateway on the endpoint's network stands for the endpoint."""
        api = free_port()
        kubernetes = runner.K8s("127.0.0.1", api)
        self.addCleanup(kubernetes.close)
        host, port = self.server.address
        kubernetes.put({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "l5d", "namespace": "ns"},
                        "subsets": [{"addresses": [{"ip": host}], "ports": [{"name": "incoming", "port": port, "protocol": "TCP"}]}]})
        kubernetes.put({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "l5d", "namespace": "ns"},
                        "spec": {"ports": [{"name": "incoming", "port": port, "targetPort": port}]}})
        kind = f"{{kind: io.l5d.k8s.daemonset, k8sHost: 127.0.0.1, k8sPort: {api}, namespace: ns, port: incoming, service: l5d}}"
        self.ends(kind, [("127.0.0.99", 1)], prefix="/%/io.l5d.k8s.daemonset/ns/incoming/l5d/#/io.l5d.fs/web")


if __name__ == "__main__":
    unittest.main()
