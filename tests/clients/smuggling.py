#!/usr/bin/env python3
"""Sends the codec's corpus (`crates/router/src/http1/smuggling.txt`) through the built program, and counts what comes out behind it.

    tests/clients/smuggling.py [--program PATH]

A refused request is answered 4xx and its connection closed, and neither it nor what stands behind it on the connection reaches the
endpoint. An accepted one reaches it once, with the body that the corpus says. A refused response becomes a 502. What an endpoint sends
behind its response is never the next request's answer. All that through one router, and through two in a row.

The requests go through both routers to real servers, too (nginx, Node, Go, Python): each gets at most
one request for each that was sent, and none of a refused one. Meanwhile another client, whose requests share the routers'
connections, always gets its own answers (the canary).
"""
import argparse
import http.client
import os
import pathlib
import re
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time

import run
import servers

CORPUS = run.ROOT / "crates" / "router" / "src" / "http1" / "smuggling.txt"
REFUSED = {"malformed": 400, "ambiguous": 400, "line": 414, "head": 431, "fields": 431}
BEHIND = b"GET /behind HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n"
LIMIT_S = 10
#: So many cases at least go through the routers, and these are the servers.
CASES = 300
REAL = {"nginx", "node", "go", "python"}

CONFIG = """\
admin: {{ip: 127.0.0.1, port: {admin}}}
namers:
- {{kind: io.l5d.fs, prefix: /io.l5d.endpoints, rootDir: {work}/endpoints}}
- {{kind: io.l5d.fs, prefix: /io.l5d.routers, rootDir: {work}/routers}}
routers:
- protocol: http
  label: in
  dtab: /svc => /#/io.l5d.endpoints
  client: {{failureAccrual: {{kind: none}}}}
  service: {{retries: {{budget: {{minRetriesPerSec: 0, percentCanRetry: 0.0}}}}}}
  servers:
  - {{ip: 127.0.0.1, port: {one}}}
- protocol: http
  label: out
  dtab: /svc => /#/io.l5d.routers
  client: {{failureAccrual: {{kind: none}}}}
  service: {{retries: {{budget: {{minRetriesPerSec: 0, percentCanRetry: 0.0}}}}}}
  servers:
  - {{ip: 127.0.0.1, port: {two}}}
"""

