# shellcheck shell=bash disable=SC2016
# The stage of the Debian packages: built, looked at, and installed, run, upgraded, removed and purged on a host that boots
# systemd (bed.sh). Uses stages.sh's words; owns PACKAGES_DIR, whose packages the rollout takes too, and the bed's host `pk`.

PACKAGES_DIR=""
PACKAGES=(hostler-coordinator hostler-agent hostler)
SERVICES=(hostler-coordinator hostler-agent)

# The same programs as two versions: what changes is what an upgrade does.
packages_build() {
  deploy/package.sh --profile dev --built "$HOSTLER_TEST_BIN" --version 0.1.0-1 --output "$PACKAGES_DIR/before" &&
    deploy/package.sh --profile dev --built "$HOSTLER_TEST_BIN" --version 0.1.0-2 --output "$PACKAGES_DIR/after"
}

# packages_exposed UNIT LIMIT: ten times what systemd may call its exposure at most.
packages_exposed() {
  systemd-analyze security --offline=true --no-pager --threshold="$2" "deploy/systemd/$1.service"
}

packages_host_up() {
  bed_up pk &&
    bed_copy -r "$PACKAGES_DIR/before" "$PACKAGES_DIR/after" tests/shell/packages/site.sh tests/shell/packages/enrol.sh pk:/root/ &&
    on_pk 'chmod +x site.sh'
}

on_pk() {
  bed_ssh pk "$*"
}

# state UNIT PROPERTY VALUE
packages_state() {
  [[ "$(on_pk "systemctl show --property=$2 --value $1")" == "$3" ]]
}

packages_quiet() {
  local unit
  on_pk 'dpkg -i before/*.deb' || return 1
  for unit in "${SERVICES[@]}"; do
    packages_state "$unit" ActiveState inactive && packages_state "$unit" ConditionResult no && packages_state "$unit" NRestarts 0 || return 1
    # From the journal, which comes after.
    wait_for 30 packages_skipped "$unit" || return 1
  done
}

packages_skipped() {
  local said
  # It ends with 3 for what does not run.
  said="$(on_pk "systemctl status --no-pager $1" || true)"
  [[ "$said" =~ was\ skipped\ because\ (of\ an\ unmet|no\ trigger)\ condition ]]
}

packages_complete() {
  on_pk 'for part in /usr/share/man/man1/hostler.1.gz /usr/share/man/man1/hostler-storage-expand.1.gz /usr/share/man/man1/hostler-pki-issue.1.gz \
    /usr/share/man/man8/hostler-agent.8.gz /usr/share/man/man8/hostler-coordinator.8.gz /usr/share/bash-completion/completions/hostler \
    /usr/share/zsh/vendor-completions/_hostler /usr/share/fish/vendor_completions.d/hostler.fish; do test -s $part || { echo "$part is missing"; exit 1; }; done
    bash -n /usr/share/bash-completion/completions/hostler' && packages_pages
}

# A page for each command of each program, also for those that were added since.
packages_pages() {
  local missing
  missing="$(on_pk 'pages() {
      for command in $("$@" --help | sed -n "/^Commands:/,/^\$/s/^  \([a-z-]*\) .*/\1/p"); do
        [ "$command" != help ] || continue
        ls "/usr/share/man/man$section/$(echo "$*" "$command" | tr " " -).$section.gz" 2>&1 >/dev/null
        pages "$@" "$command"
      done
    }
    section=1; pages hostler; pages hostler-pki; section=8; pages hostler-agent; pages hostler-coordinator')"
  echo "$missing"
  [[ -z "$missing" ]]
}

