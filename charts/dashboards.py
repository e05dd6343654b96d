#!/usr/bin/env python3
"""Writes the dashboards of the chart: charts/rutter/files/dashboards/*.json.

    charts/dashboards.py            writes them
    charts/dashboards.py --check    fails when they are not what this program writes
"""
import json
import pathlib
import sys

TARGET = pathlib.Path(__file__).resolve().parent / "rutter" / "files" / "dashboards"
SOURCE = {"type": "prometheus", "uid": "${source}"}
#: Every query leaves the incoming half of a hop out: otherwise a request over two nodes would count twice.
OUT = 'router=~"$router"'
#: What has not happened yet has no series: a line at zero rather than an empty panel.
NONE = " or vector(0)"
SAVED = "max by (instance) (rutter_snapshot_last_write_timestamp_seconds)"


def main():
    files = {f"{name}.json": json.dumps(board, indent=1) + "\n" for name, board in boards().items()}
    if "--check" in sys.argv[1:]:
        stale = [name for name, text in files.items() if not (TARGET / name).exists() or (TARGET / name).read_text() != text]
        stale += [path.name for path in TARGET.glob("*.json") if path.name not in files]
        if stale:
            print(f"not what charts/dashboards.py writes: {', '.join(sorted(stale))}", file=sys.stderr)
        return 1 if stale else 0
    TARGET.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (TARGET / name).write_text(text)
    return 0


def boards():
    return {"overview": overview(), "service": service(), "node": node(), "names": names()}


# ---------------------------------------------------------------- the four

def overview():
    requests = f"rutter_requests_total{{{OUT}}}"
    good = f"rutter_successful_requests_total{{{OUT}}}"
    seconds = f"rutter_request_duration_seconds_bucket{{{OUT}}}"
    return board("overview", "rutter / overview", [ROUTER], [
        stat("Requests a second", f"sum(rate({requests}[$__rate_interval]))", "reqps"),
        stat("Success", f"sum(rate({good}[$__rate_interval])) / sum(rate({requests}[$__rate_interval]))", "percentunit"),
        stat("99 % within", f"histogram_quantile(0.99, sum by (le) (rate({seconds}[$__rate_interval])))", "s"),
        stat("Errors of rutter a second", f"sum(rate(rutter_errors_total[$__rate_interval])){NONE}", "reqps"),
        graph("Requests by service", [(f"sum by (service) (rate({requests}[$__rate_interval]))", "{{service}}")], "reqps"),
        graph("Success by service", [(f"sum by (service) (rate({good}[$__rate_interval])) / sum by (service) (rate({requests}[$__rate_interval]))", "{{service}}")], "percentunit"),
        graph("99 % of a service's requests within", [(f"histogram_quantile(0.99, sum by (service, le) (rate({seconds}[$__rate_interval])))", "{{service}}")], "s"),
        graph("Errors of rutter by code", [(f"sum by (code) (rate(rutter_errors_total[$__rate_interval])){NONE}", "{{code}}")], "reqps"),
        table("Services", [
            ("Requests", f"sum by (service) (rate({requests}[$__range]))"),
            ("Success", f"sum by (service) (rate({good}[$__range])) / sum by (service) (rate({requests}[$__range]))"),
            ("p99", f"histogram_quantile(0.99, sum by (service, le) (rate({seconds}[$__range])))"),
        ]),
    ])


def service():
    one = f'{OUT}, service=~"$service"'
    requests, seconds = f"rutter_requests_total{{{one}}}", f"rutter_request_duration_seconds_bucket{{{one}}}"
    variable = query_variable("service", "label_values(rutter_requests_total, service)")
    return board("service", "rutter / service", [ROUTER, variable], [
        graph("Requests by class", [(f"sum by (class) (rate({requests}[$__rate_interval]))", "{{class}}")], "reqps"),
        graph("Latency", [(f"histogram_quantile({q}, sum by (le) (rate({seconds}[$__rate_interval])))", f"{q * 100:g} %") for q in (0.5, 0.95, 0.99)], "s"),
        graph("Where it goes", [(f"sum by (client) (rate({requests}[$__rate_interval]))", "{{client}}")], "reqps"),
        graph("Errors of rutter", [(f'sum by (code) (rate(rutter_requests_total{{{one}, code!=""}}[$__rate_interval])){NONE}', "{{code}}")], "reqps"),
        graph("Retries", [(f"sum(rate(rutter_retries_total{{{one}}}[$__rate_interval]))", "retries"),
                          (f"sum(rate(rutter_retry_budget_exhausted_total{{{one}}}[$__rate_interval]))", "not made: budget spent")], "reqps"),
        graph("Retry budget left", [(f"min by (service) (rutter_retry_budget_ratio{{{one}}})", "{{service}}")], "percentunit"),
        heatmap("Latency, all of it", f"sum by (le) (rate({seconds}[$__rate_interval]))"),
    ])


