#!/usr/bin/env bash
# Writes config/lockgate.profdata: how often what is run while the cases of `make bench-peers` are served, once each. PEERS
# and PACKAGES: the program that does that, and the packages of its peers.
set -euo pipefail
peers="$(realpath -e "${PEERS:?}")" packages="$(realpath -e "${PACKAGES:?}")"
cd "$(dirname "$0")/.."

host="$(rustc -vV | sed -n 's/^host: //p')"
tools="$(rustc --print sysroot)/lib/rustlib/$host/bin"
[ -x "$tools/llvm-profdata" ] || rustup component add llvm-tools
counts="$(mktemp -d)"
trap 'rm -rf "$counts"' EXIT
# The flags of a build are no part of the names of its functions, so that the counts are found again.
target="${CARGO_TARGET_DIR:-target}/profile"
CARGO_TARGET_DIR="$target" RUSTFLAGS="-C target-feature=+crt-static -C profile-generate=$counts" \
    cargo build --locked --profile dist --target "$host" -p controller
"$peers" --quick --peer lockgate --lockgate "$target/$host/dist/lockgate" --packages "$packages" \
    --results "$counts" --date "$(date -u +%F)"
"$tools/llvm-profdata" merge --sparse --output config/lockgate.profdata "$counts"
ls -l config/lockgate.profdata
