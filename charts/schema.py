#!/usr/bin/env python3
"""Writes charts/rutter/values.schema.json, which refuses every value that the chart or the program would not understand.

    charts/schema.py --program RUTTER                         writes it, after a change of the configuration's keys or of the chart's
    charts/schema.py --program RUTTER --kubernetes OPENAPI    the same, with Kubernetes' types as that API server has them
    charts/schema.py … --check                                fails when the file is not what this program writes

It has three sources: the chart's own keys stand below; those of the configuration file come from `rutter config schema`, those of
Kubernetes' own types from an API server (`kubectl get --raw /openapi/v2`); without one they stay as they are. Nothing has keys
that are not listed.
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys

TARGET = pathlib.Path(__file__).resolve().parent / "rutter" / "values.schema.json"
CORE, META, NETWORK, APPS = "io.k8s.api.core.v1.", "io.k8s.apimachinery.pkg.apis.meta.v1.", "io.k8s.api.networking.v1.", "io.k8s.api.apps.v1."


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True, help="the program `rutter`")
    parser.add_argument("--kubernetes", type=pathlib.Path, help="an API server's /openapi/v2, as a file")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    schema = subprocess.run([args.program, "config", "schema"], capture_output=True, text=True, check=True).stdout
    try:
        if args.kubernetes:
            types = Definitions(json.loads(args.kubernetes.read_text())["definitions"])
        else:
            types = Kept(json.loads(TARGET.read_text())["definitions"])
        text = written(json.loads(schema), types)
    except KeyError as error:
        print(f"charts/schema.py: no Kubernetes type {error}: give --kubernetes", file=sys.stderr)
        return 1
    if not args.check:
        TARGET.write_text(text)
    elif TARGET.read_text() != text:
        print(f"{TARGET.name} is not what charts/schema.py writes: run it again", file=sys.stderr)
        return 1
    return 0


def written(config, defs):
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of the chart rutter", **values(defs, Configuration(config, defs))}
    # Helm gives its own and those of a parent chart.
    schema["properties"]["global"] = {"type": "object"}
    # One line for each key: a change of one is a change of one line.
    lines = [f"{json.dumps(key)}: {compact(value)}" for key, value in schema["properties"].items()]
    shared = [f"{json.dumps(key)}: {compact(value)}" for key, value in sorted(defs.used.items())]
    head = {key: value for key, value in schema.items() if key != "properties"}
    return (compact(head)[:-1] + ',\n"properties": {\n' + ",\n".join(lines) + '\n},\n"definitions": {\n' + ",\n".join(shared) + "\n}}\n")


def compact(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


# ---------------------------------------------------------------- the chart's own keys

def keys(**properties):
    return {"type": "object", "additionalProperties": False, "properties": properties}


def one_of(*words):
    return {"type": "string", "enum": list(words)}


def listed(items):
    return {"type": "array", "items": items}


def whole(least, most):
    return {"type": "integer", "minimum": least, "maximum": most}


def like(pattern, **more):
    return {"type": "string", "pattern": pattern, **more}


TEXT, TRUTH = {"type": "string"}, {"type": "boolean"}
#: Kubernetes takes texts only; a number there is a mistake that it would report less clearly.
MAP = {"type": "object", "additionalProperties": TEXT}
PORT, SECONDS = whole(1, 65535), whole(0, 86400)
#: Names of objects, and of ports; empty is the default.
NAME = like(r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$", maxLength=63)
SUBDOMAIN = like(r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$", maxLength=253)
PORT_NAME = like(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", maxLength=15)
ABSOLUTE = like("^/[^:]*$")
QUANTITY = {"type": ["string", "integer"], "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"}
DURATION = like(r"^(([0-9]+(ms|s|m|h))+)?$")
DIGEST = like("^(sha256:[0-9a-f]{64})?$")
IMAGE = {"registry": like(r"^([a-zA-Z0-9]([-a-zA-Z0-9.:\[\]]*[a-zA-Z0-9\]])?(/[-a-z0-9._/]+)?/?)?$"), "repository": like(r"^[a-z0-9][-a-z0-9._/]*$"),
         "tag": like(r"^(\w[\w.-]{0,127})?$"), "digest": DIGEST}
PROBE = keys(**{key: whole(least, 3600) for key, least in
                dict(initialDelaySeconds=0, periodSeconds=1, timeoutSeconds=1, failureThreshold=1, successThreshold=1, terminationGracePeriodSeconds=1).items()})


def values(k8s, config):
    monitor = keys(enabled=TRUTH, namespace=NAME, labels=MAP, interval=DURATION, scrapeTimeout=DURATION,
                   metricRelabelings=listed(keys(action=TEXT, modulus=whole(1, 2**31), regex=TEXT, replacement=TEXT, separator=TEXT,
                                                 sourceLabels=listed(TEXT), targetLabel=TEXT)))
    return keys(
        fullnameOverride=NAME, nameOverride=NAME, containerName=NAME, commonLabels=MAP, commonAnnotations=MAP,
        image=keys(**IMAGE, pullPolicy=one_of("", "Always", "IfNotPresent", "Never")),
        imagePullSecrets=listed(k8s(CORE + "LocalObjectReference")),
        reach=one_of("hostPort", "nodeLocalService"),
        hostIP=TEXT, hostNetwork=TRUTH, listenAddress=like(r"^[0-9a-fA-F.:]+$"),
        ports=keys(outgoing=PORT, incoming=whole(0, 65535), admin=PORT,
                   extra=listed({**keys(name=PORT_NAME, port=PORT, hostPort=PORT), "required": ["name", "port"]})),
        service=keys(type=one_of("ClusterIP", "NodePort", "LoadBalancer"), clusterIP=TEXT,
                     ipFamilyPolicy=one_of("", "SingleStack", "PreferDualStack", "RequireDualStack"),
                     ipFamilies=listed(one_of("IPv4", "IPv6")), labels=MAP, annotations=MAP),
        dtab=TEXT,
        config=keys(admin=config.admin(), namers=config.part("namers"), telemetry=config.part("telemetry"), workers=whole(0, 1024),
                    outgoing=config.router(), outgoingServer=config.server(), incoming=config.router(), incomingServer=config.server(),
                    routers=config.part("routers")),
        rawConfig=TEXT, rawConfigCheck=TRUTH,
        existingConfigMap=keys(name=SUBDOMAIN, key=like(r"^[-._a-zA-Z0-9]+$")),
        configDir=ABSOLUTE, restartOnConfigChange=TRUTH, kubernetesApi=one_of("direct", "asConfigured"),
        tracing=keys(zipkin=keys(enabled=TRUTH, host=like("^[^:/ ]+$|^[0-9a-fA-F:]+$"), port=PORT, sampleRate={"type": "number", "minimum": 0, "maximum": 1})),
        logLevel=like(r"^[\w:=,.-]+$"),
        stateDir=keys(enabled=TRUTH, mountPath=ABSOLUTE, sizeLimit=QUANTITY, hostPath=like("^(/.*)?$")),
        drain=keys(waitSeconds=SECONDS, graceSeconds=SECONDS), terminationGracePeriodSeconds=SECONDS,
        updateStrategy=k8s(APPS + "DaemonSetUpdateStrategy"), minReadySeconds=SECONDS, revisionHistoryLimit=whole(0, 1000),
        resources=k8s(CORE + "ResourceRequirements"), priorityClassName=SUBDOMAIN,
        resourceQuota=keys(enabled=TRUTH, pods=whole(1, 1000000)),
        tolerations=listed(k8s(CORE + "Toleration")), nodeSelector=MAP, affinity=k8s(CORE + "Affinity"),
        podLabels=MAP, podAnnotations=MAP, labels=MAP, annotations=MAP,
        extraEnv=listed(k8s(CORE + "EnvVar")), extraEnvFrom=listed(k8s(CORE + "EnvFromSource")), extraArgs=listed(TEXT),
        extraVolumes=listed(k8s(CORE + "Volume")), extraVolumeMounts=listed(k8s(CORE + "VolumeMount")),
        extraContainers=listed(k8s(CORE + "Container")), extraInitContainers=listed(k8s(CORE + "Container")),
        dnsPolicy=one_of("", "ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"), dnsConfig=k8s(CORE + "PodDNSConfig"),
        hostAliases=listed(k8s(CORE + "HostAlias")), runtimeClassName=SUBDOMAIN, schedulerName=SUBDOMAIN,
        podSpec=k8s.partial(CORE + "PodSpec"), container=k8s.partial(CORE + "Container"),
        podSecurityContext=k8s(CORE + "PodSecurityContext"), securityContext=k8s(CORE + "SecurityContext"),
        startupProbe=PROBE, livenessProbe=PROBE, readinessProbe=PROBE,
        serviceAccount=keys(create=TRUTH, name=SUBDOMAIN, annotations=MAP),
        rbac=keys(create=TRUTH, scope=one_of("cluster", "namespaces"), namespaces=listed(like(NAME["pattern"], minLength=1)), endpoints=TRUTH,
                  extraRules=listed(k8s("io.k8s.api.rbac.v1.PolicyRule"))),
        networkPolicy=keys(enabled=TRUTH, **{f"{who}From": listed(k8s(NETWORK + "NetworkPolicyPeer")) for who in ("outgoing", "incoming", "admin")}),
        store=store(k8s, config),
        metrics=keys(annotations=TRUTH, path=ABSOLUTE, podMonitor=monitor, serviceMonitor=monitor,
                     prometheusRule=keys(enabled=TRUTH, namespace=NAME, labels=MAP),
                     dashboards=keys(enabled=TRUTH, namespace=NAME, labels=MAP, annotations=MAP)),
        test=keys(enabled=TRUTH, image=keys(**{**IMAGE, "repository": like(r"^([a-z0-9][-a-z0-9._/]*)?$")}), command=listed(TEXT), args=listed(TEXT),
                  resources=k8s(CORE + "ResourceRequirements")),
    )


def store(k8s, config):
    peers = listed(k8s(NETWORK + "NetworkPolicyPeer"))
    named = {"type": "string", "minLength": 1}
    server = {**keys(host=named, port=PORT), "required": ["host"]}
    grant = {**keys(to={**listed(named), "minItems": 1}, namespaces=listed(named), may={**listed(one_of("read", "plan", "write", "force", "report")), "minItems": 1}),
             "required": ["to", "may"]}
    # Those that several replicas share, and a file; which keys go together is said by the program.
    storage = {**keys(kind=one_of("io.l5d.k8s", "io.rutter.k8s.configMap", "io.l5d.etcd", "io.l5d.zk", "io.l5d.consul", "file"), path=like("^/.+/[^/]+$"), experimental=TRUTH,
                      namespace=like(NAME["pattern"], minLength=1, maxLength=63), host=named, port=PORT, endpoints=listed(named), pathPrefix=like("^/"),
                      zkAddrs=listed(server), sessionTimeoutMs=whole(1000, 600000), authInfo=keys(scheme=TEXT, auth=TEXT),
                      acls=listed(keys(scheme=TEXT, id=TEXT, perms=TEXT)), token=TEXT, datacenter=TEXT,
                      readConsistencyMode=one_of("default", "stale", "consistent")), "required": ["kind"]}
    spread = {**keys(topologyKey=named, whenUnsatisfiable=one_of("ScheduleAnyway", "DoNotSchedule")), "required": ["topologyKey", "whenUnsatisfiable"]}
    return keys(
        enabled=TRUTH, replicas=whole(1, 100), namespace=like(SUBDOMAIN["pattern"], minLength=1, maxLength=253), initialDtab=TRUTH, storage=storage,
        persistence=keys(enabled=TRUTH, existingClaim=SUBDOMAIN, size=QUANTITY, storageClass=SUBDOMAIN, accessModes={**listed(one_of("ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany")), "minItems": 1},
                         annotations=MAP),
        namers=config.part("namers"),
        access=keys(audience=named, grants=listed(grant), tokensSecret=keys(name=SUBDOMAIN, key=like(r"^[-._a-zA-Z0-9]+$")), anonymous=TRUTH),
        auditLog=like("^(/.*)?$"),
        ports=keys(http=PORT, mesh=whole(0, 65535), thrift=whole(0, 65535), admin=PORT),
        networkPolicy=keys(enabled=TRUTH, httpFrom=peers, meshFrom=peers, adminFrom=peers),
        podDisruptionBudget=keys(enabled=TRUTH), spread=listed(spread), resources=k8s(CORE + "ResourceRequirements"), priorityClassName=SUBDOMAIN,
        nodeSelector=MAP, tolerations=listed(k8s(CORE + "Toleration")), affinity=k8s(CORE + "Affinity"), podLabels=MAP, podAnnotations=MAP,
        extraEnv=listed(k8s(CORE + "EnvVar")), extraVolumes=listed(k8s(CORE + "Volume")), extraVolumeMounts=listed(k8s(CORE + "VolumeMount")),
        serviceAccount=keys(create=TRUTH, name=SUBDOMAIN, annotations=MAP),
    )


# ---------------------------------------------------------------- from elsewhere

class Definitions:
    """Kubernetes' types, strict; those that are used, once."""

    #: What the API server's own description leaves open.
    OPEN = {"io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": ["string", "number"]},
            "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": ["string", "integer"]}}

    def __init__(self, kubernetes):
        self.kubernetes, self.used = kubernetes, {}

    def __call__(self, name):
        short = name.rsplit(".", 1)[1]
        if short not in self.used:
            self.used[short] = {}  # types can hold themselves
            self.used[short] = self.OPEN.get(name) or self.strict(self.kubernetes[name])
        return {"$ref": f"#/definitions/{short}"}

    def partial(self, name):
        """The type with nothing required: some of its keys, which are laid over the chart's."""
        self(name)
        return {key: value for key, value in self.used[name.rsplit(".", 1)[1]].items() if key != "required"}

    def strict(self, schema):
        if isinstance(schema, list):
            return [self.strict(one) for one in schema]
        if not isinstance(schema, dict):
            return schema
        if "$ref" in schema:
            return self(schema["$ref"].rsplit("/", 1)[1])
        # In an order of their own: an API server may write them in another one.
        made = {key: self.strict(schema[key]) for key in ("type", "items", "additionalProperties", "required", "enum") if key in schema}
        if "properties" in schema:
            made["properties"] = {key: self.strict(value) for key, value in sorted(schema["properties"].items())}
            made["additionalProperties"] = False
        return made