def node():
    one = 'instance=~"$instance"'
    variable = query_variable("instance", "label_values(rutter_build_info, instance)")
    return board("node", "rutter / node", [variable], [
        graph("Requests by router", [(f"sum by (instance, router) (rate(rutter_requests_total{{{one}}}[$__rate_interval]))", "{{instance}} {{router}}")], "reqps"),
        graph("In flight", [(f"sum by (instance, router) (rutter_in_flight_requests{{{one}}})", "{{instance}} {{router}}")], "short"),
        graph("Connections", [(f'sum by (instance) (rutter_connections{{{one}, server!=""}})', "{{instance}} from clients"),
                              (f'sum by (instance) (rutter_connections{{{one}, client!=""}})', "{{instance}} to endpoints")], "short"),
        graph("Connects that failed", [(f'sum by (instance, result) (rate(rutter_connects_total{{{one}, result!="ok"}}[$__rate_interval])){NONE}', "{{instance}} {{result}}")], "cps"),
        graph("Bytes", [(f"sum by (instance) (rate(rutter_received_bytes_total{{{one}}}[$__rate_interval]))", "{{instance}} received"),
                        (f"sum by (instance) (rate(rutter_sent_bytes_total{{{one}}}[$__rate_interval]))", "{{instance}} sent")], "Bps"),
        graph("CPU", [(f"rate(process_cpu_seconds_total{{{one}}}[$__rate_interval]) and on (instance) rutter_build_info", "{{instance}}")], "short"),
        graph("Memory", [(f"process_resident_memory_bytes{{{one}}} and on (instance) rutter_build_info", "{{instance}}")], "bytes"),
        graph("File descriptors", [(f"process_open_fds{{{one}}} and on (instance) rutter_build_info", "{{instance}}")], "short"),
        graph("Spans", [(f"sum by (result) (rate(rutter_spans_total{{{one}}}[$__rate_interval]))", "{{result}}")], "cps"),
        table("Versions", [("Since", f"max by (instance, version) (process_start_time_seconds{{{one}}} * on (instance) group_left (version) rutter_build_info) * 1000")]),
    ])


def names():
    return board("names", "rutter / names", [ROUTER], [
        graph("Names followed through the dtab", [("sum by (result) (rate(rutter_delegations_total[$__rate_interval]))", "{{result}}")], "cps"),
        graph("Names that were not in the cache", [(f"sum by (router) (rate(rutter_binding_cache_misses_total{{{OUT}}}[$__rate_interval]))", "{{router}}")], "cps"),
        graph("Ready endpoints", [(f'max by (client) (rutter_endpoints{{{OUT}, state="ready"}})', "{{client}}")], "short"),
        graph("Ejected endpoints", [(f'max by (client) (rutter_endpoints{{{OUT}, state="ejected"}})', "{{client}}"),
                                    (f"sum by (client) (increase(rutter_endpoint_ejections_total{{{OUT}}}[$__rate_interval]))", "{{client}} (newly)")], "short"),
        graph("Last word of the API server, seconds ago", [("max by (instance, resource, namespace) (rutter_namer_watch_age_seconds)", "{{instance}} {{resource}} {{namespace}}")], "s"),
        graph("Changes heard of", [("sum by (resource) (rate(rutter_namer_watch_events_total[$__rate_interval]))", "{{resource}}")], "cps"),
        graph("Failures of watches", [("sum by (instance, resource) (rate(rutter_namer_watch_errors_total[$__rate_interval]))", "{{instance}} {{resource}}")], "cps"),
        graph("Whole lists, repairs, doubts", [("sum by (resource) (increase(rutter_namer_watch_lists_total[$__rate_interval]))", "lists of {{resource}}"),
                                       ("sum by (resource) (increase(rutter_namer_watch_repairs_total[$__rate_interval]))", "repairs of {{resource}}"),
                                       ("sum by (resource) (increase(rutter_namer_watch_doubts_total[$__rate_interval]))", "doubts of {{resource}}")], "short"),
        graph("Snapshot, seconds old (0: none)", [(f"(time() - {SAVED}) * ({SAVED} > bool 0)", "{{instance}}")], "s"),
        graph("Configurations taken and refused", [("sum by (result) (increase(rutter_config_reloads_total[$__rate_interval]))", "{{result}}")], "short"),
        graph("Labels folded into __other__", [("sum by (instance) (rutter_metrics_folded_labels)", "{{instance}}")], "short"),
    ])


