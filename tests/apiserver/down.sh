#!/usr/bin/env bash
# Ends what up.sh started in DIR; with a name (apiserver, controllers, etcd) only that one. Waits until it is gone.
set -euo pipefail

dir=${1:?usage: down.sh DIR [NAME]}

# A number in a file may belong to another process by now: only one that works in DIR is ours.
ours() { [ "$(readlink "/proc/$1/cwd" 2>/dev/null)" = "$(cd "$dir" && pwd)" ]; }

stop() {
    local pid file=$dir/$1.pid end=$((SECONDS + 20))
    [ -f "$file" ] || return 0
    pid=$(cat "$file")
    if ours "$pid"; then kill "$pid" 2>/dev/null || true; fi
    while ours "$pid"; do
        if [ $SECONDS -ge $end ]; then kill -9 "$pid" 2>/dev/null || true; fi
        sleep 0.05
    done
    rm -f "$file"
}

if [ -n "${2:-}" ]; then
    stop "$2"
else
    for name in controllers apiserver etcd; do stop "$name"; done
fi
