"""A real Zipkin server for a test."""
import contextlib
import json
import os
import pathlib
import subprocess
import urllib.parse
import urllib.request

from .router import free_port, listens, until


class Zipkin:
    """The real server: HTTP on loopback, Scribe on every address (it has no other way), spans in memory."""

    def __init__(self, directory, scribe=None):
        # 9411 is what tells rutter to send HTTP there, and not Scribe.
        self.port, self.scribe = 9411, scribe or free_port()
        assert not listens(self.port), "port 9411 is taken, by another Zipkin it seems: end it first"
        self.log = (directory / "zipkin.log").open("wb")
        env = {**os.environ, "QUERY_PORT": str(self.port), "COLLECTOR_SCRIBE_ENABLED": "true", "COLLECTOR_PORT": str(self.scribe),
               "STORAGE_TYPE": "mem", "SELF_TRACING_ENABLED": "false"}
        self.child = subprocess.Popen(
            ["java", "-Xmx160m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData",
             "-Darmeria.ports[0].ip=127.0.0.1", f"-Darmeria.ports[0].port={self.port}", "-Darmeria.ports[0].protocols[0]=http",
             "-jar", os.environ["ZIPKIN_JAR"]], env=env, stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT)
        until(lambda: self.child.poll() is not None or self.healthy(), "Zipkin is up", patience=180)
        assert self.child.poll() is None, pathlib.Path(self.log.name).read_text()[-3000:]
        until(lambda: listens(self.scribe), "Zipkin's Scribe collector listens", patience=60)

    def healthy(self):
        with contextlib.suppress(OSError, ValueError):
            return self.get("/health").get("status") == "UP"
        return False

    def get(self, path, **query):
        url = f"http://127.0.0.1:{self.port}{path}"
        with urllib.request.urlopen(f"{url}?{urllib.parse.urlencode(query)}" if query else url, timeout=10) as answer:
            return json.load(answer)

    def trace(self, trace_id, spans):
        """The trace, once it has that many spans."""
        def complete():
            with contextlib.suppress(OSError):
                found = self.get(f"/api/v2/trace/{trace_id}")
                return found if len(found) >= spans else None
        try:
            return until(complete, f"{spans} spans of trace {trace_id}", patience=30)
        except AssertionError:
            with contextlib.suppress(OSError):
                print(json.dumps(self.get(f"/api/v2/trace/{trace_id}"), indent=1))
            raise

    def stop(self):
        self.child.terminate()
        self.child.wait(20)
        self.log.close()
