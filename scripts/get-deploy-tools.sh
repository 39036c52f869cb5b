#!/usr/bin/env bash
# Prints the folder of the programs that check deploy/, the workflows, the licences and the book, and nothing else, on stdout:
# an environment of Python with the packages of tests/deploy/requirements.txt, in .cache/deploy. It is made again when that
# list changes; otherwise the script returns at once. Some packages are there for few kinds of machines; where they are not to
# be had, the script says so and fails.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/python.sh
. "$(dirname "$0")/python.sh"

requirements=$repo_root/tests/deploy/requirements.txt
venv=$cache_dir/deploy

if ! has_packages "$venv" "$requirements"; then
  lock get-deploy-tools
  # Another run may have made it while this one waited.
  if ! has_packages "$venv" "$requirements"; then
    make_venv "$venv" "$requirements" --only-binary :all:
    # Helm's package has its library three times, in place of links: 85 MB each.
    for library in "$venv"/lib/python3*/site-packages/helm_python/lib/libhelm_c.so.*.*; do
      ln -f "$library" "${library%.so.*}.so"
      ln -f "$library" "${library%.so.*}.so.0"
    done
  fi
fi
printf '%s\n' "$venv"
