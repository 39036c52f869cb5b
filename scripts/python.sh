# shellcheck shell=bash
# Environments with pinned packages of Python; sourced after lib.sh, never run.

# up_to_date STAMP DIGEST: whether the stamp holds the digest of the sources.
up_to_date() {
  [[ -f $1 && $(<"$1") == "$2" ]]
}

# has_packages FOLDER REQUIREMENTS: whether an environment was made with the packages of this list.
has_packages() {
  up_to_date "$1/requirements.stamp" "$(sha256_of "$2")"
}

# make_venv FOLDER REQUIREMENTS [PIP-OPTION...]: makes an environment with the packages of a list.
make_venv() {
  local venv=$1 requirements=$2 digest
  shift 2
  digest=$(sha256_of "$requirements")
  have python3 || fail "python3 (3.11 or newer) is needed, and it is not on PATH"
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "Python 3.11 or newer is needed; python3 is $(python3 -V 2>&1)"
  python3 -c 'import venv, ensurepip' 2>/dev/null ||
    fail "Python's venv module with ensurepip is needed, and python3 has none" "Debian, Ubuntu: apt install python3-venv"
  # shellcheck disable=SC2154  # lib.sh sets it.
  need_space "$cache_dir" 800 "an environment with Python packages"

  say "installing the Python packages of ${requirements#"$repo_root"/} into ${venv#"$repo_root"/} ..."
  local log
  # A venv cannot be renamed into place, because its scripts contain its path. So the stamp is written last, when the
  # venv is complete.
  rm -rf "$venv"
  python3 -m venv "$venv" >&2 || fail "python3 -m venv failed"
  if ! log=$("$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@" \
    --requirement "$requirements" 2>&1); then
    fail "pip could not install the packages of $requirements:" "$log"
  fi
  printf '%s\n' "$digest" >"$venv/requirements.stamp"
}

# Prints the folder of the programs that make packages, of packaging/requirements.txt.
get_packaging_tools() {
  local requirements=$repo_root/packaging/requirements.txt venv=$cache_dir/packaging
  if ! has_packages "$venv" "$requirements"; then
    lock packaging-tools
    # Another run may have made it while this one waited.
    has_packages "$venv" "$requirements" || make_venv "$venv" "$requirements" --only-binary :all:
  fi
  printf '%s\n' "$venv"
}
