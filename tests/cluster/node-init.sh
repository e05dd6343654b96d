#!/usr/bin/env bash
# The first process of one node: containerd, kubelet and kube-proxy below it end when it ends. Started by node.py in
# namespaces of its own (network, mounts, processes, hostname, IPC, cgroups), with these in the environment:
#   NODE NODE_IP POD_RANGE   who it is          DIRECTORY   its files          CGROUPS   "HIERARCHY=PATH ..."
#   PROGRAMS                 Kubernetes' own    CONTROL     certificates and kubeconfigs of the control plane
set -euo pipefail
hostname "$NODE"

# The root of the cgroup namespace is this node's own group: a mount from here shows nothing else.
umount -R /sys/fs/cgroup
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
for hierarchy in $CGROUPS; do
    mkdir "/sys/fs/cgroup/$hierarchy"
    case $hierarchy in
    unified) mount -t cgroup2 cgroup2 "/sys/fs/cgroup/unified" ;;
    systemd) mount -t cgroup -o none,name=systemd systemd "/sys/fs/cgroup/systemd" ;;
    *) mount -t cgroup -o "$hierarchy" "$hierarchy" "/sys/fs/cgroup/$hierarchy" ;;
    esac
done

# Default paths, but the node's own files behind them.
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/netns
for path in /var/lib/kubelet /var/lib/containerd /var/lib/cni /var/log/pods /var/log/containers /etc/cni/net.d; do
    mkdir -p "$path" "$DIRECTORY/files$path"
    mount --bind "$DIRECTORY/files$path" "$path"
done

# The kubelet wants these settings of the whole machine to be so, and writes them when they are not: it is shown files
# that say what it wants to read.
mkdir /run/sysctl
while read -r setting value; do
    echo "$value" >"/run/sysctl/${setting//\//.}"
    mount --bind "/run/sysctl/${setting//\//.}" "/proc/sys/$setting"
done <<EOS
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
EOS
mount --make-rshared /

# Each pod has a link of its own to the node (ptp), so that whatever it sends is routed: on a bridge, answers between two
# pods of one node would pass by the address translation that makes Services.
cat >/etc/cni/net.d/10-pods.conflist <<EOS
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "ptp", "ipMasq": false, "ipam": {"type": "host-local", "dataDir": "/run/cni",
    "ranges": [[{"subnet": "$POD_RANGE"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}]}
EOS

cat >"$DIRECTORY/containerd.toml" <<EOS
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:test"
  restrict_oom_score_adj = true
  disable_apparmor = true
  tolerate_missing_hugetlb_controller = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
EOS
containerd --config "$DIRECTORY/containerd.toml" >>"$DIRECTORY/containerd.log" 2>&1 &
until ctr version >/dev/null 2>&1; do sleep 0.1; done
for image in "$DIRECTORY"/images/*.tar; do
    ctr -n k8s.io images import "$image" >/dev/null
done

# Evictions are off: the disk is the machine's, not the test's. A short lease and status interval let the control plane
# notice soon that the node is gone.
cat >"$DIRECTORY/kubelet.yaml" <<EOS
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: "$CONTROL/ca.crt"}}
authorization: {mode: Webhook}
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
failSwapOn: false
failCgroupV1: false
oomScoreAdj: 0
maxOpenFiles: 20000
resolvConf: ""
clusterDomain: cluster.local
clusterDNS: ["$DNS"]
localStorageCapacityIsolation: false
evictionHard: {imagefs.available: "0%", nodefs.available: "0%", nodefs.inodesFree: "0%"}
imageGCHighThresholdPercent: 100
nodeStatusUpdateFrequency: 2s
nodeLeaseDurationSeconds: 10
syncFrequency: 5s
EOS
"$PROGRAMS/kubelet" --kubeconfig="$CONTROL/kubeconfig-$NODE" --hostname-override="$NODE" --node-ip="$NODE_IP" \
    --config="$DIRECTORY/kubelet.yaml" >>"$DIRECTORY/kubelet.log" 2>&1 &
"$PROGRAMS/kube-proxy" --kubeconfig="$CONTROL/kubeconfig-proxy" --hostname-override="$NODE" --proxy-mode=iptables \
    --cluster-cidr=10.244.0.0/16 --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0 \
    --conntrack-tcp-timeout-close-wait=0 --healthz-bind-address=127.0.0.1:10256 --metrics-bind-address=127.0.0.1:10249 \
    >>"$DIRECTORY/kube-proxy.log" 2>&1 &
echo running >"$DIRECTORY/state"
trap 'exit 0' TERM INT
wait
