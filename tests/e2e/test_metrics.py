"""The pages of metrics of a real run, held against what docs/metrics.md promises."""
import contextlib
import pathlib
import re
import tempfile
import unittest

from harness.certificates import Authority
from harness.router import Router, Server, answering, free_port, runner, until

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


def promised():
    """Families of `/metrics` by the condition under which they are there."""
    families = {}
    for line in DOCS.read_text().splitlines():
        row = re.match(r"\| `((?:rutter|process)_\w+)` \| (counter|gauge|histogram) \| ([^|]*) \|.*\| ([^|]+) \| [^|]*\|$", line)
        if row:
            name, kind, labels, since = row.groups()
            families.setdefault(since.strip(), {})[name] = (kind, {label for label in labels.split(", ") if label.strip()})
    return families


def page(router):
    """Families on `/metrics`: name to (kind, labels that were seen)."""
    found = {}
    for line in router.get_admin("/metrics")["body"].decode().splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            found[name] = (kind, set())
        elif line and not line.startswith("#"):
            name = re.match(r"\w+", line).group()
            family = name if name in found else re.sub(r"_(bucket|sum|count)$", "", name)
            found[family][1].update(label for label in re.findall(r'[{,](\w+)="', line) if label != "le")
    return found


class Promised(unittest.TestCase):
    def has(self, router, families):
        """All of these are on the page, with their kind and no label that is not promised."""
        # A request is counted when its answer is on its way.
        with contextlib.suppress(AssertionError):
            until(lambda: set(families) <= set(page(router)), "all of them are there", 5)
        there = page(router)
        for name, (kind, labels) in families.items():
            self.assertIn(name, there)
            self.assertEqual(there[name][0], kind, name)
            self.assertLessEqual(there[name][1], labels, name)

    def test_every_family_of_the_documents_is_there_when_they_say(self):
        families = promised()
        self.assertEqual(set(families), {"start", "first request", "first error", "start, with a Kubernetes API", "start, with `tls`", "first change of a dtab"})
        nobody = ("127.0.0.1", free_port())
        with Server(answering()) as server, Router(names={"web": [server.address], "gone": [nobody]}) as router:
            self.has(router, families["start"])
            self.assertEqual(router.request()["status"], 200)
            self.has(router, families["first request"])
            self.assertNotIn("rutter_errors_total", page(router))
            self.assertEqual(router.request("gone")["status"], 502)
            self.has(router, families["first error"])
            self.assertNotIn("rutter_dtab_apply_seconds", page(router))
            router.config.write_text(router.config.read_text().replace("/svc => ", "/x => /y; /svc => "))
            until(lambda: "rutter_dtab_apply_seconds" in page(router), "the change of the dtab is in force")
            self.has(router, families["first change of a dtab"])
            for since, some in families.items():
                if ", with " not in since:
                    self.has(router, some)
            text = router.get_admin("/metrics")["body"].decode()
            self.assertIn('client="#/io.l5d.fs/gone",result="refused"} ', text)
            self.assertRegex(text, r'rutter_connects_total\{router="out",client="#/io.l5d.fs/gone",result="refused"\} [1-9]')

    def test_what_needs_a_kubernetes_api_is_there_with_one(self):
        # It need not even answer.
        namer = f"namers:\n- {{kind: io.l5d.k8s, host: 127.0.0.1, port: {free_port()}}}\n"
        with Router(edit=lambda text: text.replace("namers:\n", namer)) as router:
            self.has(router, promised()["start, with a Kubernetes API"])

    def test_what_needs_tls_is_there_with_it(self):
        with tempfile.TemporaryDirectory() as directory:
            pair = Authority(pathlib.Path(directory)).issue("web.test", ["DNS:web.test"])
            tls = f"tls: {{certPath: {pair.cert}, keyPath: {pair.key}}}"
            with Router(edit=lambda text: text.replace("  servers:\n  - {ip: ", f"  servers:\n  - {{{tls}, ip: ")) as router:
                self.has(router, promised()["start, with `tls`"])


if __name__ == "__main__":
    unittest.main()
