#!/bin/sh
# Starts the installed service as its unit does, asks it something, and stops it. scripts/test-packages.sh runs this in a root file
# system with the package, a model and a llama-server.
#
#   serve_installed.sh SECONDS: the time that it may take until it serves
set -eu
deadline=$1
# What runs a program as the unit does.
set -- setpriv --reuid llamagate --regid llamagate --init-groups --no-new-privs --bounding-set=-all

"$@" keyctl --file /var/lib/llamagate/api_keys.txt generate --name test >/tmp/key
LLAMAGATE_KEY=$(grep '^sk-' /tmp/key)
export LLAMAGATE_KEY
set -a
# shellcheck source=packaging/llamagate.env
. /etc/llamagate/llamagate.env
set +a
export DATA_DIR=/var/lib/llamagate LOG_DIR=/var/log/llamagate PORT=0 PORT_HEALTH=0 NGL=0 MODEL_NAME=tiny-chat.gguf
export LLAMA_SERVER=/opt/llama-server/llama-server
install -d -o llamagate -g llamagate -m 0750 "$LOG_DIR"

"$@" llamagate serve >/tmp/log 2>&1 &
service=$!
waited=0
until grep -q 'llamagate is ready' /tmp/log; do
  waited=$((waited + 1))
  if [ "$waited" -gt "$((deadline * 10))" ] || ! kill -0 "$service"; then
    cat /tmp/log
    exit 1
  fi
  sleep 0.1
done
port=$(sed -n 's|.*gateway listens on http://127.0.0.1:\([0-9]*\).*|\1|p' /tmp/log)
"$@" llamagate chat --url "http://127.0.0.1:$port" --max-tokens 8 --json tiny-chat Hello </dev/null
kill "$service"
wait "$service"
