# shellcheck shell=bash
# The stage of bootstrap and rollout: a site made from nothing on four hosts that boot systemd (bed.sh), its agents
# upgraded, and every way in which that goes wrong. Uses stages.sh's words and the packages of packages.sh; owns ROLLOUT_DIR
# and the hosts below.

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

# inventory_of LIMIT: standard input as an inventory, read in a shell of its own.
inventory_of() {
  cat >"$ROLLOUT_DIR/read"
  bash -c 'set -Eeuo pipefail
    source deploy/lib/report.sh
    source deploy/lib/rollout/inventory.sh
    inventory_read "$1" "$2"
    for host in "${HOSTS[@]}"; do echo "$host ${HOST_USER[$host]:--} ${HOST_ADDRESS[$host]} ${HOST_PORT[$host]:--}"; done' inventory "$ROLLOUT_DIR/read" "$1" 2>&1
}

rollout_inventories() {
  diff - <(printf '%s\n' '# rack 1' 'a' 'b root@192.0.2.1:2222 # spare' 'c [2001:db8::1]:22' '' 'd ops@d.example.org' | inventory_of "") <<'EXPECTED' || return 1
a - a -
b root 192.0.2.1 2222
c - 2001:db8::1 22
d ops d.example.org -
EXPECTED
  diff - <(inventory_of "prod" <<'INI'
gateway ansible_host=192.0.2.9
[hv]
hv[08:10] ansible_user=ops   ; three of them
[storage]
s1 ansible_host=192.0.2.20 ansible_port=2222 hostler_host=storage-1
[prod:children]
hv
storage
[prod:vars]
ansible_port = 22
[all:vars]
ansible_user="root"
INI
  ) <<'EXPECTED' || return 1
hv08 ops hv08 22
hv09 ops hv09 22
hv10 ops hv10 22
storage-1 root 192.0.2.20 2222
EXPECTED
  diff - <(printf '\xef\xbb\xbfa root@192.0.2.1\r\nb\r\n' | inventory_of "") <<'EXPECTED' || return 1
a root 192.0.2.1 -
b - b -
EXPECTED
  inventory_refused "line 2" 'a\nb -oProxyCommand=x\n' &&
    inventory_refused "there twice" 'a\na\n' &&
    inventory_refused "is no port" 'a 192.0.2.1:65536\n' &&
    inventory_refused "there is no port" 'a 192.0.2.1:\n' &&
    inventory_refused "there is no user" 'a @192.0.2.1\n' &&
    inventory_refused "control character" 'a\nb\033[2J\n' &&
    inventory_refused "is no range" '[hv]\nhv[9:1]\n' &&
    inventory_refused "is no range" '[hv]\nhv[1:99999999]\n' &&
    inventory_refused "has no end" "[hv]\na ansible_user='ops\n" &&
    inventory_refused "there is no group 'hw'" '[all:children]\nhw\n[hv]\na\n' &&
    inventory_refused "is within itself" '[x:children]\ny\n[y:children]\nx\n[y]\na\n' &&
    inventory_refused "neither a host nor a group" 'a\n' elsewhere &&
    inventory_refused "names '*'" 'a\n' '*' &&
    inventory_refused "leaves no host" 'a\n' ,
}

# inventory_refused WORDS TEXT [LIMIT]
inventory_refused() {
  # shellcheck disable=SC2059 # its escapes are meant
  says "$1" inventory_of "${3:-}" < <(printf "$2")
}

