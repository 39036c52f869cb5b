#!/usr/bin/env bash
# Builds the CPU image and tests it in containers, as container platforms run it. Ends with "N passed, N failed".
#
#   scripts/test-image.sh
#
# Uses Docker if a daemon answers, else podman and buildah, as root, on Debian and its derivatives. For podman the
# script makes the base images from Debian's packages, so no image registry is needed, and the host's Rust builds the
# gateway. Missing packages are installed with apt. The base images are kept in .cache/images/; delete that folder to
# make new ones. Images are called localhost/llamagate-test/...; containers are removed at the end.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/debian.sh
. "$(dirname "$0")/debian.sh"
# shellcheck source=scripts/checks.sh
. "$(dirname "$0")/checks.sh"
cd "$repo_root"

image=localhost/llamagate-test/llamagate:cpu
rust_base=localhost/llamagate-test/rust:bookworm
debian_base=localhost/llamagate-test/debian:forky
packages=(buildah catatonit mmdebstrap podman runc)
bases=$cache_dir/images
prefix=llamagate-test-$$ # for the names of this run's containers
started=()               # names of the containers, without the prefix
any_user=12345           # a user id that the image does not define
load_deadline=60         # seconds until a container serves
stop_deadline=60         # seconds until it has stopped; more than DRAIN_TIMEOUT
failure_deadline=120     # seconds until the gateway gives up a model that cannot be loaded

# --- the engine ---------------------------------------------------------------------------------------------------

engine=podman
! docker info >/dev/null 2>&1 || engine=docker

prepare_podman() {
  ((EUID == 0)) || fail "no Docker daemon answers, and podman is used as root only" "start Docker, or run this as root"
  install_missing "${packages[@]}"
  # podman's defaults need a free cgroup hierarchy, the right to raise limits, and systemd, which not every machine has.
  cat >"$work/containers.conf" <<'CONFIG'
[containers]
default_ulimits = ["nofile=16384:16384", "nproc=4096:4096"]
netns = "host"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
CONFIG
  export CONTAINERS_CONF=$work/containers.conf
}

