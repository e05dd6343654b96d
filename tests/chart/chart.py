"""The chart as helm renders it, and what the tests ask of it."""
import dataclasses
import os
import pathlib
import subprocess

import yaml

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CHART = ROOT / "charts" / "rutter"
WALKTHROUGH = ROOT / "crates" / "rutter" / "tests" / "walkthrough" / "config.yaml"
LINKERD1 = CHART / "values-linkerd1.yaml"
#: Some rendered sets are for another namespace or release than these.
NAMESPACE = RELEASE = "rutter"
#: What helm takes the cluster for while it asks none.
KUBERNETES = ("--kube-version", "1.34.4")
#: The kind that it has of the chart's own CustomResourceDefinition.
KINDS = ("--api-versions", "l5d.io/v1alpha1/DTab")


@dataclasses.dataclass(frozen=True)
class Set:
    """A set of values: one of `values/`, with what goes before it."""

    name: str
    namespace: str = NAMESPACE
    release: str = RELEASE
    before: tuple = ()

    @property
    def arguments(self):
        return [*self.before, "-f", str(HERE / "values" / f"{self.name}.yaml")]


def sets():
    made = [Set(path.stem) for path in sorted((HERE / "values").glob("*.yaml"))]
    presets = {f"preset-{name}": CHART / f"values-{name}.yaml" for name in ("dev", "ha", "openshift")}
    made = [dataclasses.replace(one, before=("-f", str(presets[one.name]))) if one.name in presets else one for one in made]
    linkerd1 = {"linkerd1-written": (), "linkerd1-pasted": ("--set-file", f"rawConfig={WALKTHROUGH}")}
    return [one if one.name not in linkerd1 else
            Set(one.name, "default", "l5d", ("-f", str(LINKERD1), *linkerd1[one.name])) for one in made]


def named(name):
    [found] = [one for one in sets() if one.name == name]
    return found


def helm(*arguments, **kwargs):
    """Runs helm; the caller looks at the status."""
    return subprocess.run([os.environ["HELM"], *map(str, arguments)], capture_output=True, text=True, timeout=120, **kwargs)


def template(*arguments, release=RELEASE):
    """`helm template` of the chart; the caller looks at the status."""
    return helm("template", release, CHART, *KUBERNETES, *KINDS, *arguments)


def rendered(one, *more):
    """The text that helm renders."""
    done = template("--namespace", one.namespace, *one.arguments, *more, release=one.release)
    assert done.returncode == 0, f"{one.name}: {done.stderr}"
    return done.stdout


def objects(one, *more):
    """The objects that helm renders, the test's pod among them."""
    return [document for document in yaml.safe_load_all(rendered(one, *more)) if document]


def of_kind(documents, kind):
    return [document for document in documents if document["kind"] == kind]


def part(documents, component):
    """The objects of the routers, or those of the store."""
    return [document for document in documents if document["metadata"]["labels"]["app.kubernetes.io/component"] == component]


def has_store(documents):
    return bool(part(documents, "store"))


def pod_of(documents):
    """Template and container of the router."""
    [daemonset] = of_kind(documents, "DaemonSet")
    template = daemonset["spec"]["template"]
    return template, template["spec"]["containers"][0]


def store_of(documents):
    """Template, container and file of the store."""
    [deployment] = of_kind(documents, "Deployment")
    template = deployment["spec"]["template"]
    [config] = of_kind(part(documents, "store"), "ConfigMap")
    return template, template["spec"]["containers"][0], config["data"]["namerd.yaml"]


def configuration(documents):
    """The file that the pods get; none when it is somebody else's."""
    _, container = pod_of(documents)
    key = container["args"][-1].rsplit("/", 1)[1]
    for document in of_kind(documents, "ConfigMap"):
        if key in document["data"]:
            return document["data"][key]
    return None


def environment(container, fields):
    """What the container's variables are in a pod whose fields are these."""
    made = {}
    for variable in container["env"]:
        if "value" in variable:
            made[variable["name"]] = variable["value"]
        elif "fieldRef" in variable.get("valueFrom", {}):
            made[variable["name"]] = fields[variable["valueFrom"]["fieldRef"]["fieldPath"]]
    return made


def rutter(*arguments, env=None, **kwargs):
    """Runs a command of the program."""
    return subprocess.run([os.environ["RUTTER"], *map(str, arguments)], capture_output=True, text=True, timeout=60,
                          stdin=subprocess.DEVNULL, env={**os.environ, "NO_COLOR": "1", **(env or {})}, **kwargs)
