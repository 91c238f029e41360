#!/usr/bin/env bash
# The clusters of the end-to-end tests, and the tests in them:
#   run.sh api LOCKGATE [TEST...]      against a real etcd and API server, with the binary LOCKGATE as a process
#   run.sh api LOCKGATE --shell        the same API server, with a shell instead of the tests
#   run.sh api LOCKGATE --command COMMAND...   or with any other program
#   run.sh test IMAGES [TEST...]       on a Kubernetes with nodes: the one that is up, or one for this run alone
#   run.sh command IMAGES COMMAND...   any other program as a client of it
#   run.sh up IMAGES                   starts one and leaves it running
#   run.sh shell                       a shell as a client of it
#   run.sh down                        ends it
# TEST is a part of a test's name; all tests without. IMAGES is the folder with the archives that e2e/images.sh has made.
# KUBECONFIG=FILE run.sh test uses any existing cluster and installs IMAGE there. CLUSTER=NAME tells clusters apart that
# are up at the same time. Where Docker runs, the nodes are kind's (kind.sh); NODES=own does without.
#
# Without Docker, everything runs in network, process and mount namespaces of its own: no traffic leaves them, and
# whatever was started in them ends with them. KEEP=1 keeps keys and logs of a run that has passed.
set -euo pipefail
# Whoever started this may be killed: then this, and whatever this starts, has to end as well.
[ -n "${E2E_BOUND:-}" ] || E2E_BOUND=1 exec setpriv --pdeathsig TERM bash "$0" "$@"
unset E2E_BOUND
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."
action=${1:?what? (see the top of $0)}
shift

name=${CLUSTER:-up-$(cksum <<<"$PWD" | cut -d' ' -f1)}
log=${TMPDIR:-/tmp}/lockgate-e2e-$name.log
keep=()
[ -z "${KEEP:-}" ] || keep=(--keep)
bound=(setpriv --pdeathsig TERM)

fail() { echo "e2e: $*" >&2; exit 1; }

# Where the test programs are, as Cargo says.
build() {
  built=$(cargo build -p e2e --tests --bin e2e-cluster --message-format=json-render-diagnostics)
  cluster=$(executable e2e-cluster)
}
executable() {
  sed -n "s/.*\"target\":{[^}]*\"name\":\"$1\".*\"executable\":\"\([^\"]*\)\".*/\1/p" <<<"$built" | tail -1
}

# Whether a test program has tests of these names.
has_tests() { "$1" --list "${@:2}" 2>/dev/null | grep ': test$' >/dev/null; }

# The images that are no part of the project: what every pod's sandbox is made of, and the cluster's DNS.
pack_images() { # into the folder $1
  local busybox
  mkdir -p "$1"
  busybox=$(command -v busybox)
  [ "$1/busybox.tar" -nt "$busybox" ] ||
    "$here/image.sh" "$1/busybox.tar" localhost/busybox:e2e "$busybox" /bin/busybox sleep infinity
  [ "$1/coredns.tar" -nt "$programs/coredns" ] ||
    "$here/image.sh" "$1/coredns.tar" localhost/coredns:e2e "$programs/coredns" /bin/coredns
}

# Where Docker runs and no cluster is given: makes a cluster of kind, unless it is up, the one that is used. Where its
# image cannot be pulled, there are the other nodes.
kind_state=${TMPDIR:-/tmp}/lockgate-kind-$name
use_kind() { # IMAGES
  [ -z "${KUBECONFIG:-}" ] && [ "${NODES:-}" != own ] && "$here/kind.sh" usable || return 1
  export PATH=$programs:$PATH
  if ! "$here/kind.sh" is-up "$name"; then
    pack_images "$1"
    if ! "$here/kind.sh" up "$name" "$kind_state" "$1"; then
      echo "e2e: kind does not start; the nodes are processes in namespaces instead" >&2
      "$here/kind.sh" down "$name" "$kind_state"
      return 1
    fi
    kind_is_new=1
  fi
  export KUBECONFIG=$kind_state/admin.kubeconfig E2E_STATE=$kind_state
}

is_up() { "$cluster" is-up --name "$name"; }

api() {
  local lockgate separate work
  lockgate=$(realpath -e "${1:?which lockgate binary?}")
  shift
  programs=$("$here/programs.sh" kube)
  build
  # A failure is told in words.
  export RUST_BACKTRACE=0
  export E2E_API
  E2E_API=$(executable api)
  separate=(unshare --net --pid --fork --kill-child --mount-proc)
  if ! "${separate[@]}" ip link set lo up 2>/dev/null; then
    separate=(unshare --user --map-root-user --net --pid --fork --kill-child --mount-proc)
    if ! "${separate[@]}" ip link set lo up 2>/dev/null; then
      echo "e2e: neither root nor a user namespace may make network and process namespaces here." >&2
      fail "run as root, or allow them: sysctl -w kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0"
    fi
  fi
  if [ "${1:-}" = --shell ]; then
    export PATH=$programs:$PATH
    work='exec bash -i'
  elif [ "${1:-}" = --command ]; then
    shift
    work='exec "$@"'
  else
    has_tests "$E2E_API" "$@" || { echo "e2e: no test of the api tier is called $*"; return; }
    work='exec "$E2E_API" --test-threads=1 "$@"'
  fi
  # The whole range is the namespace's own: every address in it can be listened on.
  "${bound[@]}" "${separate[@]}" \
    bash -c 'ip link set lo up && ip address add 203.0.113.1/24 dev lo && exec "$@"' namespace \
    "$cluster" api --programs "$programs" --lockgate "$lockgate" "${keep[@]}" -- bash -c "$work" tests "$@"
}

