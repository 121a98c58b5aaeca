# shellcheck shell=bash
# How a host gets its certificate. One function, since it is the one place that a site's own way of enrolling replaces.
# Needs lib/bootstrap/host.sh, and `hostler` with the settings of an admin.

# enrol_host HOST [ARGUMENTS...]: a certificate for it. The host makes the key and keeps it; what goes there is a token, over
# ssh and by standard input, so that no list of processes and no history shows it. The arguments are `hostler-agent enrol`'s.
enrol_host() {
  local host=$1 token
  shift
  token="$(hostler tokens create --host "$host" --expires 10m --quiet)" ||
    fail "the coordinator made no token for $host (see above)"
  printf '%s\n' "$token" | on_host "$host" "hostler-agent enrol --token-file - --no-start $(quoted "$@")" >/dev/null ||
    fail "$host did not enrol (see above)"
}
