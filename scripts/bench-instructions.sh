#!/usr/bin/env bash
# Counts the instructions that the gateway spends on a request, with callgrind.
#
#   scripts/bench-instructions.sh [FLAGS of the benchmark]
#
# The figures do not depend on how busy the machine is. docs/BENCHMARK.md says how to read them.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$repo_root"

if ! have valgrind; then
  say "valgrind is not there, so nothing is counted; on Debian: apt-get install valgrind"
  exit 0
fi
exec cargo bench --locked --bench gateway -- --instructions "$@"
