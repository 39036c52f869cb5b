#!/usr/bin/env bash
# Prints the path of a llama-server that runs on this machine, and nothing else, on stdout.
#
#   1. $LLAMA_SERVER, if it is set;
#   2. llama-server on PATH;
#   3. on Debian and its derivatives: Debian's signed package, unpacked below .cache/llama-server/.
#
# The third way needs no root and changes nothing outside the checkout. The packages come from the suite "forky", the
# first one with a sufficiently recent llama.cpp, through the system's mirror. They need a newer libc than the system's,
# so libc is unpacked too, and llama-server is started through its loader.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/debian.sh
. "$(dirname "$0")/debian.sh"

suite=forky
# llama.cpp-tools contains the program; the others are the libraries that it links, libc included.
packages=(
  llama.cpp-tools libllama0 libggml0
  libc6 libgcc-s1 libstdc++6 libgomp1 libssl3t64 libzstd1 zlib1g
)
target=$cache_dir/llama-server

give_up() {
  fail "$1" \
    "Install llama.cpp and run this again, or set LLAMA_SERVER to the path of a llama-server:" \
    "  macOS, Linux      brew install llama.cpp" \
    "  any, with conda   conda install -c conda-forge llama.cpp" \
    "  Debian 14 on      apt install llama.cpp" \
    "  ready-made        https://github.com/ggml-org/llama.cpp/releases" \
    "  container         ghcr.io/ggml-org/llama.cpp:server (the program is /app/llama-server)" \
    "  from source       cmake -B build && cmake --build build --target llama-server"
}

# write_wrapper FILE: writes the program whose path is printed. It replaces itself with llama-server (exec), so that its
# parent supervises llama-server and not a shell.
write_wrapper() {
  cat >"$1" <<WRAPPER
#!/bin/sh
# Starts the unpacked llama-server through the libc it was built for. Made by scripts/get-llama-server.sh.
case \$0 in
*/*) self=\$0 ;;
*) self=\$(command -v -- "\$0") ;;
esac
here=\$(dirname -- "\$(readlink -f -- "\$self")")
lib=\$here/root/$lib_dir
exec "\$here/root/$loader" --library-path "\$lib:\$lib/llama" "\$here/root/usr/bin/llama-server" "\$@"
WRAPPER
  chmod +x "$1"
}

unpack_debian_packages() {
  local lib_dir loader
  find_loader || give_up "no llama-server: LLAMA_SERVER is not set, none is on PATH, and no package can be had"
  need_space "$cache_dir" 500 "unpacking llama.cpp"
  make_work_dir get-llama-server
  say "getting llama.cpp from Debian $suite ..."
  { read_suite "$suite" && unpack_packages "$work/out/root" "${packages[@]}"; } ||
    give_up "no llama-server: LLAMA_SERVER is not set, none is on PATH, and its packages cannot be had"

  # ggml looks for its CPU backends in the folder of the running executable, which is the loader.
  local backends=("$work/out/root/$lib_dir"/ggml/backends*/*.so)
  [[ -e ${backends[0]} ]] || fail "the libggml0 package does not contain CPU backends in the expected folder"
  cp "${backends[@]}" "$work/out/root/$lib_dir/"

  write_wrapper "$work/out/llama-server"
  say "unpacked; checking that it runs ..."
  local version
  if ! version=$("$work/out/llama-server" --version 2>&1); then
    fail "the unpacked llama-server does not run here; its output:" "$version"
  fi

  rm -rf "$target"
  mv "$work/out" "$target"
  say "${version//$'\n'/; }"
}

get_program LLAMA_SERVER get-llama-server "$target/llama-server" unpack_debian_packages llama-server
printf '%s\n' "$program"
