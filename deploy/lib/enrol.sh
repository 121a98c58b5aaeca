# shellcheck shell=bash
# How a host gets its certificate. One function, since it is the one place that a site's own way of enrolling replaces.
# Needs lib/rollout/host.sh, and `hostler` with the settings of an admin.

# as_owner PROGRAM ARGUMENTS...: as the user that the CA belongs to; its key is taken from nobody else's hands.
as_owner() {
  runuser -u hostler -- "$@"
}

# owned_folder: a folder of that user's, for what it makes.
owned_folder() {
  local work
  work="$(mktemp -d)"
  chmod 0700 "$work"
  chown hostler:hostler "$work"
  printf '%s\n' "$work"
}

# enrol_host HOST: a certificate for it. Its configuration names the coordinator already. The host makes the key and keeps it;
# what goes there is a token, over ssh and by standard input, so that no list of processes shows it.
enrol_host() {
  local host=$1 token
  token="$(hostler tokens create --host "$host" --expires 10m --quiet)" ||
    fail "the coordinator made no token for $host (see above)"
  printf '%s\n' "$token" | host_shell "$host" "hostler-agent enrol --token-file - --no-start" >/dev/null ||
    fail "$host did not enrol (see above)"
}
