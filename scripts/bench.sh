# shellcheck shell=bash
# Shared by the benchmarks in this folder; sourced after lib.sh, never run.

# The ids of the processes that the benchmark has started.
started=()

# start_gateway FOLDER [VARIABLE=VALUE...]: starts $program as a gateway without a model, with that data folder and no other
# settings than these, and waits until it listens. Its port is in FOLDER/port, its output in FOLDER/log, and $started has its id.
start_gateway() {
  local folder=$1
  shift
  mkdir -p "$folder"
  # shellcheck disable=SC2154  # The benchmark sets it.
  env -i PATH="$PATH" HOME="$folder" DATA_DIR="$folder" HOST=127.0.0.1 PORT=0 PORT_HEALTH=0 PORT_FILE="$folder/port" \
    MOCK_BACKEND=true HF_HUB_OFFLINE=true LOG_TO_FILE=false "$@" "$program" serve >"$folder/log" 2>&1 &
  started+=($!)
  for _ in {1..200}; do
    [[ ! -s $folder/port ]] || return 0
    sleep 0.1
  done
  fail "the gateway did not start; its output:" "$(<"$folder/log")"
}

# Ends the processes that the benchmark has started, and waits for it: until then they write into their folders.
stop_started() {
  local pid
  for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
}
