#!/usr/bin/env bash
# Measures what TLS costs the gateway: handshakes a second, and CPU time of a request on a connection that is kept, beside the
# same request over plain HTTP. No model is needed.
#
#   scripts/bench-tls.sh [PROGRAM] [REQUESTS]      PROGRAM: target/release/llamagate, as `cargo build --release` makes it
#
# Needs curl and openssl. The figures are of this machine; compare only those of one run.
set -euo pipefail

program=${1:-target/release/llamagate}
requests=${2:-20000}
readonly handshake_seconds=5

for command in curl openssl; do
  command -v "$command" >/dev/null || { echo "bench-tls.sh: $command is missing" >&2; exit 1; }
done
[[ -x $program ]] || { echo "bench-tls.sh: $program is missing: cargo build --release" >&2; exit 1; }

folder=$(mktemp -d)
pids=()
stop() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$folder"
}
trap stop EXIT

# start NAME [VARIABLE=VALUE...]: starts a gateway with a data folder of this name, and waits until it listens.
start() {
  local data=$folder/$1
  shift
  mkdir "$data"
  env -i PATH="$PATH" HOME="$data" DATA_DIR="$data" HOST=127.0.0.1 PORT=0 PORT_HEALTH=0 PORT_FILE="$data/.port" \
    MOCK_BACKEND=true AUTH_ENABLED=false LOG_TO_FILE=false "$@" "$program" serve >"$data/log" 2>&1 &
  pids+=($!)
  for _ in {1..200}; do
    [[ -s $data/.port ]] && return
    sleep 0.05
  done
  cat "$data/log" >&2
  exit 1
}

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

start plain
start secure TLS_SELF_SIGNED=true
plain=http://127.0.0.1:$(<"$folder/plain/.port")
secure=127.0.0.1:$(<"$folder/secure/.port")
certificate=$folder/secure/tls/self-signed.pem

measure 'plain HTTP' "${pids[0]}" "$plain" --http1.1
measure 'HTTPS' "${pids[1]}" "https://$secure" --http1.1 --cacert "$certificate"
for version in -tls1_3 -tls1_2; do
  printf 'handshakes with %s: ' "${version#-}"
  openssl s_time -connect "$secure" -new "$version" -time "$handshake_seconds" -CAfile "$certificate" 2>/dev/null |
    sed -n 's/^\([0-9]* connections in [0-9]* real seconds\).*/\1/p'
done
