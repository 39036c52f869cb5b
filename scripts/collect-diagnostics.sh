#!/usr/bin/env bash
# Packs the information for a bug report into one tar.gz. Prints its path, and nothing else, on stdout.
#
#   scripts/collect-diagnostics.sh [--output FILE] [--port-health N] [--log-dir DIR]
#
#   --output FILE    write this file, which must not exist yet, or to stdout if it is -; default: a new file in TMPDIR,
#                    /tmp, /dev/shm or the current folder
#   --port-health N  the health port; default: PORT_HEALTH as `llamagate check` shows it
#   --log-dir DIR    the folder of the logs; default: LOG_DIR as `llamagate check` shows it
#
# Run it as the service's user with the service's environment (in a container: docker exec), while the service runs or
# after it has ended. It needs bash 4.4, coreutils, tar and gzip, and curl or openssl if the health port has TLS, but
# neither root nor the network. It takes seconds; a part that hangs is ended, logs after 60 s and any other part after
# 25 s. The archive has a few MiB at most.
#
# The archive contains no secrets. The key file, the configuration file and the environments of processes are not read.
# In the rest these are masked: the values of this shell's variables whose names end in KEY, TOKEN, SECRET, PASSWORD,
# CREDENTIAL or CREDENTIALS; text that looks like a key of llamagate, OpenAI, Hugging Face, RunPod or AWS; private keys
# in PEM; cookies; and values after words such as "Bearer", "api_key:" or "token=". A file that still contains a secret
# is left out.
set -uo pipefail
umask 077
export LC_ALL=C

# Limits: lines and bytes of a log, numbers of logs, bytes of a section, seconds.
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

# Values that must not appear, the longest first, because one may contain another.
secrets=()

learn_secrets() {
  local name part at
  while IFS= read -r name; do
    case ${name^^} in
    *KEY | *TOKEN | *SECRET | *PASSWORD | *CREDENTIAL | *CREDENTIALS) ;;
    *) continue ;;
    esac
    # A value of several lines, such as a PEM key, is masked line by line.
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

# Patterns of secrets, as extended regular expressions: the first group stays, the rest of the match is masked. No
# pattern matches its own result, because a masked value begins with an asterisk.
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
  # Does not match tokens of a model, which are numbers, quoted or in angle brackets.
  "(token$says)[[:digit:]]*[[:alpha:]_:/+-]$in_value{5,}"
  # Cookies are masked up to the end of the line.
  "(cookie[\"']?[[:space:]]*[:=][[:space:]\"']*)\\**[^*[:space:]\"'].*"
  '(://)[^]/@[:space:]*][^]/@[:space:]]*@'
)

# The first and the last line of a private key.
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

