#!/usr/bin/env python3
"""Measures HTTP proxies side by side on the same work, in one run.

    tests/run bench -- [--suite h1,hops,10k] [--peers a,b] [--rounds 3] [--scale 1.0] [--out FILE.json]

The proxy runs on CPU 1; client and backends share CPU 0. Every round visits all peers in turn, so that ratios
within a round see the same weather. README.md has the method.
"""
import argparse, contextlib, glob, io, json, os, pathlib, random, shutil, signal, socket, statistics, subprocess, sys, time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from harness.document import put_between  # noqa: E402

BUILD = pathlib.Path(os.environ.get("BENCH_BUILD", HERE / "build")).resolve()
WORK = BUILD / "work"
TOOLS = BUILD / "release"
RUTTER = os.environ.get("RUTTER_DIST") or os.environ.get("RUTTER")
NICE = int(os.environ.get("BENCH_NICE", "-10"))
BACKENDS = [9001, 9002, 9003]


def first(*patterns):
    return next((found for pattern in patterns for found in sorted(glob.glob(str(pattern)))), None)


ENVOY = os.environ.get("ENVOY") or first(BUILD / "venv/lib/python*/site-packages/envoy/_bin/envoy") or shutil.which("envoy")

# ------------------------------------------------------------------ peers
# A peer is: name -> dict(
#   run    = list of functions ctx -> argv (several processes make one peer, e.g. two hops),
#   suites = which suites it takes part in,
#   need   = a path that must exist, else the peer is skipped,
#   warm   = requests to send before measuring)
# ctx has: dir (scratch directory), port, port2, admin, b (three backend ports), n (services).


def conf(ctx, template, name, **kw):
    t = (HERE / "configs" / template).read_text()
    v = dict(PORT=ctx["port"], DIR=ctx["dir"], B1=ctx["b"][0], B2=ctx["b"][1], B3=ctx["b"][2], THREADS=1, ADMIN=ctx["admin"])
    v.update(kw)
    for k, x in v.items():
        t = t.replace(f"@{k}@", str(x))
    p = ctx["dir"] / name
    p.write_text(t)
    return str(p)


def l4_copy(ctx):
    return [str(TOOLS / "l4_copy"), str(ctx["port"]), ",".join(f"127.0.0.1:{p}" for p in ctx["b"])]


def h1_pass(ctx):
    return [str(TOOLS / "h1_pass"), str(ctx["port"]), ",".join(f"127.0.0.1:{p}" for p in ctx["b"])]


def rutter(services=1, hop=None):
    """Our router with what a user has on by default, one worker; `hop` is "first" or "second" of a pair."""
    def f(ctx):
        name = hop or "only"
        port = ctx["port2"] if hop == "second" else ctx["port"]
        targets = [ctx["port2"]] if hop == "first" else ctx["b"]
        disco = ctx["dir"] / f"disco-{name}"
        disco.mkdir()
        for i in range(ctx["n"] if services > 1 else 1):
            (disco / f"svc-{i}").write_text("".join(f"127.0.0.1 {p}\n" for p in targets))
        (disco / "127.0.0.1").write_text("".join(f"127.0.0.1 {p}\n" for p in targets))
        admin = ctx["admin"] + (1 if hop == "second" else 0)
        # Port 1 is nobody's: the collector of the sampled traces is down, as the harder case.
        return [RUTTER, "run", conf(ctx, "rutter.yaml", f"rutter-{name}.yaml", PORT=port, ADMIN=admin, DISCO=disco, COLLECTOR=1)]
    return f


def second_hop(make):
    """The same proxy once more, between the first one and the backends."""
    return lambda ctx: make(dict(ctx, port=ctx["port2"], dir=directory(ctx, "second")))


def first_hop(make):
    return lambda ctx: make(dict(ctx, b=[ctx["port2"]] * 3, dir=directory(ctx, "first")))


def directory(ctx, name):
    d = ctx["dir"] / name
    d.mkdir()
    return d


def haproxy(ctx):
    return ["haproxy", "-db", "-f", conf(ctx, "haproxy.cfg", "haproxy.cfg")]


def nginx(ctx):
    return ["nginx", "-p", str(ctx["dir"]), "-c", conf(ctx, "nginx.conf", "nginx.conf")]


