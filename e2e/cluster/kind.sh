#!/usr/bin/env bash
# The nodes of the end-to-end tests as containers of Docker, with kind:
#   kind.sh usable                   whether Docker runs here
#   kind.sh up NAME STATE IMAGES     starts two workers in two zones and loads the images; STATE gets admin.kubeconfig
#   kind.sh is-up NAME
#   kind.sh down NAME STATE
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

program=${XDG_CACHE_HOME:-$HOME/.cache}/lockgate/kind

kind() { "$program" "$@"; }

# Go's own cache makes this quick when nothing has changed.
build() { (cd "$here/kind" && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$program" sigs.k8s.io/kind); }

# Services of type LoadBalancer get addresses at the end of Docker's network, which a worker with one of their pods
# answers for. The machine reaches that network without a route of its own.
balance() { # NAME STATE
  local prefix next=10 namespace service address worker
  prefix=$(docker network inspect kind --format '{{range .IPAM.Config}}{{println .Subnet}}{{end}}' |
    sed -nE 's/^([0-9]+\.[0-9]+)\.[0-9.]+\/.*/\1/p' | head -1)
  export KUBECONFIG=$2/admin.kubeconfig
  while kind get nodes --name "$1" 2>/dev/null | grep -q .; do
    while read -r namespace service address; do
      [ -z "$address" ] || continue
      worker=$(kubectl get endpointslices --namespace "$namespace" --selector "kubernetes.io/service-name=$service" \
        --output jsonpath='{.items[0].endpoints[0].nodeName}' 2>/dev/null) || continue
      [ -n "$worker" ] || continue
      address=$prefix.255.$next
      next=$((next + 1))
      docker exec "$worker" ip address add "$address/32" dev eth0
      kubectl patch service "$service" --namespace "$namespace" --subresource=status --type=merge \
        --patch "{\"status\":{\"loadBalancer\":{\"ingress\":[{\"ip\":\"$address\"}]}}}" >/dev/null || true
    done < <(kubectl get services --all-namespaces --output \
      jsonpath='{range .items[?(@.spec.type=="LoadBalancer")]}{.metadata.namespace} {.metadata.name} {.status.loadBalancer.ingress[0].ip}{"\n"}{end}' 2>/dev/null)
    sleep 1
  done
}

up() { # NAME STATE IMAGES
  local archive
  mkdir -p "$2"
  build
  kind create cluster --name "$1" --kubeconfig "$2/admin.kubeconfig" --wait 3m --config - <<'Y'
apiVersion: kind.x-k8s.io/v1alpha4
kind: Cluster
nodes:
- role: control-plane
- role: worker
  labels: {topology.kubernetes.io/zone: a}
- role: worker
  labels: {topology.kubernetes.io/zone: b}
Y
  for archive in lockgate origin busybox; do
    kind load image-archive "$3/$archive.tar" --name "$1"
  done
  setsid "$0" balance "$1" "$2" </dev/null >"$2/balance.log" 2>&1 &
}

down() { # NAME STATE
  kind delete cluster --name "$1" --kubeconfig "$2/admin.kubeconfig"
  rm -rf "$2"
}

case ${1:?what? (see the top of $0)} in
  usable) docker info >/dev/null 2>&1 ;;
  is-up) [ -x "$program" ] && kind get nodes --name "$2" 2>/dev/null | grep -q . ;;
  up) up "${@:2}" ;;
  balance) balance "${@:2}" ;;
  down) down "${@:2}" ;;
  *) echo "what is $1? (see the top of $0)" >&2; exit 2 ;;
esac
