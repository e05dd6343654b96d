#!/usr/bin/env python3
"""Runs clients as they are, with http_proxy set, through the built program. See README.md."""
import argparse
import http.server
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
#: A client that takes longer hangs.
CLIENT_LIMIT_S = 90

CHECKS = ["get", "head", "not-found", "post", "upload-chunked", "chunked-response", "large", "keep-alive", "odd-query", "unbound",
          "connect-unbound", "connect-port", "https"]
#: What a client does that speaks nothing but gRPC.
GRPC_CHECKS = ["connect-unbound", "connect-port", "grpc-tls", "grpc-plain", "grpc-stream"]

CONFIG = """\
admin: {{ip: 127.0.0.1, port: {admin}}}
namers:
- {{kind: io.l5d.fs, prefix: /endpoints, rootDir: {work}/endpoints}}
- {{kind: io.l5d.fs, prefix: /routers, rootDir: {work}/routers}}
routers:
- protocol: http
  label: in
  dtab: /svc => /#/endpoints
  servers:
  - {{ip: 127.0.0.1, port: {inner}}}
- protocol: http
  label: out
  dtab: /svc => /#/routers
  client: {{httpProxy: true}}
  servers:
  - {{ip: 127.0.0.1, port: {port}}}
"""


class Backend(http.server.BaseHTTPRequestHandler):
    """Answers what the checks ask for."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        path, _, query = self.path.partition("?")
        if path == "/hello":
            self.answer(200, b"hello")
        elif path == "/query":
            self.answer(200, query.encode("latin-1"))
        elif path == "/chunked":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in (b"one", b"two", b"three"):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.flush()
                time.sleep(0.02)
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.answer(404, b"no such page")

    do_HEAD = do_GET

    def do_POST(self):
        self.answer(200, self.body(), [("X-Framing", "chunked" if "Transfer-Encoding" in self.headers else "length")])

    do_PUT = do_POST

    def body(self):
        if "Transfer-Encoding" not in self.headers:
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        data = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return data

    def answer(self, status, body, headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def certificate(work):
    """A TLS context of an endpoint called `web`, whose certificate is in `web.pem`."""
    place, key = work / "web.pem", work / "web.key"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-subj", "/CN=web",
                    "-addext", "subjectAltName=DNS:web", "-keyout", str(key), "-out", str(place)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place, key)
    return context


class Server(http.server.ThreadingHTTPServer):
    """Handshakes in the connection's own thread."""

    daemon_threads = True
    context = None

    def finish_request(self, request, client_address):
        if self.context is not None:
            try:
                request = self.context.wrap_socket(request, server_side=True)
            except OSError:
                return
        super().finish_request(request, client_address)


def backend(context=None):
    """The port of an endpoint."""
    server = Server(("127.0.0.1", 0), Backend)
    server.context = context
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_for(port, child, log):
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if child.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"the program does not listen on {port}:\n{log.read_text(errors='replace')[-3000:]}")


def java(work):
    subprocess.run(["javac", "-d", str(work), str(HERE / "Client.java")], check=True)
    return ["java", "-cp", str(work), "Client"]


def go(work):
    built = work / "goclient"
    subprocess.run(["go", "build", "-o", str(built), "client.go"], cwd=HERE, check=True,
                   env={**os.environ, "GOFLAGS": "-mod=mod", "GO111MODULE": "off", "GOCACHE": str(work / "go-cache")})
    return [str(built)]


def grpc(_):
    """Needs the program of `tests/run`'s preparations."""
    return [os.environ["GRPC_CLIENT"]]


def checks_of(name):
    return GRPC_CHECKS if name == "grpc-go" else CHECKS


#: What each client needs to be there, and how it is started.
CLIENTS = {
    "curl": ("curl", lambda work: ["sh", str(HERE / "curl.sh")]),
    "requests": ("python3", lambda work: [sys.executable, str(HERE / "with_requests.py")]),
    "urllib": ("python3", lambda work: [sys.executable, str(HERE / "with_urllib.py")]),
    "go": ("go", go),
    "java": ("javac", java),
    "node": ("node", lambda work: ["node", str(HERE / "client.js")]),
    "grpc-go": (os.environ.get("GRPC_CLIENT", "GRPC_CLIENT"), grpc),
}


def run(name, proxy, work):
    """What the client said of each check."""
    tool, start = CLIENTS[name]
    if shutil.which(tool) is None:
        return {check: f"{tool} is not installed" for check in checks_of(name)}
    env = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    env.update({"http_proxy": proxy, "https_proxy": proxy, "HTTP_PROXY": proxy, "HTTPS_PROXY": proxy})
    certificate = str(work / "web.pem")
    env.update({"SSL_CERT_FILE": certificate, "REQUESTS_CA_BUNDLE": certificate, "NODE_EXTRA_CA_CERTS": certificate})
    said = {check: "the client said nothing of it" for check in checks_of(name)}
    place = work / name
    place.mkdir()
    try:
        done = subprocess.run([*start(place), proxy], env=env, cwd=place, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              errors="replace", timeout=CLIENT_LIMIT_S)
        out, err = done.stdout, done.stderr
    except subprocess.TimeoutExpired as late:
        out, err = (late.stdout or b"").decode(errors="replace"), f"hangs: not done after {CLIENT_LIMIT_S} s"
    except subprocess.CalledProcessError as failed:
        out, err = "", str(failed)
    for line in out.splitlines():
        word, _, rest = line.partition(" ")
        check, _, why = rest.partition(": ")
        if word in ("pass", "fail") and check in said:
            said[check] = "" if word == "pass" else why or "failed"
    if err.strip() and any(said.values()):
        print(f"{name} wrote: {err.strip()[-1500:]}", file=sys.stderr)
    return said


