#!/usr/bin/env bash
# Runs all checks that must pass before a change is merged. docs/TESTING.md says which other checks there are.
#
#   scripts/test.sh
#
# Works in a fresh clone; needs Rust with rustfmt and clippy, Python 3.11 or newer, and Node.js 20 or newer with npm.
# Downloads (a llama-server, models, packages for Python and Node.js) are kept in .cache/ and reused. A stage that fails
# ends the run.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$repo_root"

summary=()

# stage TITLE COMMAND...: runs one stage, and prints a heading and the time. The command runs in this shell, so that its
# exports stay.
stage() {
  local title=$1 started=$SECONDS
  shift
  printf '\n=== %s\n' "$title"
  current=$title
  "$@"
  summary+=("$(printf 'passed  %4d s  %s' $((SECONDS - started)) "$title")")
  current=
}

report() {
  local status=$?
  [[ -z $fetching ]] || kill -TERM -- "-$fetching" 2>/dev/null || true
  printf '\n=== summary\n'
  ((${#summary[@]} == 0)) || printf '%s\n' "${summary[@]}"
  [[ -z $current ]] || printf 'FAILED          %s\n' "$current"
  if ((status == 0)); then
    printf 'all passed in %d s\n' "$SECONDS"
  else
    printf 'the checks failed after %d s\n' "$SECONDS"
  fi
}
current=
fetching= # process group, while it runs
trap report EXIT

prerequisites() {
  have cargo || fail "cargo is missing" "install Rust from https://rustup.rs"
  cargo fmt --version || fail "rustfmt is missing" "with rustup: rustup component add rustfmt"
  clippy-driver --version || fail "clippy is missing" "with rustup: rustup component add clippy"
  cargo --version
}

# The lock file of the fuzz targets is not used by the other stages, and would go stale unnoticed.
check_format_and_locks() {
  cargo fmt --all --check
  cargo tree --quiet --locked --manifest-path fuzz/Cargo.toml >/dev/null
}

# Fetches in the background, while the compiler works; what is there already is not fetched again. The output is shown
# when it is waited for. A process group of its own, so that all of it can be ended.
start_fetching() {
  mkdir -p "$cache_dir"
  fetch_log=$cache_dir/test-programs.log
  set -m
  {
    scripts/get-llama-server.sh
    scripts/get-test-models.sh
    scripts/get-model.sh
    scripts/get-nginx.sh
    scripts/get-valkey.sh
    # Not every machine may install a browser, or has these tools.
    scripts/get-chromium.sh || true
    scripts/get-deploy-tools.sh || true
    scripts/get-rpc-server.sh || true
    scripts/get-pebble.sh || true
  } >/dev/null 2>"$fetch_log" </dev/null &
  fetching=$!
  set +m
}

# get_if_possible VARIABLE SCRIPT WITHOUT: exports what the script prints under that name; if it fails, says in the summary what
# the run goes without.
get_if_possible() {
  local found
  if found=$("scripts/$2" 2>/dev/null); then
    export "$1=$found"
  else
    unset "$1"
    summary+=("skipped         $3 (scripts/$2 says why)")
  fi
}

get_test_programs() {
  local fetched=0
  wait "$fetching" || fetched=$?
  fetching=
  cat "$fetch_log" >&2
  ((fetched == 0)) || return "$fetched"

  LLAMA_SERVER=$(scripts/get-llama-server.sh)
  LLAMAGATE_TEST_MODELS=$(scripts/get-test-models.sh)
  LLAMAGATE_TEST_SMOLLM=$(scripts/get-model.sh)
  LLAMAGATE_TEST_NGINX=$(scripts/get-nginx.sh)
  LLAMAGATE_TEST_VALKEY=$(scripts/get-valkey.sh)
  LLAMAGATE_TEST_PYTHON=$cache_dir/venv/bin/python
  LLAMAGATE_TEST_LITELLM=$cache_dir/litellm/bin/python
  LLAMAGATE_TEST_RUNPOD=$cache_dir/runpod/bin/python
  LLAMAGATE_TEST_OLLAMA=$cache_dir/ollama/bin/python
  LLAMAGATE_TEST_RETRIEVAL=$cache_dir/retrieval/bin/python
  LLAMAGATE_TEST_NODE=$cache_dir/node/node_modules
  export LLAMA_SERVER LLAMAGATE_TEST_MODELS LLAMAGATE_TEST_SMOLLM LLAMAGATE_TEST_PYTHON LLAMAGATE_TEST_LITELLM
  export LLAMAGATE_TEST_RUNPOD LLAMAGATE_TEST_NGINX LLAMAGATE_TEST_OLLAMA LLAMAGATE_TEST_RETRIEVAL
  export LLAMAGATE_TEST_NODE LLAMAGATE_TEST_VALKEY
  get_if_possible LLAMAGATE_TEST_CHROMIUM get-chromium.sh "the page in a browser: there is no Chromium"
  get_if_possible LLAMAGATE_TEST_RPC get-rpc-server.sh "models on several machines: there is no rpc-server"
  get_if_possible LLAMAGATE_TEST_PEBBLE get-pebble.sh "certificates of a real CA: there is no Pebble"
  if deploy_tools=$(scripts/get-deploy-tools.sh 2>/dev/null); then
    export LLAMAGATE_TEST_DEPLOY=$deploy_tools/bin/python
  else
    deploy_tools=
    unset LLAMAGATE_TEST_DEPLOY
    summary+=("skipped         deploy/, workflows, licences, the book: no tools (scripts/get-deploy-tools.sh says why)")
  fi
  "$LLAMA_SERVER" --version 2>&1
}

# clippy-driver is rustc with clippy's lints: with it the programs of the tests are linted while they are compiled, and
# `cargo clippy` does not compile them a second time. CLIPPY_ARGS is how `cargo clippy` passes arguments on, separated by
# that word. The variables stay for the run of the tests, or cargo would compile again. Without debug information and
# incremental compilation the build takes a fifth less; a panic has its line all the same.
export RUSTC_WORKSPACE_WRAPPER=clippy-driver
export CLIPPY_ARGS=-D__CLIPPY_HACKERY__warnings
export CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=0

# The benchmarks have no tests; they are named to be linted.
build_and_lint() {
  cargo test --locked --no-run --tests --bench '*'
}

check_scripts() {
  local scripts=(scripts/*.sh tests/clients/*.sh tests/deploy/*.sh packaging/*.sh .ci/run) images=(docker/Dockerfile* .runpod/Dockerfile) script
  "$cache_dir/venv/bin/shellcheck" --external-sources "${scripts[@]}"
  "$cache_dir/venv/bin/hadolint" "${images[@]}"
  echo "${#scripts[@]} scripts, ${#images[@]} Dockerfiles"
  python3 -c 'import ast, sys; [ast.parse(open(name).read(), name) for name in sys.argv[1:]]' \
    docs/examples/*.py scripts/*.py tests/deploy/*.py
  for script in tests/clients/node/*.js; do node --check "$script"; done
  for script in ui/*.js; do node --check --input-type=module - <"$script"; done
  # The unit's program is not installed here, and not every machine has systemd.
  if have systemd-analyze; then
    local unit
    unit=$(mktemp -d)/llamagate.service
    sed 's|^ExecStart=[^ ]*|ExecStart=/bin/true|' docs/examples/llamagate.service >"$unit"
    systemd-analyze verify --man=no "$unit"
    rm -r "$(dirname "$unit")"
  fi
}

# Advisories are left out: their database is fetched from a host that not every machine reaches. A workflow checks them.
check_workflows_licences_and_book() {
  if [[ -z $deploy_tools ]]; then
    echo "there are no tools for it"
    return
  fi
  "$deploy_tools/bin/actionlint" -shellcheck "$cache_dir/venv/bin/shellcheck" .github/workflows/*.yml
  "$deploy_tools/bin/cargo-deny" --log-level error check licenses bans sources
  scripts/build-book.sh
}

# Most tests wait for processes and deadlines, so on a small machine twice as many run at once as it has CPUs.
cpus=$(nproc 2>/dev/null || sysctl -n hw.ncpu)
export RUST_TEST_THREADS=$((cpus < 4 ? 2 * cpus : cpus))

stage "prerequisites" prerequisites
start_fetching
stage "format, lock files" check_format_and_locks
stage "build, clippy" build_and_lint
stage "llama-server, models, clients" get_test_programs
stage "scripts and Dockerfiles" check_scripts
stage "workflows, licences, book" check_workflows_licences_and_book
stage "tests" cargo test --locked
