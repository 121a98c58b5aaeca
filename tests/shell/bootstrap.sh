# shellcheck shell=bash disable=SC2016
# The stage of deploy/bootstrap: a site from nothing on two hosts that boot systemd (bed.sh), and all that may be in its way.
# Uses stages.sh's words and the packages of packages.sh; owns BOOTSTRAP_DIR and the bed's hosts `bc` and `bh`. What a site of
# three hosts does later is in rollout.sh.

BOOTSTRAP_DIR=""
# A name that is also a regular expression, and matches others.
BOOTSTRAP_HOST=b.h

stage_bootstrap() {
  say "bootstrap: a coordinator and a host that boot systemd"
  check "the programs to bootstrap with are there" test -x "${HOSTLER_TEST_BIN:-}/hostler-agent" || return 0
  BOOTSTRAP_DIR="$(mktemp -d)"
  if check "hosts for a new site boot" bootstrap_hosts_up; then
    bootstrap_on_hosts
    bed_logs "$LOGS/bootstrap"
  fi
  bootstrap_cleanup
}

bootstrap_cleanup() {
  bed_down
  if [[ -n "$BOOTSTRAP_DIR" ]]; then rm -rf "$BOOTSTRAP_DIR"; fi
  BOOTSTRAP_DIR=""
}

bootstrap_on_hosts() {
  check "a site that is killed at any command is repeated into a whole one" bootstrap_walk || true
  check "a CA that was cut off in the making is made anew" bootstrap_half_a_ca || true
  check "what is not of this command stays, and is named" bootstrap_foreign_files || true
  check "no link in the coordinator's folder leads root to another file" bootstrap_links || true
  check "modes are the same whatever the umask is" bootstrap_umask || true
  check "a site begins on a port and at an address of its own" bootstrap_port || true
  check "a site begins with the packages" bootstrap_coordinator || return 0
  check "a copy of the CA is whole, and brings it back" bootstrap_copy || true

  check "names and addresses that would mean something else are refused" bootstrap_arguments || true
  check "a host without root, without space or of another site is refused with the reason" bootstrap_refused_hosts || true
  check "a connection that is lost anywhere is no harm" bootstrap_lost_connections || true
  check "a package that is half installed is made whole" bootstrap_half_installed || true
  check "a host is added, and its token is seen nowhere" bootstrap_host_added || return 0
  check "a host that was revoked comes back with a new certificate, and keeps it" bootstrap_revoked || true
  check "a configuration that somebody edited stays" bootstrap_edited || true
}

