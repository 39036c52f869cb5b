#!/usr/bin/env bash
# Builds the CPU image and runs it for real, as container platforms do. Ends with "N passed, N failed".
#
#   scripts/test-image.sh
#
# With Docker where a daemon answers. Elsewhere with podman and buildah, as root, on Debian and its relatives: the base
# images are then made here from Debian's packages, so no image registry is needed, and the host's Rust builds the
# gateway. Missing packages are installed with apt. The bases lie in .cache/images/; delete that folder to make them
# anew. Images are called localhost/llamagate-test/...; containers are removed at the end.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/debian.sh
. "$(dirname "$0")/debian.sh"
cd "$repo_root"

image=localhost/llamagate-test/llamagate:cpu
rust_base=localhost/llamagate-test/rust:bookworm
debian_base=localhost/llamagate-test/debian:forky
packages=(buildah catatonit mmdebstrap podman runc)
bases=$cache_dir/images
prefix=llamagate-test-$$ # of the containers of this run
started=()               # their names
any_user=12345           # nobody the image knows
load_deadline=60         # seconds until a container serves
stop_deadline=60         # seconds until it has stopped; more than DRAIN_TIMEOUT
failure_deadline=120     # seconds until a model that cannot be loaded is given up
passed=0
failed=0

# --- the engine ---------------------------------------------------------------------------------------------------

engine=podman
! docker info >/dev/null 2>&1 || engine=docker

