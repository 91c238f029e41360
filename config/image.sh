#!/bin/bash
# Builds the container image and writes it to target/lockgate-image.tar.
#
# With buildah or podman the binary is built here and packed without a network; with docker alone it is built in a
# container. PROFILE=release builds faster than the default and gives a larger, slower binary. BINARY=PATH packs a
# static binary that is there already.
set -euo pipefail
cd "$(dirname "$0")/.."

tag="${TAG:-localhost/lockgate:latest}"
archive=target/lockgate-image.tar
limit=$((40 * 1024 * 1024))
mkdir -p target/image
rm -f "$archive"

binary() {
    local profile="${PROFILE:-dist}" host
    host="$(rustc -vV | sed -n 's/^host: //p')"
    RUSTFLAGS="-C target-feature=+crt-static" \
        cargo build --locked --profile "$profile" --target "$host" -p controller
    BINARY="${CARGO_TARGET_DIR:-target}/$host/$profile/lockgate"
}

if command -v buildah >/dev/null || command -v podman >/dev/null; then
    [ -n "${BINARY:-}" ] || binary
    install "$BINARY" target/image/lockgate
    strip target/image/lockgate
    install -m 0644 /etc/ssl/certs/ca-certificates.crt target/image/ca-certificates.crt
    arguments=(build --tag "$tag" --build-arg BINARY=target/image/lockgate)
    if command -v buildah >/dev/null; then
        # Nothing is run in the build, so it needs no isolation and works without privileges.
        buildah "${arguments[@]}" --isolation chroot --pull-never . >&2
        buildah push --quiet "$tag" "docker-archive:$archive:$tag"
    else
        podman "${arguments[@]}" --pull=never . >&2
        podman save --quiet --format docker-archive --output "$archive" "$tag"
    fi
elif command -v docker >/dev/null; then
    docker build --tag "$tag" . >&2
    docker save --output "$archive" "$tag"
else
    echo "config/image.sh: install buildah, podman or docker" >&2
    exit 1
fi

size="$(stat -c %s "$archive")"
printf '%s: %s, %d.%d MiB\n' "$archive" "$tag" $((size / 1048576)) $((size % 1048576 * 10 / 1048576))
if [ "$size" -ge "$limit" ]; then
    echo "config/image.sh: the image is larger than 40 MiB" >&2
    exit 1
fi
