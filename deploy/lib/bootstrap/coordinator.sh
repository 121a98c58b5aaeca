# shellcheck shell=bash
# A new site on this machine: packages, CA, the coordinator's certificate, the administrator's, the service.
# Each step looks whether its end is there already, so that a run which was killed anywhere is simply repeated.
# Never replaces a CA, a certificate, a key, or a table that somebody wrote. Uses the options of bootstrap and place.sh.

CONFIGURATION=/etc/hostler/coordinator.toml

coordinator() {
  need_root "it installs packages and makes the site's CA"
  [[ -n "$TRUST_DOMAIN" && -n "$ADDRESS" && ${#PLAIN[@]} -eq 0 ]] || fail "$USAGE"
  address_is_one
  client_folder_is_ours
  # What a killed run left working holds the lock as well, and ends by itself.
  exec {lock}>/run/hostler-bootstrap.lock
  flock --timeout 120 "$lock" || fail "another bootstrap is at work here; see: fuser -v /run/hostler-bootstrap.lock"
  ensure_packages
  ensure_ca
  ensure_own_certificate
  ensure_enrolment
  ensure_administrator
  serve
  say "the coordinator serves $TRUST_DOMAIN on $ADDRESS"
  note "whoever has the CA's key is anybody in the fleet, and without it no host joins. Keep a copy away from this machine:"
  note "  deploy/bootstrap copy-ca FILE"
  note "next, for each host: $0 host NAME [USER@]ADDRESS"
}

address_is_one() {
  address_split "$ADDRESS"
  [[ "$HOST" != *:* || "$HOST" == \[*\] ]] || fail "--address is '$ADDRESS': an IPv6 address is written in brackets, as [2001:db8::1]:1312"
  [[ "$HOST" =~ ^([A-Za-z0-9_][A-Za-z0-9._-]*|\[[0-9a-fA-F:.]+\])$ ]] || fail "--address is '$ADDRESS', which is no host name or address"
  [[ "$PORT" =~ ^[1-9][0-9]{0,4}$ && "$PORT" -le 65535 ]] || fail "--address is '$ADDRESS': a port is a number from 1 to 65535"
}

client_folder_is_ours() {
  local at=$CLIENT_DIR
  while [[ ! -e "$at" ]]; do at="$(dirname "$at")"; done
  [[ -O "$at" ]] || fail "the administrator's files would go to $CLIENT_DIR, which belongs to $(stat -c %U "$at"). Try: sudo -H $0"
}

ensure_packages() {
  local service client
  [[ "$(dpkg-query -W -f '${db:Status-Status}' hostler-coordinator hostler 2>/dev/null)" != installedinstalled ]] || return 0
  service="$(package_file hostler-coordinator "$(dpkg --print-architecture)")" || exit 1
  client="$(package_file hostler "$(dpkg --print-architecture)")" || exit 1
  say "coordinator: installing the packages"
  # What a killed run left half installed; nothing else keeps apt from beginning.
  logged "$LOG" dpkg --force-confold --configure -a
  logged "$LOG" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends \
    -o Dpkg::Options::=--force-confold -o DPkg::Lock::Timeout=60 "$service" "$client"
}

# The trust domain of the CA that is there.
ca_domain() {
  as_owner hostler-pki show "$CA_DIR/ca.crt" | sed -n 's/^  identity *the CA of //p' | sed -n 1p
}

ensure_ca() {
  local domain key=no certificate=no
  if as_owner test -e "$CA_DIR/ca.key"; then key=yes; fi
  if as_owner test -e "$CA_DIR/ca.crt"; then certificate=yes; fi
  case "$key$certificate" in
    yesyes)
      domain="$(ca_domain)" || fail "the CA in $CA_DIR cannot be read (see above)"
      [[ "$domain" == "$TRUST_DOMAIN" ]] || fail "the CA in $CA_DIR is of $domain, not of $TRUST_DOMAIN. Nothing was changed"
      ;;
    nono) make_ca ;;
    *)
      fail "$CA_DIR holds only one of ca.key and ca.crt. Put the other back from your copy. If this CA never signed anything, remove the one: $CA_DIR/ca.*; then run this again"
      ;;
  esac
}

