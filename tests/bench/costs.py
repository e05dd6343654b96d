#!/usr/bin/env python3
"""What connections cost in memory, and spans in CPU.

    tests/run costs                                    fails when a limit does not hold
    tests/run costs -- --into docs/performance.md      writes the table there
    tests/run costs -- --connections 400 --rounds 1    smaller

The router is the benchmark's (configs/rutter.yaml), on CPU 1; clients, backends and the collector share CPU 0.
"""
import argparse
import contextlib
import pathlib
import resource
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent), str(pathlib.Path(__file__).resolve().parents[1])]
import compare  # noqa: E402
from harness.certificates import Authority  # noqa: E402
from harness.document import put_between  # noqa: E402
from harness.router import free_port, listens, until  # noqa: E402

MARKS = "<!-- costs -->", "<!-- end of costs -->"
#: Idle, in MiB; of an idle connection, one with TLS, and one whose request is under way, in KiB; after a load, as against before.
IDLE_MIB, PLAIN_KIB, TLS_KIB, BUSY_KIB, AFTER = 15, 6, 40, 12, 1.2
#: All requests sampled at so many a second cost so much of a core.
RATE, SPANS = 5000, 0.15
REST_S = 60


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--into", help="the file that gets the table, between its marks")
    args = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    rows, exceeded = [], []

    def row(what, value, limit=None, unit=""):
        rows.append(f"| {what} | {value:.2f}{unit} | {'' if limit is None else f'{limit:g}{unit}'} |")
        print(rows[-1], flush=True)
        if limit is not None and value > limit:
            exceeded.append(f"{what}: {value:.2f}{unit}, at most {limit:g}{unit}")

    with tempfile.TemporaryDirectory(prefix="rutter-costs-") as scratch, backends(pathlib.Path(scratch)) as start:
        collector = taking_collector()
        memory(start, Authority(pathlib.Path(scratch)), collector, args.connections, row)
        spans(start, collector, args.rounds, row)
    table = "\n".join(["| | | at most |", "| --- | ---: | ---: |", *rows])
    if args.into:
        put_between(args.into, MARKS, f"{table}\n")
    for what in exceeded:
        print(f"exceeded: {what}", file=sys.stderr)
    return 1 if exceeded else 0


@contextlib.contextmanager
def backends(scratch):
    """Three backends; gives what starts a router on them, with its configuration changed."""
    ports = [free_port() for _ in range(3)]
    for port in ports:
        compare.spawn([str(compare.TOOLS / "backend"), str(port)], 0, scratch / "backend.log")
    started = []

    def start(edit=lambda text: text):
        folder = scratch / f"router-{len(started)}"
        folder.mkdir()
        context = {"dir": folder, "port": free_port(), "admin": free_port(), "b": ports, "n": 1}
        argv = compare.rutter()(context)
        config = pathlib.Path(argv[-1])
        config.write_text(edit(config.read_text()))
        process = compare.spawn(argv, 1, folder / "log")
        started.append(process)
        return context["port"], process

    try:
        for port in ports:
            compare.wait_ready(port)
        yield start
    finally:
        for process in compare.procs:
            compare.stop(process)


def pss(process):
    """In KiB, when all is quiet."""
    time.sleep(2)
    return compare.usage([process.pid])[3]


def asked(stream):
    """A connection that sent a request, has its answer, and rests."""
    stream.sendall(b"GET /64 HTTP/1.1\r\nhost: svc-0\r\n\r\n")
    stream.recv(4096)
    return stream


def sampled(rate, collector):
    """The configuration with this share of requests traced, and a collector at this port."""
    return lambda text: text.replace("port: 1, sampleRate: 0.01", f"port: {collector}, transport: http, sampleRate: {rate}")


def after_a_load(router, port, before, count):
    """Many connections at once: PSS under them at the most, PSS a minute later or as soon as it is low enough, and when that was."""
    load = threading.Thread(target=compare.client, args=(compare.lg("--conns", count), port, 30 * count))
    load.start()
    most = 0
    while load.is_alive():
        most = max(most, compare.usage([router.pid])[3])
        time.sleep(0.2)
    began = time.monotonic()
    while time.monotonic() < began + REST_S and compare.usage([router.pid])[3] > AFTER * before:
        time.sleep(1)
    return most, pss(router), time.monotonic() - began


