#!/usr/bin/env bash
# Writes what the binary is made of, as CycloneDX: sbom.sh FILE
#
# For the platform that this runs on, with the versions of Cargo.lock, without what only tests and builds need.
set -euo pipefail
file=$(realpath -m "${1:?which file?}")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
host=$(rustc -vV | sed -n 's/^host: //p')
name=lockgate-sbom-$$
# It writes one file beside each Cargo.toml of the workspace.
clean() { find . -path ./target -prune -o -name "$name.json" -exec rm -f {} +; }
trap clean EXIT
cargo cyclonedx --quiet --format json --spec-version 1.5 --target "$host" --no-build-deps \
  --manifest-path controller/Cargo.toml --override-filename "$name"
mkdir -p "$(dirname "$file")"
mv "controller/$name.json" "$file"
components=$(grep -c '"bom-ref"' "$file")
[ "$components" -gt 50 ] || { echo "config/sbom.sh: only $components components, which cannot be all" >&2; exit 1; }
echo "$file: $components components"
