#!/usr/bin/env bash
# Waits until the API server of DIR serves every kind that it was told of, a minute at most.
#
#   established.sh DIR
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bin=$("$here/build.sh" --where)
end=$((SECONDS + 60))
# Of a kind that has no conditions yet it says an error, in the place of waiting.
until said=$("$bin/kubectl" --kubeconfig "${1:?usage: established.sh DIR}/kubeconfig" wait --for=condition=Established crd --all --timeout=60s 2>&1); do
    if [ $SECONDS -ge $end ]; then echo "apiserver/established: $said" >&2; exit 1; fi
    sleep 0.1
done
