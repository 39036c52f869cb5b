#!/usr/bin/env bash
# Tests the alert rules with Prometheus' own promtool: that each fires when it should, and none in a healthy service.
#
#   scripts/test-alerts.sh
#
# promtool is $PROMTOOL, or that on PATH, or on Debian that of the package prometheus, unpacked below .cache/promtool.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/debian.sh
. "$(dirname "$0")/debian.sh"
cd "$repo_root"

target=$cache_dir/promtool

# Only the program is taken: an installation would start a server.
unpack_debian_package() {
  local mirror suite
  mirror=$(debian_mirror)
  suite=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
  [[ -n $mirror && -n $suite ]] ||
    fail "there is no promtool, and this is no Debian" "install Prometheus, or set PROMTOOL to the path of its promtool"
  need_space "$cache_dir" 300 "unpacking promtool"
  make_work_dir test-alerts
  mkdir -p "$work"/{debs,root}
  write_apt_config "$work/apt" "$(dpkg --print-architecture)" "$mirror" "$suite"
  say "getting promtool from Debian $suite ..."
  private_apt update >&2
  (cd "$work/debs" && private_apt download prometheus >&2) || fail "apt could not download the package prometheus"
  dpkg-deb --extract "$work"/debs/*.deb "$work/root"
  mkdir -p "$target"
  mv "$work/root/usr/bin/promtool" "$target/promtool"
}

if [[ -n ${PROMTOOL:-} ]]; then
  promtool=$PROMTOOL
elif ! promtool=$(command -v promtool); then
  promtool=$target/promtool
  if [[ ! -x $promtool ]]; then
    lock test-alerts
    [[ -x $promtool ]] || unpack_debian_package
  fi
fi
"$promtool" check rules deploy/grafana/alerts.yaml
"$promtool" test rules tests/deploy/alerts_test.yaml
