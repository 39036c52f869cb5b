#!/usr/bin/env bash
# Tests the gateway over a link that delays, loses, doubles and reorders packets, and is away for three seconds.
#
#   scripts/test-network.sh
#   LOSS=3 DELAY_MS=60 scripts/test-network.sh    # JITTER_MS, DUPLICATES and REORDERED (percent), SEED too
#   LLAMAGATE=/usr/bin/llamagate scripts/test-network.sh
#
# Two network namespaces with the link between them: clients, a remote backend and a collector of traces in one, the gateway in
# the other, once with HTTP and once with TLS. Each answer must be whole and equal to that of a good network; then no slot
# and no descriptor may be held. Needs root on Linux, /dev/net/tun, iproute2, curl, and what scripts/test.sh fetches; takes about a
# minute. Does not depend on the kernel's netem: tests/clients/packet_link.py does that to the packets.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$repo_root"

[[ $(id -u) -eq 0 ]] || fail "this test makes network namespaces" "run it as root"
[[ -c /dev/net/tun ]] || fail "there is no /dev/net/tun" "the kernel needs CONFIG_TUN"
for program in ip curl python3; do have "$program" || fail "there is no $program" "install it"; done
server=$(scripts/get-llama-server.sh)
models=$(scripts/get-test-models.sh)
python=${LLAMAGATE_TEST_PYTHON:-$cache_dir/venv/bin/python}
program=${LLAMAGATE:-}
if [[ -z $program ]]; then
  cargo build --quiet --bin llamagate
  program=target/debug/llamagate
fi
lock test-network
make_work_dir test-network

key=user-secret-0123456789
near=llamagate-near-$$
far=llamagate-far-$$
started=()

end() {
  local pid
  for pid in "${started[@]}"; do
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  ip netns del "$near" 2>/dev/null || true
  ip netns del "$far" 2>/dev/null || true
  rm -rf "$work"
}
trap end EXIT

# wait_for WHAT SECONDS COMMAND...: until it succeeds.
wait_for() {
  local what=$1 deadline=$((SECONDS + $2))
  shift 2
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || fail "not true in time: $what" "$(tail -n 20 "$work"/*.log)"
    sleep 0.1
  done
}

# serve NAMESPACE NAME ADDRESS PORT SETTINGS...: starts a gateway; its process is in $served.
serve() {
  local namespace=$1 name=$2 address=$3 port=$4
  shift 4
  mkdir -p "$work/$name"
  printf 'user:%s:1000000\n' "$key" >"$work/$name/api_keys.txt"
  chmod 600 "$work/$name/api_keys.txt"
  ip netns exec "$namespace" env -i PATH="$PATH" HOME="$work/$name" DATA_DIR="$work/$name" AUTH_KEYS_FILE="$work/$name/api_keys.txt" \
    LLAMA_SERVER="$server" MODELS_DIR="$models" HF_HUB_OFFLINE=true NGL=0 THREADS=1 HOST="$address" PORT="$port" \
    PORT_HEALTH=$((port + 1)) PORT_BACKEND=$((port + 100)) MAX_REQUEST_BODY_SIZE=20MiB CONFIG_FILE="$work/$name.yaml" "$@" \
    "$program" serve >"$work/$name.log" 2>&1 &
  served=$!
  started+=("$served")
  wait_for "$name is ready" 60 ip netns exec "$namespace" curl -fs "http://$address:$((port + 1))/ping"
}

ip netns add "$near"
ip netns add "$far"
loss=${LOSS:-1} duplicates=${DUPLICATES:-5} reordered=${REORDERED:-10}
python3 tests/clients/packet_link.py "$near" "$far" "${DELAY_MS:-20}" "${JITTER_MS:-6}" "$loss" "$duplicates" "$reordered" \
  "${SEED:-1}" >"$work/link.log" 2>&1 &