def envoy_argv(cfg):
    return [ENVOY, "-c", cfg, "--concurrency", "1", "--disable-hot-restart", "--use-dynamic-base-id", "--log-level", "error"]


def envoy(ctx):
    return envoy_argv(conf(ctx, "envoy.yaml", "envoy.yaml"))


def haproxy_10k(ctx):
    n = ctx["n"]
    (ctx["dir"] / "hosts.map").write_text("".join(f"svc-{i} svc-{i}\n" for i in range(n)))
    p = conf(ctx, "haproxy-10k.cfg", "haproxy.cfg")
    with open(p, "a") as f:
        for i in range(n):
            f.write(f"backend svc-{i}\n" + "".join(f"  server s{k} 127.0.0.1:{b}\n" for k, b in enumerate(ctx["b"])))
    return ["haproxy", "-db", "-f", p]


def nginx_10k(ctx):
    p = conf(ctx, "nginx.conf", "nginx.conf")
    s = pathlib.Path(p).read_text()
    up = "".join(f"upstream svc-{i} {{ " + " ".join(f"server 127.0.0.1:{b};" for b in ctx["b"]) + " keepalive 16; }\n" for i in range(ctx["n"]))
    s = s.replace("upstream b {", up + "upstream b {").replace("proxy_pass http://b;", "proxy_pass http://$http_host;")
    s = s.replace("server_tokens off;", "server_tokens off; variables_hash_max_size 4096;")
    pathlib.Path(p).write_text(s)
    return ["nginx", "-p", str(ctx["dir"]), "-c", p]


