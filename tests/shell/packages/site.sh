#!/bin/sh
# A site's activation, on a host of the test bed: it writes what the agent's limits let it do, and leaves a program running.
#
#   site.sh start|stop|status
#
# While /run/site.hold exists, `start` waits: an operation is under way then. Owns /run/site.*, /var/lib/site, /srv/site.
set -u

# may WORD COMMAND...: writes whether it can be done.
may() {
  word=$1
  shift
  if "$@" >>/var/lib/site/log 2>&1; then echo "$word yes"; else echo "$word no"; fi
}

# shellcheck disable=SC2317 # may calls them
back_up_and_restore() {
  export RESTIC_PASSWORD_FILE=/var/lib/site/password RESTIC_CACHE_DIR=/var/lib/site/cache
  echo secret >"$RESTIC_PASSWORD_FILE"
  rm -rf /srv/site/repository /srv/site/restored
  restic --quiet --repo /srv/site/repository init &&
    restic --quiet --repo /srv/site/repository backup /srv/site/pool &&
    restic --quiet --repo /srv/site/repository restore latest --target /srv/site/restored &&
    [ "$(stat -c '%f %u %t' /srv/site/restored/srv/site/pool/*)" = "$(stat -c '%f %u %t' /srv/site/pool/*)" ]
}

# What a pool may hold: another's file that takes its owner's rights, and a device.
# shellcheck disable=SC2317 # may calls it
fill_pool() {
  rm -rf /srv/site/pool
  mkdir -p /srv/site/pool &&
    touch /srv/site/pool/program && chown 65534 /srv/site/pool/program && chmod 4755 /srv/site/pool/program &&
    mknod /srv/site/pool/disk b 7 200
}

case "$1" in
  start)
    mkdir -p /var/lib/site
    {
      may fill-a-pool fill_pool
      may back-up-and-restore back_up_and_restore
      may see-what-others-have-open ls -l "/proc/$(pidof -s dbus-daemon)/fd/1"
      may ask-systemd systemctl start systemd-tmpfiles-clean.service
      may write-to-tmp touch /tmp/site
      may write-to-usr touch /usr/site
      may write-to-etc touch /etc/site
      may write-to-root touch /root/site
      may mount mount -t tmpfs site /mnt
      may become-another setpriv --reuid 65534 true
      may unshare unshare --net true
    } >/var/lib/site/can
    : >/run/site.begun
    while [ -e /run/site.hold ]; do sleep 0.1; done
    setsid sleep infinity &
    echo $! >/run/site.pid
    ;;
  stop)
    kill "$(cat /run/site.pid)"
    rm -f /run/site.pid
    ;;
  status) kill -0 "$(cat /run/site.pid)" ;;
esac
