#!/usr/bin/env bash
# Runs mixed traffic with everything on for a while, and looks twelve times at what the idle gateway holds: memory, descriptors,
# threads, the files of the usage ledger and of the cache, other files. Fails if any of it grows.
#
#   scripts/soak.sh [MINUTES]          # 60 unless said
#
# The traffic needs about a tenth of a core: clients of several APIs, of the feed and of RunPod's queue, six models that take
# turns in the memory for three, downloads, a certificate that is replaced, a collector of traces that comes and goes.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$repo_root"

minutes=${1:-60}
[[ $minutes =~ ^[1-9][0-9]*$ ]] || fail "$minutes is no number of minutes" "usage: scripts/soak.sh [MINUTES]"
SOAK_SECONDS=$((minutes * 60)) cargo test --test chaos nothing_grows_under_mixed_traffic -- --nocapture
