# shellcheck shell=bash
# Shared by the benchmarks in this folder; sourced after lib.sh, never run.

# The ids of the processes that the benchmark has started.
started=()

# start_gateway FOLDER [VARIABLE=VALUE...]: starts $program as a gateway without a model, with that data folder and no other
# settings than these, and waits until it listens. Its port is in FOLDER/port, its output in FOLDER/log, and $started has its id.
start_gateway() {
  # Not "folder": if this fails, the trap of the benchmark sees the local variables, and removes its own "$folder".
  local data=$1
  shift
  mkdir -p "$data"
  # shellcheck disable=SC2154  # The benchmark sets it.
  env -i PATH="$PATH" HOME="$data" DATA_DIR="$data" HOST=127.0.0.1 PORT=0 PORT_HEALTH=0 PORT_FILE="$data/port" \
    MOCK_BACKEND=true HF_HUB_OFFLINE=true LOG_TO_FILE=false "$@" "$program" serve >"$data/log" 2>&1 &
  started+=($!)
  for _ in {1..200}; do
    [[ ! -s $data/port ]] || return 0
    kill -0 "$!" 2>/dev/null || break
    sleep 0.1
  done
  fail "the gateway did not start; its output:" "$(<"$data/log")"
}

# Ends the processes that the benchmark has started, and waits for it: until then they write into their folders.
stop_started() {
  local pid
  for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
}
