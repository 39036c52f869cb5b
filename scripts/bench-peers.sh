#!/usr/bin/env bash
# Installs nginx and HAProxy, which the benchmark compares with the gateway, and prints their versions.
#
#   scripts/bench-peers.sh
#
# Works on Debian and Ubuntu, as root or with sudo, and starts neither as a service. On other systems install them by
# hand; the benchmark finds them on PATH or through the variables NGINX and HAPROXY.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

# Debian installs servers in /usr/sbin, which only root has on PATH.
PATH=$PATH:/usr/sbin

missing=()
for peer in nginx haproxy; do
  have "$peer" || missing+=("$peer")
done

if ((${#missing[@]} > 0)); then
  have apt-get || fail "missing: ${missing[*]}" "install them by hand, or set NGINX and HAPROXY to their programs"
  as_root=()
  if ((EUID != 0)); then
    have sudo || fail "missing: ${missing[*]}" "installing them takes root"
    as_root=(sudo)
  fi
  say "installing ${missing[*]} ..."
  "${as_root[@]}" apt-get update -qq
  # With runlevel 1, apt does not start the services that it installs.
  "${as_root[@]}" env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
    apt-get install -qq -y --no-install-recommends "${missing[@]}" >&2
fi

nginx -v 2>&1
haproxy -v | head -n 1
