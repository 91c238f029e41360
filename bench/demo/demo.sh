#!/usr/bin/env bash
# Runs Lockgate on a folder of manifests and shows with curl what it does. Ends by itself.
#
#   bench/demo/demo.sh DIRECTORY-OF-THE-BINARIES
#
# KEEP=1 keeps everything running at the end. Exit code 1 when anything is not as it should be.
set -euo pipefail

bin=$(cd "${1:?directory of the binaries}" && pwd)
source_manifests=$(cd "$(dirname "$0")/manifests" && pwd)
home=$(mktemp -d "${TMPDIR:-/tmp}/lockgate-demo.XXXXXX")
manifests=$home/manifests
log=$home/lockgate.log
children=()

cleanup() {
  for child in "${children[@]}"; do kill "$child" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$home"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

say() { printf '%s\n' "$*"; }
step() { printf '\n--- %s\n' "$*"; }
indent() { sed 's/^/    /'; }
fail() {
  printf '\nThis is not as it should be: %s\n' "$*" >&2
  printf 'The log of lockgate ends with:\n' >&2
  tail -n 15 "$log" 2>/dev/null | cut -c 1-400 | indent >&2
  exit 1
}
# expect TEXT PATTERN: the text has a line that matches the extended regular expression.
expect() { grep -Eiq -- "$2" <<<"$1" || fail "no line matches \`$2\` in: $1"; }
free_port() { # the first port from $1 on that nobody answers on
  local port=$1
  while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
  printf '%s' "$port"
}
# Prints a curl command as it can be repeated, and runs it with the flags that make its output easy to read.
curl_() { curl --silent --show-error --max-time 10 --config "$home/curlrc" "$@"; }
show() { printf '$ curl --config curlrc %s\n' "$*"; }
subject() { curl_ -v -o /dev/null "$1" 2>&1 | sed -n 's/^\* *\(subject\|issuer\): */\1: /p'; }
# wait_for SECONDS COMMAND...: until the command succeeds.
wait_for() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < end)) || return 1
    sleep 0.05
  done
}

say "Lockgate demo: an ingress controller on a folder of manifests, without a cluster."

# Two backends. They take ports from the system and print them.
mkdir "$manifests"
: >"$home/origins"
"$bin/origin" --linger 0s --listen blue=127.0.0.1:0 --listen green=127.0.0.1:0 >"$home/origins" &
children+=($!)
origins_known() { [[ $(wc -l <"$home/origins") -eq 2 ]]; }
wait_for 10 origins_known || fail "the backends did not start"
blue=$(sed -n 's/^blue //p' "$home/origins")
green=$(sed -n 's/^green //p' "$home/origins")

# The manifests, with the ports of the backends and a certificate for each host.
for file in "$source_manifests"/*.yaml; do
  sed "s/port: 9001/port: ${blue##*:}/; s/port: 9002/port: ${green##*:}/" "$file" >"$manifests/${file##*/}"
done
certificate() { # HOST ORGANIZATION
  "$bin/certs" --authority "$home" --authority-name "Demo authority" --name "$1.example.test" \
    --organization "$2" --secret "demo/$1-tls" --out "$manifests/$1-tls.yaml"
}
certificate shop "The Shop"
certificate blog "The Blog"

http=$(free_port 8080)
https=$(free_port 8443)
admin=$(free_port 10254)
cat >"$home/curlrc" <<CURLRC
cacert = $home/ca.pem
resolve = shop.example.test:$http:127.0.0.1
resolve = shop.example.test:$https:127.0.0.1
resolve = blog.example.test:$http:127.0.0.1
resolve = blog.example.test:$https:127.0.0.1
CURLRC

step "Start"
say "Backends:  blue on $blue, green on $green"
say "Manifests: $(cd "$manifests" && echo *.yaml)"
say "           (a copy of bench/demo/manifests, and two Secrets with fresh certificates)"
say "\$ lockgate run --manifests manifests --http-listen 127.0.0.1:$http \\"
say "      --https-listen 127.0.0.1:$https --admin-listen 127.0.0.1:$admin"
"$bin/lockgate" run --manifests "$manifests" --http-listen "127.0.0.1:$http" \
  --https-listen "127.0.0.1:$https" --admin-listen "127.0.0.1:$admin" \
  --access-log on --log-format json >"$log" 2>&1 &
lockgate=$!
children+=("$lockgate")
ready() {
  kill -0 "$lockgate" 2>/dev/null || fail "lockgate has ended"
  curl -fsS -o /dev/null --max-time 2 "http://127.0.0.1:$admin/readyz" 2>/dev/null
}
wait_for 20 ready || fail "lockgate did not become ready"
say "Ready."
say "The curl commands below read this file, called curlrc: where the two hosts are, and whom to trust."
indent <"$home/curlrc"

