#!/usr/bin/env python3
"""What an endpoint gets and what its client gets, direct and through two routers: the same, but for the lines that `ADDED` names.

    tests/clients/fidelity.py [--program PATH]

A cell for each method, framing of the response, version and status.
"""
import argparse
import os
import pathlib
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading

import run
import smuggling

LIMIT_S = 10
METHODS = ["GET", "HEAD", "POST length", "POST chunked", "PUT length", "DELETE", "OPTIONS", "PATCH chunked", "BREW"]
FRAMINGS = ["none", "length", "chunked", "trailers", "close"]
VERSIONS = ["1.1", "1.0"]
STATUSES = [200, 201, 204, 206, 304, 307, 404, 418, 500, 503]

#: Fields that a router adds or changes, and why they may differ.
ADDED = {
    "request": {
        "via": "each router says that it was there",
        "l5d-ctx-trace": "the trace, for the next router", "l5d-reqid": "the trace's root", "l5d-dst-service": "the name",
        "l5d-dst-client": "what it is bound to", "connection": "it is each hop's own",
    },
    "response": {
        "via": "each router says that it was there", "l5d-success-class": "how the response was judged",
        "connection": "it is each hop's own", "transfer-encoding": "compared as the framing", "content-length": "compared as the framing",
    },
}
BODY = b"What is the body of this? \x00\xff" * 9


def response(status, framing, version):
    """A response's bytes; None when there is no such."""
    bodiless = status in (204, 304)
    head = b"HTTP/1.%s %d Some Reason\r\nX-Case: Kept\r\nx-TWICE: 1\r\nX-Twice: 2\r\nSet-Cookie: a=b; Path=/\r\n" % (version[-1:].encode(), status)
    if bodiless and framing != "none" or framing == "none" and not bodiless:
        return None
    if version == "1.0" and framing in ("chunked", "trailers"):
        return None
    pieces = b"5\r\nWhat \r\n;".replace(b";", b"") + b"%x;ext=1\r\n%s\r\n0\r\n" % (len(BODY) - 5, BODY[5:])
    return {
        "none": head + b"\r\n",
        "length": head + b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY),
        "chunked": head + b"Transfer-Encoding: chunked\r\n\r\n" + pieces + b"\r\n",
        "trailers": head + b"Trailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n" + pieces + b"X-Sum: 7\r\n\r\n",
        "close": head + b"Connection: close\r\n\r\n" + BODY,
    }[framing]


class Endpoint(socketserver.StreamRequestHandler):
    """Answers `/STATUS/FRAMING/VERSION`; keeps what it got. A connection ends only where somebody has said so: one that closes
    without a word as it is used again costs a request that may not be repeated, which is not what is looked at here.
    """

    got = []

    def handle(self):
        while message := read_message(self.rfile, is_request=True):
            self.got.append(message)
            _, status, framing, version = message["start"].split(" ")[1].split("/")
            data = response(int(status), framing, version)
            if message["start"].startswith("HEAD"):
                data = data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
            self.wfile.write(data)
            if framing == "close" or ("Connection", "close") in message["fields"]:
                return


def read_message(file, is_request, method=""):
    start = file.readline().decode("latin-1").rstrip("\r\n")
    if not start:
        return None
    fields = []
    while line := file.readline().decode("latin-1").rstrip("\r\n"):
        fields.append(tuple(line.split(": ", 1)) if ": " in line else (line.rstrip(":"), ""))
    lower = {name.lower(): value for name, value in fields}
    trailers = []
    bodiless = not is_request and (method == "HEAD" or start.split(" ")[1] in ("204", "304"))
    if bodiless:
        framing, body = "none", b""
    elif "transfer-encoding" in lower:
        framing, body = "chunked", b""
        while size := int(file.readline().split(b";")[0], 16):
            body += file.read(size)
            file.readline()
        while line := file.readline().decode("latin-1").rstrip("\r\n"):
            trailers.append(line)
    elif "content-length" in lower:
        framing, body = "length", file.read(int(lower["content-length"]))
    elif is_request:
        framing, body = "none", b""
    else:
        framing, body = "close", file.read()
    return {"start": start, "fields": fields, "framing": framing, "body": body, "trailers": trailers}


