#!/usr/bin/env bash
# A whole Hostler fleet of one host on this machine, with guests that really boot.
#
#   demo.sh [run]   brings it up, shows a tour, takes it down again (the default)
#   demo.sh up      brings it up, leaves it running, and prints how to talk to it; harmless when it is up already
#   demo.sh tour    the tour alone, on a demo that is up
#   demo.sh down    stops what `up` started and removes what it made
#
#   HOSTLER_DEMO_PORT  the coordinator's port on 127.0.0.1 (1312)
#   HOSTLER_DEMO_DIR   where the demo lives (.demo at the top of the checkout)
#   HOSTLER_DEMO_BIN   a directory with the four programs already built (default: a release build)
#
# Owns HOSTLER_DEMO_DIR, /var/lib/libvirt/hostler-demo, and in libvirt the names of lib/fleet.sh. Debian packages, the
# release build in target/ and the guest image in .tools/ stay for the next time. Never touches a process, domain,
# network or pool that it did not make.
set -Eeuo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
top="$(dirname "$here")"
# shellcheck source=deploy/lib/report.sh
source "$here/lib/report.sh"
# shellcheck source=deploy/lib/process.sh
source "$here/lib/process.sh"
# shellcheck source=deploy/lib/libvirt.sh
source "$here/lib/libvirt.sh"

usage="usage: demo.sh [run|up|tour|down]"
[[ $# -le 1 ]] || fail "$usage"
verb="${1:-run}"
if [[ "$verb" =~ ^(help|-h|--help)$ ]]; then
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
  exit 0
fi

DEMO="${HOSTLER_DEMO_DIR:-$top/.demo}"
[[ "$DEMO" == /* ]] || DEMO="$PWD/$DEMO"
# The path goes into TOML, XML and a shell script as it is.
[[ "$DEMO" =~ ^[A-Za-z0-9._/+-]+$ ]] ||
  fail "the demo cannot live in '$DEMO': its path may hold only letters, digits and . _ / + -. Choose another: HOSTLER_DEMO_DIR=/tmp/hostler-demo $0 $verb"
PORT="${HOSTLER_DEMO_PORT:-$(cat "$DEMO/port" 2>/dev/null || echo 1312)}"
[[ "$PORT" =~ ^[1-9][0-9]{0,4}$ && "$PORT" -le 65535 ]] || fail "HOSTLER_DEMO_PORT is '$PORT'; it must be a port number from 1 to 65535"
RECORDS="$DEMO/run"
LOGS="$DEMO/logs"
# shellcheck source=deploy/lib/storage.sh
source "$here/lib/storage.sh"
# shellcheck source=deploy/lib/fleet.sh
source "$here/lib/fleet.sh"
# shellcheck source=deploy/lib/tour.sh
source "$here/lib/tour.sh"

programs_build() {
  if [[ -n "${HOSTLER_DEMO_BIN:-}" ]]; then
    BIN="$(cd "$HOSTLER_DEMO_BIN" 2>/dev/null && pwd)" || fail "HOSTLER_DEMO_BIN is '$HOSTLER_DEMO_BIN', which is no directory"
    say "programs: taken from $BIN"
  else
    command -v cargo >/dev/null || fail "cargo is missing. Install a Rust toolchain: https://rustup.rs"
    say "programs: building the release (some minutes the first time)"
    (cd "$top" && cargo build --release --locked --bins -p hostler-coordinator -p hostler-agent -p hostler-pki -p hostler-cli)
    BIN="$(cd "$top" && cargo metadata --format-version 1 --no-deps --locked | jq -r .target_directory)/release"
  fi
  local program
  for program in hostler-coordinator hostler-agent hostler-pki hostler; do
    [[ -x "$BIN/$program" ]] || fail "$BIN/$program is missing. Unset HOSTLER_DEMO_BIN to have it built"
  done
}

require_free_port() {
  local holder
  holder="$(ss -ltnpH "sport = :$PORT" | sed -n 's/.*users:(("\([^"]*\)".*/\1/p' | sed -n 1p)"
  [[ -z "$(ss -ltnH "sport = :$PORT")" ]] ||
    fail "port $PORT is taken${holder:+ by $holder}. Choose another: HOSTLER_DEMO_PORT=$((PORT + 1)) $0 $verb"
}

up() {
  need_root "it talks to the system's libvirt"
  if fleet_is_up; then
    [[ "$PORT" == "$(cat "$DEMO/port")" ]] || fail "the demo is up already, on port $(cat "$DEMO/port"). For another port, first run: $0 down"
    say "the demo is up already"
    BIN="$(cat "$DEMO/bin")"
    print_how_to_talk
    return
  fi
  require_no_other_demo
  "$here/packages.sh" build demo
  process_alive "$RECORDS" coordinator || require_free_port
  programs_build
  "$here/guest-image.sh" "$top/.tools/guest-image"

  mkdir -p "$DEMO" "$LOGS" "$RECORDS"
  # What still runs was started with the port of before; it starts again with this one.
  process_stop "$RECORDS" agent 20
  process_stop "$RECORDS" coordinator 20
  echo "$PORT" >"$DEMO/port"
  echo "$BIN" >"$DEMO/bin"
  libvirt_ensure "$RECORDS" "$LOGS"
  guests_prepare "$top/.tools/guest-image"
  storage_prepare
  certificates_issue
  configuration_write
  fleet_start
  say "the demo is up"
  print_how_to_talk
}

down() {
  need_root "it talks to the system's libvirt"
  if [[ ! -e "$DEMO" ]] && ! owns_libvirt_dir; then
    say "nothing to take down in $DEMO"
    return
  fi
  fleet_stop
  if owns_libvirt_dir; then
    # Its objects can only be removed by a libvirt that runs.
    command -v virsh >/dev/null && libvirt_ensure "$RECORDS" "$LOGS"
    libvirt_remove
  fi
  libvirt_release "$RECORDS"
  storage_remove
  say "removing $DEMO"
  # Names only what the demo makes: a HOSTLER_DEMO_DIR that holds something else keeps it.
  local made
  for made in "${DEMO_MAKES[@]}"; do rm -rf "${DEMO:?}/$made"; done
  rmdir "$DEMO" 2>/dev/null || note "$DEMO holds files that are not the demo's; they stay"
  say "the demo is down"
}

run() {
  local code=0 was_up=no logs=$LOGS
  fleet_is_up && was_up=yes
  # Ctrl-C ends the step that runs; the demo is taken down all the same.
  trap 'code=130' INT TERM
  if "$0" up && "$0" tour; then :; else code=$?; fi
  if [[ $was_up == yes ]]; then
    note "the demo was up before the tour and stays up; take it down with: $0 down"
  else
    if [[ $code -ne 0 && -d "$LOGS" ]]; then
      mkdir -p "$top/.tools"
      rm -rf "$top/.tools/demo-logs"
      # `down` removes them with the rest.
      if cp -r "$LOGS" "$top/.tools/demo-logs"; then logs="$top/.tools/demo-logs"; fi
    fi
    "$0" down || code=$?
  fi
  [[ $code -ne 0 ]] || return 0
  [[ -d "$logs" ]] || fail "the demo did not go as it should; what is wrong is said above"
  fail "the demo did not go as it should (see above). The logs are in $logs"
}

case "$verb" in
  run) run ;;
  up) up ;;
  tour)
    fleet_is_up || fail "the demo is not up. Bring it up: $0 up"
    BIN="$(cat "$DEMO/bin")"
    tour
    ;;
  down) down ;;
  *) fail "unknown verb '$verb'; $usage" ;;
esac
