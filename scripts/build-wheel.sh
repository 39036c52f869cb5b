#!/usr/bin/env bash
# Builds the wheel with both programs. Prints its path, and nothing else, on stdout.
#
#   scripts/build-wheel.sh OUTPUT [MATURIN-OPTION...]
#
# Options are those of `maturin build`, such as --target aarch64-unknown-linux-gnu; without --profile it is a release build.
# maturin comes from PyPI.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/python.sh
. "$(dirname "$0")/python.sh"
cd "$repo_root"

(($# >= 1)) || fail "an argument is needed: the folder for the wheel"
output=$1
shift
[[ " $* " == *" --profile "* ]] || set -- --release "$@"

packaging=$(get_packaging_tools)
mkdir -p "$output"
rm -f "$output"/llamagate-*.whl
"$packaging/bin/maturin" build --out "$output" "$@" >&2
ls "$output"/llamagate-*.whl
