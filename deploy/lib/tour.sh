# shellcheck shell=bash
# What an operator does with the demo's fleet, each command shown before its output.
# Never trusts the words on the screen: after every step the state is asked for as JSON, and libvirt is asked as well.
# Uses DEMO, BIN and the functions of lib/fleet.sh.

# The command as a person would type it, then the command.
show() {
  printf '\n$ %s\n' "$*"
  "$@"
}

hostler() {
  hostler_as operator "$@"
}

expect_state() {
  local wanted=$1 id state reason
  shift
  for id in "$@"; do
    state="$(state_of "$id")"
    if [[ "$state" != "$wanted" ]]; then
      # Asked for a moment later, so it may be gone with the state that it explains.
      reason="$(listed "$id" reason)" || reason=""
      fail "$id should be $wanted now, but is '${state:-not listed}'${reason:+ ($reason)}; see $LOGS/coordinator.log and $LOGS/agent.log"
    fi
  done
}

# expect_running WANTED GUEST...: what libvirt says, not what we say.
expect_running() {
  local wanted=$1 guest found code
  shift
  for guest in "$@"; do
    code=0
    libvirt_lists "$guest" list --name --state-running || code=$?
    case $code in
      0) found=yes ;;
      1) found=no ;;
      *) fail "libvirt does not list its domains (see above); is it still there?" ;;
    esac
    [[ $found == "$wanted" ]] || fail "the domain $guest should run: $wanted; libvirt says: $found. See $LOGS/agent.log"
  done
}

tour() {
  local all=(demo-host "${GUESTS[@]}") console="$LIBVIRT_DIR/console/${GUESTS[0]}.log" ended
  say "tour: the fleet"
  show hostler hypervisors list
  expect_state out_of_service "${all[@]}"

  say "tour: put the host in service and build two guests"
  show hostler hypervisors create "${all[@]}"
  expect_state in_service "${all[@]}"
  expect_running yes "${GUESTS[@]}"
  show hostler hypervisors list

  say "tour: what libvirt says, and what the first guest said while it booted"
  show virsh -c "$LIBVIRT_URI" list
  show tail -n 3 "$console"
  grep -q "hostler guest ready" "$console" || fail "the guest did not boot; its console is $console"

  say "tour: and everything back"
  show hostler hypervisors destroy "${all[@]}"
  expect_state out_of_service "${all[@]}"
  expect_running no "${GUESTS[@]}"
  show hostler hypervisors list

  say "tour: the history"
  show hostler operations list
  ended="$(hostler --output json operations list | jq '[.operations[] | select(.state == "completed")] | length')"
  [[ "$ended" -ge $((2 * ${#all[@]})) ]] || fail "the history should hold $((2 * ${#all[@]})) completed operations, but holds $ended"
  printf '\n'
  say "tour: everything was as it should be"
}
