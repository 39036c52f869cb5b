#!/usr/bin/env bash
# Prints the Homebrew formula of a release.
#
#   scripts/fill-formula.sh TAG REPOSITORY FOLDER
#
# TAG is v1.2.3; REPOSITORY the address of the repository; FOLDER has the release's archives with their .sha256 files.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

(($# == 3)) || fail "three arguments are needed: the tag, the repository's address, and the folder of the archives"
tag=$1 repository=$2 folder=$3

# digest_for TARGET: prints the SHA-256 of the archive of that target.
digest_for() {
  local file=$folder/llamagate-$tag-$1.tar.gz.sha256 digest
  [[ -r $file ]] || fail "$file is missing"
  digest=$(cut -d ' ' -f 1 "$file")
  [[ $digest =~ ^[0-9a-f]{64}$ ]] || fail "$file has no SHA-256"
  printf '%s' "$digest"
}

x86_64=$(digest_for x86_64-unknown-linux-gnu)
aarch64=$(digest_for aarch64-unknown-linux-gnu)
filled=$(sed -e "s|@VERSION@|${tag#v}|g; s|@REPOSITORY@|$repository|g" \
  -e "s|@SHA256_X86_64@|$x86_64|; s|@SHA256_AARCH64@|$aarch64|" "$repo_root/packaging/homebrew/llamagate.rb.in")
[[ $filled != *@* ]] || fail "a placeholder of the formula was not filled"
printf '%s\n' "$filled"