up() {
  local images pid
  images=$(realpath -m "${1:?which images?}")
  programs=$("$here/programs.sh")
  build
  if is_up; then
    echo "e2e: the cluster is up already"
    return
  fi
  if use_kind "$images"; then
    "$cluster" install --state "$E2E_STATE" --lockgate localhost/lockgate:e2e
    echo "export KUBECONFIG=$KUBECONFIG   and use kubectl; make cluster-down ends it"
    return
  fi
  pack_images "$images"
  setsid "$cluster" run --name "$name" --programs "$programs" --images "$images" </dev/null >"$log" 2>&1 &
  pid=$!
  trap 'kill "$pid" 2>/dev/null; exit 130' INT TERM HUP
  until is_up; do
    if ! kill -0 "$pid" 2>/dev/null; then
      cat "$log" >&2
      fail "the cluster does not come up"
    fi
    sleep 0.2
  done
  trap - INT TERM HUP
  cat "$log"
  echo "make cluster-shell   a shell as a client of it, with kubectl"
  echo "make e2e             the tests"
  echo "make cluster-down    ends it"
}

# A program that E2E_CLUSTER names is used instead of one that is built.
command_of() {
  local images
  images=$(realpath -m "${1:?which images?}")
  shift
  programs=$("$here/programs.sh")
  cluster=${E2E_CLUSTER:-}
  [ -n "$cluster" ] || build
  if is_up; then
    PATH=$programs:$PATH "${bound[@]}" "$cluster" enter --name "$name" -- "$@"
  else
    pack_images "$images"
    "${bound[@]}" "$cluster" run --programs "$programs" --images "$images" "${keep[@]}" -- "$@"
  fi
}

# The tests, and at the end what can be said only after all of them.
run_tests() { # as a client of the cluster: the command in $within starts another one there
  local test permissions
  test=$(executable cluster)
  permissions=$(executable permissions)
  if [ $# -gt 0 ]; then
    has_tests "$test" "$@" || { echo "e2e: no test of the cluster tier is called $*"; return; }
    "${within[@]}" "$test" --test-threads=4 "$@"
  else
    "${within[@]}" bash -c '"$0" --test-threads=4 && "$1" --nocapture' "$test" "$permissions"
  fi
}

tests() {
  local images
  images=$(realpath -m "${1:?which images?}")
  shift
  programs=$("$here/programs.sh")
  build
  export RUST_BACKTRACE=0
  if ! is_up && use_kind "$images" && [ -n "${kind_is_new:-}" ]; then
    trap '"$here/kind.sh" down "$name" "$kind_state"' EXIT
  fi
  if [ -n "${KUBECONFIG:-}" ]; then
    export PATH=$programs:$PATH
    [ -n "${E2E_STATE:-}" ] || E2E_STATE=$(mktemp -d -t lockgate-e2e-XXXXXX)
    export E2E_STATE
    "$cluster" install --state "$E2E_STATE" --lockgate "${IMAGE:-localhost/lockgate:e2e}"
    within=("${bound[@]}")
    run_tests "$@" || fail "what failing tests have left is in $E2E_STATE"
  elif is_up; then
    export PATH=$programs:$PATH
    within=("${bound[@]}" "$cluster" enter --name "$name" --)
    run_tests "$@" || fail "the cluster stays up; its logs are in ${TMPDIR:-/tmp}/lockgate-e2e-$name/logs"
  else
    pack_images "$images"
    within=("${bound[@]}" "$cluster" run --programs "$programs" --images "$images" "${keep[@]}" --)
    run_tests "$@"
  fi
}

case $action in
  api) api "$@" ;;
  test) tests "$@" ;;
  command) command_of "$@" ;;
  up) up "$@" ;;
  shell)
    programs=$("$here/programs.sh" kube)
    build
    PATH=$programs:$PATH PS1='cluster$ ' exec "$cluster" enter --name "$name" -- bash --norc -i
    ;;
  down)
    build
    if "$here/kind.sh" usable && "$here/kind.sh" is-up "$name"; then
      "$here/kind.sh" down "$name" "$kind_state"
    fi
    "$cluster" down --name "$name"
    rm -f "$log"
    ;;
  *) fail "what is $action? (see the top of $0)" ;;
esac
