"""Names from a (scripted) Kubernetes API, by a request."""
import unittest

from harness.router import Router, Server, answering, free_port, runner, until


class OwnNamespace(unittest.TestCase):
    def test_a_name_in_the_namespace_that_a_variable_says(self):
        port = free_port()
        api = runner.K8s("127.0.0.1", port)
        self.addCleanup(api.close)
        with Server(answering(b"shop")) as shop, Server(answering(b"default")) as other:
            for namespace, server in (("shop", shop), ("default", other)):
                host, number = server.address
                api.put({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": namespace},
                         "spec": {"ports": [{"name": "http", "port": 80, "targetPort": number}]}})
                api.put({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "web", "namespace": namespace},
                         "subsets": [{"addresses": [{"ip": host}], "ports": [{"name": "http", "port": number, "protocol": "TCP"}]}]})
            edit = lambda text: text.replace("namers:\n", f"namers:\n- {{kind: io.l5d.k8s.ns, host: 127.0.0.1, port: {port}, envVar: SHOP}}\n")
            with Router(dtab="/svc => /#/io.l5d.k8s.ns/http;", edit=edit, env={"SHOP": "shop"}) as router:
                until(lambda: router.get_admin("/ready")["status"] == 200, "names are known")
                answer = router.request("web")
                self.assertEqual((answer["status"], answer["body"]), (200, b"shop"))
                self.assertEqual(router.request("nobody")["status"], 502)


if __name__ == "__main__":
    unittest.main()
