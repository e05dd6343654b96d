#!/usr/bin/env python3
"""The names of Services, as a cluster's DNS gives them: `NAME.NAMESPACE.svc.cluster.local` is the Service's address.

    dns.py URL AUTHORITY TOKEN      answers on UDP port 53 of every address

It asks the API for each name and keeps what it learned, so that it answers without the API too. Only A records; other
types of a known name are answered with none, unknown names with NXDOMAIN.
"""
import pathlib
import socket
import struct
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from cluster.control_plane import Api  # noqa: E402

A, IN, NXDOMAIN, SERVFAIL = 1, 1, 3, 2
TTL_S = 5

#: For so long what the API said is not asked again.
FRESH_S = 1.0


def main(url, authority, token):
    api, known = Api(url, authority, token), {}
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind(("0.0.0.0", 53))
    while True:
        query, client = listener.recvfrom(2000)
        try:
            listener.sendto(answer(query, api, known), client)
        except (ValueError, IndexError, struct.error):
            continue  # no query


def answer(query, api, known):
    name, kind, end = question(query)
    address, code = look_up(name, api, known)
    records = b""
    if address and kind == A:
        records = b"\xc0\x0c" + struct.pack("!HHIH", A, IN, TTL_S, 4) + socket.inet_aton(address)
    flags = 0x8580 | code  # a response, authoritative, recursion offered
    return query[:2] + struct.pack("!HHHHH", flags, 1, 1 if records else 0, 0, 0) + query[12:end] + records


def question(query):
    """The first question's name in lower case, its type, and where it ends."""
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode("ascii"))
        at += 1 + query[at]
    return ".".join(labels).lower(), struct.unpack_from("!H", query, at + 1)[0], at + 5


def look_up(name, api, known):
    """The address of a Service, or why there is none."""
    if not name.endswith(".svc.cluster.local") or name.count(".") != 4:
        return None, NXDOMAIN
    service, namespace = name.split(".")[:2]
    asked, services = known.get(namespace, (0.0, None))
    if time.monotonic() - asked > FRESH_S:
        try:
            listed = api.get(f"/api/v1/namespaces/{namespace}/services")
            services = {item["metadata"]["name"]: item["spec"].get("clusterIP") for item in listed["items"]}
        except OSError:
            pass  # what was known stays
        known[namespace] = (time.monotonic(), services)
    if services is None:
        return None, SERVFAIL
    address = services.get(service)
    return address, 0 if address else NXDOMAIN


if __name__ == "__main__":
    main(*sys.argv[1:])
