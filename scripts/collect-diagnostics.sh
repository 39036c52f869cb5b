#!/usr/bin/env bash
# Packs what is needed to look into a fault into one tar.gz, and prints its path, and nothing else, on stdout.
#
#   scripts/collect-diagnostics.sh [--output FILE] [--port-health N] [--log-dir DIR]
#
#   --output FILE    write this file, which must not exist yet, or to stdout if it is -; else a new file in TMPDIR, /tmp,
#                    /dev/shm or the current folder
#   --port-health N  ask this port; else PORT_HEALTH as `llamagate check` finds it
#   --log-dir DIR    take the logs below this folder; else LOG_DIR as `llamagate check` finds it
#
# Run it as the service's user with the service's environment (in a container: docker exec), while the service runs or
# after it has ended. It needs bash 4.4, coreutils, tar and gzip, and neither root nor the network. It takes seconds; what
# hangs is given up, logs after 60 and anything else after 25. It leaves a few MiB at most.
#
# No secret goes in: neither the key file, nor an environment, nor the configuration file is read. From what goes in,
# these are masked: the values of this shell's variables whose names end in KEY, TOKEN, SECRET, PASSWORD, CREDENTIAL or
# CREDENTIALS; whatever looks like a key of llamagate, OpenAI, Hugging Face, RunPod or AWS; private keys in PEM; cookies;
# and whatever stands behind words such as "Bearer", "api_key:" or "token=". A file in which a secret is left after that
# is left out.
set -uo pipefail
umask 077
export LC_ALL=C

# What bounds it.
readonly log_lines=500 log_bytes=$((256 * 1024)) logs_per_folder=2 most_logs=24 section_bytes=$((1024 * 1024))
readonly command_seconds=10 section_seconds=25 log_seconds=60

usage() {
  local line
  while IFS= read -r line; do
    [[ $line == '#'* ]] || break
    [[ $line == '#!'* ]] || { line=${line#'#'} && printf '%s\n' "${line# }"; }
  done <"$0"
}

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

output='' port_health='' log_dir=''
while (($# > 0)); do
  case $1 in
  --output | --port-health | --log-dir)
    (($# > 1)) || fail "$1 needs a value"
    case $1 in
    --output) output=$2 ;;
    --port-health) port_health=$2 ;;
    --log-dir) log_dir=$2 ;;
    esac
    shift 2
    ;;
  -h | --help) usage && exit ;;
  *) fail "unknown argument: $1; see --help" ;;
  esac
done
[[ -z $port_health || ($port_health =~ ^[1-9][0-9]{0,4}$ && $port_health -le 65535) ]] ||
  fail "--port-health must be a number from 1 to 65535"
for tool in tar gzip timeout tail head mktemp; do
  command -v "$tool" >/dev/null || fail "$tool is missing"
done

# --- secrets -----------------------------------------------------------------------------------------------------

# Values that must not appear, the longest first: one may hold another.
secrets=()

