#!/usr/bin/env bash
# Installs nginx and HAProxy, for the benchmark to compare the gateway with, and prints their versions.
#
#   scripts/bench-peers.sh
#
# Works on Debian and Ubuntu, as root or with sudo. Neither is started as a service by this. Elsewhere install them by
# hand; the benchmark takes them from PATH, or from the variables NGINX and HAPROXY.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

# Debian keeps servers where only root has them on PATH.
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
  # Runlevel 1 keeps apt from starting what it installs.
  "${as_root[@]}" env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
    apt-get install -qq -y --no-install-recommends "${missing[@]}" >&2
fi

nginx -v 2>&1
haproxy -v | head -n 1