bootstrap_hosts_up() {
  bed_up bc bh || return 1
  sed -e 's|@CA@|/var/lib/hostler-agent/identity/ca.crt|' >"$BOOTSTRAP_DIR/agent.toml.in" <<'TOML'
coordinator = "@COORDINATOR@"
state_dir = "/var/lib/hostler-agent"
[tls]
ca = "@CA@"
certificate = "/var/lib/hostler-agent/identity/agent.pem"
key = "/var/lib/hostler-agent/identity/agent.pem"
[libvirt]
uri = "test:///default"
[[hypervisor]]
kind = "host"
id = "@HOST@"
networks = [{ name = "default" }]
TOML
  mkdir "$BOOTSTRAP_DIR/debs" && cp "$PACKAGES_DIR"/before/*.deb "$BOOTSTRAP_DIR/debs/" &&
    bed_copy -r deploy "$BOOTSTRAP_DIR/debs" "$BOOTSTRAP_DIR/agent.toml.in" tests/shell/bootstrap/die.sh tests/shell/bootstrap/walk.sh bc:/root/ &&
    bed_copy -r "$PACKAGES_DIR/after" bh:/root/ &&
    bed_copy "$BED_DIR/key" bc:/root/.ssh/id_ed25519 &&
    bed_copy "$BED_DIR/known_hosts" bc:/root/.ssh/known_hosts &&
    on_bc 'chmod +x walk.sh; dpkg -i debs/hostler-coordinator_*.deb debs/hostler_*.deb && cp /etc/hostler/coordinator.toml shipped.toml'
}

on_bc() {
  bed_ssh bc "$*"
}

# The command, as the words for a shell on bc.
bootstrap_command() {
  printf 'deploy/bootstrap coordinator --trust-domain bed.example --address %s --packages debs --admin ada' "${1:-$(bed_address bc)}"
}

# As nothing had ever been there but the package.
bootstrap_wiped() {
  on_bc 'systemctl disable --quiet --now hostler-coordinator; rm -rf /etc/hostler/tls/* .config/hostler
    find /var/lib/hostler-coordinator -mindepth 1 -delete; install -d -o hostler -g hostler -m 0700 /var/lib/hostler-coordinator/ca
    cp shipped.toml /etc/hostler/coordinator.toml'
}

bootstrap_walk() {
  local said
  said="$(on_bc "./walk.sh 47 $(bootstrap_command | cut -d' ' -f2-) 2>/dev/null")" || return 1
  echo "$said"
  # Nothing but how many there were.
  [[ "$said" =~ ^[0-9]+\ kills$ && "${said%% *}" -ge 5 ]]
}

bootstrap_half_a_ca() {
  bootstrap_wiped && on_bc 'printf "#!/bin/sh\n/usr/bin/hostler-pki \"\$@\" && if [ \"\$1\" = init ]; then rm \"\$3/ca.crt\"; exit 1; fi\n" >/usr/local/bin/hostler-pki
    chmod 0755 /usr/local/bin/hostler-pki' || return 1
  ! on_bc "$(bootstrap_command)" || return 1
  on_bc "rm /usr/local/bin/hostler-pki; $(bootstrap_command)"
}

# bootstrap_refuses WORDS COMMAND: after the command on a wiped bc, bootstrap says the words and fails.
bootstrap_refuses() {
  bootstrap_wiped && on_bc "$2" && says "$1" on_bc "$(bootstrap_command)"
}

bootstrap_foreign_files() {
  local tls=/etc/hostler/tls ca=/var/lib/hostler-coordinator/ca sum
  bootstrap_refuses "its CA is not in" "touch $tls/coordinator.crt" &&
    bootstrap_refuses "a key that is not of this command" "echo mine >$tls/coordinator.key" && [[ "$(on_bc "cat $tls/coordinator.key")" == mine ]] &&
    bootstrap_refuses "is of another CA" "echo other >$tls/ca.crt" &&
    bootstrap_refuses "holds only one of ca.key and ca.crt" "runuser -u hostler -- touch $ca/ca.key" &&
    bootstrap_refuses "which are no CA" "runuser -u hostler -- touch $ca/notes" &&
    bootstrap_refuses "missing field" "echo '[enrolment]' >>/etc/hostler/coordinator.toml" || return 1
  bootstrap_wiped && on_bc "$(bootstrap_command)" || return 1
  sum="$(on_bc "sha256sum $ca/* $tls/*")"
  says "is of bed.example, not of other.example" on_bc "$(bootstrap_command | sed 's/bed\.example/other.example/')" &&
    [[ "$(on_bc "sha256sum $ca/* $tls/*")" == "$sum" ]]
}

# Who runs as hostler would have root copy or change a file of root's.
bootstrap_links() {
  bootstrap_wiped && on_bc "$(bootstrap_command)" || return 1
  on_bc 'mkdir -p secret; echo secret >secret/key; chmod 0600 secret/key; stat -c "%U %a" secret secret/key >secret.before
    rm -r /etc/hostler/tls/* /var/lib/hostler-coordinator/ca/ca.crt; cd /var/lib/hostler-coordinator
    runuser -u hostler -- ln -s /root/secret/key ca/ca.crt; runuser -u hostler -- ln -s /root/secret issuing; runuser -u hostler -- ln -s /root/secret ca.new' || return 1
  ! on_bc "$(bootstrap_command)" || return 1
  on_bc 'test -z "$(ls /etc/hostler/tls)" && cd /var/lib/hostler-coordinator && rm -r ca && runuser -u hostler -- ln -s /root/secret ca' || return 1
  ! on_bc "$(bootstrap_command)" || return 1
  on_bc 'stat -c "%U %a" secret secret/key | cmp - secret.before && test -z "$(ls /etc/hostler/tls)" && rm /var/lib/hostler-coordinator/ca'
}

bootstrap_umask() {
  local mask modes first=""
  for mask in 000 077; do
    bootstrap_wiped && on_bc "umask $mask; $(bootstrap_command)" || return 1
    modes="$(on_bc 'find /etc/hostler .config/hostler /var/lib/hostler-coordinator/ca /var/log/hostler-bootstrap.log -printf "%m %u:%g %p\n" | sort -k 3')"
    [[ "$modes" == "${first:=$modes}" ]] || { diff <(echo "$first") <(echo "$modes"); return 1; }
  done
  [[ "$modes" == *"600 root:root .config/hostler/ada.key"* && "$modes" == *"600 hostler:hostler /etc/hostler/tls/coordinator.key"* ]]
}

bootstrap_port() {
  bootstrap_wiped && on_bc "$(bootstrap_command "$(bed_address bc):2312")" || return 1
  bootstrap_wiped && on_bc "$(bootstrap_command '[::1]')" && on_bc 'hostler status'
}

bootstrap_coordinator() {
  bootstrap_wiped && on_bc 'dpkg --purge hostler-coordinator hostler >/dev/null 2>&1' || return 1
  # Half installed, as by a run that was killed.
  on_bc 'dpkg --unpack debs/hostler_*.deb' || return 1
  on_bc "$(bootstrap_command)" && on_bc 'dpkg --audit && hostler status'
}

bootstrap_copy() {
  on_bc 'deploy/bootstrap copy-ca ca.tar && [ "$(stat -c %a ca.tar)" = 600 ] && deploy/bootstrap copy-ca - | cmp - ca.tar' || return 1
  says "is there already" on_bc 'deploy/bootstrap copy-ca ca.tar' || return 1
  on_bc 'sum="$(sha256sum /var/lib/hostler-coordinator/ca/*)"; rm -r /var/lib/hostler-coordinator/ca
    runuser -u hostler -- tar -C /var/lib/hostler-coordinator -x <ca.tar && [ "$(sha256sum /var/lib/hostler-coordinator/ca/*)" = "$sum" ] &&
    hostler tokens create --host any --quiet >/dev/null'
}

# bootstrap_host ARGUMENTS...: of `bootstrap host`, on bc.
bootstrap_host() {
  on_bc "deploy/bootstrap host $* --packages debs --config agent.toml.in"
}

bootstrap_arguments() {
  local wrong
  for wrong in "'hv#1' root@x" "-x y" "'h v' x" "\$'a\\nb' c" "'[all]' x" "ä x"; do
    says "is no host name" bootstrap_host "$wrong" || return 1
  done
  for wrong in "hv1 -oProxyCommand=x" "hv1 a=b" "hv1 'a b'" "hv1 'a#b'"; do
    says "is no [USER@]ADDRESS[:PORT]" bootstrap_host "$wrong" || return 1
  done
  for wrong in ::1 -x a:0 a:70000 "'a b'" "'a;b'"; do
    says "--address is" on_bc "$(bootstrap_command "$wrong")" || return 1
  done
  says "is Ansible's" on_bc "echo '[all]' >ini; deploy/bootstrap host hv1 x --inventory ini --packages debs" &&
    says "cannot be made" bootstrap_host "hv1 x --inventory /nowhere/hosts"
}

bootstrap_refused_hosts() {
  local address
  address="$(bed_address bh)"
  bed_ssh bh 'useradd --create-home bob; usermod --password "*" bob; cp -r .ssh /home/bob/; chown -R bob /home/bob' || return 1
  says "runs no commands as root" bootstrap_host "$BOOTSTRAP_HOST bob@$address" || return 1
  says "does not answer by ssh" bootstrap_host "$BOOTSTRAP_HOST root@$BED_NET.99" || return 1
  bed_sabotage_disk_full bh || return 1
  says "has no space" bootstrap_host "$BOOTSTRAP_HOST root@$address" || return 1
  bed_relieve bh
  bed_ssh bh 'test ! -e /usr/bin/hostler-agent && test -z "$(ls /var/cache/hostler 2>/dev/null)"' || return 1
  # An agent of the same name and of another site.
  on_bc 'hostler-pki init --dir other --trust-domain other.example && hostler-pki issue agent b.h --dir other && cat other/b.h.crt other/b.h.key' >"$BOOTSTRAP_DIR/agent.pem"
  sed -i -n '/-----BEGIN/,/-----END/p' "$BOOTSTRAP_DIR/agent.pem"
  bed_ssh bh 'mkdir -p /var/lib/hostler-agent/identity' && bed_copy "$BOOTSTRAP_DIR/agent.pem" bh:/var/lib/hostler-agent/identity/ || return 1
  says "is not signed by" bootstrap_host "$BOOTSTRAP_HOST root@$address" && bed_ssh bh 'test ! -e /usr/bin/hostler-agent && rm -r /var/lib/hostler-agent'
}

bootstrap_bare() {
  bed_ssh bh 'dpkg --purge hostler-agent >/dev/null 2>&1; rm -rf /var/lib/hostler-agent /etc/hostler /var/cache/hostler'
}

# The connection is cut as apt is at work, which goes on alone.
bootstrap_lost_connections() {
  local phase
  for phase in 'test -e /var/cache/hostler/rollout' 'systemctl --quiet is-active hostler-rollout || test -x /usr/bin/hostler-agent'; do
    bootstrap_bare
    bed_in ssh -F "$(bed_ssh_config)" bc "deploy/bootstrap host $BOOTSTRAP_HOST root@$(bed_address bh) --packages debs --config agent.toml.in" &
    wait_for 30 bed_ssh bh "$phase"
    on_bc 'pkill -KILL -x ssh'
    ! wait "$!" || echo "it was through already"
    bootstrap_host "$BOOTSTRAP_HOST root@$(bed_address bh)" && bootstrap_host_is_whole || return 1
  done
}

# Nobody's, with a whole package, and in the fleet.
bootstrap_host_is_whole() {
  bed_ssh bh 'test -z "$(dpkg --audit)" && test ! -e /var/cache/hostler/rollout && test ! -e /etc/hostler/agent.toml.new' &&
    [[ "$(on_bc 'hostler --json agents list' | jq -r --arg host "$BOOTSTRAP_HOST" '.agents[] | select(.host == $host) | .connected')" == true ]]
}

bootstrap_half_installed() {
  # As dpkg leaves it when it is killed while it unpacks.
  bed_ssh bh 'systemctl stop hostler-agent; rm /usr/bin/hostler-agent; sed -i "/^Package: hostler-agent\$/,/^\$/s/^Status: .*/Status: install reinstreq half-installed/" /var/lib/dpkg/status' || return 1
  bootstrap_host "$BOOTSTRAP_HOST root@$(bed_address bh)" && bootstrap_host_is_whole
}