learn_secrets() {
  local name part at
  while IFS= read -r name; do
    case ${name^^} in
    *KEY | *TOKEN | *SECRET | *PASSWORD | *CREDENTIAL | *CREDENTIALS) ;;
    *) continue ;;
    esac
    # A value of several lines, such as a PEM key, is found line by line.
    while IFS= read -r part || [[ -n $part ]]; do
      ((${#part} >= 6)) || continue
      for ((at = ${#secrets[@]}; at > 0; at--)); do
        ((${#secrets[at - 1]} < ${#part})) || break
        secrets[at]=${secrets[at - 1]}
      done
      secrets[at]=$part
    done <<<"${!name-}"
  done < <(compgen -e)
}

# What a secret looks like, as extended regular expressions: the first group stays, the rest of the match is masked.
# None matches what it has made, for a masked value begins with an asterisk.
readonly in_value='[^]*[:space:]"'\'',;)}]'
readonly value="$in_value$in_value*"
readonly says='["'\'']?[[:space:]]*[:=][[:space:]]*["'\'']?'
readonly names='key|token|secret|password|credentials?'
readonly shapes=(
  '(^|[^[:alnum:]])(sk-|hf_|rpa_|github_pat_|ghp_|glpat-)[[:alnum:]_-]{12,}'
  '(^|[^[:alnum:]])gateway-[[:alnum:]_-]{40,}'
  '(^|[^[:alnum:]])(AKIA|ASIA)[[:alnum:]]{16,}'
  '((bearer|basic)[[:space:]]+)'"$value"
  "((authorization|(api|access)[ _-]?key|password|secret|credentials?|(hf|access|auth|refresh)[_-]?token)$says)$value"
  "([_-]($names)[\"']?=[\"']?)$value"
  "(--[[:alnum:]-]*($names)[[:space:]]+[\"']?)$value"
  '(password[[:space:]]+is[[:space:]]+["'\'']?)'"$value"
  # Tokens that a model reads and writes have numbers, and are quoted or in angle brackets.
  "(token$says)[[:digit:]]*[[:alpha:]_:/+-]$in_value{5,}"
  # Cookies follow each other up to the end of the line.
  "(cookie[\"']?[[:space:]]*[:=][[:space:]\"']*)\\**[^*[:space:]\"'].*"
  '(://)[^]/@[:space:]*][^]/@[:space:]]*@'
)

# The first line of a private key, and its last.
readonly key_begins='-----BEGIN [[:alnum:] ]*PRIVATE KEY[[:alnum:] ]*-----'
readonly key_ends='-----END [[:alnum:] ]*PRIVATE KEY[[:alnum:] ]*-----'

# Sets $masked to the text without secrets.
mask() {
  local secret shape
  masked=$1
  for secret in "${secrets[@]}"; do
    [[ $masked != *"$secret"* ]] || masked=${masked//"$secret"/'***'}
  done
  for shape in "${shapes[@]}"; do
    while [[ $masked =~ $shape ]]; do
      masked=${masked/"${BASH_REMATCH[0]}"/"${BASH_REMATCH[1]}***"}
    done
  done
}

# Copies standard input, masked. Of a private key only the first line stays; all of it may be in one line too.
masking() {
  local line whole before in_key=false
  shopt -s nocasematch
  while IFS= read -r line || [[ -n $line ]]; do
    whole=$line before=
    while true; do
      if $in_key; then
        [[ $line =~ $key_ends ]] || break
        in_key=false
      else
        [[ $line =~ $key_begins ]] || break
        in_key=true before+=${line%%"${BASH_REMATCH[0]}"*}${BASH_REMATCH[0]}'***'
      fi
      line=${line#*"${BASH_REMATCH[0]}"}
    done
    ! $in_key || line=
    mask "$before$line"
    [[ -z $masked && -n $whole ]] || printf '%s\n' "$masked"
  done
  shopt -u nocasematch
}

# Whether a secret is left in a file.
betrays() {
  local text secret shape
  text=$(<"$1")
  for secret in "${secrets[@]}"; do
    [[ $text != *"$secret"* ]] || return 0
  done
  # Of the other shapes words and values may stand in different lines.
  for shape in "${shapes[@]:0:3}" "$key_ends"; do
    [[ ! $text =~ $shape ]] || return 0
  done
  return 1
}

# --- running things within bounds --------------------------------------------------------------------------------

# bounded SECONDS COMMAND...: runs a function or program, and ends it when its time is over.
bounded() {
  local seconds=$1 job watchdog status
  shift
  "$@" &
  job=$!
  # Nothing ever comes through this pipe: a sleep that is a process of its own would outlive us.
  { read -rt "$seconds" <> <(:) || kill -KILL "$job"; } >/dev/null 2>&1 &
  watchdog=$!
  wait "$job" 2>/dev/null
  status=$?
  kill "$watchdog" 2>/dev/null
  wait "$watchdog" 2>/dev/null
  ((status != 137)) || printf '(ended after %s s)\n' "$seconds"
  return "$status"
}

# show COMMAND...: a heading, what the program prints, and its exit status.
show() {
  printf '$ %s\n' "$*"
  if command -v "$1" >/dev/null; then
    timeout -k 2 "$command_seconds" "$@" </dev/null 2>&1
    printf '(exit status %s)\n\n' "$?"
  else
    printf '(there is no %s)\n\n' "$1"
  fi
}

# show_file FILE...: what small files hold, those that are there.
show_file() {
  local file
  for file in "$@"; do
    [[ ! -f $file || ! -r $file ]] || printf '%s: %s\n' "$file" "$(timeout 2 head -c 16384 "$file" 2>/dev/null)"
  done
}

# section NAME FUNCTION: what the function prints becomes a file of the archive.
section() {
  bounded "$section_seconds" "$2" 2>&1 | head -c "$section_bytes" | masking >"$pack/$1.txt"
}

# --- what goes in ------------------------------------------------------------------------------------------------

# The gateway's program: on PATH, beside this script, or the one that runs.
find_llamagate() {
  local here candidate
  here=$(cd "$(dirname "$0")" && pwd -P)
  for candidate in "$(command -v llamagate)" "$here/llamagate" "$here/../target/release/llamagate"; do
    [[ ! -x $candidate ]] || { printf '%s\n' "$candidate" && return; }
  done
  for candidate in /proc/[0-9]*; do
    [[ $(name_of "$candidate") != llamagate || ! -x $candidate/exe ]] || { printf '%s\n' "$candidate/exe" && return; }
  done
}

# name_of /proc/PID
name_of() {
  local name=
  { IFS= read -r name <"$1/comm"; } 2>/dev/null
  printf '%s\n' "$name"
}

# setting NAME: its value in the output of `llamagate check`, empty if there is none.
setting() {
  local name text
  while read -r name text; do
    [[ $name == "$1" ]] || continue
    text=${text% (*}
    text=${text%"${text##*[![:space:]]}"}
    [[ $text == - ]] || printf '%s\n' "$text"
    return
  done <<<"$checked"
}

versions() {
  local name
  show "${llamagate:-llamagate}" --version
  show "$(setting LLAMA_SERVER)" --version
  show uname -a
  show_file /etc/os-release /proc/1/comm /proc/sys/kernel/osrelease
  printf 'bash: %s\nuser: %s, groups: %s\n' "$BASH_VERSION" "$UID" "${GROUPS[*]}"
  for name in /.dockerenv /run/.containerenv /run/systemd/system /runpod-volume /workspace /data; do
    [[ ! -e $name ]] || printf 'there is %s\n' "$name"
  done
  printf 'variables of platforms, names only:'
  while IFS= read -r name; do
    case $name in
    RUNPOD_* | VAST_* | CONTAINER_ID | PUBLIC_IPADDR | KUBERNETES_* | NVIDIA_* | CUDA_* | container) printf ' %s' "$name" ;;
    esac
  done < <(compgen -e)
  printf '\n'
}

settings() {
  if [[ -n $llamagate ]]; then
    printf '$ llamagate check\n%s\n' "$checked"
  else
    printf '(no llamagate was found: put it on PATH)\n'
  fi
}

# get PATH: the answer of the health port, head and body.
get() {
  printf '$ GET http://%s:%s%s\n' "$host" "$port_health" "$1"
  # shellcheck disable=SC2016
  timeout -k 2 5 bash -c '
    exec 3<>"/dev/tcp/$1/$2" || exit 1
    printf "GET %s HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n" "$3" >&3
    head -c "$4" <&3' get "$host" "$port_health" "$1" "$section_bytes" 2>&1 ||
    printf '(no answer: does the service run? other ports: --port-health N)\n'
  printf '\n\n'
}

health() {
  get /ping
  get /readyz
  get /health
}

metrics() {
  get '/metrics?format=prometheus'
}

# Sets $status to what /proc says of a process, field by field.
read_status() {
  local key text
  status=()
  while read -r key text; do
    # A process that ends meanwhile has an empty line, and an empty subscript ends this shell.
    [[ -z $key ]] || status[${key%:}]=$text
  done 2>/dev/null <"$1/status"
  ((${#status[@]} > 0))
}

processes() {
  local -A status parent=() wanted=()
  local -a argv
  local folder pid ancestor
  for folder in /proc/[0-9]*; do
    read_status "$folder" || continue
    pid=${folder#/proc/}
    parent[$pid]=${status[PPid]:-0}
    [[ ${status[Name]:-} != llamagate ]] || wanted[$pid]=gateway
  done
  for pid in "${!parent[@]}"; do
    ancestor=$pid
    while ((ancestor > 1)) && [[ -z ${wanted[$ancestor]:-} ]]; do
      ancestor=${parent[$ancestor]:-0}
    done
    [[ -z ${wanted[$ancestor]:-} ]] || wanted[$pid]=${wanted[$pid]:-child}
  done
  ((${#wanted[@]} > 0)) || printf '(no process is called llamagate)\n'
  for pid in "${!wanted[@]}"; do
    read_status "/proc/$pid" || continue
    argv=()
    mapfile -d '' -t argv 2>/dev/null <"/proc/$pid/cmdline"
    printf '%s: pid %s, parent %s, user %s, state %s, threads %s, resident %s, peak %s\n  %s\n' \
      "${wanted[$pid]}" "$pid" "${parent[$pid]}" "${status[Uid]:-?}" "${status[State]:-?}" "${status[Threads]:-?}" \
      "${status[VmRSS]:-?}" "${status[VmHWM]:-?}" "${argv[*]}"
    [[ ${wanted[$pid]} != gateway ]] || show_file "/proc/$pid/limits" "/proc/$pid/oom_score_adj" "/proc/$pid/cgroup"
  done
}

limits() {
  printf '$ ulimit -a\n%s\n\n' "$(ulimit -a)"
  show_file /proc/self/cgroup
  show_file /sys/fs/cgroup/{cpu.max,cpu.stat,cpuset.cpus.effective,memory.max,memory.high,memory.current,memory.peak} \
    /sys/fs/cgroup/{memory.swap.max,memory.events,pids.max,pids.current,io.pressure,memory.pressure,cpu.pressure} \
    /sys/fs/cgroup/cpu/cpu.cfs_{quota,period}_us /sys/fs/cgroup/memory/memory.{limit,usage}_in_bytes
  show nproc
  show_file /proc/loadavg /proc/sys/fs/file-nr /proc/sys/vm/overcommit_memory
}

memory_and_disk() {
  local folder
  show_file /proc/meminfo
  for folder in "$(setting DATA_DIR)" "$(setting MODELS_DIR)" "$log_dir" /tmp /dev/shm; do
    [[ -z $folder ]] || show df -PTh "$folder"
  done
}

gpus() {
  show nvidia-smi
  local fields=index,name,driver_version,compute_cap,memory.total,memory.used,memory.free,utilization.gpu
  fields+=,temperature.gpu,power.draw,pstate,ecc.errors.uncorrected.volatile.total
  show nvidia-smi --query-gpu="$fields" --format=csv
  show_file /proc/driver/nvidia/version
  printf 'devices:'
  printf ' %s' /dev/nvidia* /dev/dri/*
  printf '\n'
}

# The ends of the newest logs of each folder below LOG_DIR. Their names sort by time.
logs() {
  local folder file name at
  local -a files
  local count=0
  shopt -s nullglob
  for folder in "$log_dir"/*/ "$log_dir"/*/*/; do
    files=("$folder"*.log)
    for ((at = ${#files[@]} - 1; at >= 0 && at >= ${#files[@]} - logs_per_folder; at--)); do
      file=${files[at]}
      # A link may lead to anything.
      [[ -f $file && ! -L $file && ! -L ${folder%/} ]] || continue
      if ((++count > most_logs)); then
        printf 'more folders are there; %s logs were taken\n' "$most_logs"
        return
      fi
      mask "${file#"$log_dir"/}"
      name=$pack/logs/${masked//[^[:alnum:]._\/-]/_}
      mkdir -p "$(dirname "$name")"
      end_of "$file" | masking >"$name" || printf '%s could not be read\n' "$masked"
    done
  done
  ((count > 0)) || printf 'no logs were found below %s\n' "${log_dir:-LOG_DIR}"
}

# The last lines, whole ones only: half a secret cannot be recognised.
end_of() {
  local size
  size=$(timeout -k 2 "$command_seconds" tail -n "$log_lines" "$1" 2>/dev/null | head -c $((64 * log_bytes)) | wc -c)
  timeout -k 2 "$command_seconds" tail -n "$log_lines" "$1" | tail -c "$log_bytes" | {
    ((size <= log_bytes)) || IFS= read -r _
    cat
  }
}

# --- doing it ----------------------------------------------------------------------------------------------------

# Sets $archive to a new file that only its owner can read.
open_archive() {
  local folder
  if [[ $output == - ]]; then
    [[ ! -t 1 ]] || fail "an archive is nothing for a terminal: --output FILE"
    archive=
    return
  elif [[ -n $output ]]; then
    archive=$output
    (set -o noclobber && : >"$archive") 2>/dev/null || fail "$output is there already, or cannot be written"
    return
  fi
  for folder in "${TMPDIR:-/tmp}" /tmp /dev/shm .; do
    archive=$(mktemp "$folder/llamagate-diagnostics-$(date -u +%Y%m%d_%H%M%S)-XXXXXX.tar.gz" 2>/dev/null) && return
  done
  fail "no folder can be written; name a file with --output"
}

open_archive
work=$(mktemp -d 2>/dev/null || mktemp -d "${archive:-/dev/shm/llamagate-diagnostics}.XXXXXX" 2>/dev/null) ||
  fail "no temporary folder can be made; set TMPDIR"
packed=false
trap 'rm -rf "$work"; $packed || [[ -z $archive ]] || rm -f "$archive"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
pack=$work/llamagate-diagnostics
mkdir -p "$pack/logs"

learn_secrets
llamagate=$(bounded "$command_seconds" find_llamagate)
checked=
if [[ -n $llamagate ]]; then
  checked=$(timeout -k 2 "$command_seconds" "$llamagate" check </dev/null 2>&1)
  checked+=$'\n'"(exit status $?)"
fi
[[ -n $port_health ]] || port_health=$(setting PORT_HEALTH)
[[ -n $port_health ]] || port_health=${PORT_HEALTH:-8001}
[[ -n $log_dir ]] || log_dir=$(setting LOG_DIR)
[[ -n $log_dir ]] || log_dir=${LOG_DIR:-${DATA_DIR:+$DATA_DIR/logs}}
log_dir=${log_dir%/}
host=$(setting HOST)
case $host in
'' | 0.0.0.0) host=127.0.0.1 ;;
::) host=::1 ;;
esac

section versions versions
section settings settings
section health health
section metrics metrics
section processes processes
section limits limits
section memory-and-disk memory_and_disk
section gpu gpus
# Set here too: names of files are masked, though case matters there.
masked=
bounded "$log_seconds" logs >"$work/about-logs"
masking <"$work/about-logs" >>"$pack/contents.txt"

shopt -s globstar nullglob
for file in "$pack"/**; do
  [[ -f $file ]] || continue
  if betrays "$file"; then
    rm -f "$file"
    printf 'left out, because a secret was still in it: %s\n' "${file#"$pack"/}" >>"$pack/contents.txt"
  else
    printf '%s\n' "${file#"$pack"/}" >>"$pack/contents.txt"
  fi
done

if [[ -z $archive ]]; then
  tar -C "$work" -cf - llamagate-diagnostics | gzip || fail "the archive could not be written"
else
  tar -C "$work" -cf - llamagate-diagnostics | gzip >"$archive" || fail "the archive could not be written: $archive"
fi
packed=true
printf '%s\n' "look into it before you hand it on: llama-server's own words are in it; secrets are masked as far as they show" >&2
[[ -z $archive ]] || printf '%s\n' "$archive"
