#!/usr/bin/env bash
# Measures what the round trip to LIMITS_STORE adds to a request: one client, one request after the other, on one connection.
#
#   scripts/bench-limits-store.sh [REQUESTS]
#
# LLAMAGATE is a program of the release profile (target/release/llamagate). The server is that of scripts/get-valkey.sh, on
# the loopback. The request is for the list of models, which no worker serves, so nothing else takes time.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/bench.sh
. "$(dirname "$0")/bench.sh"
cd "$repo_root"

requests=${1:-5000}
program=${LLAMAGATE:-target/release/llamagate}
[[ -x $program ]] || fail "there is no $program" "cargo build --release"
store=$(scripts/get-valkey.sh)
lock bench-limits-store
make_work_dir bench-limits-store
trap 'stop_started; rm -rf "$work"' EXIT

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$store" --port "$port" --bind 127.0.0.1 --save "" --dir "$work" >"$work/store.log" &
started+=($!)
printf 'bench:bench-secret-0123456789:1000000000\n' >"$work/keys.txt"
chmod 600 "$work/keys.txt"

start_gateway "$work/alone" AUTH_KEYS_FILE="$work/keys.txt"
start_gateway "$work/shared" AUTH_KEYS_FILE="$work/keys.txt" LIMITS_STORE="valkey://127.0.0.1:$port/0" LIMITS_STORE_TIMEOUT=1000
is_shared() { grep -q 'are shared with other replicas' "$work/shared/log"; }
for _ in {1..100}; do
  ! is_shared || break
  sleep 0.1
done
is_shared || fail "the gateway shares no limits with $store; its output:" "$(<"$work/shared/log")"

python3 - "$requests" "$(<"$work/alone/port")" "$(<"$work/shared/port")" <<'PYTHON'
import http.client, statistics, sys, time

requests, ports = int(sys.argv[1]), sys.argv[2:]
headers = {"Authorization": "Bearer bench-secret-0123456789"}


def measure(port):
    client = http.client.HTTPConnection("127.0.0.1", int(port))
    times = []
    for _ in range(requests):
        begin = time.perf_counter()
        client.request("GET", "/v1/models", headers=headers)
        answer = client.getresponse()
        answer.read()
        assert answer.status == 200, answer.status
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1e6


# In turns, so that a busy moment of the machine meets both.
pairs = [[measure(port) for port in ports] for _ in range(5)]
# Without the store's answer a request takes no round trip, and the figures would say nothing.
client = http.client.HTTPConnection("127.0.0.1", int(ports[1]))
client.request("GET", "/metrics", headers={**headers, "Accept": "text/plain"})
lines = client.getresponse().read().decode().splitlines()
assert "llamagate_limits_store_up 1" in lines, "the limits store does not answer, or the metrics cannot be read"
fallbacks = [line for line in lines if line.startswith("llamagate_limits_store_fallbacks_total{") and line.split()[-1] != "0"]
assert not fallbacks, f"requests were decided without the limits store: {fallbacks}"
alone, shared = (min(times) for times in zip(*pairs))
print(f"alone {alone:.0f} us, shared {shared:.0f} us a request: {shared - alone:.0f} us more, {shared / alone:.2f} times as long")
PYTHON
