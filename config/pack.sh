#!/usr/bin/env bash
# Makes an image with buildah, podman or docker, and an archive of it for `docker load`, `kind load image-archive` and
# `ctr images import`:
#   pack.sh ARCHIVE TAG CONTEXT [BUILD-ARGUMENT=VALUE...]    CONTEXT has the Dockerfile
# Nothing is run in the build and nothing pulled, so that it works without privileges and without a network.
set -euo pipefail
archive=${1:?which archive?} tag=${2:?which tag?} context=${3:?which folder?}
shift 3

arguments=(--tag "$tag" --file "$context/Dockerfile")
for argument in "$@"; do arguments+=(--build-arg "$argument"); done
rm -f "$archive" "$archive.new"
if command -v buildah >/dev/null; then
  before=$(buildah images --all --quiet --no-trunc | sort -u)
  replaced=$(buildah images --quiet --no-trunc "$tag" 2>/dev/null) || replaced=
  buildah build "${arguments[@]}" --isolation chroot --pull-never "$context" >&2
  buildah push --quiet "$tag" "docker-archive:$archive.new:$tag"
  # Images of stages, and what the tag meant before, would stay for ever. What is in use is kept.
  made=$(buildah images --quiet --no-trunc "$tag")
  fresh=$(buildah images --all --quiet --no-trunc | sort -u | comm -13 <(echo "$before") -)
  for image in $fresh $replaced; do
    [ "$image" = "$made" ] || buildah rmi --force "$image" >/dev/null 2>&1 || true
  done
elif command -v podman >/dev/null; then
  podman build "${arguments[@]}" --pull=never "$context" >&2
  podman save --quiet --format docker-archive --output "$archive.new" "$tag"
elif command -v docker >/dev/null; then
  docker build "${arguments[@]}" "$context" >&2
  docker save --output "$archive.new" "$tag"
else
  echo "config/pack.sh: install buildah, podman or docker" >&2
  exit 1
fi
mv "$archive.new" "$archive"
