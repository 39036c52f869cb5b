# shellcheck shell=bash
# Checks that are counted and printed one by one; sourced by scripts that test what was built, never run.

passed=0
failed=0

# check TITLE COMMAND...: runs a check, counts and prints its result. Prints the last lines of its output if it fails.
check() {
  local title=$1 output
  shift
  if output=$("$@" 2>&1); then
    passed=$((passed + 1))
    printf 'ok      %s\n' "$title"
  else
    failed=$((failed + 1))
    printf 'FAILED  %s\n' "$title"
    [[ -z $output ]] || printf '%s\n' "$output" | tail -n 15 | sed 's/^/          /'
  fi
}

# is EXPECTED COMMAND...: whether the command prints exactly this on stdout. What it prints on stderr is no part of the
# comparison, and is shown if the check fails.
is() {
  local expected=$1 found
  shift
  found=$("$@") || true
  [[ $found == "$expected" ]] || { printf 'expected %s, found %s\n' "$expected" "$found" && return 1; }
}

# not COMMAND...: whether the command fails.
not() { ! "$@"; }

# end_checks: prints "N passed, N failed". Its status is 1 if a check has failed.
end_checks() {
  printf '%d passed, %d failed\n' "$passed" "$failed"
  ((failed == 0))
}
