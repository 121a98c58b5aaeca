# shellcheck shell=bash
# The stage of bootstrap and rollout: a site made from nothing on four hosts that boot systemd (bed.sh), its agents
# upgraded, and every way in which that goes wrong. Uses stages.sh's words and the packages of packages.sh; owns ROLLOUT_DIR
# and the hosts below.

# shellcheck source=tests/shell/rollout/apart.sh
source "$(dirname "${BASH_SOURCE[0]}")/rollout/apart.sh"
# shellcheck source=tests/shell/rollout/refused.sh
source "$(dirname "${BASH_SOURCE[0]}")/rollout/refused.sh"

ROLLOUT_DIR=""
ROLLOUT_HOSTS=(h1 h2 h3)
# What the last rollout said.
ROLLED=""

stage_rollout() {
  say "rollout: a coordinator and three hosts that boot systemd"
  check "the programs to roll out are there" test -x "${HOSTLER_TEST_BIN:-}/hostler-agent" || return 0
  ROLLOUT_DIR="$(mktemp -d)"
  ROLLED="$ROLLOUT_DIR/said"
  check "inventories of both kinds are read, and what is not understood is named" rollout_inventories || true
  check "what a host says is never run nor shown as it is" rollout_rogue || true
  check "what cannot be written down is not begun" rollout_unwritable || true
  check "a GPU, a device or a pool less is another inventory, one more is none" rollout_difference || true
  check "packages of six versions are made of one build" rollout_packages || return 0
  check "hosts for a rollout boot" bed_up coordinator "${ROLLOUT_HOSTS[@]}" || return 0
  rollout_on_hosts
  rollout_cleanup
}

rollout_on_hosts() {
  local host
  check "a site begins with one command" rollout_bootstrap_coordinator || return 0
  check "the same command again changes nothing" rollout_bootstrap_again || true
  for host in "${ROLLOUT_HOSTS[@]}"; do
    check "a host is added with one command ($host)" rollout_bootstrap_host "$host" || return 0
  done
  check "an operator beside the coordinator sees all hosts" rollout_operator || return 0

  say "rollout: what it refuses"
  check "arguments that make no sense end with 2" rollout_usage || true
  check "a package that is cut off is refused" rollout_broken_package || true
  check "a package of another program is refused" rollout_other_package || true
  check "a package that arrives damaged is not kept" rollout_damaged || true
  check "another architecture is trouble, until its package is there" rollout_architecture || true
  check "an older version, another build of the same, and one that the coordinator would refuse are trouble" rollout_versions_in_order || true
  check "a package that is held or half installed is trouble" rollout_package_in_hand || true
  check "hosts that only the coordinator knows are named" rollout_left_out || true
  check "an agent of another name or site is foreign" rollout_foreign || true
  check "a host that does not answer is trouble, and nothing changes" rollout_unreachable || true
  check "no more hosts are away at once than allowed" rollout_unavailable || true

  say "rollout: forward and back"
  check "a run that is told to end finishes the host that it has begun" rollout_stopped || true
  check "a run that is killed is taken up where it was" rollout_killed || true
  check "a package that dpkg cannot install leaves what was there" rollout_not_installable || true
  check "a service that crashes puts its batch back, also when the run is told to end, and says whose fault it is" rollout_crash || true
  check "a package that was packed again brings its scripts, and no configuration" rollout_packed_again || true
  check "a way back that is killed is gone on with by rollback alone" rollout_back_killed || true
  check "a rollout is taken back as a whole" rollout_taken_back || true
  check "a host without space is skipped and has what it had; one with an operation is waited for" rollout_skip || true
  check "what was skipped comes along the next time" rollout_skipped_again || true
  if [[ "${HOSTLER_ROLLOUT_KILLS:-0}" != 0 ]]; then
    check "runs that are killed at $HOSTLER_ROLLOUT_KILLS random moments are taken up or back, and leave no host half way" rollout_kills || true
  fi
  check "a host without the package gets it, and is without it again when that is taken back" rollout_new_package || true
  check "a purge leaves identity and state" rollout_purge || true
}

