#!/usr/bin/env bash
# Counts the instructions of the gateway per request, with callgrind.
#
#   scripts/bench-instructions.sh [FLAGS of the benchmark]
#
# The figures do not depend on the load of the machine. docs/BENCHMARK.md explains them.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$repo_root"

if ! have valgrind; then
  say "valgrind is missing, so nothing is counted; on Debian: apt-get install valgrind"
  exit 0
fi
exec cargo bench --locked --bench gateway -- --instructions "$@"