#: Method, what an endpoint sends, and the status and body that it is. `EVIL` follows, which is nobody's answer.
SURPLUS = [
    ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", (200, b"ok")),
    ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", (200, b"ok")),
    ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"")),
    ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 50\r\n\r\n", (304, b"")),
    ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n", (200, b"")),
    ("GET", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", (200, b"ok")),
    ("GET", b"HTTP/1.1 100 Continue\r\nX: 1\r\n\r\n" * 10 + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", (200, b"ok")),
    ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", (200, b"")),
]
EVIL = b"HTTP/1.1 299 Evil\r\nContent-Length: 4\r\n\r\nevil"


def unescape(text):
    out, at = bytearray(), 0
    simple = {"r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0", "\\": b"\\"}
    while at < len(text):
        if text[at] == "\\":
            if text[at + 1] == "x":
                out.append(int(text[at + 2:at + 4], 16))
                at += 4
            else:
                out += simple[text[at + 1]]
                at += 2
        elif text[at] == "{":
            end = text.index("}", at)
            times, what = text[at + 1:end].split(":", 1)
            out += unescape(what) * int(times)
            at = end + 1
        else:
            out += text[at].encode()
            at += 1
    return bytes(out)


def corpus():
    """Kind, verdict and bytes of each case, as the codec's own tests read it."""
    for line in CORPUS.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        kind, verdict, text = line.split("\t")
        if text.endswith("\\nH") and kind == "req":
            yield kind, verdict, unescape(text[:-1]) + b"Host: web\r\n\r\n"
        elif text.endswith("\\nE"):
            yield kind, verdict, unescape(text[:-1]) + b"\r\n"
        else:
            yield kind, verdict, unescape(text)


class Endpoint(socketserver.StreamRequestHandler):
    """Notes the requests it reads, strictly; answers `/resp/N` with the bytes of case N."""

    seen = []
    lock = threading.Lock()
    answers = {}

    def handle(self):
        try:
            while self.exchange():
                pass
        except (ValueError, IndexError, ConnectionError) as error:
            self.note("broken", repr(error).encode())

    def note(self, what, body):
        with self.lock:
            self.seen.append((what, body))

    def exchange(self):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self.rfile.readline()
            if not line:
                if head:
                    self.note("cut head", head)
                return False
            head += line
        start, *lines = head[:-4].split(b"\r\n")
        fields = [(name.lower(), value.strip()) for name, value in (line.split(b":", 1) for line in lines)]
        lengths = [value for name, value in fields if name == b"content-length"]
        codings = [value for name, value in fields if name == b"transfer-encoding"]
        if len(lengths) + len(codings) > 1:
            self.note("ambiguous", head)
            return False
        target = start.split(b" ")[1].decode("latin-1")
        body = self.chunked() if codings else self.rfile.read(int(lengths[0])) if lengths else b""
        if lengths and len(body) != int(lengths[0]):
            self.note("cut body", body)
            return False
        self.note(target, body)
        if target in self.answers:
            self.wfile.write(self.answers[target])
            # After what is behind a response the connection stays, for it must not be used again.
            return target.startswith("/surplus/")
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        return True

    def chunked(self):
        data = b""
        while True:
            line = self.rfile.readline()
            size = int(line.split(b";")[0].strip(), 16)
            if size == 0:
                while (line := self.rfile.readline()) != b"\r\n":
                    if not line.endswith(b"\r\n"):
                        raise ValueError("cut trailers")
                return data
            data += self.rfile.read(size)
            if self.rfile.read(2) != b"\r\n":
                raise ValueError("no CR LF after a chunk")


def talk(port, wire):
    """All that comes back until the connection is closed, and whether it was within the limit."""
    with socket.create_connection(("127.0.0.1", port), LIMIT_S) as client:
        client.settimeout(LIMIT_S)
        try:
            client.sendall(wire)
        except OSError:
            pass  # refused before all was read
        got = b""
        try:
            while piece := client.recv(65536):
                got += piece
        except TimeoutError:
            return got, False
        except OSError:
            pass
        return got, True


def statuses(answers):
    """The statuses of the responses in `answers`; one that is not framed by Content-Length is taken for the last."""
    found = []
    while answers.startswith(b"HTTP/1."):
        head, _, answers = answers.partition(b"\r\n\r\n")
        found.append(int(head[9:12]))
        length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
        if length and found[-1] != 304:
            answers = answers[int(length[1]):]
        elif found[-1] not in (204, 304) and found[-1] >= 200:
            break
    return found


def seen_by_endpoint(refused=False):
    """What the endpoint saw since it was asked last; a moment is given to what should not come."""
    if refused:
        time.sleep(0.03)
    with Endpoint.lock:
        found, Endpoint.seen[:] = Endpoint.seen[:], []
    return found


def judge_request(port, verdict, wire):
    body = b""
    if verdict.startswith("ok length"):
        body = b"x" * min(int(verdict.split()[-1]), 1000)
        if len(body) != int(verdict.split()[-1]):
            return None  # too long to be sent
        wire += body
    elif verdict == "ok chunked":
        body = b"hello"
        wire += b"5\r\nhello\r\n0\r\n\r\n"
    got, closed = talk(port, wire + BEHIND)
    found, seen = statuses(got), seen_by_endpoint(verdict in REFUSED)
    if not closed:
        return f"the connection stays open after {found}"
    if verdict in REFUSED:
        wanted = REFUSED[verdict]
        return None if found == [wanted] and not seen else f"answered {found}, wanted {wanted} and closed; the endpoint saw {seen}"
    routed = [what for what in seen if what[0] != "/behind"]
    # What has no Host, is a CONNECT or names another host is answered by the router; the next request follows, or the end.
    if found[0] >= 400:
        return None if not routed else f"answered {found}, but the endpoint saw {seen}"
    if len(routed) != 1 or routed[0][1] != body or found[1:] not in ([], [200]) or len(seen) != len(found):
        return f"answered {found}, the endpoint saw {seen}"
    return None


def judge_body(port, verdict, wire):
    ok = verdict.startswith("ok")
    head = b"POST /body HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), LIMIT_S) as client:
        client.settimeout(LIMIT_S)
        got = b""
        try:
            client.sendall(head + wire)
            if verdict == "truncated":
                client.shutdown(socket.SHUT_WR)
            elif not ok:
                client.sendall(BEHIND)
            while piece := client.recv(65536):
                got += piece
        except TimeoutError:
            return f"the connection stays open after {statuses(got)}"
        except OSError:
            pass
    found, seen = statuses(got), seen_by_endpoint(not ok)
    whole = [what for what in seen if what[0] in ("/body", "/behind")]
    if ok:
        return None if found == [200] and whole == [("/body", verdict[3:].encode())] else f"answered {found}, the endpoint saw {seen}"
    return None if 200 not in found and not whole else f"answered {found}, the endpoint saw {seen}"


def judge_response(port, number, verdict, wire):
    target = f"/resp/{number}"
    bodies = {"ok chunked": b"0\r\n\r\n", "ok close": b"all"}
    if verdict.startswith("ok length"):
        bodies[verdict] = b"x" * int(verdict.split()[-1])
    Endpoint.answers[target] = wire + bodies.get(verdict, b"")
    got, closed = talk(port, f"GET {target} HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n".encode())
    found = statuses(got)
    seen_by_endpoint()
    if not closed:
        return f"the connection stays open after {found}"
    own = int(wire.split(b" ")[1][:3]) if verdict.startswith("ok") else 0
    if verdict not in REFUSED and own >= 200:
        return None if found == [own] else f"answered {found}, wanted {own}"
    # After an interim response alone there is no answer to pass on.
    return None if found[-1:] == [502] and 101 not in found else f"answered {found}, wanted 502"


def judge_surplus(port, number, method, wire, wanted):
    """A response with another one behind it, at once or later; then an ordinary request on the same connection."""
    for pause in (0, 0.02):
        target = f"/surplus/{number}"
        Endpoint.answers[target] = wire + EVIL
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
        client.request(method, target, headers={"Host": "web"})
        answer = client.getresponse()
        found = answer.status, answer.read()
        time.sleep(pause)
        client.request("GET", "/after", headers={"Host": "web"})
        answer = client.getresponse()
        after = answer.status, answer.read()
        client.close()
        seen_by_endpoint()
        if (found, after) != (wanted, (200, b"ok")):
            return f"found {found} and then {after}, wanted {wanted} and (200, b'ok')"
    return None


def cases(port):
    """Each case's name, and what is wrong with it."""
    for number, (kind, verdict, wire) in enumerate(corpus()):
        if verdict == "partial":
            continue
        if kind == "req":
            why = judge_request(port, verdict, wire)
        elif kind == "body":
            why = judge_body(port, verdict, wire)
        else:
            why = judge_response(port, number, verdict, wire)
        yield f"{kind}, {verdict}: {wire[:120]!r}", why
    for number, (method, wire, wanted) in enumerate(SURPLUS):
        yield f"surplus behind {method}: {wire[:120]!r}", judge_surplus(port, number, method, wire, wanted)


class Canary:
    """A client that asks for a page of its own again and again, and looks whether that is what it gets."""

    def __init__(self, port):
        self.port, self.asked, self.wrong, self.ended = port, 0, [], threading.Event()
        self.thread = threading.Thread(target=self.work)
        self.thread.start()

    def work(self):
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_S)
        while not self.ended.is_set():
            target = f"/canary/{self.asked}"
            try:
                client.request("GET", target, headers={"Host": "web"})
                answer = client.getresponse()
                found = answer.status, answer.read().decode("latin-1")
            except (OSError, http.client.HTTPException) as error:
                found = 0, repr(error)
                client.close()
            if found[0] != 200 or f"GET {target} " not in found[1]:
                self.wrong.append((target, found))
            self.asked += 1
            time.sleep(0.002)

    def end(self):
        self.ended.set()
        self.thread.join()


