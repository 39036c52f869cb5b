#!/usr/bin/env bash
# Makes what the tests need besides a llama-server. Prints the folder of the models, and nothing else, on stdout:
#
#   .cache/venv/                      Python with the packages of tests/clients/requirements.txt
#   .cache/litellm/                   Python with those of tests/clients/litellm-requirements.txt
#   .cache/runpod/                    Python with those of tests/clients/runpod-requirements.txt
#   .cache/ollama/                    Python with those of tests/clients/ollama-requirements.txt
#   .cache/retrieval/                 Python with those of tests/clients/retrieval-requirements.txt
#   .cache/node/                      packages for Node.js, those of tests/clients/node/package-lock.json
#   .cache/models/tiny-chat.gguf      tiny models with random weights,
#   .cache/models/tiny-embedding.gguf made by tests/models/make_tiny_models.py
#   .cache/models/tiny-rerank.gguf
#   .cache/models/tiny-qwen3-reranker.gguf    the same, made by tests/models/make_tiny_qwen3.py
#   .cache/models/projector/mmproj-tiny.gguf
#
# Each is made again when its source file changes; otherwise the script returns at once.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/python.sh
. "$(dirname "$0")/python.sh"

# Environments of Python in .cache; each has a list of packages.
environments=(venv litellm runpod ollama retrieval)
generator=$repo_root/tests/models/make_tiny_models.py
qwen3_generator=$repo_root/tests/models/make_tiny_qwen3.py
node_list=$repo_root/tests/clients/node
node=$cache_dir/node
models=$cache_dir/models
models_stamp=$models/tiny-models.stamp
node_stamp=$node/package-lock.stamp

# list_of ENVIRONMENT: prints the path of its list.
list_of() {
  case $1 in
  venv) printf '%s\n' "$repo_root/tests/clients/requirements.txt" ;;
  *) printf '%s\n' "$repo_root/tests/clients/$1-requirements.txt" ;;
  esac
}

has_environment() {
  has_packages "$cache_dir/$1" "$(list_of "$1")"
}

make_environment() {
  case $1 in
  # These lists are complete: without --no-deps pip would install more.
  litellm | runpod | retrieval) make_venv "$cache_dir/$1" "$(list_of "$1")" --no-deps ;;
  *) make_venv "$cache_dir/$1" "$(list_of "$1")" ;;
  esac
}

# make_node DIGEST
make_node() {
  local hint="https://nodejs.org/en/download has Node.js with npm"
  have node || fail "the tests need Node.js, and node is not on PATH" "$hint"
  have npm || fail "the tests need npm, and it is not on PATH" "$hint"
  node -e 'process.exit(Number(process.versions.node.split(".")[0] < 20))' ||
    fail "the tests need Node.js 20 or newer; node is $(node --version)" "$hint"
  need_space "$cache_dir" 200 "the tests' packages for Node.js"

  say "installing the packages of ${node_list#"$repo_root"/} into ${node#"$repo_root"/} ..."
  local log
  rm -rf "$node"
  mkdir -p "$node"
  cp "$node_list"/package.json "$node_list"/package-lock.json "$node_list"/.npmrc "$node"
  if ! log=$(cd "$node" && npm ci --loglevel=error 2>&1); then
    fail "npm could not install the packages of $node_list:" "$log"
  fi
  printf '%s\n' "$1" >"$node_stamp"
}

make_models() {
  say "making the tiny models ..."
  mkdir -p "$models"
  make_work_dir get-test-models
  local script
  for script in "$generator" "$qwen3_generator"; do
    "$cache_dir/venv/bin/python" "$script" "$work" >&2 || fail "$script failed"
  done
  rm -f "$models_stamp"
  mv "$work"/*.gguf "$models"
  mkdir -p "$models/projector"
  mv "$work"/projector/*.gguf "$models/projector"
  printf '%s\n' "$1" >"$models_stamp"
}

node_digest=$(sha256_of "$node_list/package-lock.json")
# The models also depend on the version of gguf.
models_digest=$(sha256_of "$generator")-$(sha256_of "$qwen3_generator")-$(sha256_of "$(list_of venv)")

complete() {
  local name
  for name in "${environments[@]}"; do
    has_environment "$name" || return
  done
  up_to_date "$node_stamp" "$node_digest" && up_to_date "$models_stamp" "$models_digest"
}

if ! complete; then
  lock get-test-models
  # Another run may have made them while this one waited.
  for name in "${environments[@]}"; do
    has_environment "$name" || make_environment "$name"
  done
  up_to_date "$node_stamp" "$node_digest" || make_node "$node_digest"
  up_to_date "$models_stamp" "$models_digest" || make_models "$models_digest"
fi
printf '%s\n' "$models"
