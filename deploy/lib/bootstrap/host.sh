# shellcheck shell=bash
# One host into the fleet, over ssh: package, configuration, certificate, service, its line in the inventory.
# Looks first and refuses before it changes anything; each step may be done twice, so a run that was killed, or whose
# connection was, is simply repeated. Nothing that a host says moves a terminal's cursor.
# Never replaces a configuration that somebody edited, nor takes a host from another site. Uses the options of bootstrap.

# The owner of the host while this is at work there, as deploy/rollout has it: they do not meet.
RUN=bootstrap

host() {
  local name address facts
  [[ ${#PLAIN[@]} -eq 2 ]] || fail "$USAGE"
  host_tools
  name=${PLAIN[0]}
  # The inventory's own grammar says the rest; these would change what its line means.
  [[ "$name" =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ ]] || fail "'$name' is no host name: letters, digits, '.', '_' and '-', and a letter or digit first"
  [[ "${PLAIN[1]}" =~ ^[A-Za-z0-9_:[][]A-Za-z0-9._@:%[-]*$ ]] || fail "'${PLAIN[1]}' is no [USER@]ADDRESS[:PORT]"
  address="$(client_setting coordinator)"
  [[ -n "$address" ]] || fail "$CLIENT_DIR/config.toml names no coordinator, so agents would not know where to go. Run this where $0 coordinator was run, by the same user"
  [[ -r "$CONFIG" ]] || fail "the configuration '$CONFIG' cannot be read"
  inventory_can_grow
  WORK="$(mktemp -d)"
  trap 'rm -rf "$WORK"' EXIT
  hostler --timeout 10s agents list >/dev/null 2>"$WORK/client" || fail "the coordinator does not answer here: $(cat "$WORK/client")"
  printf '%s %s\n' "${PLAIN[@]}" >"$WORK/inventory"
  inventory_read "$WORK/inventory" ""

  say "$name: looking at it"
  look_at "$name" 0 0
  facts=$FACTS
  may_be_ours "$name" "$facts"
  if [[ "$(fact "$facts" status)" != installed ]]; then bring_package "$name" "$(fact "$facts" arch)"; fi
  # Also what a killed run took.
  if [[ -n "$(fact "$facts" owner)" || "$(fact "$facts" status)" != installed ]]; then to_host "$name" release "$RUN" hostler-agent </dev/null; fi
  configure_host "$name" "$address" "$facts"
  certify_host "$name" "$address" "$facts"
  say "$name: starting the agent"
  on_host "$name" "systemctl enable --quiet hostler-agent && systemctl restart hostler-agent" </dev/null ||
    fail "the agent does not start on $name (see above). See there: systemctl status hostler-agent"
  wait_for 60 host_is_listed "$name" || say_why_not "$name"
  inventory_grows "$name"
  say "$name is in the fleet ($SECONDS s)"
}

host_tools() {
  local tool missing=()
  for tool in hostler ssh jq openssl dpkg-deb; do
    command -v "$tool" >/dev/null || missing+=("$tool")
  done
  [[ ${#missing[@]} -eq 0 ]] || fail "missing here: ${missing[*]}. Debian has them as hostler, openssh-client, jq, openssl and dpkg"
}

# client_setting KEY: of the client's own configuration, which holds one key a line.
client_setting() {
  { sed -n "s/^[[:space:]]*$1[[:space:]]*=[[:space:]]*\"\([^\"]*\)\".*/\1/p" "$CLIENT_DIR/config.toml" 2>/dev/null || true; } | sed -n 1p
}

# on_host NAME COMMAND: as root there. What it says on standard error is anybody's.
on_host() {
  host_shell "$@" 2> >(LC_ALL=C tr -cd '[:print:]\n' >&2)
}

# look_at NAME DEB_KB INSTALLED_KB: sets FACTS.
look_at() {
  local code=0
  FACTS="$(host_remote "$1" look hostler-agent "$2" "$3" </dev/null 2>"$WORK/said")" || code=$?
  [[ $code -eq 0 ]] || LC_ALL=C tr -cd '[:print:]\n' <"$WORK/said" >&2
  case $code in
    0) ;;
    # ssh's own end, or that of one who was killed.
    255 | 1[3-9]?) fail "$1 does not answer by ssh at ${PLAIN[1]} (see above)" ;;
    *) fail "$1 answers, but runs no commands as root (see above): log in as root, or as a user who has sudo without a password" ;;
  esac
}

# may_be_ours NAME FACTS: ends with the reason when the host is not to be touched.
may_be_ours() {
  local name=$1 facts=$2 ca words
  [[ "$(fact "$facts" systemd)" == yes ]] || fail "no systemd runs on $name"
  [[ -n "$(fact "$facts" arch)" ]] || fail "$name has no dpkg: the packages are for Debian and the like"
  words="$(fact "$facts" owner)"
  [[ -z "$words" || "$words" == "$RUN" ]] || fail "a rollout is at work on $name: $words. Wait for its end, or look at it: deploy/rollout status"
  ca="$(client_setting ca)"
  if [[ "$ca" != /* ]]; then ca="$CLIENT_DIR/$ca"; fi
  words="$(CA=$ca DIALS="" foreign_of "$name" "$(fact "$facts" pem | tr '|' '\n')" "")"
  [[ -z "$words" ]] || fail "${PLAIN[1]} has an agent that is not $name of this site: $words. When that one has left its site for good, remove /var/lib/hostler-agent there, and run this again"
}

# bring_package NAME ARCHITECTURE
bring_package() {
  local name=$1 file base kb sum
  file="$(package_file hostler-agent "$2")" || exit 1
  base="$(basename "$file")"
  kb=$(($(stat -c %s "$file") / 1024))
  look_at "$name" "$kb" "$(dpkg-deb -f "$file" Installed-Size)"
  (($(number "$FACTS" free_kb) >= $(number "$FACTS" need_kb))) ||
    fail "$name has no space: $(number "$FACTS" free_kb) kB are free and $(number "$FACTS" need_kb) kB needed"
  say "$name: installing $base"
  sum="$(sha256sum "$file")"
  to_host "$name" take "$RUN" "$base" "${sum%% *}" no <"$file"
  # In a unit of its own: a connection that is lost leaves nothing half installed.
  to_host "$name" bring "$RUN" hostler-agent "$base" </dev/null
}

# to_host NAME VERB ARGUMENTS...: a verb of remote.sh that has to end well.
to_host() {
  local name=$1 verb=$2
  host_remote "$@" >"$WORK/$verb" 2>"$WORK/$verb.errors" && return
  { cat "$WORK/$verb.errors" "$WORK/$verb"; } | LC_ALL=C tr -cd '[:print:]\n' | tail -n 15 >&2
  fail "$name does not take the package (see above). What is there is whole or apt says what to do; then run this again"
}

# configure_host NAME ADDRESS FACTS
configure_host() {
  local name=$1 address=$2 facts=$3 sum new=/etc/hostler/agent.toml.new
  if [[ "$(fact "$facts" config)" == edited ]]; then
    note "$name: /etc/hostler/agent.toml stays as it is; it dials $(fact "$facts" dials)"
    return
  fi
  say "$name: its configuration"
  sed -e "s|@HOST@|$name|g" -e "s|@COORDINATOR@|$address|g" "$CONFIG" >"$WORK/agent.toml"
  sum="$(sha256sum <"$WORK/agent.toml" | cut -d' ' -f1)"
  # A connection that is lost looks like the end of the file.
  on_host "$name" "umask 022; mkdir -p /etc/hostler; cat >$new && [ \"\$(sha256sum <$new | cut -d' ' -f1)\" = $sum ] && mv -T $new /etc/hostler/agent.toml" <"$WORK/agent.toml" ||
    fail "$name does not take its configuration (see above)"
}

# certify_host NAME ADDRESS FACTS: a certificate, unless it has one that gets it in.
certify_host() {
  local name=$1 address=$2 facts=$3 pem revoked
  pem="$(fact "$facts" pem | tr '|' '\n')"
  revoked="$(hostler --json agents list | jq -r --arg host "$name" '.agents[] | select(.host == $host) | .revoked // empty')"
  if [[ -z "$pem" ]]; then
    say "$name: its certificate"
  elif ! openssl x509 -noout -checkend 0 <<<"$pem" >/dev/null; then
    say "$name: a new certificate, since the one that it has is over"
  elif [[ -n "$revoked" ]] && ! made_after "$pem" "$revoked"; then
    say "$name: a new certificate, since it was revoked at $revoked"
  else
    return 0
  fi
  # A file that somebody edited may name nobody yet; the host's own program puts the coordinator there.
  if [[ "$(fact "$facts" config)" == edited && "$(fact "$facts" dials)" =~ ^(|coordinator\.example\.org:1312)$ ]]; then
    address_split "$address"
    enrol_host "$name" --coordinator "$HOST"
  else
    enrol_host "$name"
  fi
}

# made_after PEM TIME: a revocation reaches what was made up to its second.
made_after() {
  local made
  made="$(openssl x509 -noout -startdate <<<"$1")"
  (($(date -d "${made#*=}" +%s) > $(date -d "$2" +%s)))
}

host_is_listed() {
  fleet_snapshot "$WORK/fleet.json" 2>/dev/null && fleet_connected "$WORK/fleet.json" "$1"
}

say_why_not() {
  { on_host "$1" "journalctl --unit hostler-agent --lines 5 --output cat --no-pager; grep '^coordinator' /etc/hostler/agent.toml" </dev/null || true; } |
    LC_ALL=C tr -cd '[:print:]\n' >&2
  fail "the coordinator does not see $1 within 60 s. Above is what its agent says, and whom it dials. When that is mended, run this again"
}

# Before anything is done: the last step must not be the one that fails.
inventory_can_grow() {
  [[ -n "$INVENTORY_FILE" ]] || return 0
  if [[ -e "$INVENTORY_FILE" ]]; then
    [[ -f "$INVENTORY_FILE" && -w "$INVENTORY_FILE" ]] || fail "the inventory $INVENTORY_FILE cannot be written"
    ! grep -Eq '^[[:space:]]*\[' "$INVENTORY_FILE" || fail "the inventory $INVENTORY_FILE is Ansible's: put the host there by hand, and leave --inventory out"
  else
    [[ -w "$(dirname "$INVENTORY_FILE")" ]] || fail "the inventory $INVENTORY_FILE cannot be made"
  fi
}

inventory_grows() {
  local there
  [[ -n "$INVENTORY_FILE" ]] || return 0
  there="$({ cat "$INVENTORY_FILE" 2>/dev/null || true; } | awk -v name="$1" '$1 == name { print $2 ? $2 : $1 }')"
  if [[ -z "$there" ]]; then
    # Its last line may have no end.
    if [[ -s "$INVENTORY_FILE" && -n "$(tail -c 1 "$INVENTORY_FILE")" ]]; then echo >>"$INVENTORY_FILE"; fi
    printf '%s %s\n' "${PLAIN[@]}" >>"$INVENTORY_FILE"
  elif [[ "$there" != "${PLAIN[1]}" ]]; then
    note "$1: the inventory $INVENTORY_FILE has it at $there, and stays as it is"
  fi
}
