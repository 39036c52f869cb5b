#!/usr/bin/env bash
# Prints the section of CHANGELOG.md for the version of a tag; fails unless Cargo.toml has that version.
#
#   scripts/release-notes.sh v1.2.3
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$repo_root"

(($# == 1)) || fail "the tag is missing" "scripts/release-notes.sh v1.2.3"
tag=$1
version=$(crate_version)
[[ $tag == "v$version" ]] || fail "the tag is $tag, but Cargo.toml has version $version"
# The lines from the heading of the version to the next heading.
notes=$(awk -v heading="## [$version]" '
  /^## / { inside = index($0, heading) == 1; next }
  inside' CHANGELOG.md)
[[ $notes == *[![:space:]]* ]] || fail "CHANGELOG.md has no section, or an empty one, under \"## [$version]\""
printf '%s\n' "$notes"
