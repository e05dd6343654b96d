"""Alerts and dashboards, held against promtool and the list of metrics."""
import json
import re
import shutil
import subprocess
import tempfile
import unittest

import chart
import yaml

ALERTS = chart.CHART / "files" / "alerts.yaml"
#: What a histogram's name is called by its parts.
PARTS = re.compile(r"_(bucket|sum|count)$")


def documented():
    """Every name in the tables of docs/metrics.md."""
    return set(re.findall(r"^\| `((?:rutter|process)_\w+)` \|", (chart.ROOT / "docs" / "metrics.md").read_text(), re.M))


def asked_for(expression):
    """Names of our metrics in a query."""
    return {PARTS.sub("", name) for name in re.findall(r"\b((?:rutter|process)_\w+)\b", expression)}


class Metrics(unittest.TestCase):
    def test_alerts_fire_when_they_should(self):
        with tempfile.TemporaryDirectory() as directory:
            for file in (ALERTS, chart.HERE / "alerts_test.yaml"):
                shutil.copy(file, directory)
            for arguments in (["check", "rules", ALERTS.name], ["test", "rules", "alerts_test.yaml"]):
                done = subprocess.run(["promtool", *arguments], cwd=directory, capture_output=True, text=True, timeout=60)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_every_alert_has_a_test_and_says_what_to_do(self):
        tests = (chart.HERE / "alerts_test.yaml").read_text()
        install = (chart.ROOT / "docs" / "install.md").read_text()
        rules = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
        for rule in rules:
            self.assertIn(f'alertname="{rule["alert"]}"', tests)
            self.assertEqual(set(rule["annotations"]), {"summary", "description", "action"}, rule["alert"])
            self.assertIn(f"`{rule['alert']}`", install)

    def test_alerts_and_dashboards_ask_for_metrics_that_exist(self):
        known = documented()
        self.assertIn("rutter_requests_total", known)
        expressions = [rule["expr"] for rule in yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]]
        for file in sorted((chart.CHART / "files" / "dashboards").glob("*.json")):
            board = json.loads(file.read_text())
            expressions += [target["expr"] for panel in board["panels"] for target in panel["targets"]]
            expressions += [variable["query"]["query"] for variable in board["templating"]["list"] if variable["type"] == "query"]
        self.assertGreater(len(expressions), 50)
        for expression in expressions:
            self.assertTrue(asked_for(expression), f"no metric in: {expression}")
            self.assertEqual(asked_for(expression) - known, set(), expression)

    def test_the_dashboards_queries_are_promql(self):
        rules = []
        for file in sorted((chart.CHART / "files" / "dashboards").glob("*.json")):
            for panel in json.loads(file.read_text())["panels"]:
                for target in panel["targets"]:
                    # What Grafana puts in for its own variables.
                    expression = re.sub(r"\$__(rate_interval|range)", "5m", target["expr"]).replace("$router", ".*").replace("$service", ".*").replace("$instance", ".*")
                    self.assertNotIn("$", expression)
                    rules.append({"record": "x", "expr": expression, "labels": {"n": str(len(rules))}})
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump({"groups": [{"name": "dashboards", "rules": rules}]}, file)
            file.flush()
            done = subprocess.run(["promtool", "check", "rules", file.name], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_the_dashboards_are_what_their_program_writes(self):
        done = subprocess.run([chart.ROOT / "charts" / "dashboards.py", "--check"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_dashboards_have_identities_of_their_own(self):
        boards = [json.loads(file.read_text()) for file in (chart.CHART / "files" / "dashboards").glob("*.json")]
        self.assertEqual(len({board["uid"] for board in boards}), 4)
        for board in boards:
            self.assertEqual({str(panel["datasource"]["uid"]) for panel in board["panels"]}, {"${source}"})
            self.assertEqual(len({panel["id"] for panel in board["panels"]}), len(board["panels"]))
