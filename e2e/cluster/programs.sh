#!/usr/bin/env bash
# Builds etcd, kube-apiserver and kubectl from the Go modules that kube/go.mod pins and prints the folder they are in.
# What is there and was built from the same go.mod and go.sum is kept. Cold, on two cores: about five minutes.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/kube" && pwd)
version=$(awk '$1 == "k8s.io/kubernetes" { print $2; exit }' "$here/go.mod")
folder=${XDG_CACHE_HOME:-$HOME/.cache}/lockgate/kubernetes-$version
stamp=$(cat "$here/go.mod" "$here/go.sum" | sha256sum | cut -d' ' -f1)

complete() {
  [ "$(cat "$folder/stamp" 2>/dev/null)" = "$stamp" ] &&
    [ -x "$folder/etcd" ] && [ -x "$folder/kube-apiserver" ] && [ -x "$folder/kubectl" ]
}
if complete; then
  echo "$folder"
  exit 0
fi

# Go 1.21 and later fetch the release that go.mod asks for by themselves, unless told not to.
export GOTOOLCHAIN=${GOTOOLCHAIN:-auto}
needed=$(awk '$1 == "go" { print $2; exit }' "$here/go.mod")
if ! command -v go >/dev/null 2>&1; then
  echo "Please install Go $needed or newer (https://go.dev/dl): etcd and the Kubernetes API server are built with it" >&2
  exit 1
fi
found=$(cd "$here" && go env GOVERSION 2>/dev/null | sed 's/^go//') || found=
found=${found:-$(go version | sed -E 's/.* go([0-9.]+).*/\1/')}
if [ "$(printf '%s\n' "$needed" "$found" | sort -V | head -1)" != "$needed" ]; then
  echo "Please install Go $needed or newer (https://go.dev/dl): found Go $found" >&2
  exit 1
fi

mkdir -p "$folder"
# One build at a time; who waited finds the programs there.
exec 9>"$folder/lock"
flock 9
if ! complete; then
  echo "Building etcd, kube-apiserver and kubectl $version (five minutes the first time) ..." >&2
  rm -f "$folder/stamp"
  cd "$here"
  # Without the version the API server reports an unset one, and clients take it for an ancient server.
  CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$version" \
    -o "$folder/" k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kubectl >&2
  CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$folder/etcd" go.etcd.io/etcd/server/v3 >&2
  echo "$stamp" >"$folder/stamp"
fi
echo "$folder"
