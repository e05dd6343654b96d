"""Python's urllib, which takes http_proxy from the environment, and http.client for what urllib cannot do."""
import http.client
import os
import urllib.error
import urllib.parse
import urllib.request

WEB = "http://web"
LIMIT_S = 20


def check(name, run):
    try:
        found, wanted = run()
        print(f"pass {name}" if found == wanted else f"fail {name}: found {str(found)[:300]}, wanted {str(wanted)[:300]}", flush=True)
    except Exception as error:  # every other end is a finding, too
        print(f"fail {name}: {type(error).__name__} {error}", flush=True)


def fetch(url, **how):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, **how), timeout=LIMIT_S) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), error.headers


def by_proxy():
    proxy = urllib.parse.urlsplit(os.environ["http_proxy"])
    return http.client.HTTPConnection(proxy.hostname, proxy.port, timeout=LIMIT_S)


def head():
    status, body, headers = fetch(f"{WEB}/hello", method="HEAD")
    return (status, body, headers["Content-Length"]), (200, b"", "5")


def post():
    status, body, headers = fetch(f"{WEB}/echo", data=b"abc")
    return (status, body, headers["X-Framing"]), (200, b"abc", "length")


def upload_chunked():
    status, body, headers = fetch(f"{WEB}/echo", data=iter([b"one", b"two"]), method="POST")
    return (status, body, headers["X-Framing"]), (200, b"onetwo", "chunked")


def large():
    data = os.urandom(2_000_000)
    return fetch(f"{WEB}/echo", data=data)[1] == data, True


def keep_alive():
    connection = by_proxy()
    bodies, sockets = [], set()
    for path in ("hello", "chunked", "hello"):
        connection.request("GET", f"{WEB}/{path}")
        bodies.append(connection.getresponse().read())
        sockets.add(connection.sock)
    return (bodies, len(sockets), None in sockets), ([b"hello", b"onetwothree", b"hello"], 1, False)


def odd_query():
    query = 'a=|^{}[]`"<>&b=http://c/d'
    return fetch(f"{WEB}/query?{query}")[1], query.encode()


def unbound():
    connection = by_proxy()
    connection.request("GET", "http://nobody/")
    answer = connection.getresponse()
    answer.read()
    kept = connection.sock
    connection.request("GET", f"{WEB}/hello")
    return ((answer.status, "RT-E101" in (answer.getheader("l5d-err") or ""), connection.getresponse().read(), connection.sock is kept),
            (502, True, b"hello", True))


def tunnel(url):
    try:
        return fetch(url)[0]
    except urllib.error.URLError as error:
        return next((status for status in (403, 502) if f"{status}" in str(error)), str(error))


check("get", lambda: (fetch(f"{WEB}/hello")[:2], (200, b"hello")))
check("head", head)
check("not-found", lambda: (fetch(f"{WEB}/missing")[:2], (404, b"no such page")))
check("post", post)
check("upload-chunked", upload_chunked)
check("chunked-response", lambda: (fetch(f"{WEB}/chunked")[:2], (200, b"onetwothree")))
check("large", large)
check("keep-alive", keep_alive)
check("odd-query", odd_query)
check("unbound", unbound)
check("connect-unbound", lambda: (tunnel("https://nobody/"), 502))
check("connect-port", lambda: (tunnel("https://web:8443/hello"), 403))
check("https", lambda: (fetch("https://web/hello")[:2], (200, b"hello")))
