#!/usr/bin/env bash
# Prints the path of a folder with llama.cpp's rpc-server and a llama-server that can use it, and nothing else, on stdout.
#
#   1. $LLAMAGATE_TEST_RPC, if it is set;
#   2. on Debian and its derivatives: Debian's signed packages, unpacked below .cache/rpc-server/.
#
# The second way needs the llama-server that scripts/get-llama-server.sh has unpacked, because both run with its libraries.
# It needs no root and changes nothing outside the checkout.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/debian.sh
. "$(dirname "$0")/debian.sh"

suite=forky
target=$cache_dir/rpc-server
llama=$cache_dir/llama-server

give_up() {
  fail "$1" "Set LLAMAGATE_TEST_RPC to a folder with an rpc-server and a llama-server that were built with -DGGML_RPC=ON"
}

# write_wrapper FILE PROGRAM BACKEND: writes a program that replaces itself with PROGRAM, started through the libc of the
# unpacked llama-server, and with the backend that speaks to rpc-servers.
write_wrapper() {
  cat >"$1" <<WRAPPER
#!/bin/sh
# Starts an unpacked program through the libc it was built for. Made by scripts/get-rpc-server.sh.
here=\$(dirname -- "\$(readlink -f -- "\$0")")
llama=\$here/../llama-server/root
lib=\$llama/$lib_dir
export GGML_BACKEND_PATH="\$here/root/$3"
exec "\$llama/$loader" --library-path "\$lib:\$lib/llama" "$2" "\$@"
WRAPPER
  chmod +x "$1"
}

unpack_debian_packages() {
  [[ -x $llama/root/usr/bin/llama-server ]] || give_up "no rpc-server: llama-server is not Debian's, unpacked by get-llama-server.sh"

  local lib_dir loader
  find_loader || give_up "no rpc-server: LLAMAGATE_TEST_RPC is not set, and no package can be had"
  make_work_dir get-rpc-server
  say "getting rpc-server from Debian $suite ..."
  { read_suite "$suite" && unpack_packages "$work/out/root" llama.cpp-tools-extra libggml0-backend-rpc; } ||
    give_up "no rpc-server: LLAMAGATE_TEST_RPC is not set, and its packages cannot be had"

  local backends=("$work/out/root/$lib_dir"/ggml/backends*/libggml-rpc.so)
  local programs=("$work/out/root"/usr/libexec/*/llama/bin/ggml-rpc-server)
  [[ -e ${backends[0]} && -e ${programs[0]} ]] || fail "the packages do not contain rpc-server in the expected folders"
  local backend=${backends[0]#"$work/out/root/"} program=${programs[0]#"$work/out/"}

  write_wrapper "$work/out/rpc-server" "\$here/$program" "$backend"
  write_wrapper "$work/out/llama-server" "\$llama/usr/bin/llama-server" "$backend"

  rm -rf "$target"
  mv "$work/out" "$target"
  say "unpacked; checking that it runs ..."
  local output
  if ! output=$("$target/rpc-server" --help 2>&1) || [[ $output != *"loaded RPC backend"* ]]; then
    rm -rf "$target"
    give_up "the unpacked rpc-server does not run with the unpacked llama-server; its output: $output"
  fi
}

if [[ -n ${LLAMAGATE_TEST_RPC:-} ]]; then
  for program in rpc-server llama-server; do
    [[ -x $LLAMAGATE_TEST_RPC/$program ]] || fail "LLAMAGATE_TEST_RPC=$LLAMAGATE_TEST_RPC has no executable $program"
  done
  absolute_path "$LLAMAGATE_TEST_RPC"
  exit
fi

make_once get-rpc-server -x "$target/llama-server" unpack_debian_packages
printf '%s\n' "$target"
