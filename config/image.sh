#!/usr/bin/env bash
# Builds the container image and writes it to target/lockgate-image.tar.
#
# With buildah or podman the binary is built here and packed without a network; with docker alone it is built in a
# container. PROFILE=release builds faster than the default and gives a larger, slower binary. BINARY=PATH packs a
# static binary that is there already. TAG names the image, ARCHIVE the file.
set -euo pipefail
cd "$(dirname "$0")/.."

tag="${TAG:-localhost/lockgate:latest}"
archive="${ARCHIVE:-target/lockgate-image.tar}"
limit=$((40 * 1024 * 1024))
mkdir -p target/image

arguments=()
if [ -z "${BINARY:-}" ] && { command -v buildah >/dev/null || command -v podman >/dev/null; }; then
    BINARY="$(config/dist.sh)"
fi
if [ -n "${BINARY:-}" ]; then
    install "$BINARY" target/image/lockgate
    strip target/image/lockgate
    install -m 0644 /etc/ssl/certs/ca-certificates.crt target/image/ca-certificates.crt
    arguments=(BINARY=target/image/lockgate)
fi
config/pack.sh "$archive" "$tag" . "${arguments[@]}"

size="$(stat -c %s "$archive")"
printf '%s: %s, %d.%d MiB\n' "$archive" "$tag" $((size / 1048576)) $((size % 1048576 * 10 / 1048576))
if [ "$size" -ge "$limit" ]; then
    echo "config/image.sh: the image is larger than 40 MiB" >&2
    exit 1
fi
