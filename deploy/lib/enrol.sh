# shellcheck shell=bash
# How a host gets its certificate. One function, since it is the one place that a site's own way of enrolling replaces.
# Needs CA_DIR (the CA's directory) and lib/rollout/host.sh.

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

IDENTITY=/var/lib/hostler-agent/identity

# enrol_host HOST: a certificate for it in its IDENTITY. The key is made here, sent over ssh, and kept nowhere else.
enrol_host() {
  local host=$1 work
  work="$(owned_folder)"
  if ! as_owner hostler-pki issue agent "$host" --dir "$CA_DIR" --out "$work" --out-name agent >/dev/null; then
    rm -rf "$work"
    fail "hostler-pki did not issue a certificate for $host (see above)"
  fi
  install -m 0644 "$CA_DIR/ca.crt" "$work/ca.crt"
  if ! tar -C "$work" --owner=root --group=root -cf - ca.crt agent.crt agent.key |
    host_shell "$host" "umask 0077; mkdir -p $IDENTITY; tar -C $IDENTITY --no-same-owner -xf -"; then
    rm -rf "$work"
    fail "the certificate did not get to $host (see above)"
  fi
  rm -rf "$work"
}
