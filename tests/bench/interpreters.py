#!/usr/bin/env python3
"""What it costs a router to follow its names in a store, by each interpreter: connections, bytes, time.

    RUTTER=path/to/rutter tests/bench/interpreters.py [--names 500]

A router binds the names by a request each, through one address that counts. Then a dtab that changes all of them is put,
and it is measured until the last name answers from its other endpoint.
"""
import argparse
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from e2e.test_interpreters import KINDS, Moving, OnStore, Service  # noqa: E402
from harness.router import Server, answering  # noqa: E402


class Counting(Service):
    """Counts what passes."""

    def __init__(self):
        self.bytes = 0
        super().__init__()

    def copy(self, from_, to):
        class Counted:
            def __init__(self, inner):
                self.inner, self.shutdown = inner, inner.shutdown

            def recv(counted, size):
                data = counted.inner.recv(size)
                self.bytes += len(data)
                return data
        Service.copy(Counted(from_), to)


def measure(kind, names):
    interface, _ = KINDS[kind]
    with Moving() as store, Counting() as service, Server(answering(b"one")) as one, Server(answering(b"two")) as two:
        for name in range(names):
            store.name(f"one-{name}", one.address[1])
            store.name(f"two-{name}", two.address[1])
        store.move().start()
        service.to = store.at(interface)
        dtab = lambda which: "".join(f"/svc/n{name} => /#/io.l5d.fs/{which}-{name} ;" for name in range(names))
        store.put(dtab("one"))
        with OnStore(kind, service) as router:
            began = time.monotonic()
            for name in range(names):
                assert router.request(f"n{name}")["body"] == b"one"
            bound, used = time.monotonic() - began, service.bytes
            began = time.monotonic()
            store.put(dtab("two"))
            put = time.monotonic() - began
            for name in range(names):
                while router.request(f"n{name}")["body"] != b"two":
                    pass
            changed = time.monotonic() - began
            # Addresses of the old names are followed for a while longer.
            time.sleep(0.5)
            return service.server.connections, used, bound, service.bytes - used, put, changed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", type=int, default=500)
    args = parser.parse_args()
    print(f"{args.names} names        connections  bytes to bind  a name  bytes of a change  the put  until the last name")
    for kind in KINDS:
        connections, used, bound, more, put, changed = measure(kind, args.names)
        print(f"{kind:20} {connections:8} {used:14,} {1000 * bound / args.names:6.1f}ms {more:15,} {put:8.2f}s {changed:8.2f}s", flush=True)


if __name__ == "__main__":
    main()
