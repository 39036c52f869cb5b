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

# The program, and the libraries that a small system may lack.
packages=(nginx libpcre2-8-0 libcrypt1 zlib1g)
target=$cache_dir/nginx

give_up() {
  fail "$1" "Install nginx with the package manager of this system and run this again, or set NGINX to its path"
}

# write_wrapper FILE: writes the program whose path is printed.
write_wrapper() {
  cat >"$1" <<'WRAPPER'
#!/bin/sh
# Starts the unpacked nginx with the libraries beside it. Made by scripts/get-nginx.sh.
here=$(dirname -- "$(readlink -f -- "$0")")
LD_LIBRARY_PATH=$(find "$here/root" -name '*.so.*' -exec dirname {} + | sort -u | tr '\n' ':')
export LD_LIBRARY_PATH
exec "$here/root/usr/sbin/nginx" "$@"
WRAPPER
  chmod +x "$1"
}

unpack_debian_packages() {
  local suite ssl version
  need_space "$cache_dir" 100 "unpacking nginx"
  make_work_dir get-nginx
  { suite=$(system_suite) && read_suite "$suite"; } ||
    give_up "no nginx: NGINX is not set, none is installed, and no package can be had"
  # The libssl of this release has a number in its name.
  ssl=$(apt-cache --config-file="$private_apt_config" depends nginx | awk '$2 ~ /^libssl/ { print $2; exit }')
  say "getting nginx from Debian $suite ..."
  unpack_packages "$work/out/root" "${packages[@]}" ${ssl:+"$ssl"} ||
    give_up "no nginx: the packages of nginx and its libraries cannot be had"
  write_wrapper "$work/out/nginx"
  version=$("$work/out/nginx" -v 2>&1) || fail "the unpacked nginx does not run here; its output:" "$version"
  rm -rf "$target"
  mv "$work/out" "$target"
  say "$version"
}

# Debian installs servers in /usr/sbin, which only root has on PATH.
get_program NGINX get-nginx "$target/nginx" unpack_debian_packages nginx /usr/sbin/nginx
printf '%s\n' "$program"
