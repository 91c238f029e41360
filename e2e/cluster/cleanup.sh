#!/usr/bin/env bash
# Proves that nothing of a cluster is left, whichever part of it is killed: cleanup.sh IMAGES [CASE...]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
images=${1:?which images?}
shift
cases=("$@")
[ $# -gt 0 ] || cases=(INT:group TERM:harness TERM:run KILL:parent KILL:run KILL:harness KILL:unshare KILL:first KILL:inside KILL:command)
work=$(mktemp -d)
# A case that fails leaves a cluster that runs: it has to end before its folder goes.
finish() {
  if [ -e "/proc/${harness:-none}" ]; then
    kill "$harness"
    until_true 60 test ! -e "/proc/$harness" || true
  fi
  rm -rf "$work"
}
trap finish EXIT
export TMPDIR=$work

fail() { echo "cleanup: $case: $*" >&2; sed 's/^/  /' "$work/log" >&2; exit 1; }

until_true() { # SECONDS COMMAND...
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    [ $SECONDS -lt $end ] || return 1
    sleep 0.1
  done
}

children() { cat "/proc/$1/task/"*/children 2>/dev/null | tr ' ' '\n' | grep . || true; }

# The first descendant of $1 whose command line matches $2.
descendant() {
  local child found
  for child in $(children "$1"); do
    if tr '\0' ' ' <"/proc/$child/cmdline" 2>/dev/null | grep -qE -- "$2"; then
      echo "$child"
      return
    fi
    found=$(descendant "$child" "$2")
    [ -z "$found" ] || { echo "$found"; return; }
  done
}

# Processes that know the folder of this run; what runs in containers is in cgroups that carry its name.
processes() { grep -lasF -f "$work/state" /proc/[0-9]*/cmdline 2>/dev/null || true; }
gone() { ! [ -e "$state/node-1" ] && [ -z "$(processes)" ] && ! compgen -G "/sys/fs/cgroup/*/$(basename "$state")" >/dev/null; }

for case in "${cases[@]}"; do
  signal=${case%%:*} victim=${case##*:}
  # A job of its own process group, as a terminal would start it.
  set -m
  bash -c 'bash "$@"; true' parent "$here/run.sh" command "$images" sleep 1000 >"$work/log" 2>&1 &
  parent=$!
  set +m
  until_true 600 grep -q 'is rolled out' "$work/log" || fail "the cluster does not come up"
  state=$(echo "$work"/lockgate-e2e-*)
  echo "$state" >"$work/state"
  run=$(children "$parent" | head -1)
  harness=$(cat "$state/pid")
  unshare=$(cat "$state/namespaces")
  until_true 10 test -n "$(descendant "$unshare" '^sleep 1000')" || fail "the command does not run"
  case $victim in
    group) victim_pid=-$parent ;;
    parent) victim_pid=$parent ;;
    run) victim_pid=$run ;;
    harness) victim_pid=$harness ;;
    unshare) victim_pid=$unshare ;;
    first) victim_pid=$(children "$unshare" | head -1) ;;
    inside) victim_pid=$(descendant "$unshare" ' inside --programs ') ;;
    command) victim_pid=$(descendant "$unshare" '^sleep 1000') ;;
  esac
  count=$(processes | wc -l)
  from=$(date +%s%N)
  kill -s "$signal" -- "$victim_pid"
  if [ "$case" = KILL:harness ]; then
    # It had no chance to remove its cgroups and its folder: the next run does.
    until_true 60 test -z "$(processes)" || true
    TMPDIR=$work "$(readlink -f "${E2E_CLUSTER:?}")" down --name none >/dev/null 2>&1
  fi
  until_true 60 gone || fail "left: $(processes) $(echo "$state"/* /sys/fs/cgroup/*/"$(basename "$state")")"
  ! grep -qF "$state" /proc/mounts || fail "mounts are left"
  wait "$parent" 2>/dev/null || true
  printf '%-14s %3d processes gone, no cgroup, no mount, no data left after %d ms\n' \
    "$case" "$count" $((($(date +%s%N) - from) / 1000000))
  rm -rf "$state"
done
