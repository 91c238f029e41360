#!/usr/bin/env bash
# The end-to-end tests, against a real etcd and Kubernetes API server:
#   run.sh LOCKGATE [TEST...]    the binary under test; all tests, or those whose names contain TEST
#   run.sh LOCKGATE --shell      the same cluster, with a shell instead of the tests
# Everything runs in network and process namespaces of its own: no traffic leaves them, and whatever was started in them
# ends with them. KEEP=1 keeps keys, data and logs.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
lockgate=$(realpath -e "${1:?which lockgate binary?}")
shift

programs=$("$here/programs.sh")
cd "$here/../.."

# Where the test programs are, as Cargo says.
built=$(cargo build -p e2e --tests --bin e2e-cluster --message-format=json-render-diagnostics)
executable() {
  sed -n "s/.*\"target\":{[^}]*\"name\":\"$1\".*\"executable\":\"\([^\"]*\)\".*/\1/p" <<<"$built" | tail -1
}
# A failure is told in words.
export RUST_BACKTRACE=0
export E2E_API E2E_PERMISSIONS
E2E_API=$(executable api)
E2E_PERMISSIONS=$(executable permissions)
cluster=$(executable e2e-cluster)

separate=(unshare --net --pid --fork --kill-child --mount-proc)
if ! "${separate[@]}" ip link set lo up 2>/dev/null; then
  separate=(unshare --user --map-root-user --net --pid --fork --kill-child --mount-proc)
  if ! "${separate[@]}" ip link set lo up 2>/dev/null; then
    echo "e2e: neither root nor a user namespace may make network and process namespaces here." >&2
    echo "e2e: run as root, or allow them: sysctl -w kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0" >&2
    exit 1
  fi
fi

if [ "${1:-}" = --shell ]; then
  export PATH=$programs:$PATH
  work='exec bash -i'
elif [ $# -gt 0 ]; then
  work='"$E2E_API" --test-threads=1 "$@"'
else
  # What was granted and never used can be said only after all tests.
  work='"$E2E_API" --test-threads=1 && "$E2E_PERMISSIONS" --nocapture'
fi

keep=()
[ -z "${KEEP:-}" ] || keep=(--keep)
start=$SECONDS
# The whole range is the namespace's own: every address in it can be listened on.
"${separate[@]}" bash -c 'ip link set lo up && ip address add 203.0.113.1/24 dev lo && exec "$@"' namespace \
  "$cluster" --programs "$programs" --lockgate "$lockgate" "${keep[@]}" -- bash -c "$work" tests "$@"
echo "e2e: done in $((SECONDS - start)) s"
