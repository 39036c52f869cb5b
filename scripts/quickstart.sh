#!/usr/bin/env bash
# From a fresh clone to an answer: builds the gateway, gets a llama-server and a model, makes an API key, starts serving,
# asks one question, prints the answer and a curl command to try. Ctrl-C stops everything. All files are in .cache/.
#
#   scripts/quickstart.sh [MODEL] [--port N] [--check]
#
#   MODEL     a model of the hub, such as Qwen/Qwen3-0.6B-GGUF:Q8_0, or a GGUF file; also as --model MODEL. Without it a
#             small one: from the hub if it can be reached, else from a package of Python
#   --port N  the gateway's port (8000; the health port is the next one)
#   --check   start on free ports, and stop after the answer; exit 0 if all of that worked
#
# A model of the hub goes into HF_HUB_CACHE, or .cache/hub; HF_TOKEN and HF_ENDPOINT are read as by `llamagate pull`.
#
# Settings of the gateway can be given in the environment as usual. The defaults here are for a first try: context 4096,
# one request at a time, a GPU only if nvidia-smi finds one, access only from this machine, and a gateway that is built
# quickly: without optimisation, and without NVML where there is no GPU.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

usage() {
  sed -n '2,/^set /{ /^set /d; s/^# \{0,1\}//; p; }' "$0"
}

data_dir=$cache_dir/quickstart
keys_file=$data_dir/api_keys.txt
secret_file=$data_dir/secret
port_file=$data_dir/port
gateway_log=$data_dir/gateway.log
key_name=quickstart
page_key_name=quickstart-page
page_key_ends=24h
hub_cache=${HF_HUB_CACHE:-$cache_dir/hub}
small_model=bartowski/SmolLM2-135M-Instruct-GGUF:Q4_K_M
gateway=      # process id while it runs
serving=false # true once it was ready

model=
port=${PORT:-8000}
check=false
while (($# > 0)); do
  case $1 in
  --model | --port)
    (($# > 1)) || fail "$1 needs a value" "see scripts/quickstart.sh --help"
    if [[ $1 == --model ]]; then model=$2; else port=$2; fi
    shift 2
    ;;
  --check) check=true && shift ;;
  -h | --help) usage && exit ;;
  [!-]*) model=$1 && shift ;;
  *) fail "unknown argument: $1" "see scripts/quickstart.sh --help" ;;
  esac
done

# --- checks before the start -------------------------------------------------------------------------------------

check_rust() {
  have cargo || fail "cargo is missing: the gateway is built with Rust" "install it from https://rustup.rs"
  local wanted found
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$repo_root/Cargo.toml")
  found=$(cd "$repo_root" && cargo --version | cut -d ' ' -f 2)
  # The older version sorts first.
  [[ $(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1) == "$wanted" ]] ||
    fail "Rust $wanted or newer is needed; this is $found" "with rustup: rustup update"
}