rollout_cleanup() {
  if [[ -d "$BED_DIR" ]]; then bed_logs "$LOGS/bed"; fi
  bed_down
  if [[ -n "$ROLLOUT_DIR" ]]; then
    if [[ -d "$ROLLOUT_DIR/state" ]]; then
      find "$ROLLOUT_DIR/state" -name package.deb -delete
      cp -r "$ROLLOUT_DIR/state" "$LOGS/rollout-state"
    fi
    rm -rf "$ROLLOUT_DIR"
    ROLLOUT_DIR=""
  fi
}

# rollout_repack VERSION FUNCTION: the agent's package with the version in its program as well, since that is what the
# coordinator is told; then the function on the unpacked tree.
rollout_repack() {
  local version=$1 change=$2 tree="$ROLLOUT_DIR/tree"
  rm -rf "$tree"
  dpkg-deb -R "$ROLLOUT_DIR"/debs/hostler-agent_*.deb "$tree" || return 1
  # Not libvirt's symbol versions.
  LC_ALL=C sed -i -e "s/\([^_]\)0\.1\.0/\1$version/g" -e "s/^0\.1\.0/$version/" "$tree/usr/bin/hostler-agent"
  sed -i "s/^Version:.*/Version: $version-1/" "$tree/DEBIAN/control"
  rm -f "$tree/DEBIAN/md5sums"
  "$change" "$tree"
  dpkg-deb --root-owner-group -Zgzip -z1 -b "$tree" "$ROLLOUT_DIR/agent-$version.deb" >/dev/null
}

# rollout_tiny VERSION ARCHITECTURE: a package that nobody installs.
rollout_tiny() {
  local tree="$ROLLOUT_DIR/tree"
  rm -rf "$tree"
  mkdir -p "$tree/DEBIAN" "$tree/usr/bin" && echo "$1" >"$tree/usr/bin/hostler-agent" || return 1
  (cd "$tree" && md5sum usr/bin/hostler-agent >DEBIAN/md5sums) || return 1
  printf '%s\n' "Package: hostler-agent" "Version: $1-1" "Architecture: $2" "Maintainer: nobody <nobody@example.org>" "Description: nothing" >"$tree/DEBIAN/control"
  dpkg-deb --root-owner-group -b "$tree" "$ROLLOUT_DIR/tiny-$1-$2.deb" >/dev/null
}

nothing() { :; }

# Crashes where a file says so, after its start would have been fine everywhere else.
crashing() {
  mv "$1/usr/bin/hostler-agent" "$1/usr/bin/hostler-agent.real"
  cat >"$1/usr/bin/hostler-agent" <<'SH'
#!/bin/sh
if [ "$1" != --version ] && [ -e /etc/hostler/crash ]; then exit 1; fi
exec /usr/bin/hostler-agent.real "$@"
SH
  chmod 0755 "$1/usr/bin/hostler-agent"
}

# dpkg unpacks it and then cannot configure it.
failing() {
  printf '#!/bin/sh\necho "the disk is on fire" >&2\nexit 1\n' >"$1/DEBIAN/postinst"
}

for_arm() {
  sed -i 's/^Architecture:.*/Architecture: arm64/' "$1/DEBIAN/control"
}

