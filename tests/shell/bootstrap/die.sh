# shellcheck shell=bash
# As BASH_ENV of deploy/bootstrap: kills it, and all that it started, at its DIE_AT-th command. Other scripts live.
if [[ "$0" == *bootstrap ]]; then
  set -T
  # shellcheck disable=SC2034 # the trap counts
  died=0
  trap '((++died != DIE_AT)) || kill -KILL 0' DEBUG
fi
