# shellcheck shell=bash
# Gets packages from the Debian mirror of this system, without root; sourced, never run.

# The keys that sign Debian's packages.
debian_keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# Prints the address of the Debian archive in the system's apt sources: the first enabled binary entry with the
# component main whose suites are neither security nor backports. Reads both formats apt knows.
system_mirror() {
  local etc=/etc/apt
  local -a sources=() lists=()
  shopt -s nullglob
  # The names apt itself reads: *.sources and *.list, so "foo.list.disabled" stays out.
  sources=("$etc"/sources.list.d/*.sources)
  lists=("$etc"/sources.list "$etc"/sources.list.d/*.list)
  shopt -u nullglob

  local file
  for file in "${sources[@]}"; do
    # An empty line ends a stanza; comment lines may stand between fields; a line that begins with a blank continues the
    # previous field.
    awk '
      function flush(  n, uri) {
        enabled = tolower(field["enabled"]) !~ /^(no|false|without|off|disable|0)$/
        if (enabled && (" " field["types"] " ") ~ / deb / && (" " field["components"] " ") ~ / main / &&
            field["suites"] !~ /security|backports/) {
          n = split(field["uris"], uri, " ")
          if (n > 0) print uri[1]
        }
        split("", field)
      }
      /^#/ { next }
      /^[[:space:]]*$/ { flush(); next }
      /^[[:space:]]/ { field[name] = field[name] " " $0; next }
      {
        colon = index($0, ":")
        name = tolower(substr($0, 1, colon - 1))
        value = substr($0, colon + 1)
        gsub(/^[[:space:]]+|[[:space:]]+$/, "", value)
        field[name] = value
      }
      END { flush() }
    ' "$file"
  done
  for file in "${lists[@]}"; do
    [[ -r $file ]] || continue
    # deb [option=value ...] URI SUITE COMPONENT...
    awk '
      { sub(/#.*/, "") }
      $1 == "deb" {
        sub(/^[[:space:]]*deb[[:space:]]+/, "")
        sub(/^\[[^]]*\][[:space:]]*/, "")
        if ($2 !~ /security|backports/ && (" " $0 " ") ~ /[[:space:]]main[[:space:]]/) print $1
      }
    ' "$file"
  done
}

# Prints the address of Debian itself among them, because a third party may also have a component main.
debian_mirror() {
  system_mirror | grep -E '/debian/?$' | head -n 1 || true
}

# write_apt_config FOLDER ARCHITECTURE MIRROR SUITE: writes a configuration into that folder, with which private_apt uses
# only the system's settings (proxies, certificates): separate lists and cache, no installed packages, one source, and
# none of the system's hooks. Fails if it cannot. Its commands are chained, because callers test its status: then errexit is off.
write_apt_config() {
  local apt=$1
  private_apt_config=$apt/apt.conf
  mkdir -p "$apt"/{state,lists/partial,cache/archives/partial} &&
    printf 'deb [signed-by=%s] %s %s main\n' "$debian_keyring" "$3" "$4" >"$apt/sources.list" &&
    cat >"$apt/apt.conf" <<CONFIG
Dir::State "$apt/state";
Dir::State::Lists "$apt/lists";
Dir::State::status "/dev/null";
Dir::Cache "$apt/cache";
Dir::Etc::SourceList "$apt/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
APT::Architecture "$2";
#clear APT::Architectures;
APT::Architectures { "$2"; };
APT::Sandbox::User "$(id -un)";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
Acquire::Retries "3";
Acquire::http::Timeout "60";
CONFIG
}

private_apt() {
  apt-get --config-file="$private_apt_config" --quiet=2 "$@"
}