build_with_buildah() {
  local sysroot certificates=(/usr/local/share/ca-certificates/*.crt) trust=()
  # The status of this function is tested, so errexit is off in it.
  sysroot=$(rustc --print sysroot) || return 1
  [[ -x $sysroot/bin/cargo ]] || fail "no cargo in $sysroot" "install Rust from https://rustup.rs"
  # The certificates that the host trusts, for instance that of a proxy, to download crates.
  [[ ! -e ${certificates[0]} ]] ||
    trust=("--customize-hook=copy-in ${certificates[*]} /usr/local/share/ca-certificates"
      "--customize-hook=chroot \"\$1\" update-ca-certificates")
  make_base forky "$bases/forky.tar" || return 1
  make_base bookworm "$bases/rust.tar" --include=ca-certificates,gcc,libc6-dev "${trust[@]}" || return 1
  podman import --quiet "$bases/forky.tar" "$debian_base" >/dev/null || return 1
  podman import --quiet --change 'ENV CARGO_HOME=/usr/local/cargo' \
    --change 'ENV PATH=/usr/local/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin' "$bases/rust.tar" "$rust_base" >/dev/null || return 1
  # Docker's format, because the OCI format has no HEALTHCHECK.
  buildah bud --layers --isolation chroot --format docker --volume "$sysroot:/usr/local/rust:ro" \
    --build-arg RUST_IMAGE="$rust_base" --build-arg BASE_IMAGE="$debian_base" "$@"
}

build() {
  local build=(docker build)
  [[ $engine == docker ]] || build=(build_with_buildah)
  "${build[@]}" --tag "$image" --file docker/Dockerfile.cpu --build-arg VERSION=test \
    --build-arg REVISION="$(git rev-parse --short HEAD 2>/dev/null || echo unknown)" . >&2
}

cleanup() {
  local name
  for name in "${started[@]}"; do
    "$engine" rm --force "$prefix-$name" >/dev/null 2>&1 || true
  done
  rm -rf "$work"
}

# --- containers ---------------------------------------------------------------------------------------------------

# The options of a careful operator: a user id that the image does not define, only /tmp writable, and no privileges.
hardened=(--user "$any_user:$any_user" --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges
  --shm-size 64m)

# new NAME [ENGINE-OPTION...] -- [ARGUMENT...]: makes a container with its own loopback device, so that the default
# ports are free.
new() {
  local name=$1 options=(--network none)
  shift
  [[ $engine == podman ]] || options=(--publish 127.0.0.1::8000 --publish 127.0.0.1::8001)
  while [[ $1 != -- ]]; do options+=("$1") && shift; done
  shift
  started+=("$name")
  quietly "$engine" create --name "$prefix-$name" "${options[@]}" "$image" "$@"
}

# quietly COMMAND...: prints the output only if the command fails, because podman prints warnings without systemd. The
# output goes to a file, because the process that monitors the container would hold a pipe open.
quietly() { "$@" >"$work/output" 2>&1 || { cat "$work/output" >&2 && return 1; }; }

run() {
  new "$@"
  quietly "$engine" start "$prefix-$1"
}

# request NAME PORT PATH [CURL-OPTION...]: sends a request with curl.
request() {
  local name=$1 port=$2 path=$3 pid address enter=()
  shift 3
  if [[ $engine == podman ]]; then
    pid=$(podman inspect --format '{{.State.Pid}}' "$prefix-$name")
    enter=(nsenter --target "$pid" --net) address=127.0.0.1:$port
  else
    address=$(docker port "$prefix-$name" "$port/tcp" | head -n 1)
  fi
  "${enter[@]}" curl --silent --noproxy '*' "$@" "http://$address$path"
}

status_of() { request "$@" --max-time 5 --output /dev/null --write-out '%{http_code}'; }

serves() { [[ $(status_of "$1" 8001 /ping) == 200 ]]; }

has_ended() { [[ $("$engine" inspect --format '{{.State.Running}}' "$prefix-$1") == false ]]; }

logs_of() { "$engine" logs "$prefix-$1" 2>&1; }

# inside NAME COMMAND...: runs a command in the container.
inside() {
  local name=$1
  shift
  "$engine" exec "$prefix-$name" "$@"
}

# exit_status NAME SECONDS: waits for the end of a container and prints its exit status.
exit_status() {
  within "$2" has_ended "$1" || return
  "$engine" inspect --format '{{.State.ExitCode}}' "$prefix-$1"
}

# stops_cleanly NAME: stops a container with the image's stop signal; true if it ends with 0.
stops_cleanly() {
  "$engine" stop --time "$stop_deadline" "$prefix-$1" >/dev/null
  [[ $(exit_status "$1" 5) == 0 ]]
}

# within SECONDS COMMAND...: waits until the command succeeds; fails after that time.
within() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}

# --- checks -------------------------------------------------------------------------------------------------------

config() { "$engine" inspect --type image --format "{{$1}}" "$image"; }

the_image_has_its_metadata() {
  check "the image's user is 10001" is 10001:10001 config .Config.User
  check "the entry point is only the program" is '[llamagate]' config .Config.Entrypoint
  check "the health check runs the program" eval "config .Config.Healthcheck | grep 'llamagate health'"
  check "the labels have license and version" eval \
    "config .Config.Labels | grep 'image.licenses:MIT' && config .Config.Labels | grep 'image.version:test'"
  check "both ports are declared" eval "config .Config.ExposedPorts | grep '8000/tcp.*8001/tcp'"
  check "the image has no /data" run_once --entrypoint test -- '!' -e /data
}

# run_once [ENGINE-OPTION...] -- [ARGUMENT...]: runs the image and removes the container.
run_once() {
  local options=()
  while [[ $1 != -- ]]; do options+=("$1") && shift; done
  shift
  "$engine" run --rm --network none --no-healthcheck "${options[@]}" "$image" "$@"
}

chat_body='{"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}'
chat() {
  local name=$1
  shift
  status_of "$name" 8000 /v1/chat/completions --header 'Content-Type: application/json' --data "$chat_body" "$@"
}

# Sends /ping from before the start until the container serves, and prints the statuses without repetitions.
statuses_until_it_serves() {
  local deadline=$((SECONDS + load_deadline)) status=
  [[ $engine == docker ]] || quietly podman init "$prefix-$1"
  quietly "$engine" start "$prefix-$1" &
  while ((SECONDS < deadline)) && [[ $status != 200 ]]; do
    status=$(status_of "$1" 8001 /ping) || true
    echo "$status"
  done | uniq | grep -v 000 | xargs
}

has_no_zombie() {
  local processes
  processes=$(inside "$1" sh -c 'cat /proc/[0-9]*/stat 2>/dev/null' || true) # a process may end during the read
  [[ $processes == *'1 ('* && $processes != *') Z '* ]]
}

# leaves_no_zombie NAME: an orphan becomes a child of process 1, which must reap it.
leaves_no_zombie() {
  inside "$1" sh -c 'sleep 0.3 & exit' && sleep 0.5 && within 10 has_no_zombie "$1"
}

# drains NAME: stops a container during a stream, which must be completed.
drains() {
  local pid
  request "$1" 8000 /v1/chat/completions --no-buffer --max-time "$stop_deadline" --header "Authorization: Bearer $secret" \
    --header 'Content-Type: application/json' --output "$work/stream" --data \
    '{"messages": [{"role": "user", "content": "Hello"}], "stream": true, "max_tokens": 3000, "ignore_eos": true}' &
  pid=$!
  within 20 test -s "$work/stream" || return
  "$engine" stop --time "$stop_deadline" "$prefix-$1" >/dev/null &
  within 10 eval "logs_of $1 | grep SIGTERM" || { echo "SIGTERM was not logged" && return 1; }
  ! grep -q '^data: \[DONE\]' "$work/stream" || { echo "the stream ended before the signal" && return 1; }
  wait "$pid" || { echo "the stream was cut" && return 1; }
  grep -q '^data: \[DONE\]' "$work/stream" || { echo "the stream has no end" && return 1; }
}

log_lacks() {
  local log
  log=$(logs_of "$2") && [[ $log == *"llamagate starts"* && $log != *"$1"* ]]
}

a_container_serves_with_only_a_model_name() {
  secret=$(run_once "${hardened[@]}" --volume "$work/data:/data" --entrypoint keyctl -- generate --name test --quiet) ||
    fail "keyctl made no key"
  new main "${hardened[@]}" --env MODEL_NAME=tiny-chat.gguf --volume "$work/data:/data" \
    --volume "$models:/data/models:ro" --
  check "/ping is 204, then 200" is "204 200" statuses_until_it_serves main
  check "the program is process 1" is llamagate inside main cat /proc/1/comm
  check "the program has no privileges and can get none" eval \
    "inside main cat /proc/1/status | grep -Pzo 'CapEff:\t0+\n(.*\n)*NoNewPrivs:\t1'"
  check "/dev/shm has 64 MiB" is 65536 inside main sh -c "df -k /dev/shm | awk 'NR == 2 { print \$2 }'"
  check "llamagate health" is serving inside main llamagate health
  if [[ $engine == podman ]]; then
    check "the engine's health check" podman healthcheck run "$prefix-main"
  else
    check "the engine's health check" within 60 is healthy docker inspect --format '{{.State.Health.Status}}' "$prefix-main"
  fi
  check "a chat request with the key is served" is 200 chat main --header "Authorization: Bearer $secret"
  check "one without a key is refused" is 401 chat main
  check "orphans leave no zombies" leaves_no_zombie main
  check "a stream is completed after SIGTERM" drains main
  check "and then the exit status is 0" is 0 exit_status main "$stop_deadline"
  check "the log does not contain the key" log_lacks "$secret" main
}

a_container_serves_with_unusual_options() {
  run bare --read-only --tmpfs /tmp --env AUTH_ENABLED=false --env MODEL_NAME=tiny-chat.gguf \
    --volume "$models:/data/models:ro" --entrypoint env -- --unset=HOME llamagate
  check "a container serves without HOME and without a log folder" within "$load_deadline" serves bare
  check "and stops cleanly" stops_cleanly bare
  run still "${hardened[@]}" --env MODEL_NAME=tiny-chat.gguf --volume "$work/data:/data:ro" \
    --volume "$models:/data/models:ro" --
  check "a container serves with a read-only log folder" within "$load_deadline" serves still
  check "and requires a key" is 401 chat still
  check "and stops cleanly" stops_cleanly still
}

# Prints the number of threads in llama-server's log.
threads() { grep -rhoE 'n_threads = [0-9]+' "$work/small/logs" | sort -u; }

a_container_respects_its_limits() {
  mkdir -m 0777 "$work/small"
  run small "${hardened[@]}" --cpus 1 --memory 1g --env AUTH_ENABLED=false --env MODEL_NAME=tiny-chat.gguf \
    --volume "$work/small:/data" --volume "$models:/data/models:ro" --
  check "a container serves with one CPU and 1 GiB" within "$load_deadline" serves small
  check "and uses one thread" is 'n_threads = 1' threads
  check "and stops cleanly" stops_cleanly small
}

a_failed_container_logs_the_reason() {
  mkdir -m 0755 "$work/broken"
  # A complete model of an unknown architecture, and a model whose end is missing.
  LC_ALL=C sed 's/llama/llbma/g' "$models/tiny-chat.gguf" >"$work/broken/unknown.gguf"
  head -c 300000 "$models/tiny-chat.gguf" >"$work/broken/short.gguf"
  local name
  for name in unknown short; do
    run "$name" "${hardened[@]}" --env AUTH_ENABLED=false --env MODEL_NAME="$name.gguf" \
      --volume "$work/broken:/data/models:ro" --
  done
  check "with a model that llama-server cannot load the exit status is 69" is 69 exit_status unknown "$failure_deadline"
  check "and one log line has the reason" is 1 eval "logs_of unknown | grep -c 'fatal: '"
  check "with a model file that is cut short the exit status is 69" is 69 exit_status short 20
  check "and one log line has the reason" is 1 eval "logs_of short | grep -c 'fatal: .*is cut short.*short.gguf'"
  run nothing "${hardened[@]}" --
  check "without a model the exit status is 78" is 78 exit_status nothing 20
}

have curl || fail "curl is missing"
lock test-image
make_work_dir test-image
trap cleanup EXIT
[[ $engine == docker ]] || prepare_podman
say "engine: $engine"
models=$(scripts/get-test-models.sh)
started_at=$SECONDS
build || fail "the image was not built"
say "built in $((SECONDS - started_at)) s"
mkdir -p "$work/data"
chmod 0777 "$work/data"

the_image_has_its_metadata
a_container_serves_with_only_a_model_name
a_container_serves_with_unusual_options
a_container_respects_its_limits
a_failed_container_logs_the_reason

end_checks
