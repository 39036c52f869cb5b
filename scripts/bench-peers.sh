#!/usr/bin/env bash
# Installs the proxies that the benchmark compares with the gateway, and prints their versions.
#
#   scripts/bench-peers.sh
#
# nginx and HAProxy come with apt on Debian and Ubuntu, as root or with sudo; neither is started as a service. On other
# systems install them by hand. Envoy, SMG and LiteLLM come from the package index of Python into .cache/bench-peers/, in
# the versions of benches/peers/*-requirements.txt; one that cannot be installed is left out. The benchmark finds all of them
# there and on PATH, or through the variables NGINX, HAPROXY, ENVOY, SMG and LITELLM.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/python.sh
. "$(dirname "$0")/python.sh"

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

# install NAME: makes the environment of a peer, unless it is there in these versions.
install() {
  local requirements=$repo_root/benches/peers/$1-requirements.txt folder=$cache_dir/bench-peers/$1
  # The lists are complete: without --no-deps pip would install more.
  has_packages "$folder" "$requirements" || make_venv "$folder" "$requirements" --no-deps
}

lock bench-peers
mkdir -p "$cache_dir/bench-peers"
nginx -v 2>&1
haproxy -v | head -n 1
for peer in envoy smg litellm; do
  # A subshell, because a failure ends it.
  if (install "$peer"); then
    grep -m 1 "^$peer" "$repo_root/benches/peers/$peer-requirements.txt"
  else
    say "$peer is left out"
  fi
done
