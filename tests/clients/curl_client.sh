#!/usr/bin/env bash
# Uses a gateway through curl: curl_client.sh BASE_URL API_KEY      BASE_URL ends in /v1.
set -euo pipefail
base_url=$1 key=$2

fail() {
  printf 'curl_client.sh: %s\n' "$@" >&2
  exit 1
}

# chat STREAM [OPTION...]: prints the response; curl's exit status is not 0 if the response is an error or was cut.
chat() {
  local stream=$1
  shift
  curl --silent --show-error --fail-with-body --max-time 60 "$@" "$base_url/chat/completions" \
    --header "Authorization: Bearer $key" --header "Content-Type: application/json" --data \
    '{"messages": [{"role": "user", "content": "Tell me something."}], "max_tokens": 8, "temperature": 0, "stream": '"$stream"'}'
}

answer=$(chat false) || fail "the question failed:" "$answer"
[[ $answer == *'"chat.completion"'* && $answer == *'"content":"'?* && $answer != *'"content":""'* ]] ||
  fail "the answer has no content:" "$answer"

events=$(chat true -N) || fail "the stream failed:" "$events"
(($(grep -c '^data: {' <<<"$events") > 2)) || fail "not streamed:" "$events"
[[ $(grep -v '^$' <<<"$events" | tail -n 1) == 'data: [DONE]' ]] || fail "the stream does not end in [DONE]:" "$events"