# `seen` gets what lists of processes show meanwhile.
bootstrap_host_added() {
  local watcher said
  bootstrap_bare
  bed_ssh bh 'until [ -e enough ]; do cat /proc/[0-9]*/cmdline 2>/dev/null | tr "\0" "\n" | grep -a ^hostler1- >>seen; done' &
  watcher=$!
  on_bc 'printf "bxh 192.0.2.99" >inventory'
  said="$(bootstrap_host "$BOOTSTRAP_HOST root@$(bed_address bh) --inventory inventory")" || return 1
  echo "$said"
  bed_ssh bh 'touch enough'
  wait "$watcher"
  diff - <(on_bc 'cat inventory') <<<"bxh 192.0.2.99
$BOOTSTRAP_HOST root@$(bed_address bh)" || return 1
  bed_ssh bh 'test ! -s seen && ! grep -rIl hostler1- /var/log /root /tmp /etc /var/lib/hostler-agent && ! journalctl --no-pager | grep hostler1-' &&
    on_bc '! grep -rIl hostler1- /var/log /root /tmp && ! journalctl --no-pager | grep hostler1-'
}

bootstrap_certificate() {
  bed_ssh bh 'sha256sum </var/lib/hostler-agent/identity/agent.pem'
}

bootstrap_revoked() {
  local before new
  before="$(bootstrap_certificate)"
  on_bc "hostler agents revoke $BOOTSTRAP_HOST --reason stolen" && bootstrap_host "$BOOTSTRAP_HOST root@$(bed_address bh) --inventory inventory" || return 1
  new="$(bootstrap_certificate)"
  bootstrap_host "$BOOTSTRAP_HOST root@$(bed_address bh) --inventory inventory" || return 1
  [[ "$new" != "$before" && "$(bootstrap_certificate)" == "$new" && "$(on_bc 'wc -l <inventory')" == 2 ]]
}

# Edited, and the coordinator left to be named: the certificate is gone, as on a host that is set up anew.
bootstrap_edited() {
  bed_ssh bh 'systemctl stop hostler-agent; rm -r /var/lib/hostler-agent/identity; sed -i "s/^coordinator = .*/coordinator = \"coordinator.example.org:1312\"/" /etc/hostler/agent.toml; echo "# kept" >>/etc/hostler/agent.toml' || return 1
  bootstrap_host "$BOOTSTRAP_HOST root@$(bed_address bh)" && bed_ssh bh 'tail -n 1 /etc/hostler/agent.toml' | cmp - <(echo "# kept")
}
