#!/usr/bin/env bash
# Checks that the library and the programs compile for macOS on Apple silicon. Runs nothing of them.
#
# With rustup's standard library of that target (`rustup target add aarch64-apple-darwin`) this is `cargo check`. Without it,
# on Debian, the standard library is checked too, from Debian's packages of a newer Rust, which are unpacked into .cache. C
# code is not compiled: a stand-in for the C compiler writes empty files, which `cargo check` never links.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$repo_root"
have cargo || fail "cargo is missing" "install Rust from https://rustup.rs"

target=aarch64-apple-darwin
folder=$cache_dir/macos
options=(--locked --target "$target" --lib --bins)
mkdir -p "$folder"

# shellcheck disable=SC2016  # The stand-ins expand them.
printf '%s\n' '#!/bin/sh' 'while [ $# -gt 0 ]; do [ "$1" != -o ] || { shift; : >"$1"; }; shift; done' >"$folder/cc"
# shellcheck disable=SC2016
printf '%s\n' '#!/bin/sh' 'for word; do case $word in *.a) : >"$word" ;; esac; done' >"$folder/ar"
chmod +x "$folder/cc" "$folder/ar"
if [[ $(uname) != Darwin ]]; then
  export CC_aarch64_apple_darwin=$folder/cc CXX_aarch64_apple_darwin=$folder/cc AR_aarch64_apple_darwin=$folder/ar SDKROOT=/nonexistent
fi
export CARGO_TARGET_DIR=$folder/target

library=$(rustc --print target-libdir --target "$target")
if [[ -d $library ]]; then
  exec cargo check "${options[@]}"
fi

have apt-get || fail "the standard library of $target is missing" "with rustup: rustup target add $target"
unpack_rust() {
  make_work_dir check-macos
  mapfile -t packages < <(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
    --no-enhances rustc-web 2>/dev/null | grep -E '^(rustc-web|libstd-rust-web-[a-z0-9.]+|libllvm[0-9]+)$')
  ((${#packages[@]} >= 3)) || fail "this system has no package rustc-web" "with rustup: rustup target add $target"
  (cd "$work" && apt-get download --quiet=2 rust-web-src "${packages[@]}")
  mkdir "$work/rust"
  for package in "$work"/*.deb; do dpkg-deb --extract "$package" "$work/rust"; done
  rm -rf "$folder/rust"
  mv "$work/rust" "$folder/rust"
}

make_once check-macos -x "$folder/rust/usr/bin/rustc" unpack_rust
libraries=$(dirname "$(find "$folder/rust/usr/lib" -name 'libLLVM.so.*' -print -quit)")
printf '%s\n' '#!/bin/sh' "LD_LIBRARY_PATH=$libraries exec $folder/rust/usr/bin/rustc \"\$@\"" >"$folder/rustc"
chmod +x "$folder/rustc"
# Building the standard library is an unstable option; this variable allows it.
RUSTC_BOOTSTRAP=1 RUSTC=$folder/rustc cargo check "${options[@]}" -Zbuild-std=std,panic_unwind
