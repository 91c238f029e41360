#!/usr/bin/env bash
# Archives of the images that run in the cluster of the tests, from the static binaries of `make release`:
#   images.sh TARGET [HOST]    writes TARGET/images/{lockgate,origin}.tar; HOST: the target triple that they are built for
# Lockgate's is made from the Dockerfile that users build. What was made from the same files before is kept.
set -euo pipefail
target=$(realpath -e "${1:?which target folder?}")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
host=${2:-$(rustc -vV | sed -n 's/^host: //p')}
bin=$target/$host/release
images=$target/images
mkdir -p "$images/.origin"

# One at a time; who waited finds the archives there.
exec 9>"$images/.lock"
flock 9

make_it() { # NAME INPUT... -- COMMAND...
  local name=$1 inputs=() stamp
  shift
  while [ "$1" != -- ]; do
    inputs+=("$1")
    shift
  done
  shift
  stamp=$(sha256sum "${inputs[@]}" | sha256sum | cut -d' ' -f1)
  if [ -s "$images/$name.tar" ] && [ "$(cat "$images/.$name.stamp" 2>/dev/null)" = "$stamp" ]; then
    return
  fi
  rm -f "$images/.$name.stamp"
  # Nobody wants to read how an image is made, unless it fails.
  if ! "$@" >"$images/.$name.log" 2>&1; then
    cat "$images/.$name.log" >&2
    echo "e2e/images.sh: the image $name cannot be made" >&2
    exit 1
  fi
  echo "$stamp" >"$images/.$name.stamp"
}

# Each command of these has to say by itself that it has failed: -e does not hold in a condition.
lockgate() {
  BINARY=$bin/lockgate TAG=localhost/lockgate:e2e ARCHIVE=$images/lockgate.tar config/image.sh
}
origin() {
  install "$bin/origin" "$images/.origin/origin" &&
    strip "$images/.origin/origin" &&
    install -m 0644 bench/Dockerfile "$images/.origin/Dockerfile" &&
    config/pack.sh "$images/origin.tar" localhost/lockgate-origin:e2e "$images/.origin"
}
make_it lockgate "$bin/lockgate" Dockerfile config/image.sh config/pack.sh /etc/ssl/certs/ca-certificates.crt -- lockgate
make_it origin "$bin/origin" bench/Dockerfile config/pack.sh -- origin