prepare_podman() {
  ((EUID == 0)) || fail "no Docker daemon answers, and podman is used as root only" "start Docker, or run this as root"
  local missing=() package
  for package in "${packages[@]}"; do
    dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  if ((${#missing[@]} > 0)); then
    say "installing with apt: ${missing[*]} ..."
    # Only lists that are too old make the first try fail.
    apt-get install --yes --quiet=2 --no-install-recommends "${missing[@]}" >/dev/null 2>&1 ||
      { apt-get update --quiet=2 && apt-get install --yes --quiet=2 --no-install-recommends "${missing[@]}" >/dev/null; } ||
      fail "apt could not install ${missing[*]}"
  fi
  # What podman assumes of a machine (a free cgroup hierarchy, the right to raise limits, systemd) is not everywhere.
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

# make_base SUITE FILE [OPTION...]: a minimal root file system as a tar, from the mirror that this system uses.
make_base() {
  local suite=$1 file=$2 mirror validity
  shift 2
  [[ ! -f $file ]] || return 0
  mirror=$(debian_mirror)
  [[ -n $mirror ]] || fail "no Debian mirror in this system's apt sources"
  # A mirror that is a snapshot is older than it says it may be; where the host accepts that, so does the base.
  validity=$(apt-config dump Acquire::Check-Valid-Until)
  say "making a base from Debian $suite ..."
  printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' "$mirror" "$suite" "$debian_keyring" \
    >"$work/$suite.sources"
  mkdir -p "$bases"
  mmdebstrap --quiet --variant=minbase ${validity:+--aptopt="$validity"} "$@" \
    "$suite" "$work/$suite.tar" "$work/$suite.sources" >&2
  mv "$work/$suite.tar" "$file"
}

build_with_buildah() {
  local sysroot certificates=(/usr/local/share/ca-certificates/*.crt) trust=()
  sysroot=$(rustc --print sysroot)
  [[ -x $sysroot/bin/cargo ]] || fail "no cargo in $sysroot" "install Rust from https://rustup.rs"
  # What the host trusts to reach the crates, for instance the certificate of a proxy.
  [[ ! -e ${certificates[0]} ]] ||
    trust=("--customize-hook=copy-in ${certificates[*]} /usr/local/share/ca-certificates"
      "--customize-hook=chroot \"\$1\" update-ca-certificates")
  make_base forky "$bases/forky.tar"
  make_base bookworm "$bases/rust.tar" --include=ca-certificates,gcc,libc6-dev "${trust[@]}"
  podman import --quiet "$bases/forky.tar" "$debian_base" >/dev/null
  podman import --quiet --change 'ENV CARGO_HOME=/usr/local/cargo' \
    --change 'ENV PATH=/usr/local/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin' "$bases/rust.tar" "$rust_base" >/dev/null
  # Of Docker's format, because the other one has no place for HEALTHCHECK.
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

# What a careful operator gives: a user the image does not know, no way to write but /tmp, and no privileges.
hardened=(--user "$any_user:$any_user" --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges
  --shm-size 64m)

# new NAME [ENGINE-OPTION...] -- [ARGUMENT...]: makes a container that is reached through its own loopback device, so
# that its ports are the defaults and nobody else's.
new() {
  local name=$1 options=(--network none)
  shift
  [[ $engine == podman ]] || options=(--publish 127.0.0.1::8000 --publish 127.0.0.1::8001)
  while [[ $1 != -- ]]; do options+=("$1") && shift; done
  shift
  started+=("$name")
  quietly "$engine" create --name "$prefix-$name" "${options[@]}" "$image" "$@"
}

# podman complains where there is no systemd to ask for a container's health, so what it says counts if it fails. A file
# takes that, because what watches the container would hold a pipe open.
quietly() { "$@" >"$work/said" 2>&1 || { cat "$work/said" >&2 && return 1; }; }

run() {
  new "$@"
  quietly "$engine" start "$prefix-$1"
}

# ask NAME PORT PATH [CURL-OPTION...]
ask() {
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

status_of() { ask "$@" --max-time 5 --output /dev/null --write-out '%{http_code}'; }

serves() { [[ $(status_of "$1" 8001 /ping) == 200 ]]; }

has_ended() { [[ $("$engine" inspect --format '{{.State.Running}}' "$prefix-$1") == false ]]; }

logs_of() { "$engine" logs "$prefix-$1" 2>&1; }

# inside NAME COMMAND...
inside() {
  local name=$1
  shift
  "$engine" exec "$prefix-$name" "$@"
}

# exit_status NAME SECONDS: of a container that ends by itself.
exit_status() {
  within "$2" has_ended "$1" || return
  "$engine" inspect --format '{{.State.ExitCode}}' "$prefix-$1"
}

# stopped_in_order NAME: asks it to stop, with the image's own signal; true if it then ends with 0.
stopped_in_order() {
  "$engine" stop --time "$stop_deadline" "$prefix-$1" >/dev/null
  [[ $(exit_status "$1" 5) == 0 ]]
}

# within SECONDS COMMAND...: until the command succeeds.
within() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}

# check TITLE COMMAND...
check() {
  local title=$1 said
  shift
  if said=$("$@" 2>&1); then
    passed=$((passed + 1))
    printf 'ok      %s\n' "$title"
  else
    failed=$((failed + 1))
    printf 'FAILED  %s\n' "$title"
    [[ -z $said ]] || printf '%s\n' "$said" | tail -n 15 | sed 's/^/          /'
  fi
}

# is WANTED COMMAND...: the command prints exactly this.
is() {
  local wanted=$1 found
  shift
  found=$("$@") || true
  [[ $found == "$wanted" ]] || { printf 'wanted %s, found %s\n' "$wanted" "$found" && return 1; }
}

# --- checks -------------------------------------------------------------------------------------------------------

config() { "$engine" inspect --type image --format "{{$1}}" "$image"; }

the_image_is_what_it_says() {
  check "the image's user is 10001" is 10001:10001 config .Config.User
  check "the entry point is the program alone" is '[llamagate]' config .Config.Entrypoint
  check "the health check asks the program" eval "config .Config.Healthcheck | grep 'llamagate health'"
  check "labels say what it is" eval \
    "config .Config.Labels | grep 'image.licenses:MIT' && config .Config.Labels | grep 'image.version:test'"
  check "both ports are declared" eval "config .Config.ExposedPorts | grep '8000/tcp.*8001/tcp'"
  check "there is no /data in it" run_once --entrypoint test -- '!' -e /data
}

# run_once [ENGINE-OPTION...] -- [ARGUMENT...]
run_once() {
  local options=()
  while [[ $1 != -- ]]; do options+=("$1") && shift; done
  shift
  "$engine" run --rm --network none --no-healthcheck "${options[@]}" "$image" "$@"
}

question='{"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}'
chat() {
  local name=$1
  shift
  status_of "$name" 8000 /v1/chat/completions --header 'Content-Type: application/json' --data "$question" "$@"
}

# Polls from before the program runs until it serves, and prints the answers without repetitions.
answers_until_it_serves() {
  local deadline=$((SECONDS + load_deadline)) answer=
  [[ $engine == docker ]] || quietly podman init "$prefix-$1"
  quietly "$engine" start "$prefix-$1" &
  while ((SECONDS < deadline)) && [[ $answer != 200 ]]; do
    answer=$(status_of "$1" 8001 /ping) || true
    echo "$answer"
  done | uniq | grep -v 000 | xargs
}

has_no_zombie() {
  local processes
  processes=$(inside "$1" sh -c 'cat /proc/[0-9]*/stat 2>/dev/null' || true) # some end meanwhile
  [[ $processes == *'1 ('* && $processes != *') Z '* ]]
}

# A process whose parent has gone becomes a child of the first one.
leaves_no_zombie() {
  inside "$1" sh -c 'sleep 0.3 & exit' && sleep 0.5 && within 10 has_no_zombie "$1"
}

# A stream is running while the container is told to stop; it must come to its end.
drains() {
  local pid
  ask "$1" 8000 /v1/chat/completions --no-buffer --max-time "$stop_deadline" --header "Authorization: Bearer $secret" \
    --header 'Content-Type: application/json' --output "$work/stream" --data \
    '{"messages": [{"role": "user", "content": "Hello"}], "stream": true, "max_tokens": 3000, "ignore_eos": true}' &
  pid=$!
  within 20 test -s "$work/stream" || return
  "$engine" stop --time "$stop_deadline" "$prefix-$1" >/dev/null &
  within 10 eval "logs_of $1 | grep SIGTERM" || { echo "SIGTERM was not logged" && return 1; }
  ! grep -q '^data: \[DONE\]' "$work/stream" || { echo "it was over before the signal" && return 1; }
  wait "$pid" || { echo "the stream was cut" && return 1; }
  grep -q '^data: \[DONE\]' "$work/stream" || { echo "the stream has no end" && return 1; }
}

does_not_tell() {
  local log
  log=$(logs_of "$2") && [[ $log == *"llamagate starts"* && $log != *"$1"* ]]
}

it_serves_with_a_model_name_alone() {
  secret=$(run_once "${hardened[@]}" --volume "$work/data:/data" --entrypoint keyctl -- generate --name test --quiet) ||
    fail "keyctl made no key"
  new main "${hardened[@]}" --env MODEL_NAME=tiny-chat.gguf --volume "$work/data:/data" \
    --volume "$models:/data/models:ro" --
  check "/ping is 204, then 200" is "204 200" answers_until_it_serves main
  check "the program is process 1" is llamagate inside main cat /proc/1/comm
  check "it has no privileges and can get none" eval \
    "inside main cat /proc/1/status | grep -Pzo 'CapEff:\t0+\n(.*\n)*NoNewPrivs:\t1'"
  check "/dev/shm has 64 MiB" is 65536 inside main sh -c "df -k /dev/shm | awk 'NR == 2 { print \$2 }'"
  check "llamagate health" is serving inside main llamagate health
  if [[ $engine == podman ]]; then
    check "the engine's health check" podman healthcheck run "$prefix-main"
  else
    check "the engine's health check" within 60 is healthy docker inspect --format '{{.State.Health.Status}}' "$prefix-main"
  fi
  check "a chat with the key is answered" is 200 chat main --header "Authorization: Bearer $secret"
  check "one without a key is not" is 401 chat main
  check "orphans leave no zombies" leaves_no_zombie main
  check "SIGTERM lets a stream come to its end" drains main
  check "and then the exit status is 0" is 0 exit_status main "$stop_deadline"
  check "the log does not tell the key" does_not_tell "$secret" main
}

it_serves_wherever_it_is_put() {
  run bare --read-only --tmpfs /tmp --env AUTH_ENABLED=false --env MODEL_NAME=tiny-chat.gguf \
    --volume "$models:/data/models:ro" --entrypoint env -- --unset=HOME llamagate
  check "it serves without HOME and without a folder for logs" within "$load_deadline" serves bare
  check "and stops in order" stopped_in_order bare
  run still "${hardened[@]}" --env MODEL_NAME=tiny-chat.gguf --volume "$work/data:/data:ro" \
    --volume "$models:/data/models:ro" --
  check "it serves with a log folder that is read-only" within "$load_deadline" serves still
  check "and asks for keys" is 401 chat still
  check "and stops in order" stopped_in_order still
}

# How many threads llama-server says it computes with, in its own log.
threads() { grep -rhoE 'n_threads = [0-9]+' "$work/small/logs" | sort -u; }

it_sees_the_limits_of_its_container() {
  mkdir -m 0777 "$work/small"
  run small "${hardened[@]}" --cpus 1 --memory 1g --env AUTH_ENABLED=false --env MODEL_NAME=tiny-chat.gguf \
    --volume "$work/small:/data" --volume "$models:/data/models:ro" --
  check "it serves with one CPU and 1 GiB" within "$load_deadline" serves small
  check "and computes with one thread" is 'n_threads = 1' threads
  check "and stops in order" stopped_in_order small
}

it_says_why_it_ends() {
  mkdir -m 0755 "$work/broken"
  # One that has all it should, but is of a kind that llama-server does not know; and one whose end is missing.
  LC_ALL=C sed 's/llama/llbma/g' "$models/tiny-chat.gguf" >"$work/broken/unknown.gguf"
  head -c 300000 "$models/tiny-chat.gguf" >"$work/broken/short.gguf"
  local name
  for name in unknown short; do
    run "$name" "${hardened[@]}" --env AUTH_ENABLED=false --env MODEL_NAME="$name.gguf" \
      --volume "$work/broken:/data/models:ro" --
  done
  check "a model file that llama-server cannot load ends it with 69" is 69 exit_status unknown "$failure_deadline"
  check "and one line says why" is 1 eval "logs_of unknown | grep -c 'fatal: '"
  check "a model file that is cut short ends it with 69" is 69 exit_status short 20
  check "and one line says why" is 1 eval "logs_of short | grep -c 'fatal: .*is cut short.*short.gguf'"
  run nothing "${hardened[@]}" --
  check "no model is refused with 78" is 78 exit_status nothing 20
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

the_image_is_what_it_says
it_serves_with_a_model_name_alone
it_serves_wherever_it_is_put
it_sees_the_limits_of_its_container
it_says_why_it_ends

printf '%d passed, %d failed\n' "$passed" "$failed"
((failed == 0))
