"""Real servers as endpoints: nginx, Node, Go, Python. Each answers with what it was asked, and says each request it took in a file."""
import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import time

import run

#: Each writes a line for each request that it has read to its end: method and target.
NODE = """
const fs = require("fs"), http = require("http");
http.createServer((request, response) => {
  let size = 0;
  request.on("data", (piece) => { size += piece.length; });
  request.on("end", () => {
    fs.appendFileSync(process.argv[2], `${request.method} ${request.url}\\n`);
    response.setHeader("Content-Type", "text/plain");
    response.end(`${request.method} ${request.url} ${size}`);
  });
}).listen(+process.argv[1], "127.0.0.1");
"""
PYTHON = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_):
        pass
    def __getattr__(self, name):
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)
    def answer(self):
        size = 0
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while length := int(self.rfile.readline().split(b";")[0], 16):
                size += len(self.rfile.read(length))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
        else:
            size = len(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        with open(sys.argv[2], "a") as file:
            file.write(f"{self.command} {self.path}\\n")
        body = f"{self.command} {self.path} {size}".encode("latin-1")
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
GO = """
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
)

func main() {
	file, _ := os.OpenFile(os.Args[2], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	http.ListenAndServe("127.0.0.1:"+os.Args[1], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		size, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			return
		}
		fmt.Fprintf(file, "%s %s\\n", r.Method, r.RequestURI)
		w.Header().Set("Content-Type", "text/plain")
		body := fmt.Sprintf("%s %s %d", r.Method, r.RequestURI, size)
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		io.WriteString(w, body)
	}))
}
"""
NGINX = """
daemon off; master_process off; pid {work}/nginx.pid; error_log {work}/nginx.err;
events {{ worker_connections 512; }}
http {{
  log_format line '$request_method $request_uri'; access_log {seen} line;
  client_body_temp_path {work}; proxy_temp_path {work}; fastcgi_temp_path {work}; uwsgi_temp_path {work}; scgi_temp_path {work};
  underscores_in_headers on; keepalive_requests 100000; client_max_body_size 0;
  server {{ listen 127.0.0.1:{port}; default_type text/plain; location / {{ return 200 "$request_method $request_uri -"; }} }}
}}
"""


class Server:
    """One server under way, and what it has taken since it was asked last."""

    def __init__(self, name, command, port, seen):
        self.name, self.port, self.file, self.read = name, port, seen, 0
        seen.touch()
        self.log = open(seen.with_suffix(".log"), "wb")
        self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT)
        run.wait_for(port, self.child, seen.with_suffix(".log"))

    def seen(self):
        with self.file.open("rb") as file:
            file.seek(self.read)
            # A line that is being written is for the next time.
            data = file.read().rpartition(b"\n")[0]
        self.read += len(data) + bool(data)
        return data.decode("latin-1").splitlines()

    def stop(self):
        self.child.terminate()
        self.child.wait(10)
        self.log.close()


def commands(work):
    """How each server is started, given its port and file; without those whose program is not there."""
    (work / "server.js").write_text(NODE.replace("argv[1]", "argv[2]").replace("argv[2], `", "argv[3], `"))
    (work / "server.py").write_text(PYTHON)
    (work / "server.go").write_text(GO)
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")

    def go(port, seen):
        subprocess.run(["go", "build", "-o", str(work / "goserver"), str(work / "server.go")], check=True,
                       env={**os.environ, "GO111MODULE": "off", "GOCACHE": str(work / "go-cache")})
        return [str(work / "goserver"), str(port), str(seen)]

    def configured(port, seen):
        config = work / "nginx.conf"
        config.write_text(NGINX.format(work=work, seen=seen, port=port))
        return [nginx, "-c", str(config), "-p", str(work)]

    found = {"python": lambda port, seen: [sys.executable, str(work / "server.py"), str(port), str(seen)]}
    if shutil.which("node"):
        found["node"] = lambda port, seen: ["node", str(work / "server.js"), str(port), str(seen)]
    if shutil.which("go"):
        found["go"] = go
    if nginx:
        found["nginx"] = configured
    return found


@contextlib.contextmanager
def started(work):
    """All servers that can be had on this machine."""
    place = pathlib.Path(work) / "servers"
    place.mkdir()
    servers = []
    try:
        for name, command in commands(place).items():
            port, seen = run.free_port(), place / f"{name}.seen"
            servers.append(Server(name, command(port, seen), port, seen))
        yield servers
    finally:
        for server in servers:
            server.stop()


def settled(server, pause=0.03):
    """What the server has taken, a moment after."""
    time.sleep(pause)
    return server.seen()
