#!/usr/bin/env bash
# Starts etcd, kube-apiserver and kube-controller-manager on free loopback ports, with all their files in DIR.
#
#   up.sh DIR            waits until the API answers, then prints the kubeconfig's path
#   up.sh DIR apiserver  starts only the API server again, on the same port and data, after `down.sh DIR apiserver`
#
# DIR has kubeconfig (everything is allowed), kubeconfig-rutter (user `rutter`, nothing is allowed until RBAC says so),
# *.log, *.pid. The programs are those of build.sh. The controller manager runs the controllers that make
# EndpointSlices of Services and Pods, without those that would take pods away from nodes that don't exist.
# $ETCD is another etcd: before 3.4.31 and 3.5.13 an API server over it refuses to stream lists.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "${1:?usage: up.sh DIR [apiserver]}"
dir=$(cd "$1" && pwd)
bin=$("$here/build.sh" --where) || { echo "apiserver/up: programs are missing, run $here/build.sh" >&2; exit 1; }
cd "$dir"

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# A program in its own session, so that it outlives this script and gets none of its signals.
start() {
    local name=$1
    shift
    setsid "$@" </dev/null >>"$name.log" 2>&1 &
    echo $! >"$name.pid"
}

key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }

certificates() {
    key ca.key
    openssl req -x509 -new -key ca.key -subj /CN=rutter-tests -days 30 -out ca.crt 2>/dev/null
    key serving.key
    openssl req -new -key serving.key -subj /CN=kube-apiserver -out serving.csr 2>/dev/null
    echo 'subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:kubernetes.default.svc' >serving.ext
    openssl x509 -req -in serving.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile serving.ext \
        -out serving.crt 2>/dev/null
    key accounts.key
    openssl ec -in accounts.key -pubout -out accounts.pub 2>/dev/null
}

kubeconfig() {
    cat <<YAML
apiVersion: v1
kind: Config
current-context: test
contexts: [{name: test, context: {cluster: test, user: test}}]
clusters: [{name: test, cluster: {server: "https://127.0.0.1:$port", certificate-authority-data: $(base64 -w0 ca.crt)}}]
users: [{name: test, user: {token: $1}}]
YAML
}

start_apiserver() {
    start apiserver "$bin/kube-apiserver" --etcd-servers="http://127.0.0.1:$(cat etcd.port)" \
        --bind-address=127.0.0.1 --advertise-address=127.0.0.1 --secure-port="$port" --endpoint-reconciler-type=none \
        --tls-cert-file=serving.crt --tls-private-key-file=serving.key --client-ca-file=ca.crt \
        --token-auth-file=tokens.csv --authorization-mode=RBAC \
        --service-account-issuer=https://kubernetes.default.svc --service-account-key-file=accounts.pub \
        --service-account-signing-key-file=accounts.key --service-cluster-ip-range=10.96.0.0/16 \
        --disable-admission-plugins=ServiceAccount --profiling=false --cert-dir="$dir"
}

wait_ready() {
    local end=$((SECONDS + 120))
    until curl -fs --cacert ca.crt -H "Authorization: Bearer $(cat admin.token)" "https://127.0.0.1:$port/readyz" >/dev/null 2>&1; do
        if [ $SECONDS -ge $end ] || ! kill -0 "$(cat apiserver.pid)" 2>/dev/null; then
            echo "apiserver/up: the API server does not come up, the end of $dir/apiserver.log:" >&2
            tail -n 20 apiserver.log >&2
            exit 1
        fi
        sleep 0.1
    done
}

if [ "${2:-}" = apiserver ]; then
    port=$(cat apiserver.port)
    start_apiserver
    wait_ready
    echo "$dir/kubeconfig"
    exit
fi

certificates
port=$(free_port)
echo "$port" >apiserver.port
free_port >etcd.port
peer=$(free_port)
for user in admin rutter; do openssl rand -hex 16 >"$user.token"; done
printf '%s,admin,admin,"system:masters"\n%s,rutter,rutter\n' "$(cat admin.token)" "$(cat rutter.token)" >tokens.csv
kubeconfig "$(cat admin.token)" >kubeconfig
kubeconfig "$(cat rutter.token)" >kubeconfig-rutter

# The data need not outlive the test: etcd is spared the wait for the disk.
start etcd "${ETCD:-$bin/etcd}" --data-dir "$dir/etcd" --listen-client-urls "http://127.0.0.1:$(cat etcd.port)" \
    --advertise-client-urls "http://127.0.0.1:$(cat etcd.port)" --listen-peer-urls "http://127.0.0.1:$peer" \
    --initial-advertise-peer-urls "http://127.0.0.1:$peer" --initial-cluster "default=http://127.0.0.1:$peer" \
    --unsafe-no-fsync --log-level=warn
start_apiserver
wait_ready
start controllers "$bin/kube-controller-manager" --kubeconfig=kubeconfig --authentication-kubeconfig=kubeconfig \
    --authorization-kubeconfig=kubeconfig --bind-address=127.0.0.1 --secure-port=0 --leader-elect=false \
    --controllers=endpoints-controller,endpointslice-controller,namespace-controller --cert-dir="$dir" \
    --kube-api-qps=200 --kube-api-burst=200
sleep 0.3
if ! kill -0 "$(cat controllers.pid)" 2>/dev/null; then
    echo "apiserver/up: the controllers ended at once, the end of $dir/controllers.log:" >&2
    tail -n 5 controllers.log >&2
    exit 1
fi
echo "$dir/kubeconfig"
