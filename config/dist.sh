#!/usr/bin/env bash
# Builds the binary as it is shipped, and prints where it is: linked statically, and laid out for what a gateway does most
# of the time (config/lockgate.profdata; `make profile` writes it anew). A profile fits one version of the compiler and
# the functions that have not changed since: what does not fit is built as usual. `config/dist.sh floor` builds the yardstick
# of the measurements in the same way.
set -euo pipefail
cd "$(dirname "$0")/.."

# With a target of its own, build scripts and macros are built as usual and only the binary is linked statically.
host="$(rustc -vV | sed -n 's/^host: //p')"
flags="-C target-feature=+crt-static"
if [ "${PROFILE:=dist}" = dist ]; then
    flags+=" -C profile-use=$PWD/config/lockgate.profdata -C llvm-args=-no-pgo-warn-mismatch"
fi
binary="${1:-lockgate}" package="${1:-controller}"
RUSTFLAGS="$flags" cargo build --locked --profile "$PROFILE" --target "$host" -p "$package" >&2
echo "${CARGO_TARGET_DIR:-target}/$host/$PROFILE/$binary"
