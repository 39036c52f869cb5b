#!/usr/bin/env bash
# Tests the alert rules with Prometheus' own promtool: that each fires when it should, and none in a healthy service.
#
#   scripts/test-alerts.sh
#
# promtool is the file whose path is in $PROMTOOL (a name without a folder is not looked up on PATH); or that on PATH; or on
# Debian that of the package prometheus, unpacked below .cache/promtool.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/debian.sh
. "$(dirname "$0")/debian.sh"

target=$cache_dir/promtool

give_up() {
  fail "$1" "install Prometheus, or set PROMTOOL to the path of its promtool"
}

# Only the program is taken: an installation would start a server.
unpack_promtool() {
  local suite
  need_space "$cache_dir" 300 "unpacking promtool"
  make_work_dir test-alerts
  say "getting promtool from Debian ..."
  { suite=$(system_suite) && read_suite "$suite" && unpack_packages "$work/root" prometheus; } ||
    give_up "there is no promtool: PROMTOOL is not set, none is on PATH, and its package cannot be had"
  mkdir -p "$target"
  mv "$work/root/usr/bin/promtool" "$target/promtool"
}

get_program PROMTOOL test-alerts "$target/promtool" unpack_promtool promtool
cd "$repo_root"
"$program" check rules deploy/grafana/alerts.yaml
"$program" test rules tests/deploy/alerts_test.yaml