# install_missing PACKAGE...: installs those of these packages that this system lacks. Says why and fails if it cannot. Needs root.
install_missing() {
  local missing=() package
  for package in "$@"; do
    dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  if ((${#missing[@]} > 0)); then
    say "installing with apt: ${missing[*]} ..."
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet=2 --no-install-recommends "${missing[@]}")
    # The first try usually works; it fails if the package lists are too old.
    "${install[@]}" >/dev/null 2>&1 ||
      { apt-get update --quiet=2 >&2 && "${install[@]}" >/dev/null; } ||
      { say "apt could not install ${missing[*]}"; return 1; }
  fi
}

# make_base SUITE FILE [OPTION...]: makes a minimal root file system as a tar, from the mirror of this system, unless it is there.
# Options are those of mmdebstrap. Says why and fails if it cannot. The caller has made $work.
make_base() {
  local suite=$1 file=$2 mirror validity
  shift 2
  [[ ! -f $file ]] || return 0
  mirror=$(debian_mirror)
  [[ -n $mirror ]] || fail "no Debian mirror in this system's apt sources"
  # The release file of a snapshot mirror has expired; if the host accepts that, so does the base.
  validity=$(apt-config dump Acquire::Check-Valid-Until) || { say "apt-config failed"; return 1; }
  say "making a base from Debian $suite ..."
  # shellcheck disable=SC2154  # The caller has made it.
  printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' "$mirror" "$suite" "$debian_keyring" \
    >"$work/$suite.sources" || return 1
  mkdir -p "$(dirname "$file")" || return 1
  mmdebstrap --quiet --variant=minbase ${validity:+--aptopt="$validity"} "$@" \
    "$suite" "$work/$suite.tar" "$work/$suite.sources" >&2 ||
    { say "mmdebstrap could not make a base from Debian $suite"; return 1; }
  mv "$work/$suite.tar" "$file"
}

# Prints the name of the suite of this system's release. Says why and fails if there is none.
system_suite() {
  local name
  name=$(. /etc/os-release 2>/dev/null && printf '%s' "${VERSION_CODENAME:-}") || true
  [[ -n $name ]] || { say "/etc/os-release does not name this system's release"; return 1; }
  printf '%s\n' "$name"
}

# read_suite SUITE: reads the lists of packages of that suite, for private_apt and unpack_packages. Says why and fails if it
# cannot. The caller has made $work.
read_suite() {
  local suite=$1 tool mirror architecture
  for tool in apt-get dpkg dpkg-deb; do
    have "$tool" || { say "$tool is missing"; return 1; }
  done
  [[ -r $debian_keyring ]] || { say "the package debian-archive-keyring is not installed"; return 1; }
  mirror=$(debian_mirror)
  [[ -n $mirror ]] || { say "there is no Debian mirror in this system's apt sources"; return 1; }
  architecture=$(dpkg --print-architecture) || { say "dpkg does not know the architecture of this system"; return 1; }
  write_apt_config "$work/apt" "$architecture" "$mirror" "$suite" ||
    { say "the configuration for apt could not be written into $work/apt"; return 1; }
  private_apt update >&2 || { say "apt could not read the suite $suite from $mirror"; return 1; }
}

# unpack_packages FOLDER PACKAGE...: downloads these packages of the suite that was read, without those they depend on, and
# unpacks them into that folder. Says why and fails if it cannot. The caller has made $work.
unpack_packages() {
  local folder=$1 deb
  shift
  mkdir -p "$work/debs" "$folder" || return 1
  (cd "$work/debs" && private_apt download "$@" >&2) || { say "apt could not download $*"; return 1; }
  for deb in "$work"/debs/*.deb; do
    dpkg-deb --extract "$deb" "$folder" || { say "dpkg-deb could not unpack $(basename "$deb")"; return 1; }
  done
}

# libraries_of PACKAGE: prints the packages of libraries that this one of the suite depends on, without libc. Their names have
# numbers that differ between releases.
libraries_of() {
  apt-cache --config-file="$private_apt_config" depends "$1" |
    awk '$1 == "Depends:" && $2 ~ /^(lib|zlib)/ && $2 != "libc6" { print $2 }'
}

# Sets $lib_dir to the folder of libraries in Debian's packages for this machine, and $loader to the path of the loader in the
# package of libc. Says why and fails if it does not know them.
find_loader() {
  local arch
  have dpkg || { say "dpkg is missing"; return 1; }
  arch=$(dpkg --print-architecture)
  # The scripts that source this file use them.
  # shellcheck disable=SC2034
  case $arch in
  amd64) lib_dir=usr/lib/x86_64-linux-gnu loader=usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 ;;
  arm64) lib_dir=usr/lib/aarch64-linux-gnu loader=usr/lib/aarch64-linux-gnu/ld-linux-aarch64.so.1 ;;
  *) say "the loader of Debian's packages for $arch is not known here"; return 1 ;;
  esac
}

# write_library_wrapper FILE PROGRAM: writes a program that starts an unpacked one with the libraries beside it. PROGRAM is its
# path in the folder "root" beside FILE.
write_library_wrapper() {
  cat >"$1" <<WRAPPER
#!/bin/sh
# Starts an unpacked program with the libraries beside it. Made by scripts/$(basename "$0").
here=\$(dirname -- "\$(readlink -f -- "\$0")")
LD_LIBRARY_PATH=\$(find "\$here/root" -name '*.so.*' -exec dirname {} + | sort -u | tr '\n' ':')
export LD_LIBRARY_PATH
exec "\$here/root/$2" "\$@"
WRAPPER
  chmod +x "$1"
}
