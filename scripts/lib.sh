# shellcheck shell=bash
# Shared by the scripts in this folder; sourced, never run.
#
# Downloads and files that the scripts make go to .cache/ of the checkout, which git ignores: deleting that folder
# removes all of them. Messages go to stderr, because the get-*.sh scripts print their result, a path, on stdout.

# With the caller's CDPATH, cd would print the folder.
unset CDPATH

repo_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# The scripts that source this file use it.
# shellcheck disable=SC2034
cache_dir=$repo_root/.cache

say() {
  printf '%s\n' "$*" >&2
}

# fail MESSAGE [MORE LINES...]: prints the reason, and exits with status 1.
fail() {
  printf 'error: %s\n' "$1" >&2
  shift
  [[ $# -eq 0 ]] || printf '  %s\n' "$@" >&2
  exit 1
}

# Prints the version in Cargo.toml.
crate_version() {
  sed -n 's/^version = "\(.*\)"/\1/p' "$repo_root/Cargo.toml" | head -n 1
}

have() {
  command -v "$1" >/dev/null 2>&1
}

# try_lock NAME: takes the lock of that name; fails if another run has it. The kernel releases it when the process ends,
# so a killed run leaves nothing to clean up. Without flock (macOS) there is no lock; results are still published by one
# rename.
try_lock() {
  # Callers test the status of this function, so errexit is off in it.
  mkdir -p "$cache_dir" || fail "the folder $cache_dir cannot be made"
  have flock || return 0
  exec {lock_fd}>"$cache_dir/$1.lock" || fail "the lock file $cache_dir/$1.lock cannot be opened"
  flock --nonblock "$lock_fd"
}

# lock NAME: takes the lock, and waits for another run that has it. Then that run's result may exist.
lock() {
  if ! try_lock "$1"; then
    say "waiting for another run of $1 ..."
    flock "$lock_fd"
  fi
}

# make_once LOCK TEST FILE COMMAND...: runs the command, which makes the file, under that lock, unless the file passes the
# test, -f or -x. Has no local variables, because the command would find them in place of the script's.
make_once() {
  if ! test "$2" "$3"; then
    lock "$1"
    # Another run may have made it while this one waited.
    test "$2" "$3" || "${@:4}"
  fi
}

# Prints a path, made absolute with the current folder.
absolute_path() {
  case $1 in
  /*) printf '%s\n' "$1" ;;
  *) printf '%s\n' "$PWD/${1#./}" ;;
  esac
}

# find_program VARIABLE [NAME...]: sets $program to the absolute path of the program whose path this variable of the environment
# holds, and if that is empty, of the first NAME on PATH; a NAME may also be a path. Its status is 1 if there is no such program.
# Fails if the variable holds something else than the path of an executable file: its value is not looked up on PATH.
find_program() {
  local variable=$1 name
  shift
  program=${!variable:-}
  if [[ -n $program ]]; then
    [[ -f $program && -x $program ]] || fail "$variable=$program is not an executable file"
    program=$(absolute_path "$program")
    return
  fi
  for name; do
    # If no file of that name is executable, type prints one that is not.
    if program=$(type -P "$name") && [[ -x $program ]]; then
      program=$(absolute_path "$program")
      return
    fi
  done
  return 1
}

# get_program VARIABLE LOCK FILE COMMAND [NAME...]: sets $program to the absolute path of the program that find_program finds,
# and if there is none, to FILE in .cache, which make_once makes. Prints nothing, because in a command substitution the shell
# would go on after an error of the command.
get_program() {
  if ! find_program "$1" "${@:5}"; then
    make_once "$2" -x "$3" "$4"
    program=$3
  fi
}

# make_work_dir NAME: sets $work to an empty folder beside the results, so that a result is published by rename. The
# folder is removed when the script ends. Folders of killed runs are removed now, which is safe because the caller holds
# the lock of that name.
make_work_dir() {
  have flock && rm -rf "$cache_dir/$1".tmp.*
  work=$(mktemp -d "$cache_dir/$1.tmp.XXXXXX")
  trap 'rm -rf "$work"' EXIT
}

# need_space DIR MIB WHAT: fails if there is too little space, so that a download does not fail in the middle.
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
