#!/usr/bin/env bash
# Packs a static program as an image: image.sh ARCHIVE NAME PROGRAM ENTRYPOINT...
# The archive is an OCI image layout with one layer that has the program in /bin, an empty /tmp and an empty /etc.
set -euo pipefail
archive=${1:?which archive?} name=${2:?which name?} program=${3:?which program?}
shift 3

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/root/bin" "$work/root/etc" "$work/root/tmp" "$work/layout/blobs/sha256"
chmod 1777 "$work/root/tmp"
install -m 0755 "$program" "$work/root/bin/$(basename "$program")"

# The same program gives the same bytes.
pack() { tar --create --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 --directory="$1" --file="$2" .; }
quoted=$(printf ',"%s"' "$@")
media=application/vnd.oci.image

blob() { # moves a file to where its digest says and prints what refers to it
  local digest size
  digest=$(sha256sum "$1" | cut -d' ' -f1)
  size=$(stat -c %s "$1")
  mv "$1" "$work/layout/blobs/sha256/$digest"
  printf '"digest":"sha256:%s","size":%d' "$digest" "$size"
}

pack "$work/root" "$work/layer"
layer=$(blob "$work/layer")
digest=$(sed 's/"digest":"\([^"]*\)".*/\1/' <<<"$layer")
architecture=$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')
printf '{"architecture":"%s","os":"linux","config":{"Entrypoint":[%s],"Env":["PATH=/bin"]},"rootfs":{"type":"layers","diff_ids":["%s"]}}' \
  "$architecture" "${quoted#,}" "$digest" >"$work/config"
printf '{"schemaVersion":2,"mediaType":"%s.manifest.v1+json","config":{"mediaType":"%s.config.v1+json",%s},"layers":[{"mediaType":"%s.layer.v1.tar",%s}]}' \
  "$media" "$media" "$(blob "$work/config")" "$media" "$layer" >"$work/manifest"
printf '{"schemaVersion":2,"manifests":[{"mediaType":"%s.manifest.v1+json",%s,"annotations":{"io.containerd.image.name":"%s","org.opencontainers.image.ref.name":"%s"}}]}' \
  "$media" "$(blob "$work/manifest")" "$name" "${name##*:}" >"$work/layout/index.json"
echo '{"imageLayoutVersion":"1.0.0"}' >"$work/layout/oci-layout"
pack "$work/layout" "$archive.new"
mv "$archive.new" "$archive"