make_ca() {
  [[ ! -e "$TLS_DIR/coordinator.crt" ]] ||
    fail "$TLS_DIR/coordinator.crt is there and its CA is not in $CA_DIR, so this command made neither. Put the CA there, or move the certificate away"
  say "coordinator: a CA for $TRUST_DOMAIN in $CA_DIR"
  install -d -o hostler -g hostler -m 0700 "${CA_DIR%/*}"
  as_owner rm -rf "$CA_DIR.new"
  as_owner mkdir -m 0700 "$CA_DIR.new"
  logged "$LOG" as_owner hostler-pki init --dir "$CA_DIR.new" --trust-domain "$TRUST_DOMAIN"
  # Key and certificate at one moment, in the place of the package's empty folder.
  as_owner mv -T "$CA_DIR.new" "$CA_DIR" || fail "$CA_DIR holds other files, which are no CA. Move them away, and run this again"
  # Before anything that it signs.
  as_owner sync "${CA_DIR%/*}"
}

ensure_own_certificate() {
  if [[ ! -e "$TLS_DIR/coordinator.crt" ]]; then
    say "coordinator: its certificate in $TLS_DIR"
    if [[ ! -d "$TLS_DIR" ]]; then install -d -o root -g hostler -m 0750 "$TLS_DIR"; fi
    place_ca "$TLS_DIR"
    make_pair "$TLS_DIR" coordinator hostler:hostler coordinator "$NAME"
    return
  fi
  logged "$LOG" hostler-pki verify --ca "$TLS_DIR/ca.crt" "$TLS_DIR/coordinator.crt"
}

# Hosts enrol with it. A table that somebody wrote stays.
ensure_enrolment() {
  local mode owner listen=0.0.0.0
  [[ -e "$CONFIGURATION" ]] || fail "$CONFIGURATION is gone. The package's comes back by: apt-get install --reinstall -o Dpkg::Options::=--force-confmiss hostler-coordinator"
  if grep -Eq '^[[:space:]]*(\[[[:space:]]*enrolment[[:space:]]*\]|enrolment[[:space:]]*[.=])' "$CONFIGURATION"; then return 0; fi
  say "coordinator: hosts may enrol, in $CONFIGURATION"
  mode="$(stat -L -c %a "$CONFIGURATION")" owner="$(stat -L -c %U:%G "$CONFIGURATION")"
  if [[ "$HOST" == \[* ]]; then listen="[::]"; fi
  {
    # Only as the package has it: what somebody wrote there stays.
    sed "s/^listen = \"0\.0\.0\.0:1312\"\$/listen = \"$listen:$PORT\"/" "$CONFIGURATION"
    printf '\n[enrolment]\nlisten = "%s:1313"\nca_dir = "%s"\nadvertise = ["%s"]\n' "$listen" "$CA_DIR" "$ADDRESS"
  } | place "$mode" "$owner" "$(realpath "$CONFIGURATION")"
}

ensure_administrator() {
  local me
  me="$(id -un):$(id -gn)"
  [[ ! -e "$CLIENT_DIR/config.toml" ]] || return 0
  say "coordinator: a certificate for the administrator $ADMIN in $CLIENT_DIR"
  install -d -m 0700 "$CLIENT_DIR"
  place_ca "$CLIENT_DIR"
  if [[ ! -e "$CLIENT_DIR/$ADMIN.crt" ]]; then make_pair "$CLIENT_DIR" "$ADMIN" "$me" client admin "$ADMIN"; fi
  printf 'coordinator = "%s"\nca = "ca.crt"\ncert = "%s.crt"\nkey = "%s.key"\n' "$ADDRESS" "$ADMIN" "$ADMIN" |
    place 0600 "$me" "$CLIENT_DIR/config.toml"
}

coordinator_answers() {
  hostler --timeout 5s hypervisors list >/dev/null 2>&1
}

# It began before its configuration was what it is now.
serves_an_older_configuration() {
  local began
  systemctl is-active --quiet hostler-coordinator || return 1
  began="$(systemctl show --timestamp=us+utc --property=ExecMainStartTimestamp --value hostler-coordinator)"
  [[ "$(date -r "$CONFIGURATION" +%s%N)" -gt "$(date -d "$began" +%s%N)" ]]
}

serve() {
  local why
  say "coordinator: starting the service"
  logged "$LOG" as_owner hostler-coordinator --check
  if serves_an_older_configuration; then logged "$LOG" systemctl restart hostler-coordinator; fi
  if ! systemctl enable --now hostler-coordinator >>"$LOG" 2>&1; then
    { journalctl --unit hostler-coordinator --lines 5 --output cat --no-pager || true; } >&2
    fail "the coordinator does not start (see above, and: systemctl status hostler-coordinator). Then run this again"
  fi
  if ! wait_for 60 coordinator_answers; then
    why="$(hostler --timeout 5s hypervisors list 2>&1 >/dev/null || true)"
    fail "the coordinator does not answer on $ADDRESS. The client says: $why. The service: journalctl -u hostler-coordinator"
  fi
}
