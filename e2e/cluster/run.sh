#!/usr/bin/env bash
# The clusters of the end-to-end tests, and the tests in them:
#   run.sh api LOCKGATE [TEST...]      against a real etcd and API server, with the binary LOCKGATE as a process
#   run.sh api LOCKGATE --shell        the same API server, with a shell instead of the tests
#   run.sh test IMAGES [TEST...]       on a Kubernetes with nodes: the one that is up, or one for this run alone
#   run.sh command IMAGES COMMAND...   any other program as a client of it
#   run.sh up IMAGES                   starts one and leaves it running
#   run.sh shell                       a shell as a client of it
#   run.sh down                        ends it
# TEST is a part of a test's name; all tests without. IMAGES is the folder with the archives that e2e/images.sh has made.
# KUBECONFIG=FILE run.sh test uses any existing cluster. CLUSTER=NAME tells clusters apart that are up at the same time.
#
# Everything runs in network, process and mount namespaces of its own: no traffic leaves them, and whatever was started
# in them ends with them. KEEP=1 keeps keys and logs of a run that has passed.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."
action=${1:?what? (see the top of $0)}
shift

name=${CLUSTER:-up-$(cksum <<<"$PWD" | cut -d' ' -f1)}
keep=()
[ -z "${KEEP:-}" ] || keep=(--keep)

fail() { echo "e2e: $*" >&2; exit 1; }

# What ends this script has to reach the program that removes everything, even if it cannot be caught.
replace() { exec setpriv --pdeathsig TERM "$@"; }

# Where the test programs are, as Cargo says.
build() {
  built=$(cargo build -p e2e --tests --bin e2e-cluster --message-format=json-render-diagnostics)
  cluster=$(executable e2e-cluster)
}
executable() {
  sed -n "s/.*\"target\":{[^}]*\"name\":\"$1\".*\"executable\":\"\([^\"]*\)\".*/\1/p" <<<"$built" | tail -1
}

# The images that are no part of the project: what every pod's sandbox is made of, and the cluster's DNS.
pack_images() { # into the folder $1
  mkdir -p "$1"
  [ "$1/busybox.tar" -nt /bin/busybox ] ||
    "$here/image.sh" "$1/busybox.tar" localhost/busybox:e2e /bin/busybox /bin/busybox sleep infinity
  [ "$1/coredns.tar" -nt "$programs/coredns" ] ||
    "$here/image.sh" "$1/coredns.tar" localhost/coredns:e2e "$programs/coredns" /bin/coredns
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
  else
    work='"$E2E_API" --test-threads=1 "$@"'
  fi
  # The whole range is the namespace's own: every address in it can be listened on.
  replace "${separate[@]}" bash -c 'ip link set lo up && ip address add 203.0.113.1/24 dev lo && exec "$@"' namespace \
    "$cluster" api --programs "$programs" --lockgate "$lockgate" "${keep[@]}" -- bash -c "$work" tests "$@"
}

up() {
  local images log pid
  images=$(realpath -m "${1:?which images?}")
  programs=$("$here/programs.sh")
  build
  if is_up; then
    echo "e2e: the cluster is up already"
    return
  fi
  pack_images "$images"
  log=$(mktemp -t lockgate-up-XXXXXX.log)
  setsid "$cluster" run --name "$name" --programs "$programs" --images "$images" </dev/null >"$log" 2>&1 &
  pid=$!
  trap 'kill "$pid" 2>/dev/null; exit 130' INT TERM HUP
  until is_up; do
    if ! kill -0 "$pid" 2>/dev/null; then
      cat "$log" >&2
      rm -f "$log"
      fail "the cluster does not come up"
    fi
    sleep 0.2
  done
  trap - INT TERM HUP
  cat "$log"
  rm -f "$log"
  echo "make cluster-shell   a shell as a client of it, with kubectl"
  echo "make e2e             the tests"
  echo "make cluster-down    ends it"
}

enter() {
  PATH=$programs:$PATH replace "$cluster" enter --name "$name" -- "$@"
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
    enter "$@"
  fi
  pack_images "$images"
  replace "$cluster" run --programs "$programs" --images "$images" "${keep[@]}" -- "$@"
}

tests() {
  local images
  images=$(realpath -m "${1:?which images?}")
  shift
  programs=$("$here/programs.sh")
  build
  export RUST_BACKTRACE=0
  export E2E_TESTS E2E_PERMISSIONS
  E2E_TESTS=$(executable cluster)
  E2E_PERMISSIONS=$(executable permissions)
  local work='"$E2E_TESTS" --test-threads=4 "$@"'
  # What was granted and never used can be said only after all tests.
  [ $# -gt 0 ] || work="$work"' && "$E2E_PERMISSIONS" --nocapture'
  local run=(bash -c "$work" tests "$@")
  if is_up; then
    enter "${run[@]}"
  fi
  pack_images "$images"
  replace "$cluster" run --programs "$programs" --images "$images" "${keep[@]}" -- "${run[@]}"
}

case $action in
  api) api "$@" ;;
  test) tests "$@" ;;
  command) command_of "$@" ;;
  up) up "$@" ;;
  shell)
    programs=$("$here/programs.sh" kube)
    build
    PS1='cluster$ ' enter bash --norc -i
    ;;
  down)
    build
    "$cluster" down --name "$name"
    ;;
  *) fail "what is $action? (see the top of $0)" ;;
esac
