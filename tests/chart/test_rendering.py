"""What the chart writes for the value sets, and what it refuses."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import chart
import yaml

#: What a pod's template takes from the node; any will do to look a configuration over.
FIELDS = {"status.podIP": "10.1.2.3", "spec.nodeName": "n1", "metadata.name": "rutter-x", "metadata.namespace": "rutter", "status.hostIP": "10.0.0.1"}
IN_POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}


class Rendering(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.objects = {one.name: chart.objects(one) for one in chart.sets()}

    def test_there_are_twenty_value_sets_and_lint_has_nothing_to_say(self):
        self.assertGreaterEqual(len(self.objects), 20)
        for one in chart.sets():
            done = chart.helm("lint", "--strict", chart.CHART, *chart.KUBERNETES, "--namespace", one.namespace, *one.arguments)
            self.assertEqual(done.returncode, 0, f"{one.name}: {done.stdout}{done.stderr}")

    def test_every_configuration_passes_the_programs_own_check(self):
        looked_at = 0
        for name, objects in self.objects.items():
            text = chart.configuration(objects)
            if text is None:
                continue
            _, container = chart.pod_of(objects)
            env = {**chart.environment(container, FIELDS), **IN_POD}
            with tempfile.TemporaryDirectory() as directory:
                file = pathlib.Path(directory) / "config.yaml"
                for mount in container["volumeMounts"]:
                    if mount["name"] == "state":
                        text = text.replace(f"stateDir: {mount['mountPath']}\n", f"stateDir: {directory}\n")
                file.write_text(text)
                done = chart.rutter("config", "check", file, env=env)
            self.assertEqual(done.returncode, 0, f"{name}: {done.stdout}{done.stderr}\n{text}")
            if name not in ("configured", "linkerd1-pasted"):  # these two ask for what is warned of
                self.assertNotIn("warning:", done.stdout + done.stderr, f"{name}\n{text}")
            looked_at += 1
        self.assertGreaterEqual(looked_at, 19)

    def test_a_pasted_file_is_not_changed(self):
        self.assertEqual(chart.configuration(self.objects["linkerd1-pasted"]), chart.WALKTHROUGH.read_text())

    def test_large_numbers_stay_whole(self):
        file = yaml.safe_load(chart.configuration(self.objects["configured"]))
        outgoing = file["routers"][0]
        self.assertEqual(outgoing["servers"][0]["maxConcurrentRequests"], 1000000)
        self.assertEqual((outgoing["service"]["totalTimeoutMs"], outgoing["streamAfterContentLengthKB"]), (86400000, 2097152))
        self.assertIn("totalTimeoutMs: 86400000\n", chart.configuration(self.objects["configured"]))

    def test_the_values_reach_the_configuration(self):
        file = yaml.safe_load(chart.configuration(self.objects["configured"]))
        self.assertEqual((file["workers"], file["stateDir"]), (3, "/var/lib/rutter"))
        self.assertEqual(file["admin"], {"ip": "0.0.0.0", "port": 9990, "shutdownGraceMs": 10000,
                                         "security": {"controlEnabled": True, "pathBlacklist": ["/config.*"]}})
        self.assertEqual(file["telemetry"][-1], {"kind": "io.l5d.zipkin", "host": "zipkin.tracing", "port": 9411, "sampleRate": 1})
        self.assertEqual(file["routers"][0]["identifier"], {"kind": "io.l5d.methodAndHost"})
        self.assertEqual(file["routers"][1]["maxHeadersKB"], 128)
        more = yaml.safe_load(chart.configuration(self.objects["more-routers"]))
        self.assertEqual([router["label"] for router in more["routers"]], ["outgoing", "incoming", "edge"])
        self.assertEqual(more["routers"][0]["interpreter"]["transformers"], [])
        self.assertNotIn("stateDir", more)
        on_node = self.objects["state-on-node"]
        self.assertEqual(yaml.safe_load(chart.configuration(on_node))["stateDir"], "/state")
        self.assertIn({"name": "state", "hostPath": {"path": "/var/lib/rutter", "type": "Directory"}}, chart.pod_of(on_node)[0]["spec"]["volumes"])

    def test_configuration_container_and_service_name_the_same_ports(self):
        for name, objects in self.objects.items():
            text = chart.configuration(objects)
            if text is None:
                continue
            file = yaml.safe_load(text)
            _, container = chart.pod_of(objects)
            [service] = chart.of_kind(chart.part(objects, "router"), "Service")
            listening = {server["port"] for router in file["routers"] for server in router["servers"]} | {file["admin"]["port"]}
            open_ports = {port["name"]: port["containerPort"] for port in container["ports"]}
            self.assertEqual(set(open_ports.values()), listening, name)
            self.assertEqual({port["name"]: port["port"] for port in service["spec"]["ports"]}, open_ports, name)
            self.assertEqual({port["name"]: port["targetPort"] for port in service["spec"]["ports"]}, {port: port for port in open_ports}, name)
            for router in file["routers"]:
                for transformer in router.get("interpreter", {}).get("transformers", []):
                    if transformer["kind"] == "io.l5d.k8s.daemonset":
                        self.assertEqual((transformer["namespace"], transformer["service"]), (service["metadata"]["namespace"], service["metadata"]["name"]), name)
                        self.assertIn(transformer["port"], open_ports, name)
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                self.assertEqual(container[probe]["httpGet"]["port"], "admin", name)

    def test_the_service_selects_the_pods(self):
        for name, objects in self.objects.items():
            [service], [daemonset] = chart.of_kind(chart.part(objects, "router"), "Service"), chart.of_kind(objects, "DaemonSet")
            labels = daemonset["spec"]["template"]["metadata"]["labels"].items()
            for selector in (service["spec"]["selector"], daemonset["spec"]["selector"]["matchLabels"]):
                self.assertLessEqual(selector.items(), labels, name)
            for pod in chart.of_kind(objects, "Pod"):
                self.assertFalse(service["spec"]["selector"].items() <= pod["metadata"]["labels"].items(), f"{name}: the test's pod would get requests")

    def test_the_kubelet_waits_longer_than_the_router_drains(self):
        for name, objects in self.objects.items():
            template, container = chart.pod_of(objects)
            wait = container["lifecycle"]["preStop"]["sleep"]["seconds"]
            text = chart.configuration(objects)
            grace = (yaml.safe_load(text)["admin"].get("shutdownGraceMs", 10000) if text else 10000) / 1000
            self.assertGreater(template["spec"]["terminationGracePeriodSeconds"], wait + grace, name)

    def test_how_it_is_reached_decides_ports_and_rollout(self):
        for name, ports, rollout, policy in [
            ("defaults", {"outgoing": 4140}, {"maxSurge": 0, "maxUnavailable": 1}, None),
            ("node-local", {}, {"maxSurge": 1, "maxUnavailable": 0}, "Local"),
            ("host-network", {"outgoing": 4140, "incoming": 4141, "admin": 9990}, {"maxSurge": 0, "maxUnavailable": 1}, None),
            ("more-routers", {"outgoing": 14140, "edge": 80}, {"maxSurge": 0, "maxUnavailable": 1}, None),
        ]:
            objects = self.objects[name]
            _, container = chart.pod_of(objects)
            [service], [daemonset] = chart.of_kind(chart.part(objects, "router"), "Service"), chart.of_kind(objects, "DaemonSet")
            self.assertEqual({port["name"]: port["hostPort"] for port in container["ports"] if "hostPort" in port}, ports, name)
            self.assertEqual(daemonset["spec"]["updateStrategy"]["rollingUpdate"], rollout, name)
            self.assertEqual(service["spec"].get("internalTrafficPolicy"), policy, name)

    def test_the_walkthroughs_names_are_kept(self):
        for name in ("linkerd1-pasted", "linkerd1-written"):
            objects = self.objects[name]
            template, container = chart.pod_of(objects)
            [daemonset], [service] = chart.of_kind(objects, "DaemonSet"), chart.of_kind(objects, "Service")
            self.assertEqual((daemonset["metadata"]["name"], service["metadata"]["name"], container["name"]), ("l5d", "l5d", "l5d"))
            self.assertEqual((daemonset["metadata"]["labels"]["app"], template["metadata"]["labels"]["app"]), ("l5d", "l5d"))
            self.assertIn("l5d-config", [document["metadata"]["name"] for document in chart.of_kind(objects, "ConfigMap")])
            self.assertEqual(container["args"][-1], "/io.buoyant/linkerd/config/config.yaml")
            self.assertEqual([(port["name"], port["containerPort"], port.get("hostPort")) for port in container["ports"]],
                             [("outgoing", 4140, 4140), ("incoming", 4141, None), ("admin", 9990, None)])

    def test_only_what_the_pod_itself_needs_is_allowed(self):
        for name, objects in self.objects.items():
            if name == "whole-pod":
                continue
            template, container = chart.pod_of(objects)
            self.assertEqual(container["securityContext"], {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}, name)
            context = template["spec"]["securityContext"]
            self.assertEqual((context["runAsNonRoot"], context["seccompProfile"]), (True, {"type": "RuntimeDefault"}), name)
            routers = chart.part(objects, "router")
            for role in chart.of_kind(routers, "ClusterRole") + chart.of_kind(routers, "Role"):
                allowed = {(group, resource, verb) for rule in role["rules"] for group in rule["apiGroups"] for resource in rule["resources"] for verb in rule["verbs"]}
                wanted = {(group, resource, verb) for group, resource in [("", "services"), ("discovery.k8s.io", "endpointslices")] for verb in ("list", "watch")}
                more = {"namespaces": {("", "endpoints", "list"), ("", "endpoints", "watch")},
                        "extra-rights": {("", "namespaces", "list"), ("", "namespaces", "watch")}}.get(name, set())
                self.assertEqual(allowed, wanted | more, name)

    def test_rights_for_namespaces_are_in_these_and_nowhere_else(self):
        objects = self.objects["namespaces"]
        self.assertEqual(chart.of_kind(objects, "ClusterRole") + chart.of_kind(objects, "ClusterRoleBinding"), [])
        for kind in ("Role", "RoleBinding"):
            self.assertEqual({document["metadata"]["namespace"] for document in chart.of_kind(objects, kind)}, {"default", "kube-public", "rutter"})
        self.assertEqual([kind for kind in ("ServiceAccount", "ClusterRole", "Role") if chart.of_kind(self.objects["own-account"], kind)], [])

    def test_two_releases_share_nothing_of_the_cluster(self):
        def of_the_cluster(namespace, release):
            objects = chart.objects(chart.Set("defaults", namespace, release))
            return {(document["kind"], document["metadata"]["name"]) for document in objects if "namespace" not in document["metadata"]}
        names = [of_the_cluster(*where) for where in (("rutter", "rutter"), ("mesh", "rutter"), ("rutter", "second"))]
        self.assertEqual([len(one) for one in names], [2, 2, 2])
        self.assertEqual(len(set().union(*names)), 6)

    def test_what_the_user_says_of_the_pod_wins(self):
        template, container = chart.pod_of(self.objects["whole-pod"])
        self.assertEqual((template["spec"]["shareProcessNamespace"], template["spec"]["hostname"]), (True, "mesh"))
        self.assertEqual((container["stdin"], container["lifecycle"]["preStop"]["sleep"]["seconds"]), (True, 3))
        template, container = chart.pod_of(chart.objects(chart.named("defaults"), "--set-json", 'container={"securityContext":{"readOnlyRootFilesystem":false}}',
                                                         "--set-json", 'podSpec={"enableServiceLinks":true,"terminationGracePeriodSeconds":0}'))
        self.assertEqual(container["securityContext"]["readOnlyRootFilesystem"], False)
        self.assertEqual((template["spec"]["enableServiceLinks"], template["spec"]["terminationGracePeriodSeconds"]), (True, 0))

    def test_a_changed_configuration_restarts_the_pods_only_where_it_has_to(self):
        def template(*more):
            return chart.pod_of(chart.objects(chart.named("defaults"), *more))[0]
        plain, restart = template(), ("--set", "restartOnConfigChange=true")
        self.assertEqual(template("--set", "dtab=/svc => /x", "--set", "config.admin.security.controlEnabled=true"), plain)
        self.assertNotEqual(template("--set", "config.workers=2"), plain)
        self.assertNotEqual(template("--set", "listenAddress=10.0.0.1"), plain)
        self.assertNotEqual(template(*restart, "--set", "dtab=/svc => /x"), template(*restart))
        self.assertEqual(template(*restart, "--set", "serviceAccount.annotations.a=b"), template(*restart))

    def test_written_files_are_what_their_programs_write(self):
        for program in (["schema.py", "--program", os.environ["RUTTER"]], ["reference.py"]):
            done = subprocess.run([sys.executable, chart.ROOT / "charts" / program[0], *program[1:], "--check"], capture_output=True, text=True, timeout=60)
            self.assertEqual(done.returncode, 0, done.stderr)

    def test_the_schema_knows_every_key_and_no_section_is_open(self):
        schema = json.loads((chart.CHART / "values.schema.json").read_text())
        open_ones = []

        def walk(part, path):
            if isinstance(part, dict):
                if isinstance(part.get("properties"), dict) and part.get("additionalProperties") is not False:
                    open_ones.append(path)
                for key, value in part.items():
                    walk(value, f"{path}/{key}")
            elif isinstance(part, list):
                for number, value in enumerate(part):
                    walk(value, f"{path}/{number}")
        walk(schema, "")
        self.assertEqual(open_ones, [])
        self.assertEqual(set(yaml.safe_load((chart.CHART / "values.yaml").read_text())) | {"global"}, set(schema["properties"]))


class Refusing(unittest.TestCase):
    def test_bad_values_are_refused_by_name(self):
        cases = yaml.safe_load((chart.HERE / "refused.yaml").read_text())
        self.assertGreaterEqual(len(cases), 30)
        for case in cases:
            with tempfile.TemporaryDirectory() as directory:
                file = pathlib.Path(directory) / "values.yaml"
                file.write_text(yaml.safe_dump(case["values"]))
                done = chart.template("--namespace", chart.NAMESPACE, "-f", file)
            with self.subTest(values=case["values"]):
                self.assertNotEqual(done.returncode, 0, "it was accepted")
                for name in case["names"]:
                    self.assertIn(name, done.stderr)

    def test_a_check_of_a_pasted_file_can_be_turned_off(self):
        done = chart.template("--set-file", f"rawConfig={chart.WALKTHROUGH}", "--set", "rawConfigCheck=false")
        self.assertEqual(done.returncode, 0, done.stderr)