# In a tree that nothing runs in, as where an image is made; a user of the coordinator's name is there already.
packages_in_an_image() {
  local said
  said="$(unshare --mount bash -eu -c 'mount -t tmpfs image "$1/image"
    mkdir "$1"/image/{upper,work,tree}
    mount -t overlay -o "lowerdir=$2,upperdir=$1/image/upper,workdir=$1/image/work" image "$1/image/tree"
    cp "$1"/before/*.deb "$1/image/tree/root/"
    chroot "$1/image/tree" sh -eu -c "cd /root; useradd --no-user-group --shell /bin/bash hostler
      dpkg -i hostler*.deb
      id -nG hostler | grep -w hostler
      test -L /etc/systemd/system/multi-user.target.wants/hostler-agent.service
      dpkg --purge hostler-agent hostler-coordinator hostler; ! ls /etc/hostler"' image "$PACKAGES_DIR" "$BED_BASE" 2>&1)" || { echo "$said"; return 1; }
  echo "$said"
  # Nothing was left, so nothing is said to be.
  [[ "$said" == *"the user hostler was there before this package and can log in"* && "$said" != *"is left as it is"* ]]
}

packages_serve() {
  on_pk 'sh /root/enrol.sh' || return 1
  wait_for 30 packages_listed 'out of service'
}

# packages_listed STATE: of the hypervisor, as the client shows it.
packages_listed() {
  [[ "$(on_pk 'hostler hypervisors list')" == *"hv1   host  $1"* ]]
}

packages_hypervisor_up() {
  on_pk 'hostler hypervisors create hv1; cat /var/lib/site/log' || return 1
  diff tests/shell/packages/site.can <(on_pk 'cat /var/lib/site/can')
}

packages_modes() {
  on_pk 'runuser -u hostler -- hostler-coordinator --check && hostler-agent --check' || return 1
  diff - <(on_pk 'stat -c "%U:%G %a %n" /etc/hostler/tls /etc/hostler/tls/coordinator.key /var/lib/hostler-coordinator \
    /var/lib/hostler-coordinator/ca /var/lib/hostler-coordinator/hostler.db /var/lib/hostler-agent /var/lib/hostler-agent/identity
    ps -o user= -p $(systemctl show --property=MainPID --value hostler-coordinator)') <<'EXPECTED'
root:hostler 750 /etc/hostler/tls
hostler:hostler 600 /etc/hostler/tls/coordinator.key
hostler:hostler 700 /var/lib/hostler-coordinator
hostler:hostler 700 /var/lib/hostler-coordinator/ca
hostler:hostler 600 /var/lib/hostler-coordinator/hostler.db
root:root 700 /var/lib/hostler-agent
root:root 700 /var/lib/hostler-agent/identity
hostler
EXPECTED
}

# packages_main_is_not UNIT PID: another process serves now, and says that it is ready.
packages_main_is_not() {
  local pid
  pid="$(on_pk "systemctl show --property=MainPID --value $1")"
  [[ "$pid" != 0 && "$pid" != "$2" ]] && packages_state "$1" ActiveState active
}

# packages_replaced SIGNAL UNIT: what gets the signal is replaced by systemd.
packages_replaced() {
  local pid
  pid="$(on_pk "systemctl show --property=MainPID --value $2")"
  on_pk "kill -$1 $pid" && wait_for 60 packages_main_is_not "$2" "$pid"
}

packages_watched() {
  packages_replaced STOP "$1" && [[ "$(on_pk "journalctl --no-pager --unit $1")" == *"Failed with result 'watchdog'"* ]]
}

# More crashes than systemd's own limit of five in ten seconds.
packages_crash_for_ever() {
  local unit
  for unit in "${SERVICES[@]}"; do
    for _ in 1 2 3 4 5 6 7; do packages_replaced KILL "$unit" || return 1; done
  done
  wait_for 30 packages_listed 'in service'
}

# An operation that an upgrade finds running goes on after it, and what a site has left running does not stop.
packages_upgrade() {
  local site config
  on_pk 'hostler hypervisors destroy hv1 && rm /run/site.begun && touch /run/site.hold' || return 1
  on_pk 'hostler hypervisors create hv1 >created 2>&1 </dev/null &'
  wait_for 30 on_pk 'test -e /run/site.begun' || return 1
  site="$(on_pk 'pgrep --full "site.sh start"')"
  config="$(on_pk 'sha256sum /etc/hostler/*.toml')"
  on_pk 'dpkg -i after/*.deb && dpkg --audit' || return 1
  [[ "$(on_pk "dpkg-query -W -f '\${Version} ' ${PACKAGES[*]}")" == "0.1.0-2 0.1.0-2 0.1.0-2 " ]] || return 1
  [[ "$(on_pk 'sha256sum /etc/hostler/*.toml')" == "$config" ]] || return 1
  on_pk "kill -0 ${site%%$'\n'*}; rm /run/site.hold" || return 1
  wait_for 60 packages_listed 'in service' || { on_pk 'cat created; hostler operations list'; return 1; }
  [[ "$(on_pk 'hostler operations list')" != *attention* ]]
}

# dpkg dies with its machine while it configures; what is asked for then is what its own words ask for.
packages_killed() {
  on_pk 'printf "#!/bin/sh\nkill -KILL \$(pgrep -x dpkg) \$PPID\n" >/usr/local/bin/deb-systemd-invoke; chmod 0755 /usr/local/bin/deb-systemd-invoke
    ! dpkg -i before/*.deb; rm /usr/local/bin/deb-systemd-invoke; dpkg --audit | grep hostler' || return 1
  on_pk 'dpkg --configure -a && dpkg -i before/*.deb && test -z "$(dpkg --audit)"' || return 1
  wait_for 30 packages_listed 'in service'
}

# A unit that somebody masked stays masked, and nothing fails for it. Stopped first: a masked unit has no KillMode=.
packages_masked() {
  on_pk 'systemctl stop hostler-agent && systemctl mask hostler-agent && dpkg -i after/*.deb' && packages_state hostler-agent ActiveState inactive || return 1
  on_pk 'systemctl unmask hostler-agent && systemctl start hostler-agent' && wait_for 30 packages_listed 'in service'
}

packages_stay_running() {
  local site
  site="$(on_pk 'cat /run/site.pid')"
  on_pk 'systemctl restart hostler-agent' && on_pk "kill -0 $site" && wait_for 30 packages_listed 'in service'
}

# Names, contents, owners and modes of what must outlive the packages.
packages_kept() {
  on_pk 'cd /; find etc/hostler/tls var/lib/hostler-agent/identity root/pki srv/site -type f -exec sha256sum {} + -exec stat -c "%n %U %a" {} + | sort
    ls var/lib/hostler-coordinator/hostler.db var/lib/hostler-agent/journal -d'
}

packages_remove() {
  local kept unit
  kept="$(packages_kept)" || return 1
  on_pk "dpkg --remove ${PACKAGES[*]}" || return 1
  for unit in "${SERVICES[@]}"; do packages_state "$unit" ActiveState inactive || return 1; done
  on_pk 'test -e /etc/hostler/agent.toml && ! pgrep hostler && kill -0 "$(cat /run/site.pid)"' || return 1
  diff <(printf '%s\n' "$kept") <(packages_kept)
}

packages_purge() {
  local kept said
  kept="$(packages_kept)" || return 1
  said="$(on_pk "dpkg --purge ${PACKAGES[*]}")" || return 1
  [[ "$said" == *"/var/lib/hostler-agent is left as it is"* && "$said" == *"/var/lib/hostler-coordinator is left as it is"* ]] || return 1
  on_pk '! ls /usr/bin/hostler* /lib/systemd/system/hostler* /etc/hostler/*.toml 2>/dev/null && id hostler' || return 1
  diff <(printf '%s\n' "$kept") <(packages_kept)
}

packages_return() {
  on_pk 'dpkg -i after/*.deb' && wait_for 30 packages_state hostler-coordinator ActiveState active && packages_state hostler-agent ActiveState active
}

stage_packages() {
  say "packages: built as Debian's, and looked at"
  check "the programs for packages are there" test -x "${HOSTLER_TEST_BIN:-}/hostler-agent" || return 0
  PACKAGES_DIR="$(mktemp -d)"
  mkdir "$PACKAGES_DIR/image"
  if check "packages are built from the programs" packages_build; then
    check "lintian has nothing to say about them" lintian --allow-root --fail-on error,warning --tag-display-limit 0 "$PACKAGES_DIR"/before/*.deb || true
    check "systemd calls the coordinator's exposure 1.5 at most" packages_exposed hostler-coordinator 15 || true
    check "systemd calls the agent's exposure 3.5 at most" packages_exposed hostler-agent 35 || true
    packages_on_a_host
  fi
}

packages_cleanup() {
  bed_down
  if [[ -n "$PACKAGES_DIR" ]]; then rm -rf "$PACKAGES_DIR"; fi
  PACKAGES_DIR=""
}

packages_on_a_host() {
  say "packages: on a host that boots systemd"
  if check "a host of the test bed boots" packages_host_up; then
    check "without a certificate both services are quietly inactive" packages_quiet || true
    check "without a running systemd they are installed all the same, and purged" packages_in_an_image || true
    check "every command has its manual page, and the shells their completions" packages_complete || true
    if check "with certificates both serve, and the client sees the host" packages_serve; then
      check "state and keys belong to who needs them" packages_modes || true
      check "within the agent's limits restic and a site's program do their work, and no more" packages_hypervisor_up || true
      check "a coordinator that hangs is found out and replaced" packages_watched hostler-coordinator || true
      check "an agent that hangs is found out and replaced" packages_watched hostler-agent || true
      check "a service that crashes again and again is started again for ever" packages_crash_for_ever || true
      check "an upgrade leaves a running operation and the configuration alone" packages_upgrade || true
      check "an upgrade, or a step back, whose dpkg is killed is finished by the next" packages_killed || true
      check "a unit that somebody masked stays masked" packages_masked || true
      check "what a site left running goes on when the agent is restarted" packages_stay_running || true
      check "removing the packages leaves configuration, state and keys" packages_remove || true
      check "purging them leaves state and keys, and says where" packages_purge || true
      check "installed again, both serve with what was left" packages_return || true
    fi
    bed_logs "$LOGS/packages"
  fi
  bed_down
}
