#!/bin/sh
# Before the files go: stops the service, unless a newer version takes their place.
set -e
# Debian says remove or upgrade; rpm says how many versions will be left.
case "$1" in remove | 0) ;; *) exit 0 ;; esac
if [ -d /run/systemd/system ]; then
  systemctl disable --now llamagate.service
fi