#: What the page says of each check.
MEANING = {
    "get": "a GET", "head": "a HEAD: the length, and no body", "not-found": "the endpoint's own 404", "post": "a body with Content-Length",
    "upload-chunked": "a body of unknown length", "chunked-response": "a response in chunks", "large": "2 MB each way",
    "keep-alive": "three requests on one connection", "odd-query": "a query that no strict parser takes",
    "unbound": "an unknown name: 502 with its code, and the connection goes on",
    "connect-unbound": "https to an unknown name: the tunnel is refused with 502",
    "connect-port": "https to a port that is not allowed: refused with 403 (RT-E125)",
    "https": "https through a tunnel, from the client to the endpoint's own certificate",
    "grpc-tls": "gRPC calls with TLS, through a tunnel", "grpc-plain": "gRPC calls without TLS, through a tunnel",
    "grpc-stream": "a stream of gRPC messages, through a tunnel",
}
BEGIN, END = "<!-- begin: made by tests/clients/run.py --update-docs -->", "<!-- end -->"


def table(results):
    lines = ["| | " + " | ".join(results) + " |", "| --- |" + " --- |" * len(results)]
    for check in MEANING:
        cells = " | ".join("–" if check not in results[name] else "no" if results[name][check] else "yes" for name in results)
        lines.append(f"| {MEANING[check]} (`{check}`) | {cells} |")
    return "\n".join(lines)


def table_is_stale(results, update):
    page = ROOT / "docs" / "clients.md"
    text = page.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    fresh = f"{before}{BEGIN}\n\n{table(results)}\n\n{END}{after}"
    if update:
        page.write_text(fresh)
    elif fresh != text:
        print("FAIL docs/clients.md does not say what was found: tests/clients/run.py --update-docs")
        return True
    return False


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", default=os.environ.get("RUTTER") or str(ROOT / "target" / "debug" / "rutter"))
    parser.add_argument("--update-docs", action="store_true", help="write the table into docs/clients.md")
    parser.add_argument("clients", nargs="*", metavar="CLIENT", help=f"of {', '.join(CLIENTS)}; default all")
    args = parser.parse_args()
    if unknown := [name for name in args.clients if name not in CLIENTS]:
        parser.error(f"no such client: {', '.join(unknown)}")

    passed = failed = 0
    results = {}
    with tempfile.TemporaryDirectory(prefix="clients-") as temp:
        work = pathlib.Path(temp)
        plain, secure = backend(), backend(certificate(work))
        port, inner, admin = free_port(), free_port(), free_port()
        for place in ("endpoints", "routers"):
            (work / place).mkdir()
        grpc_plain, grpc_secure = free_port(), free_port()
        endpoint = subprocess.Popen([*grpc(None), "serve", str(grpc_plain), str(grpc_secure), str(work / "web.pem"), str(work / "web.key")],
                                    stdin=subprocess.DEVNULL) if "GRPC_CLIENT" in os.environ else None
        # CONNECT names a port always, and the port is part of the name. Which names there are the inner router knows.
        for name, target in (("web", plain), ("web:443", secure), ("web:8443", secure), ("grpc-plain:443", grpc_plain),
                             ("grpc-tls:443", grpc_secure)):
            (work / "endpoints" / name).write_text(f"127.0.0.1 {target}\n")
        for name in ("web", "web:443", "web:8443", "nobody", "nobody:443", "grpc-plain:443", "grpc-tls:443"):
            (work / "routers" / name).write_text(f"127.0.0.1 {inner}\n")
        config = work / "rutter.yaml"
        config.write_text(CONFIG.format(admin=admin, port=port, inner=inner, work=work))
        log = work / "rutter.log"
        with log.open("wb") as out:
            child = subprocess.Popen([args.program, "run", str(config)], cwd=work, stdin=subprocess.DEVNULL, stdout=out,
                                     stderr=subprocess.STDOUT)
        try:
            wait_for(port, child, log)
            for name in args.clients or CLIENTS:
                results[name] = run(name, f"http://127.0.0.1:{port}", work)
                for check, why in results[name].items():
                    passed, failed = passed + (not why), failed + bool(why)
                    print(f"{'FAIL' if why else 'ok  '} {name}/{check}{': ' + why if why else ''}", flush=True)
            if child.poll() is not None:
                failed += 1
                print(f"FAIL the program ended with {child.returncode}:\n{log.read_text(errors='replace')[-3000:]}")
        finally:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
            if endpoint:
                endpoint.kill()
                endpoint.wait()
    if not args.clients and table_is_stale(results, args.update_docs):
        failed += 1
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