link=$!
started+=("$link")
wait_for "the link is there" 10 grep -q ready "$work/link.log"
for side in "$near 10.77.0.1" "$far 10.77.0.2"; do
  read -r namespace address <<<"$side"
  ip -n "$namespace" link set lo up
  ip -n "$namespace" addr add "$address/24" dev slow0
  ip -n "$namespace" link set slow0 up
done

model="local: {file: tiny-chat.gguf, ctx: 2048, parallel: 4}"
printf 'models:\n  %s\n' "$model" | tee "$work/good.yaml" >"$work/secure.yaml"
printf 'models:\n  %s\nmodel_list:\n  - {model_name: remote, litellm_params: {model: openai/local, api_base: "http://10.77.0.1:9000", api_key: %s}}\n' \
  "$model" "$key" >"$work/plain.yaml"
# HTTP/1.0 connections of the driver to this one do not cross the link.
serve "$near" good 10.77.0.1 9000
ip netns exec "$near" "$python" tests/clients/collector.py 4318 200 10.77.0.1 >"$work/spans.log" 2>&1 &
started+=($!)
wait_for "the collector listens" 10 grep -q 4318 "$work/spans.log"
serve "$far" plain 10.77.0.2 8000 OTEL_EXPORTER_OTLP_ENDPOINT=http://10.77.0.1:4318 OTEL_BSP_SCHEDULE_DELAY=200
plain=$served
serve "$far" secure 10.77.0.2 8100 TLS_SELF_SIGNED=true
secure=$served

count_files() { find "/proc/$1/fd" 2>/dev/null | wc -l; }
# One request each, so that what is opened once is open.
ip netns exec "$far" curl -fsk -o /dev/null -o /dev/null -H "Authorization: Bearer $key" -d '{"model":"local","prompt":"x","max_tokens":1}' \
  http://10.77.0.2:8000/v1/completions https://10.77.0.2:8100/v1/completions
before=$(($(count_files "$plain") + $(count_files "$secure")))

ip netns exec "$near" python3 tests/clients/network_client.py "$key" http://10.77.0.1:9000 http://10.77.0.2:8000 \
  https://10.77.0.2:8100 "$link" || fail "an answer is not whole" "$(tail -n 20 "$work"/*.log)"

is_idle() {
  ip netns exec "$far" curl -fs "http://10.77.0.2:$1/health" |
    python3 -c 'import json, sys; queue = json.load(sys.stdin)["queue"]; sys.exit(queue["active"] + queue["waiting"])'
}
wait_for "no slot is held" 30 is_idle 8001
wait_for "no slot is held" 30 is_idle 8101
# Idle connections to workers and to the collector stay for a while, and SQLite keeps the descriptor of a reader.
at_rest() { (($(count_files "$plain") + $(count_files "$secure") <= before + 4)); }
wait_for "no descriptor is held" 60 at_rest
kill "$link"
wait "$link" || true
tail -n 1 "$work/link.log"
python3 - "$work/link.log" "$loss" "$duplicates" "$reordered" "$work/spans.log" <<'PYTHON'
import json, sys

with open(sys.argv[1], encoding="utf-8") as file:
    counts = json.loads(list(file)[-1])
# What the link was asked for has happened; the pause of three seconds was asked for in any case.
asked = {"passed": 1.0, "missed": 1.0, **dict(zip(["lost", "doubled", "overtook"], map(float, sys.argv[2:5])))}
for kind, percent in asked.items():
    assert counts[kind] > 0 or percent == 0, f"no packet was counted as {kind}: {counts}"

with open(sys.argv[5], encoding="utf-8") as file:
    spans = [span["id"] for line in list(file)[1:] for span in json.loads(line)["spans"]]
assert spans, "no span has come"
assert len(spans) == len(set(spans)), f"of {len(spans)} spans {len(spans) - len(set(spans))} have come twice"
print(f"{len(spans)} spans, each once")
PYTHON
