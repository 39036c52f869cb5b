#!/usr/bin/env bash
# Prints the path of Pebble, the ACME server of Let's Encrypt for tests, and nothing else, on stdout.
#
#   1. $PEBBLE, if it is set;
#   2. pebble on PATH, if pebble-challtestsrv lies beside it;
#   3. on Debian: the signed package of this system's release, unpacked below .cache/pebble/.
#
# pebble-challtestsrv lies beside each of them. The third way needs no root and changes nothing outside the checkout.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/debian.sh
. "$(dirname "$0")/debian.sh"

target=$cache_dir/pebble

# has_helper PROGRAM: whether the server of names for tests lies beside this Pebble.
has_helper() {
  [[ -x $(dirname "$1")/pebble-challtestsrv ]]
}

give_up() {
  fail "$1" "Install the package pebble of this system and run this again, or set PEBBLE to the path of the program"
}

unpack_pebble() {
  local suite
  need_space "$cache_dir" 100 "unpacking Pebble"
  make_work_dir get-pebble
  say "getting Pebble from Debian ..."
  { suite=$(system_suite) && read_suite "$suite" && unpack_packages "$work/out" pebble; } ||
    give_up "no Pebble: PEBBLE is not set, none is installed, and its package cannot be had"
  has_helper "$work/out/usr/bin/pebble" || fail "the package pebble does not contain pebble-challtestsrv"
  "$work/out/usr/bin/pebble" -help >/dev/null 2>&1 || fail "the unpacked Pebble does not run here"
  rm -rf "$target"
  mv "$work/out" "$target"
}

# Other programs have this name too.
if ! found=$(type -P pebble) || ! has_helper "$found"; then
  found=
fi
get_program PEBBLE get-pebble "$target/usr/bin/pebble" unpack_pebble "$found"
if ! has_helper "$program"; then
  [[ -z ${PEBBLE:-} ]] || fail "there is no pebble-challtestsrv beside PEBBLE=$PEBBLE" \
    "put it there, or unset PEBBLE: Debian's package pebble has both"
  fail "there is no pebble-challtestsrv beside $program" "remove the folder $target and run this again"
fi
printf '%s\n' "$program"
