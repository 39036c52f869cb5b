#!/usr/bin/env bash
# Builds the packages and tests them: the .deb and the .rpm in roots of their own, the wheel in a virtual environment. Ends with
# "N passed, N failed".
#
#   scripts/test-packages.sh [PROFILE]
#
# PROFILE is release by default; dev is faster to build. Needs root on Debian or a derivative, because packages are installed in a
# root file system made with mmdebstrap. It is kept in .cache/packages/; delete that folder to make a new one. Services are not
# started by systemd, which does not run there, but as the unit says: by that user, with that environment.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/debian.sh
. "$(dirname "$0")/debian.sh"
# shellcheck source=scripts/checks.sh
. "$(dirname "$0")/checks.sh"
cd "$repo_root"

profile=${1:-release}
target=${CARGO_TARGET_DIR:-target}
base=$cache_dir/packages/bookworm.tar
start_deadline=60 # seconds until the service serves

# inside COMMAND...: runs a command in the root, with a /proc of its own. What it leaves running is ended with it.
inside() {
  unshare --mount --pid --fork --kill-child --mount-proc="$root/proc" chroot "$root" /usr/bin/env -i \
    PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"
}

# new_root NAME: makes a fresh root file system.
new_root() {
  root=$work/$1
  mkdir "$root"
  tar --extract --file "$base" --directory "$root"
}

mode_of() { inside stat --format '%U:%G %a' "$1"; }

# --- what is installed --------------------------------------------------------------------------------------------

the_files_are_there() {
  local version
  version=$(crate_version)
  check "$1: llamagate runs" is "llamagate $version" inside llamagate --version
  check "$1: keyctl runs" is "keyctl $version" inside keyctl --version
  check "$1: only root reads the settings" is "root:root 600" mode_of /etc/llamagate/llamagate.env
  check "$1: the folder belongs to the user" is "llamagate:llamagate 750" mode_of /var/lib/llamagate
  check "$1: the user cannot log in" is /usr/sbin/nologin inside sh -c "getent passwd llamagate | cut -d : -f 7"
  check "$1: the unit starts the installed program" inside grep -q '^ExecStart=/usr/bin/llamagate serve$' \
    /usr/lib/systemd/system/llamagate.service
  check "$1: there are manual pages" inside test -s /usr/share/man/man1/llamagate-serve.1.gz
  check "$1: there are completions" inside test -s /usr/share/bash-completion/completions/llamagate
}

the_deb_works() {
  new_root deb
  cp "$deb" "$root/tmp/llamagate.deb"
  check "deb: it installs" inside dpkg --install /tmp/llamagate.deb
  the_files_are_there deb
  check "deb: the settings are a conffile" inside sh -c "dpkg-query --show --showformat='\${Conffiles}' llamagate | grep -q llamagate.env"
  mkdir -p "$root/opt/llama-server"
  cp -a "$cache_dir/llama-server/." "$root/opt/llama-server"
  inside install -o llamagate -g llamagate -m 0640 /dev/stdin /var/lib/llamagate/models/tiny-chat.gguf <"$models/tiny-chat.gguf"
  cp tests/deploy/serve_installed.sh "$root/tmp"
  check "deb: the service serves, and stops with status 0" inside /tmp/serve_installed.sh "$start_deadline"
  inside sh -c 'echo "# mine" >>/etc/llamagate/llamagate.env'
  check "deb: it installs again, as an upgrade does" inside dpkg --install /tmp/llamagate.deb
  check "deb: an upgrade keeps changed settings" inside grep -q '^# mine$' /etc/llamagate/llamagate.env
  check "deb: it is removed" inside dpkg --remove llamagate
  check "deb: the programs are gone" not inside test -e /usr/bin/llamagate
  check "deb: the settings stay" inside test -e /etc/llamagate/llamagate.env
  check "deb: it is purged" inside dpkg --purge llamagate
  check "deb: a purge removes the settings" not inside test -e /etc/llamagate
  check "deb: a purge removes the logs" not inside test -e /var/log/llamagate
  check "deb: models stay" inside test -e /var/lib/llamagate/models/tiny-chat.gguf
  check "deb: their owner stays" inside getent passwd llamagate
  inside rm -r /var/lib/llamagate
  check "deb: it installs once more" inside dpkg --install /tmp/llamagate.deb
  check "deb: it is purged once more" inside dpkg --purge llamagate
  check "deb: without files of its own, nothing stays" not inside getent passwd llamagate
}

# On Debian, whose rpm has a database of its own: dependencies are not looked up.
the_rpm_works() {
  new_root rpm
  cp "$rpm" "$root/tmp/llamagate.rpm"
  check "rpm: it installs" inside rpm --install --nodeps /tmp/llamagate.rpm
  the_files_are_there rpm
  check "rpm: the settings are configuration" inside sh -c "rpm --query --configfiles llamagate | grep -q llamagate.env"
  check "rpm: it is removed" inside rpm --erase --nodeps llamagate
  check "rpm: the programs are gone" not inside test -e /usr/bin/llamagate
}

the_wheel_works() {
  check "wheel: a virtual environment is made" python3 -m venv "$work/venv"
  check "wheel: it installs" "$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-index "$wheel"
  check "wheel: llamagate runs" "$work/venv/bin/llamagate" --version
  check "wheel: keyctl runs" "$work/venv/bin/keyctl" --version
  check "wheel: it brings no other program" is 2 sh -c "'$work/venv/bin/pip' show --files llamagate | grep -c '/bin/'"
  check "wheel: it is removed" "$work/venv/bin/pip" uninstall --quiet --yes llamagate
  check "wheel: nothing is left" not test -e "$work/venv/bin/llamagate"
}

((EUID == 0)) || fail "packages are installed in a root file system, which only root may do"
lock test-packages
make_work_dir test-packages
install_missing mmdebstrap
models=$(scripts/get-test-models.sh)
scripts/get-llama-server.sh >/dev/null
[[ -x $cache_dir/llama-server/llama-server ]] || fail "the llama-server of the tests is needed in .cache/llama-server"

started_at=$SECONDS
cargo build --locked --profile "$profile" --bin llamagate --bin keyctl
built=$target/${profile/#dev/debug}
scripts/build-packages.sh "$built" "$work/packages" >/dev/null
deb=$(ls "$work"/packages/*.deb) rpm=$(ls "$work"/packages/*.rpm)
wheel=$(scripts/build-wheel.sh "$work/packages" --profile "$profile")
say "built in $((SECONDS - started_at)) s: $(basename "$deb"), $(basename "$rpm"), $(basename "$wheel")"
make_base bookworm "$base" --include=rpm

the_deb_works
the_rpm_works
the_wheel_works

end_checks
