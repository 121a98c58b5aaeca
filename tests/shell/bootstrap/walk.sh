#!/usr/bin/env bash
# On a host of the test bed that has the coordinator's packages: makes a site again and again, killed at another command each
# time, and repeats the command. Prints what was not whole then, and ends with how many kills there were.
#
#   walk.sh STEP ARGUMENTS...     every STEP-th command of: bootstrap ARGUMENTS
set -u
cd "$(dirname "$0")" || exit 1
step=$1
shift

wipe() {
  systemctl disable --quiet --now hostler-coordinator
  rm -rf /etc/hostler/tls/* /root/.config/hostler
  find /var/lib/hostler-coordinator -mindepth 1 -delete
  install -d -o hostler -g hostler -m 0700 /var/lib/hostler-coordinator/ca
  cp shipped.toml /etc/hostler/coordinator.toml
}

# A host may enrol, and nothing is left in between.
is_whole() {
  hostler tokens create --host any --quiet >/dev/null || return 1
  ! find /etc/hostler /var/lib/hostler-coordinator /root/.config/hostler -name '*.new' -o -name issuing | grep .
}

kills=0
for ((at = 1; at < 1000; at += step)); do
  wipe
  # In a process group of its own, which dies as a whole.
  if DIE_AT=$at BASH_ENV="$PWD/die.sh" setsid --wait deploy/bootstrap "$@" >first 2>&1; then break; fi
  kills=$((kills + 1))
  if ! deploy/bootstrap "$@" >second 2>&1 || ! is_whole; then
    echo "killed at command $at:"
    tail -n 3 first
    echo "again:"
    cat second
  fi
done
echo "$kills kills"