# A host in other hands answers with a command where a number belongs, and with a terminal's escapes.
rollout_rogue() {
  local said
  mkdir "$ROLLOUT_DIR/rogue"
  cat >"$ROLLOUT_DIR/rogue/ssh" <<'SH'
#!/bin/sh
printf 'arch=amd64\nsystemd=yes\nstatus=installed\nversion=0.\0331\nfree_kb=a[$(touch run-by-a-host)]\nneed_kb=1\n'
printf 'a curse \033[2J\n' >&2
SH
  chmod +x "$ROLLOUT_DIR/rogue/ssh"
  said="$(bash -c 'set -Eeuo pipefail
    source deploy/lib/report.sh
    source deploy/lib/rollout/inventory.sh
    source deploy/lib/rollout/host.sh
    source deploy/lib/rollout/record.sh
    source deploy/lib/rollout/upgrade.sh
    source deploy/lib/rollout/package.sh
    source deploy/lib/rollout/trouble.sh
    cd "$1"
    PATH="$1/rogue:$PATH"
    HOST_ADDRESS[rogue]=192.0.2.1 HOST_USER[rogue]="" HOST_PORT[rogue]=""
    RUN=test RUN_DIR=$PWD STATE=$PWD DEB_VERSION=1 DEB_FILE[amd64]=x DEB_FILES_SUM[amd64]="" TAKE_OVER=no CA="" DIALS="" ALLOW_DOWNGRADE=no RESUME="" ROLLBACK=""
    mkdir -p hosts/rogue
    host_look rogue
    trouble_of rogue
    get_host rogue facts
    # A host that never stops talking is not listened to for ever.
    printf "#!/bin/sh\nyes & yes >&2\n" >rogue/ssh
    host_look rogue || true
    trouble_of rogue
    (($(du -k hosts/rogue | cut -f1) < 1000)) && echo little
    printf "#!/bin/sh\nexec sleep 1000\n" >rogue/ssh
    verb_seconds() { echo 1; }
    host_look rogue || true
    trouble_of rogue
    openssl req -x509 -newkey ed25519 -nodes -subj /CN=rogue -addext subjectAltName=URI:spiffe://bed.example/agent/rogue -keyout key -out young 2>/dev/null
    openssl x509 -in young -signkey key -days 0 -out pem 2>/dev/null
    identity_trouble rogue "pem=$(tr "\n" "|" <pem)"' rogue "$ROLLOUT_DIR" | cat -v)" || return 1
  echo "$said"
  [[ "$said" == *"no space: 0 kB"* && "$said" == *"it said more than 64 KiB"* && "$said" == *little* && "$said" == *"did not come to an end within 1 s"* && "$said" == *"its certificate ended "*"Enrol it again"* && "$said" != *'^['* && ! -e "$ROLLOUT_DIR/run-by-a-host" ]]
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

rollout_difference() {
  diff - <(bash -c 'set -Eeuo pipefail
    source deploy/lib/rollout/fleet.sh
    gpus() { printf "{ \"hypervisors\": [{ \"id\": \"h1\", \"state\": \"%s\", \"gpus\": [%s] }], \"pools\": [%s] }" "$@"; }
    p="{ \"name\": \"p1\", \"devices\": [1, 2] }"
    fleet_difference "$(gpus in_service 1,2 "$p")" "$(gpus in_service 1 "$p")"
    fleet_difference "$(gpus in_service 1,2 "$p")" "$(gpus in_service 1,2 "{ \"name\": \"p1\", \"devices\": [1] }")"
    fleet_difference "$(gpus in_service 1 "$p")" "$(gpus failed 1 "")"
    fleet_difference "$(gpus unknown 1 "")" "$(gpus in_service 1 "$p")"' difference) <<'EXPECTED'
gpus of h1 was [1,2] and is [1]
devices of p1 was [1,2] and is [1]
state of h1 was "in_service" and is "failed"; the pool p1 is gone

EXPECTED
}

# A folder that nobody can write to.
rollout_unwritable() {
  local said
  said="$(bash -c 'set -Eeuo pipefail
    source deploy/lib/report.sh
    source deploy/lib/rollout/record.sh
    RUN_DIR=/proc/self/fdinfo RESUME="rollout resume"
    set +eE
    phase h1 installing
    echo went on' 2>&1)"
  echo "$said"
  [[ "$said" == *"cannot be written, so nothing further is begun"* && "$said" != *"went on"* ]]
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

rollout_usage() {
  local wrong
  for wrong in "sideways" "apply" "apply --inventory x" "apply --batch many" "plan --on-trouble panic" "status --colour blue" \
    "resume --limit h1" "rollback --package x" "apply --canary 0" "apply --batch 150%" "apply --inventory x --package x --wait 1"; do
    # shellcheck disable=SC2086 # words
    rolls 2 $wrong || return 1
  done
  # As from a variable that nobody has set: it would mean every host.
  rolls 2 apply --limit ""
}

rollout_broken_package() {
  head -c 100000 "$ROLLOUT_DIR/agent-0.1.1.deb" >"$ROLLOUT_DIR/agent-cut.deb"
  # shellcheck disable=SC2046 # words
  rolls 1 apply $(of_version cut) && rollout_said "broken" &&
    rolls 1 apply $(of_version 0.1.1) --sha256 0000 && rollout_said "is not what it should be"
}

rollout_other_package() {
  rolls 1 plan --inventory "$ROLLOUT_DIR/inventory" --package "$(echo "$ROLLOUT_DIR"/debs/hostler_*.deb)" && rollout_said "not hostler-agent"
}

# Asked as deploy/rollout asks, with a checksum that is not the package's.
rollout_damaged() {
  local said
  bed_copy deploy/lib/rollout/remote.sh h1:/root/ || return 1
  said="$(bed_ssh h1 'sh remote.sh take a-run new.deb 0000 no' <"$ROLLOUT_DIR/agent-0.1.1.deb")" && return 1
  echo "$said"
  [[ "$said" == *"arrived damaged"* ]] && bed_ssh h1 'find /var/cache/hostler -name "*new*" -o -name ".incoming*" -o -name "rollout*"' | diff - /dev/null
}

rollout_not_installable() {
  # shellcheck disable=SC2046
  rolls 1 apply $(of_version 0.1.5) && rollout_said "dpkg could not install the package" || return 1
  [[ "$(rollout_installed)" == "0.1.1-1 0.1.1-1 0.1.1-1" && "$(rollout_versions)" == "0.1.1 0.1.1 0.1.1" ]]
}

rollout_architecture() {
  # shellcheck disable=SC2046
  rolls 1 apply $(of_version 0.1.4) && rollout_said "its architecture is" &&
    rolls 0 plan $(of_version 0.1.1) --package "$ROLLOUT_DIR/tiny-0.1.1-arm64.deb" && rollout_said "upgrade" &&
    rolls 1 plan $(of_version 0.1.1) --package "$ROLLOUT_DIR/agent-0.1.4.deb" && rollout_said "have one version" && [[ "$(rollout_installed)" == "0.1.0-1 0.1.0-1 0.1.0-1" ]]
}

# plans_for VERSION OPTION...: the tiny package for h1.
plans_for() {
  local version=$1
  shift
  rolls 0 plan --inventory "$ROLLOUT_DIR/inventory" --package "$ROLLOUT_DIR/tiny-$version-amd64.deb" --limit h1 "$@"
}

rollout_versions_in_order() {
  plans_for 0.0.9 && rollout_said "If that is meant: --allow-downgrade" &&
    plans_for 0.0.9 --allow-downgrade && rollout_said "canary downgrade" &&
    plans_for 0.1.0 && rollout_said "with other files" &&
    plans_for 0.2.0 && rollout_said "canary upgrade" &&
    plans_for 0.3.0 && rollout_said "the coordinator is 0.1.0 and would refuse an agent of 0.3.0-1"
}

rollout_package_in_hand() {
  local code=0
  bed_ssh h1 'apt-mark hold hostler-agent' || return 1
  { plans_for 0.2.0 && rollout_said "its package is held"; } || code=1
  bed_copy "$ROLLOUT_DIR/agent-0.1.1.deb" h1:/root/ && bed_ssh h1 'apt-mark unhold hostler-agent && dpkg --unpack agent-0.1.1.deb' || return 1
  { plans_for 0.2.0 && rollout_said "its package is not whole (unpacked)"; } || code=1
  bed_ssh h1 'dpkg --force-confold --install /var/cache/hostler/hostler-agent_0.1.0-1_amd64.deb' && wait_for 60 rollout_sees h1 true && [[ $code -eq 0 ]]
}

rollout_left_out() {
  sed 2d "$ROLLOUT_DIR/inventory" >"$ROLLOUT_DIR/inventory-short"
  rolls 0 plan --inventory "$ROLLOUT_DIR/inventory-short" --package "$ROLLOUT_DIR/agent-0.1.1.deb" && rollout_said "not in the inventory: h2"
}

rollout_foreign() {
  printf '[all]\nh9 ansible_host=%s ansible_user=root\n' "$(bed_address h1)" >"$ROLLOUT_DIR/foreign.ini"
  "$HOSTLER_TEST_BIN/hostler-pki" init --dir "$ROLLOUT_DIR/other-site" --trust-domain other.example || return 1
  local apply=(apply --inventory "$ROLLOUT_DIR/foreign.ini" --package "$ROLLOUT_DIR/agent-0.1.1.deb")
  rolls 1 "${apply[@]}" && rollout_said "its certificate is of spiffe://bed.example/agent/h1" &&
    rolls 1 "${apply[@]}" --ca "$ROLLOUT_DIR/other-site/ca.crt" && rollout_said "is not signed by" &&
    rolls 1 "${apply[@]}" --dials 192.0.2.99:1312 && rollout_said "it dials $(bed_address coordinator):1312"
}

rollout_unreachable() {
  local code=0
  bed_ssh h3 'systemctl stop ssh'
  # shellcheck disable=SC2046
  { rolls 1 apply $(of_version 0.1.1) && rollout_said "not reachable by ssh" && rollout_said "nothing was changed"; } || code=1
  rollout_ssh_again h3
  [[ $code -eq 0 && "$(rollout_installed)" == "0.1.0-1 0.1.0-1 0.1.0-1" ]]
}

# Without ssh a host cannot be told to start it; it is told from within.
rollout_ssh_again() {
  bed_enter "$1" systemctl start ssh
}

rollout_unavailable() {
  local code=0
  bed_ssh h3 'systemctl stop hostler-agent'
  wait_for 60 rollout_sees h3 false || return 1
  # shellcheck disable=SC2046
  { rolls 1 apply $(of_version 0.1.1) --limit h1,h3 --wait 3 && rollout_said "away already: h3"; } || code=1
  bed_ssh h3 'systemctl start hostler-agent'
  wait_for 60 rollout_sees h3 true && [[ $code -eq 0 && "$(rollout_installed)" == "0.1.0-1 0.1.0-1 0.1.0-1" ]]
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
