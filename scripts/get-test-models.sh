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

requirements=$repo_root/tests/clients/requirements.txt
litellm_requirements=$repo_root/tests/clients/litellm-requirements.txt
generator=$repo_root/tests/models/make_tiny_models.py
qwen3_generator=$repo_root/tests/models/make_tiny_qwen3.py
runpod_requirements=$repo_root/tests/clients/runpod-requirements.txt
ollama_requirements=$repo_root/tests/clients/ollama-requirements.txt
retrieval_requirements=$repo_root/tests/clients/retrieval-requirements.txt
node_list=$repo_root/tests/clients/node
venv=$cache_dir/venv
litellm=$cache_dir/litellm
runpod=$cache_dir/runpod
ollama=$cache_dir/ollama
retrieval=$cache_dir/retrieval
node=$cache_dir/node
models=$cache_dir/models
models_stamp=$models/tiny-models.stamp
venv_stamp=$venv/requirements.stamp
litellm_stamp=$litellm/requirements.stamp
runpod_stamp=$runpod/requirements.stamp
ollama_stamp=$ollama/requirements.stamp
retrieval_stamp=$retrieval/requirements.stamp
node_stamp=$node/package-lock.stamp

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
    "$venv/bin/python" "$script" "$work" >&2 || fail "$script failed"
  done
  rm -f "$models_stamp"
  mv "$work"/*.gguf "$models"
  mkdir -p "$models/projector"
  mv "$work"/projector/*.gguf "$models/projector"
  printf '%s\n' "$1" >"$models_stamp"
}

venv_digest=$(sha256_of "$requirements")
litellm_digest=$(sha256_of "$litellm_requirements")
runpod_digest=$(sha256_of "$runpod_requirements")
ollama_digest=$(sha256_of "$ollama_requirements")
retrieval_digest=$(sha256_of "$retrieval_requirements")
node_digest=$(sha256_of "$node_list/package-lock.json")
# The models also depend on the version of gguf.
models_digest=$(sha256_of "$generator")-$(sha256_of "$qwen3_generator")-$venv_digest

complete() {
  up_to_date "$venv_stamp" "$venv_digest" && up_to_date "$litellm_stamp" "$litellm_digest" &&
    up_to_date "$runpod_stamp" "$runpod_digest" && up_to_date "$ollama_stamp" "$ollama_digest" &&
    up_to_date "$retrieval_stamp" "$retrieval_digest" && up_to_date "$node_stamp" "$node_digest" &&
    up_to_date "$models_stamp" "$models_digest"
}

if ! complete; then
  lock get-test-models
  # Another run may have made them while this one waited.
  up_to_date "$venv_stamp" "$venv_digest" || make_venv "$venv" "$requirements" "$venv_digest"
  # These lists are complete: without --no-deps pip would install more.
  up_to_date "$litellm_stamp" "$litellm_digest" ||
    make_venv "$litellm" "$litellm_requirements" "$litellm_digest" --no-deps
  up_to_date "$runpod_stamp" "$runpod_digest" ||
    make_venv "$runpod" "$runpod_requirements" "$runpod_digest" --no-deps
  up_to_date "$ollama_stamp" "$ollama_digest" || make_venv "$ollama" "$ollama_requirements" "$ollama_digest"
  up_to_date "$retrieval_stamp" "$retrieval_digest" ||
    make_venv "$retrieval" "$retrieval_requirements" "$retrieval_digest" --no-deps
  up_to_date "$node_stamp" "$node_digest" || make_node "$node_digest"
  up_to_date "$models_stamp" "$models_digest" || make_models "$models_digest"
fi
printf '%s\n' "$models"
