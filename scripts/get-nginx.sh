#!/usr/bin/env bash
# Prints the path of an nginx that runs on this machine, and nothing else, on stdout.
#
#   1. $NGINX, if it is set;
#   2. nginx on PATH or in /usr/sbin;
#   3. on Debian: the signed package of this system's release, unpacked below .cache/nginx/.
#
# The third way needs no root, changes nothing outside the checkout, and starts no service.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/debian.sh
. "$(dirname "$0")/debian.sh"

target=$cache_dir/nginx

give_up() {
  fail "$1" "Install nginx with the package manager of this system and run this again, or set NGINX to its path"
}

unpack_debian_packages() {
  local suite libraries version
  need_space "$cache_dir" 100 "unpacking nginx"
  make_work_dir get-nginx
  { suite=$(system_suite) && read_suite "$suite"; } ||
    give_up "no nginx: NGINX is not set, none is installed, and no package can be had"
  # A small system may lack them.
  libraries=$(libraries_of nginx) ||
    give_up "no nginx: NGINX is not set, none is installed, and apt does not know what the package nginx depends on"
  say "getting nginx from Debian $suite ..."
  # shellcheck disable=SC2086  # The libraries are words.
  unpack_packages "$work/out/root" nginx $libraries ||
    give_up "no nginx: nginx and its libraries cannot be had"
  write_library_wrapper "$work/out/nginx" usr/sbin/nginx
  version=$("$work/out/nginx" -v 2>&1) || fail "the unpacked nginx does not run here; its output:" "$version"
  rm -rf "$target"
  mv "$work/out" "$target"
  say "$version"
}

# Debian installs servers in /usr/sbin, which only root has on PATH.
get_program NGINX get-nginx "$target/nginx" unpack_debian_packages nginx /usr/sbin/nginx
printf '%s\n' "$program"
