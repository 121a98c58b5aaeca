#!/usr/bin/env bash
# Every test of Hostler, on a real libvirt, btrfs, restic and systemd.
#
#   run.sh          all of it; ends with "N passed, N failed"
#   run.sh FILTER   only the Rust tests whose name holds FILTER
#
# Owns .tools/ (downloads, logs) and /var/lib/libvirt/hostler-test. Runs on after a failure, so that one run tells all.
# Never leaves anything running that it started, and never skips a test in silence: what cannot run counts as failed.
set -Eeuo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
top="$(dirname "$here")"
# shellcheck source=deploy/lib/report.sh
source "$top/deploy/lib/report.sh"
# shellcheck source=deploy/lib/process.sh
source "$top/deploy/lib/process.sh"
# shellcheck source=deploy/lib/libvirt.sh
source "$top/deploy/lib/libvirt.sh"
# shellcheck source=tests/shell/stages.sh
source "$here/shell/stages.sh"
# shellcheck source=tests/shell/beside.sh
source "$here/shell/beside.sh"
# shellcheck source=tests/shell/bed.sh
source "$here/shell/bed.sh"
# shellcheck source=tests/shell/packages.sh
source "$here/shell/packages.sh"
# shellcheck source=tests/shell/bootstrap.sh
source "$here/shell/bootstrap.sh"
# shellcheck source=tests/shell/rollout.sh
source "$here/shell/rollout.sh"

[[ $# -le 1 && "${1:-}" != -* ]] || fail "usage: run.sh [FILTER]"
filter="${1:-}"
cd "$top"

TOOLS="$top/.tools"
LOGS="$TOOLS/test-logs"
RECORDS="$TOOLS/test-run"
# Real domains boot from here: QEMU's user cannot read every checkout.
LIBVIRT_DIR=/var/lib/libvirt/hostler-test
# Among the features: hostler-agent/real-libvirt.
FEATURES=(--locked --all-features)
export CARGO_TERM_COLOR=never

hosts_cleanup() {
  rollout_cleanup
  bootstrap_cleanup
  packages_cleanup
}

finish() {
  local code=$?
  trap - ERR EXIT
  set +e
  beside_stop
  demo_cleanup
  hosts_cleanup
  libvirt_release "$RECORDS"
  rm -rf "$LIBVIRT_DIR"
  exit "$code"
}

need_root "it starts domains on the system's libvirt"
command -v cargo >/dev/null || fail "cargo is missing. Install a Rust toolchain: https://rustup.rs"
rm -rf "$LOGS"
mkdir -p "$LOGS"
deploy/packages.sh build test
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
libvirt_ensure "$RECORDS" "$LOGS"
deploy/guest-image.sh "$TOOLS/guest-image"
mkdir -p "$LIBVIRT_DIR/image"
install -m 0644 "$TOOLS"/guest-image/{vmlinuz,initrd,base.qcow2} "$LIBVIRT_DIR/image/"
export HOSTLER_TEST_LIBVIRT="$LIBVIRT_URI"
export HOSTLER_TEST_GUEST="$LIBVIRT_DIR/image"

if [[ -z "$filter" ]]; then
  stage_scripts
  stage_protos
fi
stage_programs
if [[ -z "$filter" ]]; then
  # These wait for hosts most of the time, and many Rust tests wait too.
  say "beside the Rust tests: packages, bootstrap and rollout on hosts that boot systemd; what they say comes after them"
  beside_start "$LOGS/hosts.log" hosts_cleanup stage_packages stage_bootstrap stage_rollout
fi
stage_rust "$filter"
if [[ -z "$filter" ]]; then
  beside_join
  stage_demo
fi

printf '\n'
report_failures
printf '%s passed, %s failed\n' "$passed" "$failed"
[[ $failed -eq 0 && $passed -gt 0 ]] || exit 1
