#!/usr/bin/env bash
# Prints the path of a Chromium that runs on this machine, and nothing else, on stdout.
#
#   1. $CHROMIUM, if it is set;
#   2. chromium, chromium-browser or google-chrome on PATH;
#   3. on Debian, as root: the package of this system, installed with apt-get. It has too many libraries to unpack beside it.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/debian.sh
. "$(dirname "$0")/debian.sh"

# The browser, and letters for it.
packages=(chromium fonts-dejavu-core)
names=(chromium chromium-browser google-chrome)

give_up() {
  fail "$1" "Install Chromium with the package manager of this system and run this again, or set CHROMIUM to its path"
}

if ! find_program CHROMIUM "${names[@]}"; then
  have apt-get || give_up "no Chromium: CHROMIUM is not set, none is installed, and apt-get is missing"
  ((EUID == 0)) || give_up "no Chromium: CHROMIUM is not set, none is installed, and only root may install one"
  need_space / 700 "installing Chromium"
  lock get-chromium
  install_missing "${packages[@]}" || give_up "no Chromium: CHROMIUM is not set, none is installed, and its package cannot be had"
  find_program CHROMIUM "${names[@]}" || give_up "apt-get has installed Chromium, and it is not on PATH"
fi
printf '%s\n' "$program"
