#!/usr/bin/env bash
# Prints the path of a Valkey or Redis server that runs on this machine, and nothing else, on stdout.
#
#   1. $VALKEY, if it is set;
#   2. valkey-server or redis-server on PATH;
#   3. on Debian: the signed package of this system's release, unpacked below .cache/valkey/.
#
# The third way needs no root, changes nothing outside the checkout, and starts no service.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/debian.sh
. "$(dirname "$0")/debian.sh"

target=$cache_dir/valkey

give_up() {
  fail "$1" "Install Valkey or Redis with the package manager of this system and run this again, or set VALKEY to the path of the server"
}

unpack_debian_packages() {
  local suite name=redis found libraries version
  need_space "$cache_dir" 100 "unpacking a server"
  make_work_dir get-valkey
  { suite=$(system_suite) && read_suite "$suite"; } ||
    give_up "no server: VALKEY is not set, none is installed, and no package can be had"
  # Debian 13 has Valkey; older releases have Redis. The program is in the package of tools.
  found=$(apt-cache --config-file="$private_apt_config" search --names-only '^valkey-server$') ||
    give_up "no server: VALKEY is not set, none is installed, and apt cannot search its lists"
  [[ -z $found ]] || name=valkey
  libraries=$(libraries_of "$name-tools") ||
    give_up "no server: VALKEY is not set, none is installed, and apt does not know what the package $name-tools depends on"
  say "getting $name from Debian $suite ..."
  # shellcheck disable=SC2086  # The libraries are words.
  unpack_packages "$work/out/root" "$name-server" "$name-tools" $libraries ||
    give_up "no server: $name and its libraries cannot be had"
  write_library_wrapper "$work/out/server" "usr/bin/$name-server"
  version=$("$work/out/server" --version 2>&1) || fail "the unpacked server does not run here; its output:" "$version"
  rm -rf "$target"
  mv "$work/out" "$target"
  say "$version"
}

get_program VALKEY get-valkey "$target/server" unpack_debian_packages valkey-server redis-server
printf '%s\n' "$program"
