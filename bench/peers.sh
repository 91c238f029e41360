#!/usr/bin/env bash
# Requests per CPU second of Lockgate beside HAProxy.
#
#   bench/peers.sh DIRECTORY-OF-THE-BINARIES [LOCKGATE]
#
# Each proxy has core 0 for itself while it is measured, with one worker; the load generator and the backend share
# core 1. Rounds of all proxies alternate, so that what disturbs the machine disturbs all of them. The figure is CPU time
# of the proxy (user and system, from /proc) per answered request; ratios are taken within a round.
#
# ROUNDS=7 and SECONDS_PER_ROUND=3 may be set. Writes bench/results/DATE.md.
set -euo pipefail

bin=${1:?directory of the binaries}
lockgate=${2:-$bin/lockgate}
rounds=${ROUNDS:-7}
seconds=${SECONDS_PER_ROUND:-3}
results=$(cd "$(dirname "$0")" && pwd)/results
home=$(mktemp -d "${TMPDIR:-/tmp}/lockgate-peers.XXXXXX")
children=()

cleanup() {
  for child in "${children[@]}"; do kill "$child" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$home"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

fail() {
  printf 'bench-peers: %s\n' "$*" >&2
  tail -n 5 "$home"/*.log >&2 2>/dev/null || true
  exit 1
}
for program in wrk h2load haproxy taskset curl; do
  command -v "$program" >/dev/null || fail "$program is not installed"
done
(($(nproc) >= 2)) || fail "two cores are needed"

wait_for() { # SECONDS COMMAND...
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < end)) || return 1
    sleep 0.05
  done
}
free_port() {
  local port=$1
  while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
  printf '%s' "$port"
}

# --- the backend: 1 KiB for every request
taskset -c 1 "$bin/origin" --linger 0s --listen bench=127.0.0.1:0 --body-size 1024 >"$home/origin" &
children+=($!)
origin_known() { [[ -s $home/origin ]]; }
wait_for 10 origin_known || fail "the backend did not start"
backend=$(sed -n 's/^bench //p' "$home/origin")

# --- one certificate for both
mkdir "$home/manifests"
"$bin/certs" --authority "$home" --name localhost --secret bench/tls --out "$home/manifests/tls.yaml"
for part in crt key; do
  sed -n "s/^  tls.$part: //p" "$home/manifests/tls.yaml" | base64 -d >>"$home/localhost.pem"
done

# --- HAProxy
haproxy_http=$(free_port 21080) haproxy_https=$(free_port 21443)
cat >"$home/haproxy.cfg" <<CONFIGURATION
global
  nbthread 1
  maxconn 4096
  ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  option forwardfor
  http-reuse always
frontend http
  bind 127.0.0.1:$haproxy_http
  default_backend bench
frontend https
  bind 127.0.0.1:$haproxy_https ssl crt $home/localhost.pem alpn h2,http/1.1
  default_backend bench
backend bench
  server bench $backend
CONFIGURATION
taskset -c 0 haproxy -f "$home/haproxy.cfg" -db >"$home/haproxy.log" 2>&1 &
haproxy=$!
children+=("$haproxy")

# --- Lockgate
lockgate_http=$(free_port 22080) lockgate_https=$(free_port 22443) admin=$(free_port 22254)
cat >"$home/manifests/bench.yaml" <<MANIFESTS
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata:
  name: lockgate
spec:
  controller: lockgate.dev/ingress-controller
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  namespace: bench
  name: bench
  annotations:
    nginx.ingress.kubernetes.io/ssl-redirect: "false"
spec:
  ingressClassName: lockgate
  tls:
    - hosts: [localhost]
      secretName: tls
  rules:
    - host: localhost
      http:
        paths:
          - path: /
            pathType: Prefix
            backend:
              service:
                name: bench
                port:
                  number: 80
---
apiVersion: v1
kind: Service
metadata:
  namespace: bench
  name: bench
spec:
  ports:
    - name: http
      port: 80
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  namespace: bench
  name: bench-1
  labels:
    kubernetes.io/service-name: bench
addressType: IPv4
ports:
  - name: http
    port: ${backend##*:}
endpoints:
  - addresses: [127.0.0.1]
MANIFESTS
taskset -c 0 "$lockgate" run --manifests "$home/manifests" --http-listen "127.0.0.1:$lockgate_http" \
  --https-listen "127.0.0.1:$lockgate_https" --admin-listen "127.0.0.1:$admin" --access-log off --workers 1 \
  >"$home/lockgate.log" 2>&1 &
proxy=$!
children+=("$proxy")
ready() { curl -fsS -o /dev/null --max-time 2 "http://127.0.0.1:$admin/readyz" 2>/dev/null; }
wait_for 20 ready || fail "lockgate did not become ready"

ask() { curl -sS --max-time 5 --cacert "$home/ca.pem" -o "$home/body" -w '%{http_code} %{size_download} %{http_version}' "$@"; }
for port in "$haproxy_http" "$lockgate_http"; do
  answer=$(ask "http://localhost:$port/")
  [[ $answer == "200 1024 1.1" ]] || fail "port $port answers $answer"
done
for port in "$haproxy_https" "$lockgate_https"; do
  answer=$(ask --http2 "https://localhost:$port/")
  [[ $answer == "200 1024 2" ]] || fail "port $port answers $answer"
done

# --- measuring
ticks=$(getconf CLK_TCK)
cpu() { awk '{ sub(/^.*\) /, ""); print $12 + $13 }' "/proc/$1/stat"; } # user and system, in ticks
# Requests that were answered with 2xx; fails when one was not.
run_wrk() {
  taskset -c 1 wrk -t 1 -c 64 -d "${seconds}s" "$1" >"$home/out"
  ! grep -E 'Non-2xx|Socket errors' "$home/out" >&2 || fail "requests to $1 have failed"
  awk '/requests in/ { print $1 }' "$home/out"
}
run_h2load() {
  # It does not try a second address of a name.
  local port=${1##*:}
  taskset -c 1 h2load -t 1 -c 16 -m 32 -D "$seconds" --connect-to "127.0.0.1:${port%/}" "$1" >"$home/out"
  awk '/^requests:/ { if ($10 + $12 + $14 > 0) exit 1; print $8 }' "$home/out" || fail "requests to $1 have failed: $(grep ^requests: "$home/out")"
}
measure() { # CASE PROXY ROUND COMMAND URL: appends a line to the results
  local name=$1 who=$2 round=$3 process=$haproxy before after count
  [[ $who == haproxy ]] || process=$proxy
  before=$(cpu "$process")
  count=$("run_$4" "$5")
  after=$(cpu "$process")
  ((count > 0 && after > before)) || fail "nothing was measured for $who, $name"
  awk -v n="$count" -v t=$((after - before)) -v hz="$ticks" -v s="$seconds" -v name="$name" -v who="$who" -v round="$round" \
    'BEGIN { print name, who, round, n * hz / t, t / hz / n * 1e6, n / s, t / hz / s * 100 }' >>"$home/results"
}
one_round() {
  local round=$1 order=(haproxy lockgate) who
  ((round % 2)) || order=(lockgate haproxy)
  for name in "HTTP/1.1" "HTTPS, HTTP/1.1" "HTTPS, HTTP/2"; do
    for who in "${order[@]}"; do
      local http=${who}_http https=${who}_https
      case $name in
        "HTTP/1.1") measure http1 "$who" "$round" wrk "http://localhost:${!http}/" ;;
        "HTTPS, HTTP/1.1") measure https1 "$who" "$round" wrk "https://localhost:${!https}/" ;;
        *) measure https2 "$who" "$round" h2load "https://localhost:${!https}/" ;;
      esac
    done
  done
}
one_round 0 # everything is warm afterwards
: >"$home/results"
for ((round = 1; round <= rounds; round++)); do one_round "$round"; done

# --- the page
median() { sort -g | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
column() { awk -v name="$1" -v who="$2" -v c="$3" '$1 == name && $2 == who { print $c }' "$home/results"; }
ratios() {
  awk -v name="$1" '$1 == name { v[$2, $3] = $4; if ($3 > last) last = $3 }
    END { for (r = 1; r <= last; r++) print v["lockgate", r] / v["haproxy", r] }' "$home/results"
}
resident() { awk '/^VmRSS/ { printf "%.0f MiB", $2 / 1024 }' "/proc/$1/status"; }
mkdir -p "$results"
page=$results/$(date -u +%Y-%m-%d).md
{
  printf '# Requests per CPU second, %s\n\n' "$(date -u +%Y-%m-%d)"
  printf 'Written by `make bench-peers`. Each proxy alone on core 0 with one worker, load generator and backend on core 1,\n'
  printf '%s rounds of %s s, alternating; medians. Access logs off. 1 KiB bodies, kept connections: 64 (HTTP/1.1, wrk),\n' "$rounds" "$seconds"
  printf '16 with 32 streams each (HTTP/2, h2load). CPU time is user and system time of the proxy.\n\n'
  printf '| case | proxy | requests per CPU second | CPU per request | requests per second | core busy |\n| --- | --- | ---: | ---: | ---: | ---: |\n'
  for name in http1 https1 https2; do
    case $name in http1) title="HTTP/1.1" ;; https1) title="HTTPS, HTTP/1.1" ;; *) title="HTTPS, HTTP/2" ;; esac
    for who in haproxy lockgate; do
      printf '| %s | %s | %.0f | %.1f us | %.0f | %.0f %% |\n' "$title" "$who" "$(column $name $who 4 | median)" \
        "$(column $name $who 5 | median)" "$(column $name $who 6 | median)" "$(column $name $who 7 | median)"
    done
  done
  printf '\n| case | Lockgate : HAProxy, median | lowest | highest |\n| --- | ---: | ---: | ---: |\n'
  for name in http1 https1 https2; do
    case $name in http1) title="HTTP/1.1" ;; https1) title="HTTPS, HTTP/1.1" ;; *) title="HTTPS, HTTP/2" ;; esac
    printf '| %s | %.2f | %.2f | %.2f |\n' "$title" "$(ratios $name | median)" "$(ratios $name | sort -g | head -n 1)" "$(ratios $name | sort -g | tail -n 1)"
  done
  printf '\nResident memory after the run: HAProxy %s, Lockgate %s.\n\n' "$(resident "$haproxy")" "$(resident "$proxy")"
  printf -- '- %s, %s cores, Linux %s\n' "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)" "$(nproc)" "$(uname -r)"
  printf -- '- %s\n' "$(haproxy -v | head -n 1 | sed 's/ - .*//'), $(haproxy -vv | sed -n 's/^Running on OpenSSL version : //p')"
  printf -- '- %s%s\n' "$("$lockgate" version | head -n 1)" "$([[ $lockgate == */dist/* ]] && printf ' (profile dist)' || printf ' (profile release)')"
  printf -- '- %s; %s\n' "$(wrk -v 2>&1 | head -n 1 | cut -d ' ' -f 1-3)" "$(h2load --version)"
} >"$page"
cat "$page"
