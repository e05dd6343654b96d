#!/usr/bin/env bash
# Obtains what a real Kubernetes API needs: kube-apiserver, kubectl and kube-controller-manager (compiled from the
# Go module k8s.io/kubernetes) and etcd (Debian's etcd-server). The programs go into a cache outside the tree, keyed
# by version; what is there already is not built again.
#
#   build.sh              builds what is missing, prints the directory on the last line
#   build.sh --where      prints the directory only; status 1 when something is missing
#   build.sh PROGRAM...   builds these of Kubernetes' programs instead (kubelet, kube-proxy, kube-scheduler, ...)
#
# RUTTER_TEST_CACHE (default ~/.cache/rutter-tests)   K8S_VERSION (default 1.34.4)
set -euo pipefail

version=${K8S_VERSION:-1.34.4}
cache=${RUTTER_TEST_CACHE:-$HOME/.cache/rutter-tests}
out=$cache/kubernetes-$version
programs=(kube-apiserver kubectl kube-controller-manager)
if [ $# -gt 0 ] && [ "$1" != --where ]; then programs=("$@"); fi

say() { printf 'apiserver/build: %s\n' "$*" >&2; }

missing() {
    local program
    for program in "${programs[@]}" etcd; do
        [ -x "$out/$program" ] || echo "$program"
    done
}

if [ "${1:-}" = --where ]; then
    echo "$out"
    [ -z "$(missing)" ]
    exit
fi

mkdir -p "$out"
# One build at a time: two runs started together would compile the same thousand packages twice.
exec 9>"$out/.lock"
flock -n 9 || { say "another build is at work in $out, waiting for it"; flock 9; }

# The distribution's etcd is enough for a test cluster, and takes seconds rather than minutes.
provide_etcd() {
    local found
    found=$(command -v etcd || true)
    if [ -z "$found" ]; then
        say "no etcd on this machine: installing the package etcd-server"
        local sudo=
        [ "$(id -u)" = 0 ] || sudo=sudo
        $sudo apt-get install -y --no-install-recommends etcd-server >"$out/etcd.log" 2>&1 \
            || { $sudo apt-get update >>"$out/etcd.log" 2>&1 \
                && $sudo apt-get install -y --no-install-recommends etcd-server >>"$out/etcd.log" 2>&1; } \
            || { say "etcd-server cannot be installed, see $out/etcd.log"; return 1; }
        found=$(command -v etcd)
    fi
    ln -sf "$found" "$out/etcd"
    say "etcd is $found"
}

# Kubernetes' own go.mod names its staging modules as v0.0.0, which nobody serves: here each is replaced by the
# published one of the same release. Its go.sum comes along, so no checksum is looked up anew.
prepare_module() {
    local mod=$1 described gomod source staging=v0.${version#1.}
    mkdir -p "$mod"
    say "fetching k8s.io/kubernetes v$version with the Go toolchain's own client"
    described=$(cd "$mod" && go mod download -json "k8s.io/kubernetes@v$version")
    gomod=$(sed -n 's/^[[:space:]]*"GoMod": "\(.*\)",*$/\1/p' <<<"$described")
    source=$(sed -n 's/^[[:space:]]*"Dir": "\(.*\)",*$/\1/p' <<<"$described")
    {
        echo "module rutter.test/kubernetes"
        echo "go $(awk '$1 == "go" { print $2; exit }' "$gomod")"
        echo "require k8s.io/kubernetes v$version"
        awk -v to="$staging" '$1 ~ /^k8s\.io\// && $2 == "v0.0.0" { print "replace " $1 " => " $1 " " to }' "$gomod" | sort -u
    } >"$mod/go.mod"
    if [ ! -f "$mod/go.sum" ]; then
        install -m 644 "$source/go.sum" "$mod/go.sum"
    fi
}

compile() {
    local mod=$1 program=$2 from=$SECONDS stamp=k8s.io/component-base/version minor
    minor=${version#1.}
    say "compiling $program (the first of them takes 5 to 20 minutes, the others share its packages)"
    # Built under another name and then moved: an interrupted build leaves no half of a program behind.
    (cd "$mod" && CGO_ENABLED=0 GOWORK=off GOTOOLCHAIN=local GOFLAGS='-mod=mod -trimpath -buildvcs=false' \
        nice -n 15 go build -o "$out/.$program.part" \
        -ldflags "-s -w -X $stamp.gitVersion=v$version -X $stamp.gitMajor=1 -X $stamp.gitMinor=${minor%%.*} -X $stamp.gitTreeState=clean" \
        "k8s.io/kubernetes/cmd/$program") 2>"$out/$program.log" \
        || { say "$program does not compile, see $out/$program.log"; tail -n 5 "$out/$program.log" >&2; return 1; }
    mv "$out/.$program.part" "$out/$program"
    say "$program is there after $((SECONDS - from)) s"
}

todo=$(missing)
if [ -z "$todo" ]; then
    say "all there in $out"
else
    say "missing in $out: ${todo//$'\n'/ }"
    if grep -qx etcd <<<"$todo"; then
        provide_etcd
    fi
    if grep -qvx etcd <<<"$todo"; then
        command -v go >/dev/null || { say "a Go toolchain is needed to compile Kubernetes' programs"; exit 1; }
        prepare_module "$out/.module"
        for program in "${programs[@]}"; do
            if [ ! -x "$out/$program" ]; then
                compile "$out/.module" "$program"
            fi
        done
    fi
fi
echo "$out"
