#!/usr/bin/env bash
# Counts the instructions of the gateway per request, with callgrind.
#
#   scripts/bench-instructions.sh [FLAGS of the benchmark]      counts, prints, compares with nothing
#   scripts/bench-instructions.sh --check                       fails if a count is more than 3 % above its figure
#   scripts/bench-instructions.sh --update                      writes the counts as the new figures
#   scripts/bench-instructions.sh --tests [FLAGS]               the same with the unoptimised program of the tests
#
# The figures are in benches/gateway/instructions.json. They hardly depend on the load of the machine. docs/BENCHMARK.md
# explains them.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$repo_root"

if ! have valgrind; then
  say "valgrind is missing, so nothing is counted; on Debian: apt-get install valgrind"
  exit 0
fi
if [[ ${1:-} == --tests ]]; then
  shift
  exec cargo test --quiet --locked --bench gateway -- --bench --instructions "$@"
fi
exec cargo bench --locked --bench gateway -- --instructions "$@"