def envoy_10k(ctx):
    n = ctx["n"]
    hcm = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    rt = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
    addr = lambda p: {"socket_address": {"address": "127.0.0.1", "port_value": p}}
    j = {"static_resources": {
        "listeners": [{"name": "l", "address": addr(ctx["port"]), "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": {
            "@type": hcm, "stat_prefix": "h",
            "route_config": {"virtual_hosts": [{"name": f"svc-{i}", "domains": [f"svc-{i}"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": f"svc-{i}"}}]} for i in range(n)]},
            "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": rt}}]}}]}]}],
        "clusters": [{"name": f"svc-{i}", "connect_timeout": "5s", "type": "STATIC", "lb_policy": "LEAST_REQUEST",
                      "load_assignment": {"cluster_name": f"svc-{i}", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": addr(p)}} for p in ctx["b"]]}]}} for i in range(n)]}}
    p = ctx["dir"] / "envoy.json"
    p.write_text(json.dumps(j))
    return envoy_argv(str(p))


def linkerd1(n=1):
    def f(ctx):
        d = ctx["dir"] / "disco"
        d.mkdir(exist_ok=True)
        for i in range(ctx["n"] if n > 1 else 1):
            (d / f"svc-{i}").write_text("".join(f"127.0.0.1 {p}\n" for p in ctx["b"]))
        for h in ("127.0.0.1", f"127.0.0.1:{ctx['port']}"):
            (d / h).write_text("".join(f"127.0.0.1 {p}\n" for p in ctx["b"]))
        c = conf(ctx, "linkerd1.yaml", "l5d.yaml")
        cp = (BUILD / "l5d.cp").read_text().strip()
        return ["java", "-Xms32m", "-Xmx1024m", "-XX:+UseG1GC", "--add-opens", "java.base/java.nio=ALL-UNNAMED", "--add-opens", "java.base/java.lang=ALL-UNNAMED",
                "-Djava.net.preferIPv4Stack=true", "-Dcom.twitter.finagle.netty4.numWorkers=2", "-cp", cp, "io.buoyant.linkerd.Main", c]
    return f


PEERS = {
    # name: run, suites
    "l4-copy": dict(run=[l4_copy], suites="h1"),
    "h1-pass": dict(run=[h1_pass], suites="h1"),
    "rutter": dict(run=[rutter()], suites="h1", need=RUTTER),
    # The same program under another name: what differs between the two is noise.
    "rutter-twin": dict(run=[rutter()], suites="h1", need=RUTTER),
    "haproxy": dict(run=[haproxy], suites="h1"),
    "nginx": dict(run=[nginx], suites="h1"),
    "envoy": dict(run=[envoy], suites="h1", need=ENVOY),
    "linkerd1": dict(run=[linkerd1()], suites="h1", need=BUILD / "l5d.cp", warm=30000),
    # node to node: two hops, both processes added up
    "hops-rutter": dict(run=[rutter(hop="second"), rutter(hop="first")], suites="hops", need=RUTTER),
    "hops-haproxy": dict(run=[second_hop(haproxy), first_hop(haproxy)], suites="hops"),
    "hops-envoy": dict(run=[second_hop(envoy), first_hop(envoy)], suites="hops", need=ENVOY),
    # 10,000 services
    "10k-rutter": dict(run=[rutter(services=10000)], suites="10k", need=RUTTER),
    "10k-haproxy": dict(run=[haproxy_10k], suites="10k"),
    "10k-nginx": dict(run=[nginx_10k], suites="10k"),
    "10k-envoy": dict(run=[envoy_10k], suites="10k", need=ENVOY),
    "10k-linkerd1": dict(run=[linkerd1(n=10000)], suites="10k", need=BUILD / "l5d.cp", warm=3000),
}

# ------------------------------------------------------------------ scenarios


def lg(*a):
    return [str(x) for x in a]


# suite -> list of (scenario, base request count, arguments of the load generator)
SCEN = {
    "h1": [
        ("h1 GET 1 KB", 20000, lg("--conns", 64)),
        ("h1 GET 1 KB at 2000/s", 4000, lg("--conns", 64, "--rate", 2000)),
        ("h1 POST 16 KB", 6000, lg("--conns", 64, "--post", 16384)),
        ("h1 GET 100 KB", 3000, lg("--conns", 32, "--path", "/102400")),
        ("h1 connection per request", 3000, lg("--conns", 32, "--newconn")),
    ],
    "hops": [
        ("two hops, GET 1 KB", 12000, lg("--conns", 64)),
        ("two hops, GET 100 KB", 1500, lg("--conns", 32, "--path", "/102400")),
        ("two hops, at 1000/s", 3000, lg("--conns", 64, "--rate", 1000)),
    ],
    "10k": [
        ("10,000 services, 500 in use, h1 GET 1 KB", 12000, lg("--conns", 64, "--hosts", 500)),
        ("10,000 services, one in use", 12000, lg("--conns", 64, "--hosts", 1)),
    ],
}

# ------------------------------------------------------------------ machinery
procs = []


def pinned(cpu):
    # own session = own scheduling autogroup; its nice value is what counts between groups
    sh = f'echo {NICE} > /proc/self/autogroup 2>/dev/null; exec nice -n {NICE} taskset -c {cpu} "$@"'
    return ["sh", "-c", sh, "sh"]


def spawn(argv, cpu, log):
    argv = pinned(cpu) + argv
    p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=open(log, "ab"), stderr=subprocess.STDOUT, start_new_session=True)
    procs.append(p)
    return p


def stop(p):
    if p.poll() is None:
        try:
            os.killpg(p.pid, signal.SIGTERM)  # its own session, made by spawn
            p.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(p.pid, signal.SIGKILL)
            p.wait(5)


def tree(pid):
    out = [pid]
    for t in glob.glob(f"/proc/{pid}/task/*/children"):
        try:
            for c in open(t).read().split():
                out += tree(int(c))
        except OSError:
            pass
    return out


def usage(pids):
    """(ns on CPU, user ticks, system ticks, RSS KiB, voluntary switches) of the processes with all threads."""
    ns = u = s = rss = cs = 0
    for root in pids:
        for p in tree(root):
            try:
                for t in os.listdir(f"/proc/{p}/task"):
                    ns += int(open(f"/proc/{p}/task/{t}/schedstat").read().split()[0])
                f = open(f"/proc/{p}/stat").read().rsplit(")", 1)[1].split()
                u += int(f[11])
                s += int(f[12])
                for l in open(f"/proc/{p}/smaps_rollup"):
                    if l.startswith("Pss:"):
                        rss += int(l.split()[1])
            except OSError:
                pass
    return ns, u, s, rss


def stolen():
    """(stolen, all) clock ticks of all processors since the machine started: stolen is what its host gave to others."""
    ticks = [int(x) for x in open("/proc/stat").readline().split()[1:9]]
    return ticks[7], sum(ticks)


def calmest(rounds, n):
    """The numbers of the `n` rounds, of those measured, in which the least was stolen."""
    return {one["round"] for one in sorted(rounds, key=lambda one: one["stolen"])[:n]}


def wait_ready(port, path="/1024", host="svc-0", limit=120):
    t0 = time.time()
    while time.time() - t0 < limit:
        try:
            s = socket.create_connection(("127.0.0.1", port), 2)
            s.settimeout(5)
            s.sendall(f"GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
            d = s.recv(64)
            s.close()
            if b" 200 " in d:
                return time.time() - t0
        except OSError:
            pass
        time.sleep(0.01)
    raise RuntimeError(f"port {port} not ready")


def client(args, port, n):
    """Runs one load; returns requests, errors, elapsed seconds and latency in microseconds."""
    o = subprocess.run(pinned(0) + [str(TOOLS / "loadgen"), "--port", str(port), "--n", str(n), "--max-s", "60", *args],
                       capture_output=True, text=True, timeout=120, start_new_session=True)
    r = json.loads(o.stdout.splitlines()[0])
    r["bad"] = r["errors"] + r["non2xx"]
    return r


def idle_conns(port, n=1000):
    """n keep-alive connections that each sent one request and then rest."""
    ss = []
    for _ in range(n):
        s = socket.create_connection(("127.0.0.1", port), 5)
        s.sendall(b"GET /64 HTTP/1.1\r\nhost: svc-0\r\n\r\n")
        ss.append(s)
    for s in ss:
        s.settimeout(10)
        try:
            s.recv(4096)
        except OSError:
            pass
    return ss


#: With --calm, this many times as many rounds at most.
AGAIN = 4


def percent(text):
    """A share, from its percents."""
    return float(text) / 100


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--suite", default="h1,hops,10k")
    ap.add_argument("--peers", default="")
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--scale", type=float, default=1.0)
    ap.add_argument("--services", type=int, default=10000)
    ap.add_argument("--only", default="", help="part of a scenario's name")
    ap.add_argument("--syscalls", action="store_true", help="count system calls per request with strace")
    ap.add_argument("--calm", type=percent, default=0.0, metavar="PERCENT",
                    help=f"make up for rounds in which the host gave more than this of the processors to others, with up to {AGAIN} times as many rounds")
    ap.add_argument("--out", default="")
    ap.add_argument("--report", default="", help="print the tables of a result file and stop")
    ap.add_argument("--into", default="", help="also write the tables into this document, between its two marks")
    a = ap.parse_args()
    if a.report:
        publish(json.load(open(a.report)), a.into)
        return 0
    import resource
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(65536, hard), hard))
    WORK.mkdir(parents=True, exist_ok=True)
    res = dict(when=time.strftime("%Y-%m-%d %H:%M:%S"), load=os.getloadavg(), peers={}, scen={}, direct={}, rounds={}, wanted=a.rounds)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a timeout still stops the peers
    spawn([str(TOOLS / "backend"), ",".join(map(str, BACKENDS))], 0, WORK / "backend.log")
    time.sleep(0.3)
    want = set(filter(None, a.peers.split(",")))
    failed = {}
    try:
        for suite in a.suite.split(","):
            live = {}
            port = 21000 + 500 * list(SCEN).index(suite)
            for name, p in PEERS.items():
                if suite not in p["suites"].split(",") or (want and name not in want):
                    continue
                if "need" in p and not (p["need"] and os.path.exists(p["need"])):
                    print(f"without {name}: it is not built, README.md says how", file=sys.stderr)
                    continue
                port += 10
                d = WORK / name
                shutil.rmtree(d, ignore_errors=True)
                d.mkdir(parents=True)
                ctx = dict(dir=d, port=port, port2=port + 1, admin=port + 2, b=BACKENDS, n=a.services)
                argvs = [f(ctx) for f in p["run"]]  # makes configurations first: not part of the load time
                t0 = time.time()
                ps = [spawn(v, 1, d / "log") for v in argvs]
                try:
                    wait_ready(ctx["port"])
                    up = time.time() - t0
                    time.sleep(0.5)
                    pids = [x.pid for x in ps]
                    cpu0, _, _, rss, = usage(pids)
                    live[name] = dict(port=ctx["port"], pids=pids, ps=ps)
                    res["peers"][name] = dict(start_s=up, start_cpu_s=cpu0 / 1e9, pss_idle_kib=rss)
                    r = client(SCEN[suite][0][2], ctx["port"], p.get("warm", 2000))
                    print(f"up {name} in {up:.2f}s, {rss} KiB, warm-up bad={r['bad']}", file=sys.stderr)
                except Exception as e:
                    failed[name] = f"{e}; {(d / 'log').read_text(errors='replace')[-500:]}"
                    live.pop(name, None)
                    for x in ps:
                        stop(x)
            for scen, n, args in SCEN[suite]:
                if a.only and a.only not in scen:
                    continue
                n = max(200, int(n * a.scale))
                rows = res["scen"].setdefault(scen, {})
                rounds = res["rounds"].setdefault(scen, [])
                # With --calm a round in which more was stolen is made up for by another one; all peers lose it alike.
                for rnd in range(a.rounds * (AGAIN if a.calm else 1)):
                    if sum(one["stolen"] <= (a.calm or 1) for one in rounds) == a.rounds:
                        break
                    before = stolen()
                    names = list(live)
                    random.Random(rnd).shuffle(names)
                    if suite == "h1":
                        r = client(args, BACKENDS[0], n)
                        r.update(round=rnd)
                        res["direct"].setdefault(scen, []).append(r)
                    for name in names:
                        L = live[name]
                        k = n
                        if "linkerd1" in name:
                            k = max(200, n // 2)
                        b = usage(L["pids"])
                        try:
                            r = client(args, L["port"], k)
                        except Exception as e:
                            failed[name] = f"{scen}: {e}"
                            continue
                        e = usage(L["pids"])
                        q = max(1, r["requests"])
                        tick = 1e6 / os.sysconf("SC_CLK_TCK")
                        r.update(cpu_us=(e[0] - b[0]) / 1e3 / q, user_us=(e[1] - b[1]) * tick / q, sys_us=(e[2] - b[2]) * tick / q, pss_kib=e[3], round=rnd)
                        rows.setdefault(name, []).append(r)
                    after = stolen()
                    rounds.append(dict(round=rnd, stolen=(after[0] - before[0]) / max(1, after[1] - before[1])))
                    if a.out:
                        pathlib.Path(a.out).write_text(json.dumps(res, indent=1))
                    print(f"{scen} round {rnd} done, {rounds[-1]['stolen']:.1%} stolen", file=sys.stderr)
            if suite == "h1" and not a.only:
                for name, L in live.items():
                    try:
                        b = usage(L["pids"])[3]
                        ss = idle_conns(L["port"])
                        time.sleep(0.5)
                        e = usage(L["pids"])[3]
                        res["peers"][name].update(pss_before_1000=b, pss_1000_idle=e)
                        for s in ss:
                            s.close()
                        time.sleep(0.3)
                    except Exception as x:
                        print(f"{name} idle: {x}", file=sys.stderr)
            if a.syscalls and suite == "h1":
                for name, L in live.items():
                    pids = [str(x) for r in L["pids"] for x in tree(r)]
                    st = subprocess.Popen(["strace", "-c", "-f", "-o", str(WORK / "strace.txt"), *sum((["-p", x] for x in pids), [])], stderr=subprocess.DEVNULL)
                    time.sleep(1)
                    r = client(SCEN[suite][0][2], L["port"], 4000)
                    st.send_signal(signal.SIGINT)
                    st.wait()
                    c = {}
                    for l in open(WORK / "strace.txt"):
                        f = l.split()
                        if len(f) >= 5 and f[0][0].isdigit() and f[-1] != "total":
                            c[f[-1]] = int(f[3]) / max(1, r["requests"])
                    res["peers"][name]["syscalls"] = {k: round(v, 2) for k, v in sorted(c.items(), key=lambda x: -x[1])[:8]}
            for L in live.values():
                for x in L["ps"]:
                    stop(x)
    finally:
        for p in procs:
            stop(p)
    if a.out:
        pathlib.Path(a.out).write_text(json.dumps(res, indent=1))
    publish(res, a.into)
    return verdict(res, failed, want)


#: Around the tables in a document; what stands between them is written anew.
MARKS = "<!-- figures -->", "<!-- end of figures -->"


def publish(res, into):
    """Prints the tables, and puts them into the document `into` if there is one."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        report(res)
    print(text.getvalue(), end="")
    if into:
        load = ", ".join(f"{one:.1f}" for one in res["load"])
        put_between(into, MARKS, f"Measured {res['when']}, load average before {load}.\n{text.getvalue()}")


def verdict(res, failed, want):
    """1 when a peer did not start, or ours answered anything but 2xx: such numbers compare nothing."""
    for name in sorted(want - set(res["peers"])):
        failed.setdefault(name, "did not take part")
    for scen, rows in res["scen"].items():
        for name, rs in rows.items():
            bad = sum(r["bad"] for r in rs)
            if bad and "rutter" in name:
                failed[name] = f"{bad} failed requests in {scen}"
    for name, why in failed.items():
        print(f"{name}: {why}", file=sys.stderr)
    return 1 if failed or not res["scen"] else 0


def mmm(v, f="{:.1f}"):
    return "/".join(f.format(x) for x in (min(v), statistics.median(v), max(v)))


def report(res):
    for scen, rows in res["scen"].items():
        rounds = res["rounds"][scen]
        kept = calmest(rounds, res["wanted"])
        rows = {name: [r for r in rs if r["round"] in kept] for name, rs in rows.items()}
        def base(part):
            return next((n for n in rows if n.split("-")[-1] == part), None)
        hb, eb = base("haproxy"), base("envoy")

        def ratio(name, b):
            if not b:
                return ""
            m = {r["round"]: r["cpu_us"] for r in rows[b]}
            v = [r["cpu_us"] / m[r["round"]] for r in rows[name] if m.get(r["round"])]
            return f"{statistics.median(v):.2f}" if v else ""
        print(f"\n### {scen}\n")
        d = [r for r in res["direct"].get(scen, []) if r["round"] in kept]
        taken = mmm([one["stolen"] * 100 for one in rounds if one["round"] in kept], "{:.1f}")
        print(f"{len(kept)} rounds of {len(rounds)}; stolen by the machine's host: {taken} % of the processors.")
        if d:
            print(f"Without a proxy: {mmm([r['requests'] / r['elapsed'] for r in d], '{:.0f}')} req/s, p50 {mmm([r['p50'] for r in d], '{:.0f}')} µs.")
        print()
        print("| peer | CPU µs/req min/median/max | user/sys | x HAProxy | x Envoy | req/s | p50 µs | p99 µs | p99.9 µs | PSS MiB | bad |\n|---|---|---|---|---|---|---|---|---|---|---|")
        for n, rs in sorted(rows.items(), key=lambda x: statistics.median(r["cpu_us"] for r in x[1])):
            med = lambda k: statistics.median(r[k] for r in rs)
            print(f"| {n} | {mmm([r['cpu_us'] for r in rs])} | {med('user_us'):.0f}/{med('sys_us'):.0f} | {ratio(n, hb)} | {ratio(n, eb)} | {statistics.median(r['requests'] / r['elapsed'] for r in rs):.0f} | {med('p50'):.0f} | {med('p99'):.0f} | {med('p999'):.0f} | {med('pss_kib') / 1024:.1f} | {sum(r['bad'] for r in rs)} |")
    print("\n### Start and memory\n\n| peer | start s | CPU s to start | PSS idle MiB | PSS before 1,000 idle conns | with them | KiB per conn | system calls per request |\n|---|---|---|---|---|---|---|---|")
    for n, p in res["peers"].items():
        b, e = p.get("pss_before_1000"), p.get("pss_1000_idle")
        x = f"{b / 1024:.1f} | {e / 1024:.1f} | {(e - b) / 1000:.1f}" if b else " | | "
        sc = ", ".join(f"{k} {v}" for k, v in p.get("syscalls", {}).items() if v >= 0.05)
        print(f"| {n} | {p['start_s']:.2f} | {p['start_cpu_s']:.2f} | {p['pss_idle_kib'] / 1024:.1f} | {x} | {sc} |")


if __name__ == "__main__":
    sys.exit(main())
