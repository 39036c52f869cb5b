#!/usr/bin/env bash
# Measures what TLS costs the gateway: handshakes a second, and CPU time of a request on a connection that is kept, beside the
# same request over plain HTTP. No model is needed.
#
#   scripts/bench-tls.sh [PROGRAM] [REQUESTS]      PROGRAM: target/release/llamagate, as `cargo build --release` makes it
#
# Needs curl and openssl. The figures are of this machine; compare only those of one run.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/bench.sh
. "$(dirname "$0")/bench.sh"

program=${1:-$repo_root/target/release/llamagate}
requests=${2:-20000}
readonly handshake_seconds=5

for command in curl openssl; do
  have "$command" || fail "$command is missing"
done
[[ -x $program ]] || fail "$program is missing" "build it: cargo build --release --bin llamagate"

folder=$(mktemp -d)
trap 'stop_started; rm -rf "$folder"' EXIT

# cpu_ticks PID: prints the CPU time that a process has used, in ticks of the kernel.
cpu_ticks() {
  local stat
  stat=$(<"/proc/$1/stat")
  local fields
  read -ra fields <<<"${stat##*) }"
  echo $((fields[11] + fields[12]))
}

# measure NAME PID URL [OPTION...]: prints the CPU time of a request over one connection.
measure() {
  local name=$1 pid=$2 url=$3 before after
  shift 3
  curl --silent --noproxy '*' --output /dev/null "$@" "$url/ping?[1-200]"
  before=$(cpu_ticks "$pid")
  curl --silent --noproxy '*' --output /dev/null "$@" "$url/ping?[1-$requests]"
  after=$(cpu_ticks "$pid")
  awk -v name="$name" -v ticks=$((after - before)) -v hz="$(getconf CLK_TCK)" -v requests="$requests" \
    'BEGIN { printf "%-12s %6.1f microseconds of CPU a request\n", name, ticks / hz / requests * 1e6 }'
}

start_gateway "$folder/plain" AUTH_ENABLED=false
start_gateway "$folder/secure" AUTH_ENABLED=false TLS_SELF_SIGNED=true
plain=http://127.0.0.1:$(<"$folder/plain/port")
secure=127.0.0.1:$(<"$folder/secure/port")
certificate=$folder/secure/tls/self-signed.pem

measure 'plain HTTP' "${started[0]}" "$plain" --http1.1
measure 'HTTPS' "${started[1]}" "https://$secure" --http1.1 --cacert "$certificate"
for version in -tls1_3 -tls1_2; do
  printf 'handshakes with %s: ' "${version#-}"
  openssl s_time -connect "$secure" -new "$version" -time "$handshake_seconds" -CAfile "$certificate" 2>/dev/null |
    sed -n 's/^\([0-9]* connections in [0-9]* real seconds\).*/\1/p'
done
