#!/usr/bin/env python3
"""The names of Services, as a cluster's DNS gives them: `NAME.NAMESPACE.svc.cluster.local` is the Service's address,
or those of its ready pods when it has none of its own.

    dns.py URL AUTHORITY TOKEN      answers on UDP port 53 of every address

It lists the Services and EndpointSlices every second and keeps what it learned, so that it answers without the API too. Only A records; other
types of a known name are answered with none, unknown names with NXDOMAIN.
"""
import pathlib
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from cluster.control_plane import Api  # noqa: E402

A, IN, NXDOMAIN, SERVFAIL = 1, 1, 3, 2
TTL_S = 5


def main(url, authority, token):
    names = Names(Api(url, authority, token))
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind(("0.0.0.0", 53))
    while True:
        query, client = listener.recvfrom(2000)
        try:
            listener.sendto(answer(query, names), client)
        except (ValueError, IndexError, struct.error, OSError):
            continue  # no query, or nobody there any more


def answer(query, names):
    name, kind, end = question(query)
    addresses, code = names.look_up(name)
    records = [b"\xc0\x0c" + struct.pack("!HHIH", A, IN, TTL_S, 4) + socket.inet_aton(address) for address in addresses if kind == A]
    flags = 0x8580 | code  # a response, authoritative, recursion offered
    return query[:2] + struct.pack("!HHHHH", flags, 1, len(records), 0, 0) + query[12:end] + b"".join(records)


def question(query):
    """The first question's name in lower case, its type, and where it ends."""
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode("ascii"))
        at += 1 + query[at]
    return ".".join(labels).lower(), struct.unpack_from("!H", query, at + 1)[0], at + 5


class Names:
    """The Services, listed again every second beside the answers: a slow API makes no name slow."""

    def __init__(self, api):
        self.api, self.services = api, None
        threading.Thread(target=self.keep_listing, daemon=True).start()

    def keep_listing(self):
        while True:
            try:
                slices = self.api.get("/apis/discovery.k8s.io/v1/endpointslices")["items"]
                listed = self.api.get("/api/v1/services")["items"]
                self.services = {f"{one['metadata']['name']}.{one['metadata']['namespace']}.svc.cluster.local": addresses(one, slices) for one in listed}
            except OSError:
                pass  # what was known stays
            time.sleep(1.0)

    def look_up(self, name):
        """The addresses of a Service, and why there are none."""
        if self.services is None:
            return [], SERVFAIL
        found = self.services.get(name, [])
        return found, 0 if found else NXDOMAIN


def addresses(service, slices):
    """What a Service's name stands for: its own address, else those of its ready pods."""
    if service["spec"].get("clusterIP") != "None":
        return [service["spec"]["clusterIP"]] if service["spec"].get("clusterIP") else []
    own = [one for one in slices if one["metadata"]["namespace"] == service["metadata"]["namespace"]
           and one["metadata"].get("labels", {}).get("kubernetes.io/service-name") == service["metadata"]["name"]]
    endpoints = [endpoint for one in own for endpoint in one.get("endpoints") or [] if endpoint.get("conditions", {}).get("ready") is not False]
    return sorted({address for endpoint in endpoints for address in endpoint["addresses"]})


if __name__ == "__main__":
    main(*sys.argv[1:])
