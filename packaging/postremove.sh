#!/bin/sh
# After the files are gone. Models, keys and usage in /var/lib/llamagate stay, also after a purge: they are the user's. What
# else there is goes with `apt purge`.
set -e
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
fi
[ "$1" = purge ] || exit 0
rm -rf /var/log/llamagate
rmdir /var/lib/llamagate/models /var/lib/llamagate 2>/dev/null || true
rmdir /etc/llamagate 2>/dev/null || true
# The user stays as long as it has files.
if [ ! -d /var/lib/llamagate ] && getent passwd llamagate >/dev/null; then
  userdel llamagate
fi
