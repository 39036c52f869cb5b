# shellcheck shell=bash
# Shared by the scripts in this folder; sourced, never run.
#
# Everything a script downloads or makes goes under .cache/ of the checkout, which git ignores: deleting that folder
# undoes every one of them. Messages go to stderr, because stdout of the get-*.sh scripts is their answer (a path).

# A caller's CDPATH would make cd print where it went.
unset CDPATH

repo_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# The scripts that source this file use it.
# shellcheck disable=SC2034
cache_dir=$repo_root/.cache

say() {
  printf '%s\n' "$*" >&2
}

# fail MESSAGE [MORE LINES...]: say why, and end.
fail() {
  printf 'error: %s\n' "$1" >&2
  shift
  [[ $# -eq 0 ]] || printf '  %s\n' "$@" >&2
  exit 1
}

have() {
  command -v "$1" >/dev/null 2>&1
}

# try_lock NAME: takes the lock of that name, or fails when another run has it. The kernel drops it with the process, so
# a killed run leaves nothing to clean up. Without flock (macOS) runs are not guarded; results are still published by
# one rename.
try_lock() {
  mkdir -p "$cache_dir"
  have flock || return 0
  exec {lock_fd}>"$cache_dir/$1.lock"
  flock --nonblock "$lock_fd"
}

# lock NAME: takes the lock, waiting for another run that has it; that one's result is there then.
lock() {
  if ! try_lock "$1"; then
    say "waiting for another run of $1 ..."
    flock "$lock_fd"
  fi
}

# make_work_dir NAME: sets $work to an empty folder beside the results, so that publishing one is a rename. It goes when
# the script ends; what a killed run left behind goes now, for a caller holds the lock of that name.
make_work_dir() {
  have flock && rm -rf "$cache_dir/$1".tmp.*
  work=$(mktemp -d "$cache_dir/$1.tmp.XXXXXX")
  trap 'rm -rf "$work"' EXIT
}

# need_space DIR MIB WHAT: refuse early and clearly rather than fail in the middle of a download.
need_space() {
  local free_kib
  free_kib=$(df -Pk "$1" | awk 'NR == 2 { print $4 }')
  ((free_kib >= $2 * 1024)) || fail "$3 needs about $2 MiB in $1, but only $((free_kib / 1024)) MiB are free"
}

sha256_of() {
  if have sha256sum; then
    sha256sum "$1" | cut -d ' ' -f 1
  else
    shasum -a 256 "$1" | cut -d ' ' -f 1
  fi
}
