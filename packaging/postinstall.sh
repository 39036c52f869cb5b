#!/bin/sh
# After the files are there: makes the user and its folder. The service is not started, because it has no model yet; one that
# runs, which means that this is an upgrade, is restarted after its requests.
set -e
# dpkg runs this script for other steps too, such as abort-upgrade; rpm says how many versions there are now.
case "$1" in configure | 1 | 2 | "") ;; *) exit 0 ;; esac

home=/var/lib/llamagate
getent group llamagate >/dev/null || groupadd --system llamagate
getent passwd llamagate >/dev/null ||
  useradd --system --gid llamagate --home-dir "$home" --no-create-home --shell /usr/sbin/nologin llamagate
for folder in "$home" "$home/models"; do
  [ -d "$folder" ] || install -d -o llamagate -g llamagate -m 0750 "$folder"
done

if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
  systemctl try-restart llamagate.service
fi