def judge_real(port, server, verdict, wire):
    """What a real server saw of one request of the corpus."""
    if verdict.startswith("ok length"):
        if (length := int(verdict.split()[-1])) > 1000:
            return None
        wire += b"x" * length
    elif verdict == "ok chunked":
        wire += b"5\r\nhello\r\n0\r\n\r\n"
    got, closed = talk(port, wire + BEHIND)
    found = statuses(got)
    time.sleep(0.02 if verdict in REFUSED else 0.005)
    seen = [line for line in server.seen() if " /canary/" not in line]
    if not closed:
        return f"the connection stays open after {found}"
    if verdict in REFUSED:
        return None if found == [REFUSED[verdict]] and not seen else f"answered {found}; the server saw {seen}"
    behind = [line for line in seen if line == "GET /behind"]
    if len(seen) > len(found) or len(behind) > 1 or len(seen) - len(behind) > 1:
        return f"answered {found}; the server saw {seen}"
    return None


def real_cases(work, port):
    """The corpus in front of each real server, and the canary's report."""
    with servers.started(work) as running:
        for server in running:
            (work / "endpoints" / "web").write_text(f"127.0.0.1 {server.port}\n")
            end = time.monotonic() + LIMIT_S
            while not any("/ready" in line for line in server.seen()) and time.monotonic() < end:
                talk(port, b"GET /ready HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
            time.sleep(0.1)
            server.seen()
            canary = Canary(port)
            for kind, verdict, wire in corpus():
                if kind == "req" and verdict != "partial":
                    yield f"{server.name}, {verdict}: {wire[:120]!r}", judge_real(port, server, verdict, wire)
            canary.end()
            yield f"{server.name}, the canary's {canary.asked} requests", str(canary.wrong[:3]) if canary.wrong or canary.asked < 50 else None
        names = {server.name for server in running}
        print(f"real servers: {', '.join(sorted(names))}", flush=True)
        if missing := REAL - names:
            yield "real servers", f"these are not installed here: {', '.join(sorted(missing))}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=os.environ.get("RUTTER") or str(run.ROOT / "target" / "debug" / "rutter"))
    args = parser.parse_args()
    socketserver.ThreadingTCPServer.daemon_threads = True
    endpoint = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=endpoint.serve_forever, daemon=True).start()
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="smuggling-") as temp:
        work = pathlib.Path(temp)
        one, two, admin = run.free_port(), run.free_port(), run.free_port()
        for names, target in (("endpoints", endpoint.server_address[1]), ("routers", one)):
            (work / names).mkdir()
            (work / names / "web").write_text(f"127.0.0.1 {target}\n")
        config, log = work / "rutter.yaml", work / "rutter.log"
        config.write_text(CONFIG.format(admin=admin, one=one, two=two, work=work))
        with log.open("wb") as out:
            child = subprocess.Popen([args.program, "run", str(config)], cwd=work, stdin=subprocess.DEVNULL, stdout=out,
                                     stderr=subprocess.STDOUT)
        try:
            run.wait_for(two, child, log)
            for hops, port in (("one router", one), ("two routers", two)):
                count = 0
                for case, why in cases(port):
                    count, passed, failed = count + 1, passed + (not why), failed + bool(why)
                    if why:
                        print(f"FAIL {hops}, {case}: {why[:500]}", flush=True)
                print(f"{hops}: {count} cases", flush=True)
                if count < CASES:
                    failed += 1
                    print(f"FAIL {hops}: {count} cases, {CASES} are promised", flush=True)
            for case, why in real_cases(work, two):
                passed, failed = passed + (not why), failed + bool(why)
                if why:
                    print(f"FAIL {case}: {why[:500]}", flush=True)
            if child.poll() is not None:
                failed += 1
                print(f"FAIL the program ended with {child.returncode}")
        finally:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
            if failed:
                print(log.read_text(errors="replace")[-3000:], file=sys.stderr)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
