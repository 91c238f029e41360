#!/usr/bin/env bash
# Builds the programs of a Kubernetes cluster from the Go modules beside this script and prints the folder they are in:
#   programs.sh                 everything
#   programs.sh MODULE...       only what is built from these: kube (etcd too), containerd, runc, coredns
# What is there and was built from the same go.mod and go.sum is kept. Cold, on two cores: about ten minutes.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=${XDG_CACHE_HOME:-$HOME/.cache}/lockgate/programs
modules=("$@")
[ $# -gt 0 ] || modules=(kube containerd runc coredns)

fail() { echo "e2e: $*" >&2; exit 1; }

programs_of() {
  case $1 in
    kube) echo etcd kube-apiserver kube-controller-manager kube-proxy kube-scheduler kubectl kubelet ;;
    containerd) echo containerd containerd-shim-runc-v2 ctr ;;
    runc) echo runc ;;
    coredns) echo coredns ;;
    *) fail "there is no module $1: kube, containerd, runc or coredns" ;;
  esac
}

complete() {
  [ "$(cat "$folder/.$1" 2>/dev/null)" = "$(stamp_of "$1")" ] || return 1
  for program in $(programs_of "$1"); do [ -x "$folder/$program" ] || return 1; done
}

check_go() {
  local needed found
  # Go 1.21 and later fetch the release that go.mod asks for by themselves, unless told not to.
  export GOTOOLCHAIN=${GOTOOLCHAIN:-auto}
  needed=$(awk '$1 == "go" { print $2; exit }' "$here/$1/go.mod")
  command -v go >/dev/null 2>&1 ||
    fail "please install Go $needed or newer (https://go.dev/dl): the programs of the cluster are built with it"
  found=$(cd "$here/$1" && go env GOVERSION 2>/dev/null | sed 's/^go//') || found=
  found=${found:-$(go version | sed -E 's/.* go([0-9.]+).*/\1/')}
  [ "$(printf '%s\n' "$needed" "$found" | sort -V | head -1)" = "$needed" ] ||
    fail "please install Go $needed or newer (https://go.dev/dl): found Go $found"
}

go_build() {
  local flags=(-trimpath -ldflags "-s -w ${LDFLAGS:-}")
  GOFLAGS=-mod=readonly go build "${flags[@]}" "$@" >&2
}

build() { # into the folder $2
  local version
  cd "$here/$1"
  export CGO_ENABLED=0
  case $1 in
    kube)
      version=$(awk '$1 == "k8s.io/kubernetes" { print $2; exit }' go.mod)
      # Without the version they report an unset one, and clients take the server for an ancient one.
      LDFLAGS="-X k8s.io/component-base/version.gitVersion=$version" go_build -o "$2/" \
        k8s.io/kubernetes/cmd/kube{-apiserver,-controller-manager,-proxy,-scheduler,ctl,let}
      go_build -o "$2/etcd" go.etcd.io/etcd/server/v3
      ;;
    containerd)
      go_build -tags 'no_btrfs no_devmapper no_zfs' -o "$2/" \
        github.com/containerd/containerd/v2/cmd/{containerd,containerd-shim-runc-v2,ctr}
      ;;
    runc)
      # It enters namespaces before Go's runtime starts, in C.
      command -v cc >/dev/null 2>&1 || fail "please install gcc: runc has parts in C"
      pkg-config --exists libseccomp 2>/dev/null ||
        fail "please install libseccomp-dev and pkg-config: runc applies the pods' seccomp profiles with libseccomp"
      CGO_ENABLED=1 go_build -tags seccomp -o "$2/runc" github.com/opencontainers/runc
      ;;
    coredns) go_build -o "$2/coredns" github.com/coredns/coredns ;;
  esac
}

# How it is built is part of what a program was built from.
stamp_of() { { cat "$here/$1/go.mod" "$here/$1/go.sum"; declare -f build go_build; } | sha256sum | cut -d' ' -f1; }

mkdir -p "$folder"
for module in "${modules[@]}"; do
  complete "$module" && continue
  check_go "$module"
  # One build at a time; who waited finds the programs there.
  exec 9>"$folder/.lock"
  flock 9
  if ! complete "$module"; then
    echo "e2e: building $(programs_of "$module") (minutes the first time) ..." >&2
    rm -f "$folder/.$module"
    fresh=$(mktemp -d "$folder/.build-XXXXXX")
    trap 'rm -rf "$fresh"' EXIT
    (build "$module" "$fresh")
    # A program that runs keeps the file that it was started from.
    for program in $(programs_of "$module"); do mv "$fresh/$program" "$folder/$program"; done
    rmdir "$fresh"
    stamp_of "$module" >"$folder/.$module"
  fi
  exec 9>&-
done
echo "$folder"