rollout_packages() {
  mkdir "$ROLLOUT_DIR/debs" && cp "$PACKAGES_DIR"/before/*.deb "$ROLLOUT_DIR/debs/" &&
    rollout_tiny 0.0.9 amd64 && rollout_tiny 0.1.0 amd64 && rollout_tiny 0.1.1 arm64 && rollout_tiny 0.2.0 amd64 && rollout_tiny 0.3.0 amd64 &&
    rollout_repack 0.1.1 nothing && rollout_repack 0.1.2 crashing && rollout_repack 0.1.3 nothing && rollout_repack 0.1.4 for_arm && rollout_repack 0.1.5 failing
}

rollout_bootstrap_coordinator() {
  cat >"$ROLLOUT_DIR/agent.toml.in" <<'TOML'
coordinator = "@COORDINATOR@"
state_dir = "/var/lib/hostler-agent"
[tls]
ca = "/var/lib/hostler-agent/identity/ca.crt"
certificate = "/var/lib/hostler-agent/identity/agent.crt"
key = "/var/lib/hostler-agent/identity/agent.key"
[libvirt]
uri = "test:///default"
[[hypervisor]]
kind = "host"
id = "@HOST@"
networks = [{ name = "default" }]
TOML
  bed_copy -r deploy "$ROLLOUT_DIR/debs" "$ROLLOUT_DIR/agent.toml.in" coordinator:/root/ &&
    bed_copy "$BED_DIR/key" coordinator:/root/.ssh/id_ed25519 &&
    bed_copy "$BED_DIR/known_hosts" coordinator:/root/.ssh/known_hosts &&
    rollout_bootstrap
}

rollout_bootstrap() {
  bed_ssh coordinator "deploy/bootstrap coordinator --trust-domain bed.example --address $(bed_address coordinator):1312 --packages debs --admin ada"
}

rollout_bootstrap_again() {
  local before after sums='sha256sum /etc/hostler/tls/* /var/lib/hostler-coordinator/ca/* /root/.config/hostler/*'
  before="$(bed_ssh coordinator "$sums")"
  rollout_bootstrap || return 1
  after="$(bed_ssh coordinator "$sums")"
  [[ -n "$before" && "$before" == "$after" ]]
}

rollout_bootstrap_host() {
  bed_ssh coordinator "deploy/bootstrap host $1 root@$(bed_address "$1") --packages debs --config agent.toml.in --inventory inventory"
}

rollout_operator() {
  # A viewer's certificate is all that a rollout needs.
  bed_ssh coordinator 'install -d -o hostler -m 0700 /tmp/vera && runuser -u hostler -- hostler-pki issue client viewer vera --dir /var/lib/hostler-coordinator/ca --out /tmp/vera &&
    cp /tmp/vera/vera.* .config/hostler/ && sed "s/ada/vera/" .config/hostler/config.toml >.config/hostler/viewer.toml' || return 1
  bed_copy -r coordinator:/root/.config/hostler "$ROLLOUT_DIR/client" && bed_copy coordinator:/root/inventory "$ROLLOUT_DIR/inventory" || return 1
  cat "$ROLLOUT_DIR/inventory"
  rollout_hostler hypervisors list
  [[ "$(rollout_versions)" == "0.1.0 0.1.0 0.1.0" ]]
}

rollout_hostler() {
  bed_in "$HOSTLER_TEST_BIN/hostler" --config "$ROLLOUT_DIR/client/config.toml" "$@"
}

# The versions that the coordinator is told, in the hosts' order.
rollout_versions() {
  rollout_hostler --json hypervisors list | jq -r '[.hypervisors | sort_by(.host) | .[].agent_version] | join(" ")'
}

# The versions that dpkg has; only whole packages have one.
rollout_installed() {
  local host all=()
  for host in "${ROLLOUT_HOSTS[@]}"; do
    all+=("$(bed_ssh "$host" "[ -z \"\$(dpkg --audit)\" ] && dpkg-query -W -f '\${db:Status-Status} \${Version}' hostler-agent" | sed -n 's/^installed //p')")
  done
  echo "${all[*]}"
}

# rollout_command VERB ARGUMENTS...: the command, as words for whoever runs it.
rollout_command() {
  printf '%s\0' env HOSTLER_CONFIG="$ROLLOUT_DIR/client/viewer.toml" \
    deploy/rollout "$@" --state "$ROLLOUT_DIR/state" --hostler "$HOSTLER_TEST_BIN/hostler" --ssh-config "$(bed_ssh_config)" --settle 1
}

# rolls CODE VERB ARGUMENTS...: the rollout ends with the code.
rolls() {
  local wanted=$1 code=0 command
  shift
  mapfile -d '' -t command < <(rollout_command "$@")
  bed_in "${command[@]}" >"$ROLLED" 2>&1 </dev/null || code=$?
  cat "$ROLLED"
  [[ $code -eq $wanted ]] || { echo "ended with $code, not $wanted" && return 1; }
}

rollout_said() {
  grep -qF -- "$1" "$ROLLED" || { echo "it did not say: $1" && return 1; }
}

# The inventory and the package of a version.
of_version() {
  printf '%s\n' --inventory "$ROLLOUT_DIR/inventory" --package "$ROLLOUT_DIR/agent-$1.deb"
}

rollout_not_installable() {
  # shellcheck disable=SC2046
  rolls 1 apply $(of_version 0.1.5) && rollout_said "dpkg could not install the package" || return 1
  [[ "$(rollout_installed)" == "0.1.1-1 0.1.1-1 0.1.1-1" && "$(rollout_versions)" == "0.1.1 0.1.1 0.1.1" ]]
}

rollout_sees() {
  [[ "$(rollout_hostler --json hypervisors list | jq -r --arg host "$1" '.hypervisors[] | select(.host == $host) | .connected')" == "$2" ]]
}

rollout_phase() {
  [[ "$(cat "$ROLLOUT_DIR/state/current/hosts/$1/phase" 2>/dev/null)" =~ ^($2)$ ]]
}

# rollout_in_background LOG VERB ARGUMENTS...
rollout_in_background() {
  local log=$1 command
  shift
  mapfile -d '' -t command < <(rollout_command "$@")
  process_start "$ROLLOUT_DIR/run" rollout "$log" nsenter --net="/run/netns/$BED" "${command[@]}"
}

rollout_stopped() {
  # shellcheck disable=SC2046
  rollout_in_background "$ROLLOUT_DIR/stopped.log" apply $(of_version 0.1.1)
  wait_for 120 rollout_phase h1 'copying|installing|verifying' || { cat "$ROLLOUT_DIR/stopped.log" && return 1; }
  kill -TERM "$(process_pid "$ROLLOUT_DIR/run" rollout)"
  wait_for 120 process_gone "$ROLLOUT_DIR/run" rollout || return 1
  cat "$ROLLOUT_DIR/stopped.log"
  rollout_phase h1 'done' && rollout_phase h2 planned && rolls 0 status && rollout_said "it died, or was stopped" &&
    [[ "$(rollout_installed)" == "0.1.1-1 0.1.0-1 0.1.0-1" ]]
}

rollout_killed() {
  local pid
  rollout_in_background "$ROLLOUT_DIR/killed.log" resume
  # The next host is in the middle.
  wait_for 120 rollout_phase h2 'copying|installing|verifying' || { cat "$ROLLOUT_DIR/killed.log" && return 1; }
  # shellcheck disable=SC2046
  rolls 1 apply $(of_version 0.1.1) && rollout_said "another rollout is at work here" || return 1
  rolls 0 status && rollout_said "it is at work" || return 1
  pid="$(process_pid "$ROLLOUT_DIR/run" rollout)" || return 1
  kill -KILL "$pid"
  cat "$ROLLOUT_DIR/killed.log"
  rolls 0 resume && [[ "$(rollout_versions)" == "0.1.1 0.1.1 0.1.1" && "$(rollout_installed)" == "0.1.1-1 0.1.1-1 0.1.1-1" ]]
}

rollout_crash() {
  bed_ssh h3 'cp /etc/hostler/agent.toml /root/agent.toml.before; touch /etc/hostler/crash; rm -f /var/cache/hostler/*.deb' || return 1
  # shellcheck disable=SC2046
  rollout_in_background "$ROLLED" apply $(of_version 0.1.2) --batch 2 --max-unavailable 2
  wait_for 120 rollout_phase h3 'verifying' || { cat "$ROLLED" && return 1; }
  kill -TERM "$(process_pid "$ROLLOUT_DIR/run" rollout)"
  wait_for 180 process_gone "$ROLLOUT_DIR/run" rollout
  cat "$ROLLED"
  rollout_said "stopping: what was begun is finished first" && rollout_said "rollout: stopped. h3: hostler-agent starts again and again" || return 1
  rolls 1 status || return 1
  [[ "$(rollout_installed)" == "0.1.2-1 0.1.1-1 0.1.1-1" && "$(rollout_versions)" == "0.1.2 0.1.1 0.1.1" ]]
}

# h3 had no file of its package, so that one was made of what was installed.
rollout_packed_again() {
  bed_ssh h3 'ls /var/cache/hostler/*_before.deb && cmp /root/agent.toml.before /etc/hostler/agent.toml && test -e /var/lib/dpkg/info/hostler-agent.postinst &&
    test -e /var/lib/dpkg/info/hostler-agent.prerm && dpkg-query -s hostler-agent | grep " /etc/hostler/agent.toml [0-9a-f]* obsolete"'
}

rollout_back_killed() {
  local pid
  rollout_in_background "$ROLLOUT_DIR/back.log" rollback
  wait_for 60 grep -q "going back" "$ROLLOUT_DIR/state/current/outcome" || return 1
  pid="$(process_pid "$ROLLOUT_DIR/run" rollout)" || return 1
  kill -KILL "$pid"
  cat "$ROLLOUT_DIR/back.log"
  rolls 1 resume && rollout_said "was being taken back when it died"
}

rollout_taken_back() {
  rolls 0 rollback && [[ "$(rollout_installed)" == "0.1.1-1 0.1.1-1 0.1.1-1" && "$(rollout_versions)" == "0.1.1 0.1.1 0.1.1" ]] || return 1
  rolls 1 resume && rollout_said "was taken back" && grep " restored: back to 0.1.1-1" "$ROLLOUT_DIR/state/current/hosts/h3/log"
}

rollout_skip() {
  bed_sabotage_disk_full h3 && rollout_hostler lock h1 --for 6s --reason "disk swap" || return 1
  # shellcheck disable=SC2046
  rolls 4 apply $(of_version 0.1.3) --on-trouble skip --max-unavailable 3 && rollout_said "h1: waits for" && rollout_said "no space" || return 1
  bed_relieve h3
  [[ "$(rollout_installed)" == "0.1.3-1 0.1.3-1 0.1.1-1" && "$(rollout_versions)" == "0.1.3 0.1.3 0.1.1" ]]
}

rollout_skipped_again() {
  # shellcheck disable=SC2046
  rolls 0 apply $(of_version 0.1.3) && rollout_said "up to date" && [[ "$(rollout_versions)" == "0.1.3 0.1.3 0.1.3" ]]
}

# The long form: each run is killed, then resumed or taken back by turns.
rollout_kills() {
  local round version before begun owners
  for ((round = 1; round <= HOSTLER_ROLLOUT_KILLS; round++)); do
    before="$(rollout_installed)" begun="$(readlink "$ROLLOUT_DIR/state/current")"
    version=0.1.1
    if [[ "$before" == 0.1.1* ]]; then version=0.1.3; fi
    # shellcheck disable=SC2046
    rollout_in_background "$ROLLOUT_DIR/kill.log" apply $(of_version "$version") --allow-downgrade --batch 2 --max-unavailable 3
    if ! wait_for "$((RANDOM % 12 + 1))" process_gone "$ROLLOUT_DIR/run" rollout; then kill -KILL "$(process_pid "$ROLLOUT_DIR/run" rollout)"; fi
    cat "$ROLLOUT_DIR/kill.log"
    if [[ "$(readlink "$ROLLOUT_DIR/state/current")" != "$begun" ]]; then
      if ((round % 2)); then
        rolls 0 resume && before="$version-1 $version-1 $version-1" || return 1
      else
        rolls 0 rollback || return 1
      fi
    fi
    owners="$(for host in "${ROLLOUT_HOSTS[@]}"; do bed_ssh "$host" 'cat /var/cache/hostler/rollout 2>/dev/null || true'; done)"
    echo "round $round: $(rollout_installed), owned by '$owners'"
    [[ "$(rollout_installed)" == "$before" && -z "$owners" ]] || return 1
  done
  # What the next checks begin with.
  # shellcheck disable=SC2046
  rolls 0 apply $(of_version 0.1.3) --batch 3 --max-unavailable 3
}

rollout_new_package() {
  bed_ssh h3 'dpkg --remove hostler-agent >/dev/null 2>&1; rm -rf /var/cache/hostler' || return 1
  # shellcheck disable=SC2046
  rolls 0 apply $(of_version 0.1.3) --limit h3 && rollout_said "install " && [[ "$(rollout_installed)" == "0.1.3-1 0.1.3-1 0.1.3-1" ]] || return 1
  rolls 0 rollback && rollout_said "back to no package" && [[ "$(rollout_installed)" == "0.1.3-1 0.1.3-1 " ]]
}

rollout_purge() {
  bed_ssh h3 'dpkg --purge hostler-agent >/dev/null 2>&1; test -s /var/lib/hostler-agent/identity/agent.key && ! systemctl is-active --quiet hostler-agent'
}
