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

# expect_size WHAT COMPARISON BYTES: how the pool's size, as the kernel says, stands to another.
expect_size() {
  local size
  size="$(df --output=size --block-size=1 "$POOL_PATH" | tail -n 1)"
  test "$size" "$2" "$3" || fail "$1: the pool should be $2 $3 bytes, but df says $size; see $LOGS/agent.log"
  [[ "$(pool_figure size_bytes)" == "$size" ]] || fail "$1: the fleet lists another size than df's $size bytes"
}

pool_checksums() {
  (cd "$POOL_PATH" && find . -path ./.hostler -prune -o -type f -print0 | LC_ALL=C sort -z | xargs -0r sha256sum)
}

storage_tour() {
  local before size grown photos="$POOL_PATH/desktops/photos.img"
  say "tour: the shared storage, with files of a person on it"
  mkdir -p "$POOL_PATH/desktops"
  head -c 48M /dev/urandom >"$photos"
  echo "the only copy of a thesis" >"$POOL_PATH/desktops/thesis.txt"
  show hostler storage list

  say "tour: expand it; first only look"
  size="$(df --output=size --block-size=1 "$POOL_PATH" | tail -n 1)"
  show hostler storage expand 1GiB --dry-run
  expect_size "a dry run" -eq "$size"
  show hostler storage expand 1GiB
  expect_size "an expand by 1 GiB" -ge $((size + 1024 * 1024 * 1024))
  grown="$(df --output=size --block-size=1 "$POOL_PATH" | tail -n 1)"
  # What comes now lies on the new devices, and has to move before they can leave.
  head -c 64M /dev/urandom >"$POOL_PATH/desktops/videos.img"
  sync --file-system "$POOL_PATH"

  before="$(pool_checksums)"

  say "tour: back it up, lose a file, and get it back"
  show hostler backups create
  show rm "$POOL_PATH/desktops/thesis.txt"
  show hostler backups restore latest --path desktops/thesis.txt
  show cat "$POOL_PATH/desktops/thesis.txt"
  show hostler backups list
  [[ "$(pool_checksums)" == "$before" ]] || fail "the pool's files are not what they were; see $LOGS/agent.log"
  show restic snapshots --repo "$STORAGE/repository" --password-file "$STORAGE/backup.password"

  say "tour: shrink it again"
  show hostler storage shrink 2GiB
  expect_size "a shrink by at most 2 GiB" -ge $((grown - 2 * 1024 * 1024 * 1024))
  expect_size "a shrink by at most 2 GiB" -lt "$grown"
  [[ "$(pool_checksums)" == "$before" ]] || fail "the shrink changed files of the pool; see $LOGS/agent.log"
  show hostler storage show default
  rm -r "$POOL_PATH/desktops"
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

  storage_tour

  say "tour: the history"
  show hostler operations list
  ended="$(hostler --output json operations list | jq '[.operations[] | select(.state == "completed")] | length')"
  [[ "$ended" -ge $((2 * ${#all[@]} + 4)) ]] || fail "the history should hold $((2 * ${#all[@]} + 4)) completed operations, but holds $ended"
  printf '\n'
  say "tour: everything was as it should be"
}