port_is_busy() {
  (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

check_port() {
  ! port_is_busy "$1" || fail "port $1 is in use" "choose another one: scripts/quickstart.sh --port N"
}

have curl || fail "curl is missing" "Debian, Ubuntu: apt install curl"
check_rust
if [[ -f $model ]]; then
  [[ -r $model ]] || fail "$model cannot be read"
  model=$(cd "$(dirname "$model")" && pwd -P)/$(basename "$model")
elif [[ $model == /* || $model == ./* || $model == ../* ]]; then
  fail "there is no file $model"
fi

if $check; then
  port=0 health_port=0
else
  if ! [[ $port =~ ^[1-9][0-9]{0,4}$ ]] || ((port > 65534)); then
    fail "--port must be a number from 1 to 65534, not $port"
  fi
  health_port=${PORT_HEALTH:-$((port + 1))}
  check_port "$port"
  check_port "$health_port"
fi

# Two runs at once would overwrite each other's key and port file. The gateway inherits the lock and holds it while it
# runs.
try_lock quickstart || fail "another quickstart is running in this checkout"
mkdir -p "$data_dir"

# --- preparations ------------------------------------------------------------------------------------------------

# Fetched while the compiler works. A failure has been explained by the script.
"$repo_root/scripts/get-llama-server.sh" >"$data_dir/llama-server" &
fetching=$!
trap 'kill "$fetching" 2>/dev/null || true' EXIT

has_gpu=false
if have nvidia-smi && nvidia-smi --list-gpus >/dev/null 2>&1; then has_gpu=true; fi
features=(--no-default-features)
! $has_gpu || features+=(--features nvml)

say "building the gateway ..."
# Cargo prints the paths of the programs, because the target directory may be anywhere.
programs=$(cd "$repo_root" && cargo build --profile quickstart --locked "${features[@]}" --bin llamagate --bin keyctl \
  --message-format json-render-diagnostics | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p') ||
  fail "the gateway could not be built; cargo says why above"
llamagate=$(grep '/llamagate$' <<<"$programs")
keyctl=$(grep '/keyctl$' <<<"$programs")

wait "$fetching" || fail "there is no llama-server; the reason is above"
llama_server=$(<"$data_dir/llama-server")

# Whether the hub answers within a few seconds that it has the small model.
hub_is_reachable() {
  [[ ${HF_HUB_OFFLINE:-} != @(1|true|yes|on) ]] || return 1
  local status
  status=$(curl --silent --location --output /dev/null --max-time 5 --write-out '%{http_code}' \
    "${HF_ENDPOINT:-https://huggingface.co}/api/models/${small_model%:*}") || true
  [[ $status == 200 ]]
}

# Prints the path of a model of the hub, which is downloaded if it is not there.
pull() {
  say "getting $1 ..."
  DATA_DIR="$data_dir" HF_HUB_CACHE="$hub_cache" "$llamagate" pull "$1"
}

if [[ -z $model ]]; then
  if ! hub_is_reachable || ! model=$(pull "$small_model"); then
    model=$("$repo_root/scripts/get-model.sh")
  fi
elif [[ ! -f $model ]]; then
  model=$(pull "$model") || fail "there is no model to serve; the reason is above"
fi

# The API key is the same in each run. The key file contains only a hash, so the secret is kept beside it, readable only by its owner. If the two do not
# match any more, the key gets a new secret.
secret_is_valid() {
  [[ -s $secret_file ]] && "$keyctl" --file "$keys_file" verify <"$secret_file" >/dev/null 2>&1
}

make_secret() {
  # The scope admin opens all of the page. A key that is there keeps its own.
  local verb=(generate --scope "inference,admin")
  ! grep -qs "^$key_name:" "$keys_file" || verb=(rotate)
  rm -f "$secret_file"
  (umask 077 && "$keyctl" --file "$keys_file" --quiet "${verb[@]}" --name "$key_name" >"$secret_file") ||
    fail "keyctl could not make an API key"
}

secret_is_valid || make_secret
secret=$(<"$secret_file")

# The link to the page stays in the history of the browser, so it has a key of its own: new for each run, for inference only,
# and gone with the run. One of a run that was killed goes with the next run, and ends by itself.
remove_page_key() {
  ! grep -qs "^$page_key_name:" "$keys_file" ||
    "$keyctl" --file "$keys_file" --quiet remove --name "$page_key_name" >/dev/null || true
}

make_page_secret() {
  "$keyctl" --file "$keys_file" --quiet generate --name "$page_key_name" --scope inference --expires "$page_key_ends" ||
    fail "keyctl could not make a key for the page"
}

remove_page_key
page_secret=
$check || page_secret=$(make_page_secret)

# --- run ---------------------------------------------------------------------------------------------------------

start_gateway() {
  # The gateway writes the file once it listens, so an old one must be removed.
  rm -f "$port_file"
  local ngl=0
  ! $has_gpu || ngl=99
  # In a separate process group, because otherwise the gateway would get the signal of Ctrl-C twice: from the terminal
  # and from this script.
  set -m
  env -u CONFIG_FILE -u MODEL_NAME -u GATEWAY_PORT \
    MODEL_PATH="$model" LLAMA_SERVER="$llama_server" \
    DATA_DIR="$data_dir" AUTH_KEYS_FILE="$keys_file" \
    HOST=127.0.0.1 PORT="$port" PORT_HEALTH="$health_port" PORT_FILE="$port_file" \
    NGL="${NGL:-$ngl}" CTX="${CTX:-4096}" MAX_CONCURRENT_REQUESTS="${MAX_CONCURRENT_REQUESTS:-1}" \
    "$llamagate" serve </dev/null >"$gateway_log" 2>&1 &
  gateway=$!
  set +m
}

# Waits up to 45 s, which is longer than the gateway drains, and kills it after that.
stop_gateway() {
  [[ -n $gateway ]] || return 0
  kill -TERM "$gateway" 2>/dev/null || true
  local tenths=0
  while kill -0 "$gateway" 2>/dev/null; do
    if ((++tenths > 450)); then
      say "the gateway did not stop; killing it"
      kill -KILL "$gateway" 2>/dev/null || true
    fi
    sleep 0.1
  done
  wait "$gateway" 2>/dev/null || true
  gateway=
}

# Waits for the end of the gateway. Prints the end of its log and fails, unless it was serving and exited with 0.
gateway_ended() {
  local status=0
  wait "$gateway" 2>/dev/null || status=$? # bash would report a killed child with its whole command line
  gateway=
  if ((status == 0)) && $serving; then
    say "the gateway stopped"
    exit
  fi
  say "--- the end of ${gateway_log#"$repo_root"/} ---"
  tail -n 25 "$gateway_log" >&2
  fail "the gateway ended with status $status"
}

status_of() {
  curl --silent --output /dev/null --max-time 5 --write-out '%{http_code}' "$1" || true
}

# Prints the URL that answers 200 once a request would be served; nothing while it is not known. With --check the health
# port is not known here, because the gateway chooses it, so the gateway's port is used.
readiness_url() {
  if ! $check; then
    echo "http://127.0.0.1:$health_port/ping"
  elif [[ -s $port_file ]]; then
    echo "http://127.0.0.1:$(<"$port_file")/health"
  fi
}

wait_until_ready() {
  local started=$SECONDS said=$SECONDS url
  say "starting llama-server with $(basename "$model") ..."
  while true; do
    kill -0 "$gateway" 2>/dev/null || gateway_ended
    url=$(readiness_url)
    [[ -z $url || $(status_of "$url") != 200 ]] || break
    if ((SECONDS - said >= 5)); then
      said=$SECONDS
      say "  still loading, $((SECONDS - started)) s"
    fi
    # Only a check has a time limit, because it runs unattended; a large model may take longer.
    ! $check || ((SECONDS - started < 300)) || fail "not ready after 300 s; see ${gateway_log#"$repo_root"/}"
    sleep 0.2
  done
}

# Reads a chat completion, prints its text.
text_of() {
  if have python3; then
    python3 -c 'import json, sys; print(json.load(sys.stdin)["choices"][0]["message"]["content"].strip())'
  else
    cat
  fi
}

body='{"messages": [{"role": "user", "content": "Say hello in one sentence."}], "max_tokens": 64}'

send_request() {
  local url reply
  url=http://127.0.0.1:$(<"$port_file")/v1/chat/completions
  # The key is passed through a pipe, because all users of the machine can read command lines.
  reply=$(curl --silent --show-error --fail-with-body --max-time 300 --header @- --header 'Content-Type: application/json' \
    --data "$body" "$url" <<<"Authorization: Bearer $secret") || fail "the chat request failed" "${reply:-}"
  text_of <<<"$reply" || fail "the response is not a chat completion:" "$reply"
}

trap 'stop_gateway; remove_page_key' EXIT
start_gateway
wait_until_ready
serving=true

say "asking: Say hello in one sentence."
send_request
if $check; then
  stop_gateway
  exit
fi

# Ctrl-C is the normal end.
trap 'echo; say "stopping ..."; exit 0' INT TERM

cat <<READY

Ready. In a browser, signed in to chat until this run ends:

  http://127.0.0.1:$port/ui/#key=$page_secret

Your API key, which also signs in to the pages for models, keys and logs, is

  $secret

Try it:

  curl http://127.0.0.1:$port/v1/chat/completions \\
    -H 'Authorization: Bearer $secret' \\
    -H 'Content-Type: application/json' \\
    -d '$body'

Health: http://127.0.0.1:$health_port/ping      Logs: ${data_dir#"$repo_root"/}/logs
Press Ctrl-C to stop.
READY

gateway_ended