step "1. Plain HTTP is sent to https, because the host has a certificate"
show -i "http://shop.example.test:$http/cart?id=7"
answer=$(curl_ -i "http://shop.example.test:$http/cart?id=7" | tr -d '\r')
grep -Ei '^(HTTP|location)' <<<"$answer" | indent
expect "$answer" '^HTTP/1.1 308'
expect "$answer" '^location: https://shop\.example\.test(:[0-9]+)?/cart\?id=7$'

step "2. Two hosts, two certificates, one port: the name in the handshake decides"
for host in shop blog; do
  show -v "https://$host.example.test:$https/"
  answer=$(subject "https://$host.example.test:$https/")
  indent <<<"$answer"
  expect "$answer" "subject:.*CN *= *$host\.example\.test"
done

step "3. Paths of one host lead to different backends"
for pair in /:blue /cart/items:green /carts:blue; do
  path=${pair%:*} want=${pair#*:}
  show "https://shop.example.test:$https$path"
  answer=$(curl_ "https://shop.example.test:$https$path")
  grep -E '"(pod|path)":' <<<"$answer" | indent
  expect "$answer" "\"pod\": \"$want\""
done
say "(/carts is not below /cart: prefixes match whole elements.)"

step "4. Changes take effect while requests flow"
load() { "$bin/load" --ca "$home/ca.pem" --connect "127.0.0.1:$https" --duration 6s "$@"; }
urls=("https://shop.example.test:$https/" "https://shop.example.test:$https/cart" "https://blog.example.test:$https/")
load --connections 6 --rate 600 --renew-after 20 --expect-header 'x-backend: blue|green' "${urls[@]}" >"$home/load1" &
load1=$!
load --http2 --connections 3 --streams 4 --rate 600 --expect-header 'x-backend: blue|green' "${urls[@]}" >"$home/load2" &
load2=$!
children+=("$load1" "$load2")
say "Two load generators run for 6 seconds: HTTP/1.1 with ever new connections, and HTTP/2."

cart() { curl_ "https://shop.example.test:$https/cart" | sed -n 's/^ *"pod": "\(.*\)",/\1/p'; }
say
say "\$ sed -i 's/name: green #/name: blue #/' manifests/shop.yaml"
expect "$(cart)" '^green$'
sleep 1.5 # so that the load has seen the state before
sed -i 's/name: green #/name: blue #/' "$manifests/shop.yaml"
cart_is_blue() { [[ $(cart) == blue ]]; }
wait_for 5 cart_is_blue || fail "the changed route is not served"
show "https://shop.example.test:$https/cart"
say "      \"pod\": \"$(cart)\""

sleep 1
say
say "A new certificate for the shop replaces the Secret in manifests/shop-tls.yaml."
certificate shop "The Shop, renewed"
renewed() { subject "https://shop.example.test:$https/" | grep -q 'renewed'; }
wait_for 5 renewed || fail "the new certificate is not served"
show -v "https://shop.example.test:$https/"
subject "https://shop.example.test:$https/" | indent

say
status=0
wait "$load1" || status=1
wait "$load2" || status=1
say "Meanwhile, HTTP/1.1: $(cat "$home/load1")"
say "           HTTP/2:   $(cat "$home/load2")"
((status == 0)) || fail "requests have failed"

step "5. Where to look next"
show "'http://127.0.0.1:$admin/debug/routes?format=table'"
answer=$(curl_ "http://127.0.0.1:$admin/debug/routes?format=table")
indent <<<"$answer"
expect "$answer" 'shop\.example\.test'
say
show "http://127.0.0.1:$admin/metrics   # some of its lines"
answer=$(curl_ "http://127.0.0.1:$admin/metrics")
grep -E '^lockgate_(requests_total|table_generation|certificate_expiry)' <<<"$answer" | head -n 6 | cut -c 1-160 | indent
expect "$answer" '^lockgate_'
say
say "The access log, one line per request:"
last=$(grep -F '"host"' "$log" | tail -n 1)
indent <<<"$last"
expect "$last" '"status"'

if [[ -n ${KEEP:-} ]]; then
  step "Everything keeps running until Ctrl-C"
  say "\$ cd $home"
  say "Edit manifests/, repeat the commands above, read lockgate.log."
  wait "$lockgate" || true
  exit 0
fi

kill -TERM "$lockgate"
wait "$lockgate" || fail "lockgate did not end well"
step "Done: everything was as it should be"
say "Keep it running and try for yourself:  make demo KEEP=1"
say "Use it in a cluster:                   README.md"
