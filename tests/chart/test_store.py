"""What the chart writes for the store of dtabs, and what it gives the routers for it."""
import pathlib
import tempfile
import unittest

import chart
import yaml
from test_rendering import FIELDS, IN_POD

#: Verbs that docs/store.md lists.
DTABS = ("get", "list", "watch", "create", "update", "delete")
REVISIONS = ("get", "list", "create", "delete")
BOUND_WITH = {(group, resource, verb) for group, resource in [("", "services"), ("discovery.k8s.io", "endpointslices")] for verb in ("list", "watch")}


def rights(documents, kind):
    """By the role's name and namespace: what it allows."""
    return {(role["metadata"]["name"], role["metadata"].get("namespace")):
            {(group, resource, verb) for rule in role["rules"] for group in rule["apiGroups"] for resource in rule["resources"] for verb in rule["verbs"]}
            for role in chart.of_kind(documents, kind)}


def headless(objects):
    """The Service whose name is the addresses of all replicas, as a list of one."""
    return [service for service in chart.of_kind(chart.part(objects, "store"), "Service") if service["spec"].get("clusterIP") == "None"]


class Store(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.objects = {one.name: chart.objects(one) for one in chart.sets() if one.name.startswith("store")}

    def test_without_it_nothing_of_it_is_there(self):
        self.assertEqual([chart.has_store(objects) for objects in self.objects.values()], [True] * 5)
        objects = chart.objects(chart.named("defaults"))
        self.assertFalse(chart.has_store(objects))
        for kind in ("Deployment", "DTab", "PodDisruptionBudget"):
            self.assertEqual(chart.of_kind(objects, kind), [])
        self.assertNotIn("store", yaml.safe_dump(chart.pod_of(objects)[0]))

    def test_every_configuration_passes_the_programs_own_check(self):
        for name, objects in self.objects.items():
            _, container, text = chart.store_of(objects)
            with tempfile.TemporaryDirectory() as directory:
                (pathlib.Path(directory) / "list").write_text("ann sha256:5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8 operators\n")
                file = pathlib.Path(directory) / "namerd.yaml"
                file.write_text(text.replace("/etc/rutter-tokens", directory))
                done = chart.rutter("config", "check", "--strict", file, env={**chart.environment(container, FIELDS), **IN_POD})
            self.assertEqual(done.returncode, 0, f"{name}: {done.stdout}{done.stderr}\n{text}")

    def test_the_values_reach_the_file(self):
        file = yaml.safe_load(chart.store_of(self.objects["store-more"])[2])
        self.assertEqual(file["storage"], {"kind": "io.rutter.k8s.configMap", "namespace": "default"})
        self.assertEqual(file["interfaces"], [{"kind": "io.l5d.httpController", "ip": "::", "port": 14180},
                                              {"kind": "io.l5d.thriftNameInterpreter", "ip": "::", "port": 4100, "allowAnonymous": True}])
        self.assertEqual(file["access"], {"tokenReview": {"audiences": ["mesh"]}, "tokens": "/etc/rutter-tokens/list", "grants": [
            {"to": ["system:serviceaccount:rutter:rutter"], "may": ["read", "report"]},
            {"to": ["system:serviceaccount:ci:deploy"], "namespaces": ["edge", "team-*"], "may": ["write"]},
            {"to": ["group:operators"], "may": ["write", "force"]}]})
        self.assertEqual((file["namers"], file["auditLog"], file["admin"]["port"]), ([{"kind": "io.l5d.k8s", "prefix": "/cluster"}], "/var/log/rutter/audit.log", 19991))
        file = yaml.safe_load(chart.store_of(self.objects["store-etcd"])[2])
        self.assertEqual(file["storage"], {"kind": "io.l5d.etcd", "endpoints": ["etcd-0.etcd:2379", "etcd-1.etcd:2379"], "pathPrefix": "/mesh"})
        self.assertNotIn("access", file)
        self.assertTrue(file["interfaces"][0]["allowAnonymous"])

    def test_nobody_may_change_dtabs_without_a_token_by_default(self):
        file = yaml.safe_load(chart.store_of(self.objects["store"])[2])
        self.assertEqual([(one["kind"], one.get("allowAnonymous")) for one in file["interfaces"]], [("io.l5d.httpController", None), ("io.l5d.mesh", True)])
        self.assertEqual(file["access"]["grants"], [{"to": ["system:serviceaccount:rutter:rutter"], "may": ["read", "report"]}])
        self.assertIs(file["admin"]["security"]["controlEnabled"], False)

    def test_one_value_switches_both_routers_to_it(self):
        for name, objects in self.objects.items():
            file = yaml.safe_load(chart.configuration(objects))
            [service] = headless(objects)
            [port] = [port["port"] for port in service["spec"]["ports"] if port["name"] == "http"]
            for router in file["routers"]:
                asked = router["interpreter"]
                self.assertEqual((asked["kind"], asked["dst"]), ("io.l5d.namerd.http", f"/$/inet/{service['metadata']['name']}.{service['metadata']['namespace']}.svc/{port}"), name)
                self.assertEqual(asked["namespace"], "edge" if name == "store-more" else "default")
                self.assertNotIn("dtab", router, f"{name}: a rule here would count before the store's")
            self.assertEqual([router["interpreter"]["transformers"][0]["kind"] for router in file["routers"]], ["io.l5d.k8s.daemonset", "io.l5d.k8s.localnode"])

    def test_routers_show_a_token_that_is_meant_for_the_store(self):
        for name, audience in [("store", "rutter-store"), ("store-more", "mesh"), ("store-etcd", None)]:
            template, container = chart.pod_of(self.objects[name])
            mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            tokens = [source["serviceAccountToken"] for volume in template["spec"]["volumes"] for source in volume.get("projected", {}).get("sources", [])]
            paths = {router["interpreter"].get("tokenPath") for router in yaml.safe_load(chart.configuration(self.objects[name]))["routers"]}
            if audience is None:
                self.assertEqual((tokens, paths, "store-token" in mounts), ([], {None}, False), name)
                continue
            self.assertEqual([(token["audience"], token["path"]) for token in tokens], [(audience, "token")], name)
            self.assertEqual(paths, {f"{mounts['store-token']}/token"}, name)

    def test_file_pods_and_service_name_the_same_ports(self):
        for name, objects in self.objects.items():
            _, container, text = chart.store_of(objects)
            services = chart.of_kind(chart.part(objects, "store"), "Service")
            file = yaml.safe_load(text)
            listening = {one["port"] for one in file["interfaces"]} | {file["admin"]["port"]}
            ports = {port["name"]: port["containerPort"] for port in container["ports"]}
            self.assertEqual(set(ports.values()), listening, name)
            self.assertEqual((len(services), len(headless(objects))), (2, 1), name)
            for service in services:
                # Nobody asks a replica by name for its metrics.
                by_name = service["spec"].get("clusterIP") == "None"
                wanted = {port: number for port, number in ports.items() if not (by_name and port == "admin")}
                self.assertEqual({port["name"]: port["port"] for port in service["spec"]["ports"]}, wanted, name)
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                self.assertEqual(container[probe]["httpGet"]["port"], "admin", name)

    def test_what_is_the_stores_is_not_the_routers(self):
        for name, objects in self.objects.items():
            template, _ = chart.pod_of(objects)
            store, _, _ = chart.store_of(objects)
            selectors = {}
            for document in objects:
                spec = document.get("spec", {})
                where = {"Service": spec.get("selector"), "Deployment": (spec.get("selector") or {}).get("matchLabels"), "DaemonSet": (spec.get("selector") or {}).get("matchLabels"),
                         "PodDisruptionBudget": (spec.get("selector") or {}).get("matchLabels"), "NetworkPolicy": (spec.get("podSelector") or {}).get("matchLabels")}.get(document["kind"])
                if where:
                    selectors[document["kind"], document["metadata"]["name"]] = (where, document["metadata"]["labels"]["app.kubernetes.io/component"])
            self.assertGreaterEqual(len(selectors), 5, name)
            for what, (selector, component) in selectors.items():
                hits = [part for part, labels in (("router", template["metadata"]["labels"]), ("store", store["metadata"]["labels"])) if selector.items() <= labels.items()]
                self.assertEqual(hits, [component], f"{name}: {what}")

    def test_two_of_them_that_do_not_end_together(self):
        objects = self.objects["store"]
        [deployment], [budget] = chart.of_kind(objects, "Deployment"), chart.of_kind(objects, "PodDisruptionBudget")
        self.assertEqual((deployment["spec"]["replicas"], budget["spec"]["maxUnavailable"]), (2, 1))
        self.assertEqual(deployment["spec"]["strategy"]["rollingUpdate"], {"maxSurge": 1, "maxUnavailable": 0})
        spread = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
        self.assertEqual([(one["topologyKey"], one["whenUnsatisfiable"]) for one in spread],
                         [("kubernetes.io/hostname", "ScheduleAnyway"), ("topology.kubernetes.io/zone", "ScheduleAnyway")])
        for one in spread:
            self.assertLessEqual(one["labelSelector"]["matchLabels"].items(), deployment["spec"]["template"]["metadata"]["labels"].items())
        self.assertEqual(chart.of_kind(self.objects["store-etcd"], "PodDisruptionBudget"), [])
        self.assertEqual(chart.store_of(self.objects["store-more"])[0]["spec"]["topologySpreadConstraints"], [])

    def test_a_file_is_on_a_volume_that_outlives_the_release(self):
        objects = self.objects["store-file"]
        [deployment], [claim] = chart.of_kind(objects, "Deployment"), chart.of_kind(objects, "PersistentVolumeClaim")
        # Two processes must not want the file at a time.
        self.assertEqual((deployment["spec"]["replicas"], deployment["spec"]["strategy"]), (1, {"type": "Recreate"}))
        self.assertEqual(claim["spec"], {"accessModes": ["ReadWriteOnce"], "storageClassName": "fast", "resources": {"requests": {"storage": "2Gi"}}})
        self.assertEqual(claim["metadata"]["annotations"], {"helm.sh/resource-policy": "keep", "a/b": "c"})
        self.assertEqual(chart.of_kind(self.objects["store"], "PersistentVolumeClaim"), [])

        def volume(*more):
            template, container, text = chart.store_of(chart.objects(chart.named("store-file"), *more))
            [mount] = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "dtabs"]
            [found] = [volume for volume in template["spec"]["volumes"] if volume["name"] == "dtabs"]
            self.assertEqual(str(pathlib.PurePath(yaml.safe_load(text)["storage"]["path"]).parent), mount)
            return mount, {key: value for key, value in found.items() if key != "name"}
        self.assertEqual(volume(), ("/var/lib/rutter", {"persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}}))
        mine = ["--set", "store.persistence.existingClaim=mine", "--set", "store.storage.path=/data/here/dtabs.redb"]
        self.assertEqual(volume(*mine), ("/data/here", {"persistentVolumeClaim": {"claimName": "mine"}}))
        self.assertEqual(chart.of_kind(chart.objects(chart.named("store-file"), *mine), "PersistentVolumeClaim"), [])
        self.assertEqual(volume("--set", "store.persistence.enabled=false"), ("/var/lib/rutter", {"emptyDir": {}}))

    def test_what_is_monitored_of_the_routers_is_monitored_of_the_store(self):
        scraped = {"PodMonitor": "podMetricsEndpoints", "ServiceMonitor": "endpoints"}
        for kind, endpoints in scraped.items():
            switch = ["--set", f"metrics.{kind[0].lower()}{kind[1:]}.enabled=true", "--set", "metrics.path=/admin/metrics/prometheus", "--set", "metrics.podMonitor.enabled=" + str(kind == "PodMonitor").lower()]
            for name in ("store", "store-file"):
                objects = chart.objects(chart.named(name), *switch)
                template, container, _ = chart.store_of(objects)
                [monitor] = chart.of_kind(chart.part(objects, "store"), kind)
                services = chart.of_kind(chart.part(objects, "store"), "Service")
                # Of those that it selects, one has the port: each replica is scraped once.
                [service] = [one for one in services if "admin" in [port["name"] for port in one["spec"]["ports"]]]
                labels = template["metadata"]["labels"] if kind == "PodMonitor" else service["metadata"]["labels"]
                self.assertLessEqual(monitor["spec"]["selector"]["matchLabels"].items(), labels.items(), kind)
                self.assertEqual(monitor["spec"]["namespaceSelector"], {"matchNames": ["rutter"]})
                [endpoint] = monitor["spec"][endpoints]
                self.assertEqual(endpoint["port"], "admin")
                self.assertIn(endpoint["port"], [port["name"] for port in container["ports"]])
                self.assertEqual(endpoint["path"], "/metrics")
                [routers] = chart.of_kind(chart.part(objects, "router"), kind)
                self.assertEqual(routers["spec"][endpoints][0]["path"], "/admin/metrics/prometheus")
                self.assertNotEqual(routers["spec"]["selector"], monitor["spec"]["selector"])
        without = chart.objects(chart.named("pod-monitor"))
        self.assertEqual(len(chart.of_kind(without, "PodMonitor")), 1)

    def test_the_kubelet_waits_longer_than_the_store_drains(self):
        for name, objects in self.objects.items():
            template, container, text = chart.store_of(objects)
            longest = container["lifecycle"]["preStop"]["sleep"]["seconds"] + yaml.safe_load(text)["admin"]["shutdownGraceMs"] / 1000
            self.assertGreater(template["spec"]["terminationGracePeriodSeconds"], longest, name)

    def test_a_changed_file_restarts_it(self):
        def annotations(*more):
            return chart.store_of(chart.objects(chart.named("store"), *more))[0]["metadata"]["annotations"]
        self.assertNotEqual(annotations("--set", "store.access.audience=other"), annotations())
        self.assertEqual(annotations("--set", "store.replicas=5"), annotations())

    def test_it_has_the_rights_that_its_documentation_lists_and_no_others(self):
        cluster, spaces = ({name: rights(chart.part(self.objects[name], "store"), kind) for name in self.objects} for kind in ("ClusterRole", "Role"))
        tokens = {("authentication.k8s.io", "tokenreviews", "create")}
        self.assertEqual(cluster["store"], {("rutter-rutter-store", None): BOUND_WITH, ("rutter-rutter-store-tokens", None): tokens})
        revisions = {("apps", "controllerrevisions", verb) for verb in REVISIONS}
        self.assertEqual(spaces["store"], {("rutter-rutter-store-dtabs", "rutter"): {("l5d.io", "dtabs", verb) for verb in DTABS} | revisions})
        self.assertEqual(cluster["store-more"], {("rutter-rutter-store-tokens", None): tokens})
        self.assertEqual(spaces["store-more"], {("rutter-rutter-store-dtabs", "default"): {("", "configmaps", verb) for verb in DTABS} | revisions,
                                                ("rutter-store", "rutter"): BOUND_WITH, ("rutter-rutter-store", "default"): BOUND_WITH})
        self.assertEqual((cluster["store-etcd"], spaces["store-etcd"]), ({("rutter-rutter-store", None): BOUND_WITH}, {}))
        for name, objects in self.objects.items():
            account = chart.store_of(objects)[0]["spec"]["serviceAccountName"]
            self.assertEqual(account, "keeper" if name == "store-more" else "rutter-store")
            for kind in ("ClusterRoleBinding", "RoleBinding"):
                for binding in chart.of_kind(chart.part(objects, "store"), kind):
                    self.assertEqual(binding["subjects"], [{"kind": "ServiceAccount", "name": account, "namespace": "rutter"}], name)

    def test_only_what_the_pod_itself_needs_is_allowed(self):
        for name, objects in self.objects.items():
            template, container, _ = chart.store_of(objects)
            self.assertEqual(container["securityContext"], {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}, name)
            self.assertEqual((template["spec"]["securityContext"]["runAsNonRoot"], template["spec"].get("hostNetwork")), (True, None), name)

    def test_the_network_lets_in_whom_the_interfaces_cannot_tell_apart_only_by_name(self):
        routers = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "rutter", "app.kubernetes.io/instance": "rutter", "app.kubernetes.io/component": "router"}}}
        for name, wanted in [("store", {"http": None, "mesh": [routers], "admin": None}),
                             ("store-etcd", {"http": [routers], "mesh": [routers], "admin": None}),
                             ("store-more", {"http": [routers, {"namespaceSelector": {"matchLabels": {"team": "ci"}}}], "thrift": [routers, {"ipBlock": {"cidr": "10.0.0.0/8"}}],
                                             "admin": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]})]:
            [policy] = chart.of_kind(chart.part(self.objects[name], "store"), "NetworkPolicy")
            self.assertEqual({rule["ports"][0]["port"]: rule.get("from") for rule in policy["spec"]["ingress"]}, wanted, name)
            self.assertEqual([len(rule["ports"]) for rule in policy["spec"]["ingress"]], [1] * len(wanted))

    def test_the_dtab_becomes_the_stores_first_one(self):
        [made] = chart.of_kind(self.objects["store"], "DTab")
        self.assertEqual((made["metadata"]["name"], made["metadata"]["namespace"]), ("default", "rutter"))
        self.assertEqual(made["dentries"], [{"prefix": "/srv", "dst": "/#/io.l5d.k8s/default/http"}, {"prefix": "/host", "dst": "/srv"}, {"prefix": "/svc", "dst": "/host"},
                                            {"prefix": "/svc/half", "dst": "3 * /srv/web & 1 * /srv/api | /$/fail"}])
        # No part of the release, and never taken away to make room.
        self.assertEqual(made["metadata"]["annotations"], {"helm.sh/hook": "pre-install,pre-upgrade", "helm.sh/hook-delete-policy": "hook-failed"})
        for name, *more in [("store-more",), ("store-etcd",), ("store", "--set", "store.initialDtab=false"), ("store", "--set", "dtab=")]:
            self.assertEqual(chart.of_kind(chart.objects(chart.named(name), *more), "DTab"), [], (name, more))

    def test_an_upgrade_says_when_the_cluster_does_not_know_the_kind(self):
        one = chart.named("store")
        done = chart.helm("template", "rutter", chart.CHART, *chart.KUBERNETES, "--is-upgrade", *one.arguments)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("kubectl apply -f charts/rutter/crds/", done.stderr)
        self.assertEqual(chart.template("--is-upgrade", *one.arguments).returncode, 0)

    def test_the_charts_custom_resource_definition_is_the_documented_one(self):
        ours, documented = ([yaml.safe_load(file.read_text())] for file in (chart.CHART / "crds" / "dtabs.l5d.io.yaml", chart.ROOT / "docs" / "dtabs.l5d.io.yaml"))
        self.assertEqual(ours, documented)
