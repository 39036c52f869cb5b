#!/usr/bin/env bash
# Makes a profile of a gateway at work, for a build that is optimised for it, and prints the path of the profile.
#
#   RUSTFLAGS=-Cprofile-use=$(scripts/make-profile.sh) cargo build --release --locked --target "$(rustc --print host-tuple)"
#
# Builds a gateway that counts what it does, and lets the benchmark use it: requests, answers that are renamed, and streams,
# on 8 and 64 connections. Takes two release builds and a minute. Needs Linux, two CPUs, and the llvm-profdata of rustc's own
# LLVM: `rustup component add llvm-tools` installs it, and LLVM_PROFDATA names another one.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$repo_root"

# find_profdata: prints the path of llvm-profdata.
find_profdata() {
  local host major found
  host=$(rustc --print host-tuple)
  major=$(rustc --version --verbose | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
  for found in "${LLVM_PROFDATA:-}" "$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata" "llvm-profdata-$major"; do
    [[ -z $found ]] || ! have "$found" || { printf '%s\n' "$found"; return; }
  done
  fail "llvm-profdata of LLVM $major is missing" "with rustup: rustup component add llvm-tools"
}

profdata=$(find_profdata)
# A target of its own: what runs while the gateway is built is not to count.
host=$(rustc --print host-tuple)
counts=$repo_root/target/profile
rm -rf "$counts"
mkdir -p "$counts/raw"

say "building a gateway that counts ..."
RUSTFLAGS="-Cprofile-generate=$counts/raw" CARGO_TARGET_DIR=$repo_root/target/profile-build \
  cargo build --quiet --release --locked --target "$host" --bin llamagate >&2
counting=$repo_root/target/profile-build/$host/release/llamagate

say "using it ..."
cargo bench --quiet --locked --bench gateway -- \
  --only headline --contenders on --rounds 1 --seconds 2 --built "$counting" "$counting" >&2

raw=("$counts"/raw/*.profraw)
[[ -e ${raw[0]} ]] || fail "the gateway has counted nothing in $counts/raw"
"$profdata" merge --output="$counts/gateway.profdata" "${raw[@]}"
printf '%s\n' "$counts/gateway.profdata"
