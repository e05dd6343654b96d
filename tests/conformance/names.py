"""The runner, and beside it which names of metrics the processes showed before they were ended: `RUTTER_METRIC_NAMES` is the file for them.

Statistics come a minute after the start, as Linkerd's do: the group that is about metrics is let live for so long.
"""
import json
import os
import re
import sys
import threading
import time

import runner

#: Statistics are shown within this time from the start.
FIRST_MINUTE_S = 75
PATIENT = "metrics-prometheus"

seen, lock = set(), threading.Lock()


def names_of(tree):
    """Place and name of all metrics in a tree of `/admin/metrics.json?tree=1`, with `<…>` for what varies."""
    for top, below in tree.items():
        if top == "jvm":
            yield from (("jvm", name) for name in leaves(below))
        elif top == "rt":
            for router in below.values():
                yield from of_router(router)
        else:
            yield from (("namer" if top == "namer" else "", f"{top}/{name}") for name in leaves(below))


def of_router(router):
    for place, children in router.items():
        if place not in ("server", "service", "client"):
            yield from (("router", name) for name in leaves({place: children}))
            continue
        for child in children.values():
            if place == "client":
                for service in child.get("service", {}).values():
                    yield from (("client service", name) for name in leaves(service))
                child = {name: value for name, value in child.items() if name != "service"}
            yield from ((place, name) for name in leaves(child))


def leaves(tree, prefix=""):
    if any(not isinstance(value, dict) for value in tree.values()):
        yield general(prefix.rstrip("/"))
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}/")


def general(name):
    name = re.sub(r"^failures/.*", "failures/<exception>", name)
    name = re.sub(r"^loadbalancer/algorithm/\w+$", "loadbalancer/algorithm/<algorithm>", name)
    name = re.sub(r"^status/\d+$", "status/<code>", name)
    return re.sub(r"^(status|time)/\dXX$", r"\1/<n>XX", name)


def look(group):
    for _, process in group.procs.values():
        if process.get("kind") == "namerd":
            continue
        address = (runner.LOCAL, group.port(process.get("admin", "ADMIN")))
        answer = runner.http_call(address, {"target": "/admin/metrics.json?tree=1", "timeout_ms": 5000})
        if answer.get("status") == 200:
            with lock:
                seen.update(names_of(json.loads(answer["body"])))


def before_its_end(group):
    patient = any(scenario["name"] == PATIENT for scenario in group.scs)
    end = time.monotonic() + (FIRST_MINUTE_S if patient else 0)
    look(group)
    while time.monotonic() < end and ("server", "request_latency_ms") not in seen:
        time.sleep(1)
        look(group)


def main():
    stop = runner.Group.stop

    def looked_and_stopped(group):
        try:
            before_its_end(group)
        except (OSError, ValueError) as error:  # a process that is gone already has no metrics to show
            print(f"no metrics of {[s['name'] for s in group.scs]}: {error}", file=sys.stderr)
        finally:
            stop(group)

    runner.Group.stop = looked_and_stopped
    status = runner.main()
    with open(os.environ["RUTTER_METRIC_NAMES"], "w") as file:
        json.dump(sorted(seen), file)
    return status


if __name__ == "__main__":
    sys.exit(main())