# Copies standard input, masked. Only the first line of a private key stays; a key may also be in one line.
mask_input() {
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

# has_secret FILE: whether a file still contains a secret.
has_secret() {
  local text secret shape
  text=$(<"$1")
  for secret in "${secrets[@]}"; do
    [[ $text != *"$secret"* ]] || return 0
  done
  # The other patterns could match a word in one line and a value in another.
  for shape in "${shapes[@]:0:3}" "$key_ends"; do
    [[ ! $text =~ $shape ]] || return 0
  done
  return 1
}

# --- running commands with limits --------------------------------------------------------------------------------

# bounded SECONDS COMMAND...: runs a function or program, and kills it after that time.
bounded() {
  local seconds=$1 job watchdog status
  shift
  "$@" &
  job=$!
  # Reads from a pipe without a writer to wait, because a sleep process could outlive this script.
  { read -rt "$seconds" <> <(:) || kill -KILL "$job"; } >/dev/null 2>&1 &
  watchdog=$!
  wait "$job" 2>/dev/null
  status=$?
  # Not SIGTERM: in the moment after the fork the watchdog still has this script's traps, which remove its folder.
  kill -KILL "$watchdog" 2>/dev/null
  wait "$watchdog" 2>/dev/null
  ((status != 137)) || printf '(ended after %s s)\n' "$seconds"
  return "$status"
}

# show COMMAND...: prints the command, its output and its exit status.
show() {
  printf '$ %s\n' "$*"
  if command -v "$1" >/dev/null; then
    timeout -k 2 "$command_seconds" "$@" </dev/null 2>&1
    printf '(exit status %s)\n\n' "$?"
  else
    printf '(there is no %s)\n\n' "$1"
  fi
}

# show_file FILE...: prints the contents of small files; skips those that do not exist.
show_file() {
  local file
  for file in "$@"; do
    [[ ! -f $file || ! -r $file ]] || printf '%s: %s\n' "$file" "$(timeout 2 head -c 16384 "$file" 2>/dev/null)"
  done
}

# section NAME FUNCTION: writes the function's output, masked, to a file of the archive.
section() {
  bounded "$section_seconds" "$2" 2>&1 | head -c "$section_bytes" | mask_input >"$pack/$1.txt"
}

# --- contents ----------------------------------------------------------------------------------------------------

# Prints the path of the gateway's program: on PATH, beside this script, or that of a running process.
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

# name_of /proc/PID: prints the name of a process.
name_of() {
  local name=
  { IFS= read -r name <"$1/comm"; } 2>/dev/null
  printf '%s\n' "$name"
}

# setting NAME: prints the value of a setting in the output of `llamagate check`; nothing if there is none.
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

# ask PATH: prints what the health port answers, or why it does not.
# The certificate is not checked: the port is one of this machine, no secret is sent, and the certificate may not be for
# the address that is asked.
ask() {
  local address=$host
  [[ $address != *:* ]] || address="[$address]"
  if [[ $health_scheme == http ]]; then
    # shellcheck disable=SC2016
    timeout -k 2 5 bash -c '
      exec 3<>"/dev/tcp/$1/$2" || exit 1
      printf "GET %s HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n" "$3" >&3
      head -c "$4" <&3' ask "$host" "$port_health" "$1" "$section_bytes" 2>&1
  elif command -v curl >/dev/null; then
    timeout -k 2 5 curl -qksSi --http1.1 --noproxy '*' "https://$address:$port_health$1" 2>&1 | head -c "$section_bytes"
  elif command -v openssl >/dev/null; then
    printf 'GET %s HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$1" |
      timeout -k 2 5 openssl s_client -quiet -connect "$address:$port_health" 2>/dev/null | head -c "$section_bytes"
  else
    printf '(the health port has TLS, and there is neither curl nor openssl)\n'
  fi
}

# get PATH: prints the response of the health port, head and body. Asks over TLS if that is what the port speaks.
get() {
  local answer
  answer=$(ask "$1")
  # Not by the code alone: the metrics have it too.
  if [[ $health_scheme == http && $answer == 'HTTP/1.'?' 400 '*tls_required* ]]; then
    health_scheme=https
    answer=$(ask "$1")
  fi
  printf '$ GET %s://%s:%s%s\n%s\n' "$health_scheme" "$host" "$port_health" "$1" "$answer"
  [[ $answer == HTTP/* ]] || printf '(no answer: does the service run? other ports: --port-health N)\n'
  printf '\n'
}

health() {
  get /ping
  get /readyz
  get /health
}

metrics() {
  get '/metrics?format=prometheus'
}

# read_status /proc/PID: sets $status to the fields of the process's status file.
read_status() {
  local key text
  status=()
  while read -r key text; do
    # If the process ends during the read there is an empty line, and an empty subscript would end this shell.
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

# Packs the ends of the newest logs of each folder below LOG_DIR. Their names sort by time.
logs() {
  local folder file name at
  local -a files
  local count=0
  shopt -s nullglob
  for folder in "$log_dir"/*/ "$log_dir"/*/*/; do
    files=("$folder"*.log)
    for ((at = ${#files[@]} - 1; at >= 0 && at >= ${#files[@]} - logs_per_folder; at--)); do
      file=${files[at]}
      # Links are not followed, because they may lead to any file.
      [[ -f $file && ! -L $file && ! -L ${folder%/} ]] || continue
      if ((++count > most_logs)); then
        printf 'more folders are there; %s logs were taken\n' "$most_logs"
        return
      fi
      mask "${file#"$log_dir"/}"
      name=$pack/logs/${masked//[^[:alnum:]._\/-]/_}
      mkdir -p "$(dirname "$name")"
      end_of "$file" | mask_input >"$name" || printf '%s could not be read\n' "$masked"
    done
  done
  ((count > 0)) || printf 'no logs were found below %s\n' "${log_dir:-LOG_DIR}"
}

# end_of FILE: prints the last lines, only whole ones, because a part of a secret cannot be recognised.
end_of() {
  local size
  size=$(timeout -k 2 "$command_seconds" tail -n "$log_lines" "$1" 2>/dev/null | head -c $((64 * log_bytes)) | wc -c)
  timeout -k 2 "$command_seconds" tail -n "$log_lines" "$1" | tail -c "$log_bytes" | {
    ((size <= log_bytes)) || IFS= read -r _
    cat
  }
}

# --- main --------------------------------------------------------------------------------------------------------

# Sets $archive to a new file that only its owner can read; empty for stdout.
open_archive() {
  local folder
  if [[ $output == - ]]; then
    [[ ! -t 1 ]] || fail "an archive cannot be written to a terminal: use --output FILE"
    archive=
    return
  elif [[ -n $output ]]; then
    archive=$output
    (set -o noclobber && : >"$archive") 2>/dev/null || fail "$output exists already, or cannot be written"
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
health_scheme=http
[[ $(setting TLS_HEALTH) != true && ${TLS_HEALTH:-} != true ]] || health_scheme=https
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
# The function logs calls mask for file names, outside of mask_input; there patterns are case-sensitive.
masked=
bounded "$log_seconds" logs >"$work/about-logs"
mask_input <"$work/about-logs" >>"$pack/contents.txt"

shopt -s globstar nullglob
for file in "$pack"/**; do
  [[ -f $file ]] || continue
  if has_secret "$file"; then
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
printf '%s\n' "check the archive before you share it: llama-server's logs are in it, and only recognised secrets are masked" >&2
[[ -z $archive ]] || printf '%s\n' "$archive"