# ---------------------------------------------------------------- parts

def query_variable(name, query, **more):
    return {"name": name, "label": name, "type": "query", "datasource": SOURCE, "query": {"query": query, "refId": name}, "refresh": 2,
            "sort": 1, "multi": True, "includeAll": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"}, **more}


#: The outgoing routers unless somebody asks for others.
ROUTER = query_variable("router", "label_values(rutter_requests_total, router)", current={"text": ["outgoing"], "value": ["outgoing"]})


def board(uid, title, variables, panels):
    datasource = {"name": "source", "label": "source", "type": "datasource", "query": "prometheus", "current": {}}
    place(panels)
    return {
        "uid": f"rutter-{uid}", "title": title, "tags": ["rutter"], "schemaVersion": 39, "editable": True, "graphTooltip": 1, "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"}, "templating": {"list": [datasource, *variables]},
        "links": [{"type": "dashboards", "tags": ["rutter"], "title": "rutter", "asDropdown": True, "includeVars": True, "keepTime": True}],
        "panels": [{"id": number, **panel} for number, panel in enumerate(panels, 1)],
    }


def place(panels):
    """Four small ones, two graphs or one table in a row."""
    x = y = tallest = 0
    for panel in panels:
        width, height = {"stat": (6, 4), "timeseries": (12, 8)}.get(panel["type"], (24, 9))
        if x + width > 24:
            x, y, tallest = 0, y + tallest, 0
        panel["gridPos"] = {"x": x, "y": y, "w": width, "h": height}
        x, tallest = x + width, max(tallest, height)


def panel(kind, title, targets, unit, **more):
    named = [{"refId": chr(65 + number), "datasource": SOURCE, **target} for number, target in enumerate(targets)]
    return {"type": kind, "title": title, "datasource": SOURCE, "targets": named, "fieldConfig": {"defaults": {"unit": unit}, "overrides": []}, **more}


def stat(title, expression, unit):
    return panel("stat", title, [{"expr": expression}], unit, options={"reduceOptions": {"calcs": ["lastNotNull"]}, "graphMode": "area"})


def graph(title, series, unit):
    made = panel("timeseries", title, [{"expr": expression, "legendFormat": legend} for expression, legend in series], unit)
    made["fieldConfig"]["defaults"]["min"] = 0
    return made


def table(title, columns):
    targets = [{"expr": expression, "format": "table", "instant": True, "legendFormat": name} for name, expression in columns]
    renamed = {f"Value #{chr(65 + number)}": name for number, (name, _) in enumerate(columns)}
    made = panel("table", title, targets, "short")
    made["transformations"] = [{"id": "merge", "options": {}},
                               {"id": "organize", "options": {"excludeByName": {"Time": True}, "renameByName": {**renamed, "Value": columns[0][0]}}}]
    units = {"Success": "percentunit", "p99": "s", "Requests": "reqps", "Since": "dateTimeFromNow"}
    made["fieldConfig"]["overrides"] = [{"matcher": {"id": "byName", "options": name}, "properties": [{"id": "unit", "value": units[name]}]} for name, _ in columns]
    return made


def heatmap(title, expression):
    return panel("heatmap", title, [{"expr": expression, "format": "heatmap", "legendFormat": "{{le}}"}], "s", options={"calculate": False, "yAxis": {"unit": "s"}})


if __name__ == "__main__":
    sys.exit(main())
