"""Python's requests, which takes http_proxy from the environment."""
import os

import requests

WEB = "http://web"
LIMIT_S = 20


def check(name, run):
    try:
        found, wanted = run()
        print(f"pass {name}" if found == wanted else f"fail {name}: found {str(found)[:300]}, wanted {str(wanted)[:300]}", flush=True)
    except Exception as error:  # every other end is a finding, too
        print(f"fail {name}: {type(error).__name__} {error}", flush=True)


def get():
    answer = requests.get(f"{WEB}/hello", timeout=LIMIT_S)
    return (answer.status_code, answer.text), (200, "hello")


def head():
    answer = requests.head(f"{WEB}/hello", timeout=LIMIT_S)
    return (answer.status_code, answer.text, answer.headers["content-length"]), (200, "", "5")


def not_found():
    answer = requests.get(f"{WEB}/missing", timeout=LIMIT_S)
    return (answer.status_code, answer.text), (404, "no such page")


def post():
    answer = requests.post(f"{WEB}/echo", data=b"abc", timeout=LIMIT_S)
    return (answer.status_code, answer.text, answer.headers["x-framing"]), (200, "abc", "length")


def upload_chunked():
    answer = requests.post(f"{WEB}/echo", data=iter([b"one", b"two"]), timeout=LIMIT_S)
    return (answer.status_code, answer.text, answer.headers["x-framing"]), (200, "onetwo", "chunked")


def chunked_response():
    return requests.get(f"{WEB}/chunked", timeout=LIMIT_S).text, "onetwothree"


def large():
    data = os.urandom(2_000_000)
    return requests.post(f"{WEB}/echo", data=data, timeout=LIMIT_S).content == data, True


def connections(session, url=WEB):
    manager = session.get_adapter(url).proxy_manager[os.environ["http_proxy"]]
    return sum(manager.pools[key].num_connections for key in manager.pools.keys())


def keep_alive():
    with requests.Session() as session:
        codes = [session.get(f"{WEB}/{path}", timeout=LIMIT_S).status_code for path in ("hello", "chunked", "hello")]
        return (codes, connections(session)), ([200, 200, 200], 1)


def odd_query():
    # As it is: requests itself would encode most of these.
    request = requests.Request("GET", WEB).prepare()
    request.url = f"{WEB}/query?a=|^{{}}`&b=http://c/d"
    with requests.Session() as session:
        proxies = {"http": os.environ["http_proxy"]}
        return session.send(request, timeout=LIMIT_S, proxies=proxies).text.replace("%7C", "|").replace("%5E", "^").replace("%7B", "{") \
            .replace("%7D", "}").replace("%60", "`"), "a=|^{}`&b=http://c/d"


def unbound():
    with requests.Session() as session:
        answer = session.get("http://nobody/", timeout=LIMIT_S)
        again = session.get(f"{WEB}/hello", timeout=LIMIT_S)
        return (answer.status_code, "RT-E101" in answer.headers.get("l5d-err", ""), again.text, connections(session)), (502, True, "hello", 1)


def tunnel(url):
    try:
        return requests.get(url, timeout=LIMIT_S).status_code
    except requests.exceptions.ProxyError as error:
        return next((status for status in (403, 502) if f"{status}" in str(error)), str(error))


def https():
    with requests.Session() as session:
        found = [session.get("https://web/hello", timeout=LIMIT_S).text for _ in range(2)]
        return (found, connections(session, "https://web")), (["hello", "hello"], 1)


check("get", get)
check("head", head)
check("not-found", not_found)
check("post", post)
check("upload-chunked", upload_chunked)
check("chunked-response", chunked_response)
check("large", large)
check("keep-alive", keep_alive)
check("odd-query", odd_query)
check("unbound", unbound)
check("connect-unbound", lambda: (tunnel("https://nobody/"), 502))
check("connect-port", lambda: (tunnel("https://web:8443/hello"), 403))
check("https", https)
