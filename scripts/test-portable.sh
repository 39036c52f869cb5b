#!/usr/bin/env bash
# Tests on Linux the half of src/os that macOS uses (src/os/portable): the unit tests, and what it means for processes.
#
#   scripts/test-portable.sh            # all of it
#   scripts/test-portable.sh NAME...    # these tests of tests/it alone, such as supervision::
#
# Shares the dependencies with `cargo test`, and keeps its build of this crate beside that. A green run proves the logic and
# what the program does, not that the crate sysinfo tells the same on macOS.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$repo_root"
have cargo || fail "cargo is missing" "install Rust from https://rustup.rs"

export RUSTC_WORKSPACE_WRAPPER=$repo_root/scripts/portable-rustc.sh
# Not in the export itself, which would hide that a script has failed.
LLAMA_SERVER=$(scripts/get-llama-server.sh)
LLAMAGATE_TEST_MODELS=${LLAMAGATE_TEST_MODELS:-$(scripts/get-test-models.sh)}
LLAMAGATE_TEST_SMOLLM=${LLAMAGATE_TEST_SMOLLM:-$(scripts/get-model.sh)}
export LLAMA_SERVER LLAMAGATE_TEST_MODELS LLAMAGATE_TEST_SMOLLM

if (($# > 0)); then
  exec cargo test --locked --test it -- "$@"
fi
cargo test --locked --lib
# Not all of tests/it: many of its tests look at Linux's own files, or at what is documented as unknown on macOS.
cargo test --locked --test it -- drain:: sleep:: supervision::