def memory(start, authority, collector, count, row):
    port, router = start(sampled(0.01, collector))
    compare.wait_ready(port)
    row("idle, PSS", pss(router) / 1024, IDLE_MIB, " MiB")
    compare.client(compare.lg("--conns", 64), port, 20000)
    before = pss(router)
    resting = [asked(socket.create_connection(("127.0.0.1", port), 5)) for _ in range(count)]
    row(f"an idle connection, of {count:,}", (pss(router) - before) / count, PLAIN_KIB, " KiB")
    for stream in resting:
        stream.close()
    # They are closed, but what they needed has not gone back yet: it is none of what was there before.
    most, after, waited = after_a_load(router, port, before, count)
    row(f"PSS before a load of {count:,} connections at once", before / 1024, None, " MiB")
    row("under it, at the most", most / 1024, None, " MiB")
    row("that is, for a connection whose request is under way", (most - before) / count, BUSY_KIB, " KiB")
    row(f"after it, as against before (waited {waited:.0f} s)", after / before, AFTER)
    compare.stop(router)

    port, router = start(sampled(0.01, 1))
    compare.wait_ready(port)
    compare.client(compare.lg("--conns", 64), port, 20000)
    before = pss(router)
    _, after, waited = after_a_load(router, port, before, count)
    row(f"the same with a collector that is down (waited {waited:.0f} s)", after / before)
    compare.stop(router)

    server = authority.issue("costs.test", ["IP:127.0.0.1"])
    secured = lambda text: text.replace("  - {ip: 127.0.0.1, port:", f"  - {{tls: {{certPath: {server.cert}, keyPath: {server.key}}}, ip: 127.0.0.1, port:")
    port, router = start(secured)
    trusting = ssl.create_default_context(cafile=str(authority.cert))
    connect = lambda: asked(trusting.wrap_socket(socket.create_connection(("127.0.0.1", port), 5), server_hostname="127.0.0.1"))
    until(lambda: listens(port), "the router is up")
    connect().close()
    before = pss(router)
    resting = [connect() for _ in range(count // 5)]
    row(f"an idle connection with TLS, of {count // 5:,}", (pss(router) - before) / len(resting), TLS_KIB, " KiB")
    for stream in resting:
        stream.close()
    compare.stop(router)


#: Takes what is sent, in a process of its own: it is none of the client's time.
COLLECTOR = """
import http.server, sys
class Taking(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Taking).serve_forever()
"""


def taking_collector():
    """Its port."""
    port = free_port()
    taking = subprocess.Popen([*compare.pinned(0), sys.executable, "-c", COLLECTOR, str(port)], start_new_session=True)
    compare.procs.append(taking)
    return port


def spans(start, collector, rounds, row):
    routers = {"none": start(sampled(0.0, 1)), "dead": start(sampled(1.0, 1)), "live": start(sampled(1.0, collector))}
    for port, _ in routers.values():
        compare.wait_ready(port)
    cpu = {name: [] for name in routers}
    for _ in range(rounds):
        for name, (port, router) in routers.items():
            before, began = compare.usage([router.pid])[0], time.monotonic()
            result = compare.client(compare.lg("--conns", 64, "--rate", RATE), port, 2 * RATE)
            time.sleep(1.2)
            took = time.monotonic() - began - 1.2
            if result["bad"]:
                raise AssertionError(f"{name}: {result}")
            cpu[name].append((compare.usage([router.pid])[0] - before) / 1e9 / took)
    more = lambda name: statistics.median(with_it - without for with_it, without in zip(cpu[name], cpu["none"]))
    times = lambda name: statistics.median(with_it / without for with_it, without in zip(cpu[name], cpu["none"]))
    row(f"of a core at {RATE:,} requests/s, no spans", statistics.median(cpu["none"]))
    row("more with a span of each request, sent to a collector", more("live"), SPANS)
    row("that is, times", times("live"))
    row("more with a collector that is down", more("dead"), SPANS)


if __name__ == "__main__":
    sys.exit(main())
