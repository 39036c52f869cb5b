#!/usr/bin/env bash
# Measures what a download costs: `llamagate pull` against curl and sha256sum, with the same file, in the same run.
#
#   scripts/bench-download.sh [LLAMAGATE [ROUNDS [MIB [FOLDER]]]]
#
# LLAMAGATE is a program of the release profile (target/release/llamagate). nginx serves the file on the loopback and
# stands in for the hub. In each round curl fetches it, llamagate pulls it and sha256sum hashes it, one after the other.
# curl's file is synced, because llamagate syncs what it brings. The best wall time and the least CPU time count: others
# on the machine only add to both.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

gateway=${1:-$repo_root/target/release/llamagate} rounds=${2:-5} mib=${3:-1024}
work=$(mktemp -d -p "${4:-${TMPDIR:-/tmp}}")
have curl || fail "curl is missing"
[[ -x $gateway ]] || fail "$gateway is missing" "build it: cargo build --release --bin llamagate"
nginx=$("$repo_root/scripts/get-nginx.sh")
trap '[[ ! -s $work/nginx.pid ]] || kill "$(<"$work/nginx.pid")"; rm -rf "$work"' EXIT

# A GGUF file without keys and tensors, and bytes that do not compress.
file=$work/Bench-Q8_0.gguf commit=0123456789abcdef0123456789abcdef01234567
{ printf 'GGUF\3\0\0\0'; head -c 16 /dev/zero; head -c "$((mib << 20))" /dev/urandom; } >"$file"
hash=$(sha256sum "$file" | cut -d ' ' -f 1)
port=$((20000 + RANDOM % 10000))
cat >"$work/nginx.conf" <<CONF
user root; worker_processes 1; pid $work/nginx.pid; error_log $work/error.log;
events {}
http {
  access_log off; sendfile on; etag off; client_body_temp_path $work/body; proxy_temp_path $work/proxy;
  fastcgi_temp_path $work/fastcgi; uwsgi_temp_path $work/uwsgi; scgi_temp_path $work/scgi;
  server {
    listen 127.0.0.1:$port;
    location /api/ { return 200 '{"sha":"$commit","siblings":[{"rfilename":"Bench-Q8_0.gguf"}]}'; }
    location /Bench/ { add_header ETag '"$hash"'; rewrite ^ /Bench-Q8_0.gguf break; root $work; }
  }
}
CONF
((EUID == 0)) || sed -i 's/^user root; //' "$work/nginx.conf"
# nginx reads a variable of this name itself.
env -u NGINX "$nginx" -c "$work/nginx.conf" -p "$work"

hub=http://127.0.0.1:$port
fetch() { rm -f "$work/out" && curl -sf -o "$work/out" "$hub/Bench/B/resolve/main/Bench-Q8_0.gguf" && sync "$work/out"; }
pull() {
  rm -rf "$work/cache"
  env -i HF_ENDPOINT="$hub" HF_HUB_CACHE="$work/cache" DATA_DIR="$work" NO_PROXY='*' "$gateway" pull Bench/B --json
}
hash_file() { sha256sum "$file"; }

# measure NAME COMMAND: appends the wall and CPU seconds of a command to a file.
TIMEFORMAT='%R %U %S'
measure() {
  { time "$2" >"$work/said" 2>&1; } 2>"$work/time" || fail "$1 failed" "$(tail -n 3 "$work/said")"
  awk '{ print $1, $2 + $3 }' "$work/time" >>"$work/$1"
}
for ((round = 0; round < rounds; round++)); do
  measure curl fetch
  measure llamagate pull
  measure sha256sum hash_file
done
cmp -s "$file" "$work"/cache/models--Bench--B/snapshots/*/Bench-Q8_0.gguf || fail "other bytes have come"

best() { sort -n -k "$2" "$work/$1" | head -n 1 | cut -d ' ' -f "$2"; }
printf '| %s MiB, best of %s | wall s | CPU s |\n|---|---|---|\n' "$mib" "$rounds"
for name in curl llamagate sha256sum; do printf '| %s | %s | %s |\n' "$name" "$(best "$name" 1)" "$(best "$name" 2)"; done
awk -v curl="$(best curl 1)" -v pull="$(best llamagate 1)" -v cpu="$(best llamagate 2)" -v hash="$(best sha256sum 2)" \
  'BEGIN { printf "throughput: %.2f of curl; CPU: %.2f of sha256sum\n", curl / pull, cpu / hash }'
