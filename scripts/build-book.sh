#!/usr/bin/env bash
# Builds the documents as a book, and checks its links. Prints its folder, and nothing else, on stdout.
#
#   scripts/build-book.sh [OUTPUT]
#
# OUTPUT is target/book by default, and is replaced. The pages lie in the book as in the repository, so that their links to each
# other hold in both.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$repo_root"

output=${1:-target/book}
tools=$(scripts/get-deploy-tools.sh)
lock build-book
make_work_dir build-book

# What the book shows, and what its pages link to.
cp book/book.toml "$work"
mkdir "$work/src"
git ls-files -z -- '*.md' ':!tests' ':!book' docs deploy docker .env.example api_keys.txt.example LICENSE docker-compose.yml \
  scripts src/fuzzing .runpod | xargs -0 cp --parents --no-dereference --target-directory "$work/src"
cp book/SUMMARY.md "$work/src"

"$tools/bin/mdbook" build "$work" >&2 || fail "mdbook could not build the book"
"$tools/bin/python" tests/deploy/check_book.py "$work/book" "$work/src" >&2
rm -rf "$output"
mkdir -p "$(dirname "$output")"
mv "$work/book" "$output"
printf '%s\n' "$output"