def ask(port, method, version, path):
    name, _, framing = method.partition(" ")
    head = f"{name} {path} HTTP/{version}\r\nHost: web\r\nUser-Agent: x\r\nX-Odd_name: 1\r\naccept: */*\r\nAccept: text/plain\r\n"
    body = b""
    if framing == "chunked" and version == "1.0":
        return None
    if framing == "length":
        head, body = head + f"Content-Length: {len(BODY)}\r\n", BODY
    elif framing == "chunked":
        head, body = head + "Transfer-Encoding: chunked\r\n", b"%x\r\n%s\r\n0\r\nX-Trailer: t\r\n\r\n" % (len(BODY), BODY)
    with socket.create_connection(("127.0.0.1", port), LIMIT_S) as conn:
        conn.sendall((head + "Connection: close\r\n\r\n").encode() + body)
        with conn.makefile("rb") as file:
            return read_message(file, is_request=False, method=name)


def seen(message, side):
    """What is compared: everything but the documented lines."""
    fields = [(name, value) for name, value in message["fields"] if name.lower() not in ADDED[side]]
    return {**message, "fields": fields}


def expected(direct, method, version, framing, status):
    """The response as the routers change it, on purpose."""
    wanted = seen(direct, "response")
    start = wanted["start"].split(" ", 1)
    # The version is the client's hop's own.
    wanted["start"] = f"HTTP/{version} {start[1]}"
    # Which trailers follow is hop by hop, and the line that lists them goes; the trailers themselves stay.
    wanted["fields"] = [(name, value) for name, value in wanted["fields"] if name.lower() != "trailer"]
    if method == "HEAD" or status in (204, 304):
        return wanted
    if version == "1.1" and framing == "close":
        wanted["framing"] = "chunked"
    if version == "1.0" and wanted["framing"] == "chunked":
        wanted["framing"], wanted["trailers"] = "close", []
    return wanted


def cells(direct, routed):
    """Each cell's name, and what differs."""
    for method in METHODS:
        for version in VERSIONS:
            for status in STATUSES:
                for framing in FRAMINGS:
                    # An endpoint answers in its own version, which is 1.1 but for a client of 1.0 that asks it directly.
                    if response(status, framing, "1.1") is None:
                        continue
                    path = f"/{status}/{framing}/1.1"
                    Endpoint.got.clear()
                    plain = ask(direct, method, version, path)
                    if plain is None:
                        continue
                    through = ask(routed, method, version, path)
                    name = f"{method}, {framing}, HTTP/{version}, {status}"
                    requests = [seen(message, "request") for message in Endpoint.got]
                    if len(requests) != 2 or requests[0] != requests[1]:
                        yield name, f"the endpoint got {requests}"
                        continue
                    wanted = expected(plain, method.split(" ")[0], version, framing, status)
                    found = seen(through, "response") if through else None
                    yield name, None if found == wanted else f"found {found}, wanted {wanted}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=os.environ.get("RUTTER") or str(run.ROOT / "target" / "debug" / "rutter"))
    args = parser.parse_args()
    socketserver.ThreadingTCPServer.daemon_threads = True
    endpoint = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=endpoint.serve_forever, daemon=True).start()
    direct = endpoint.server_address[1]
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="fidelity-") as temp:
        work = pathlib.Path(temp)
        one, two, admin = run.free_port(), run.free_port(), run.free_port()
        for names, target in (("endpoints", direct), ("routers", one)):
            (work / names).mkdir()
            (work / names / "web").write_text(f"127.0.0.1 {target}\n")
        config, log = work / "rutter.yaml", work / "rutter.log"
        config.write_text(smuggling.CONFIG.format(admin=admin, one=one, two=two, work=work))
        with log.open("wb") as out:
            child = subprocess.Popen([args.program, "run", str(config)], cwd=work, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
        try:
            run.wait_for(two, child, log)
            for name, why in cells(direct, two):
                passed, failed = passed + (not why), failed + bool(why)
                if why and failed < 30:
                    print(f"FAIL {name}: {why[:900]}", flush=True)
        finally:
            child.terminate()
            child.wait(20)
    print(f"{passed} cells are the same, {failed} differ")
    return 1 if failed or passed < 120 else 0


if __name__ == "__main__":
    sys.exit(main())
