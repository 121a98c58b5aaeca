# shellcheck shell=bash
# What a rollout refuses, on the hosts of rollout.sh while all have 0.1.0, as they do again after each check.
# Uses rollout.sh's words.

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