class Kept(Definitions):
    """The types as the file has them already."""

    def __call__(self, name):
        self.take(name.rsplit(".", 1)[1])
        return {"$ref": f"#/definitions/{name.rsplit('.', 1)[1]}"}

    def take(self, short):
        if short not in self.used:
            self.used[short] = self.kubernetes[short]
            for reference in re.findall(r'"#/definitions/(\w+)"', json.dumps(self.used[short])):
                self.take(reference)


class Configuration:
    """Parts of the schema of the configuration file."""

    def __init__(self, schema, defs):
        self.file = bare(schema)["properties"]
        [self.whole_router] = self.file["routers"]["items"]["oneOf"]
        self.defs = defs

    def part(self, key):
        return self.shared(key, self.file[key])

    def admin(self):
        return self.shared("adminKeys", without(self.file["admin"], "ip", "port", "shutdownGraceMs"))

    def router(self):
        return self.shared("routerKeys", without(self.whole_router, "protocol", "label", "servers"))

    def server(self):
        return self.shared("serverKeys", without(self.whole_router["properties"]["servers"]["items"], "ip", "port"))

    def shared(self, name, schema):
        self.defs.used[name] = schema
        return {"$ref": f"#/definitions/{name}"}


def bare(schema):
    """Without the words for people, which are in docs/configuration.md."""
    if isinstance(schema, list):
        return [bare(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: bare(value) for key, value in schema.items() if not (key in ("description", "title") and isinstance(value, str))}


def without(section, *keys):
    made = {**section, "properties": {key: value for key, value in section["properties"].items() if key not in keys}}
    required = [key for key in section.get("required", ()) if key not in keys]
    made.pop("required", None)
    return {**made, "required": required} if required else made


if __name__ == "__main__":
    sys.exit(main())
