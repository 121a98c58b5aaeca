#!/usr/bin/env bash
# Measures the figures of the README: release builds, real programs, a real libvirtd, a fleet of one host.
#
#   figures.sh                   prints one row a figure with its aim beside it; some minutes
#   figures.sh FIGURE...         only these, of: memory list create storage operations first-step renewals new-host
#
#   HOSTLER_FIGURES_BIN  a directory with the programs and `figures` already built (default: a release build)
#   HOSTLER_FIGURES_DIR  a directory on the disk that operations and first-step measure (default: /var/tmp)
#
# Owns a temporary directory, another on that disk, the demo's names in libvirt (deploy/demo.sh) and the domain
# figures-guest; operations, first-step and renewals need neither root nor libvirt. Takes down what it brought up, whatever
# happens. new-host needs root and no libvirt, and boots hosts of its own. A missed aim is printed as missed and is no error;
# what cannot be measured is one.
set -Eeuo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
top="$(dirname "$here")"
# shellcheck source=deploy/lib/report.sh
source "$top/deploy/lib/report.sh"
# shellcheck source=deploy/lib/process.sh
source "$top/deploy/lib/process.sh"
# shellcheck source=deploy/lib/libvirt.sh
source "$top/deploy/lib/libvirt.sh"
# shellcheck source=tests/shell/bed.sh
source "$here/shell/bed.sh"
# shellcheck source=tests/shell/new_host.sh
source "$here/shell/new_host.sh"

ALL=(memory list create storage operations first-step renewals new-host)
wanted=("$@")
[[ $# -gt 0 ]] || wanted=("${ALL[@]}")
for figure in "${wanted[@]}"; do
  [[ " ${ALL[*]} " == *" $figure "* ]] || fail "there is no figure '$figure'; usage: figures.sh [${ALL[*]}]"
done

asked() {
  local figure
  for figure in "$@"; do
    [[ " ${wanted[*]} " != *" $figure "* ]] || return 0
  done
  return 1
}

if asked memory list create storage new-host; then
  need_root "it starts domains on the system's libvirt, and hosts"
fi
cd "$top"

work="$(mktemp -d)"
disk="$(mktemp -d -p "${HOSTLER_FIGURES_DIR:-/var/tmp}")"
DEMO="$work/demo"
TWIN=figures-guest

demo() {
  HOSTLER_DEMO_DIR="$DEMO" HOSTLER_DEMO_PORT="$port" HOSTLER_DEMO_BIN="$bin" deploy/demo.sh "$@"
}

finish() {
  local code=$?
  trap - ERR EXIT
  set +e
  process_stop "$work/run" floor 5
  bed_down
  if [[ -e "$DEMO" ]]; then
    # Only a run that was cut short leaves it.
    virsh_quiet destroy "$TWIN" >/dev/null 2>&1
    virsh_quiet undefine "$TWIN" >/dev/null 2>&1
    if [[ $code -ne 0 && -d "$DEMO/logs" ]]; then
      mkdir -p "$top/.tools"
      rm -rf "$top/.tools/figures-logs"
      cp -r "$DEMO/logs" "$top/.tools/figures-logs"
      note "the logs are in $top/.tools/figures-logs"
    fi
    demo down >/dev/null
  fi
  rm -rf "$work" "$disk"
  exit "$code"
}

programs_build() {
  if [[ -n "${HOSTLER_FIGURES_BIN:-}" ]]; then
    bin="$(cd "$HOSTLER_FIGURES_BIN" 2>/dev/null && pwd)" || fail "HOSTLER_FIGURES_BIN is '$HOSTLER_FIGURES_BIN', which is no directory"
    return
  fi
  command -v cargo >/dev/null || fail "cargo is missing. Install a Rust toolchain: https://rustup.rs"
  say "programs: building the release (some minutes the first time)"
  cargo build --release --locked --bins -p hostler-coordinator -p hostler-agent -p hostler-pki -p hostler-cli
  # Apart, so that the tests' own needs add no feature to the programs that are measured.
  cargo build --release --locked -p hostler-tests --bin figures
  bin="$(cargo metadata --format-version 1 --no-deps --locked | jq -r .target_directory)/release"
}

trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# What libvirt's client library and all that it needs cost any program: the agent cannot be smaller.
floor_start() {
  gcc -x c -O2 -o "$work/floor" - -lvirt <<'C'
#include <libvirt/libvirt.h>
#include <unistd.h>
int main(void) { return virConnectOpen("qemu:///system") ? pause() : 1; }
C
  process_start "$work/run" floor "$work/floor.log" "$work/floor"
  floor="$(process_pid "$work/run" floor)" || fail "a C program cannot connect to $LIBVIRT_URI"
}

fleet_start() {
  # A port that nobody listens on, below those which the kernel hands out by itself.
  port=23312
  while [[ -n "$(ss -ltnH "sport = :$port")" ]]; do port=$((port + 1)); done
  demo up >"$work/up.log" 2>&1 || {
    cat "$work/up.log" >&2
    fail "the fleet does not come up (see above)"
  }
  coordinator="$(process_pid "$DEMO/run" coordinator)"
  agent="$(process_pid "$DEMO/run" agent)"
}

# Flushes that take a millisecond more, as of many SSDs: what grouped commits are for. The disk of a virtual machine may
# answer a flush before anything is on a disk.
slow_flushes_build() {
  gcc -x c -O2 -shared -fPIC -o "$work/slow-flushes.so" - <<'C'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
static int slowly(const char *name, int fd) {
  int (*flush)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
  struct timespec more = {0, 1000000};
  nanosleep(&more, 0);
  return flush(fd);
}
int fsync(int fd) { return slowly("fsync", fd); }
int fdatasync(int fd) { return slowly("fdatasync", fd); }
C
}

disk_check() {
  local kind
  kind="$(stat -f -c %T "$disk")"
  [[ "$kind" != tmpfs && "$kind" != ramfs ]] ||
    fail "$disk is in memory, which has nothing to flush. Set HOSTLER_FIGURES_DIR to a directory on a disk"
}

if asked memory list create storage; then
  deploy/packages.sh build demo
else
  deploy/packages.sh build
fi
programs_build
say "figures: $(nproc) CPUs, $(uname -srm), load $(cut -d ' ' -f 1 /proc/loadavg)"
# First: a libvirtd and a fleet would be beside them.
if asked operations first-step; then
  disk_check
  slow_flushes_build
fi
if asked operations; then
  TMPDIR="$disk" "$bin/figures" operations "this disk"
  TMPDIR="$disk" LD_PRELOAD="$work/slow-flushes.so" "$bin/figures" operations "flushes + 1 ms"
fi
if asked first-step; then
  TMPDIR="$disk" "$bin/figures" first-step "this disk"
  TMPDIR="$disk" LD_PRELOAD="$work/slow-flushes.so" "$bin/figures" first-step "flushes + 1 ms"
fi
if asked renewals; then
  # A thousand hosts have a thousand directories; what is measured is not their disk.
  "$bin/figures" renewals
fi
if asked new-host; then
  deploy/packages.sh test
  deploy/package.sh --built "$bin" --output "$work/debs" >"$work/package.log"
  new_host_measure "$work"
fi
if asked memory list create; then
  fleet_start
  floor_start
  say "figures: libvirt $(virsh_quiet version --daemon | sed -n 's/^Running against daemon: //p'); about ten minutes"
fi
if asked memory; then
  "$bin/figures" memory "Memory of the coordinator" "$coordinator" 15 "Memory of the idle agent" "$agent" 15 \
    "a C program that only connects to libvirt" "$floor" -
fi
if asked list; then
  "$bin/figures" list "127.0.0.1:$port" "$DEMO/pki"
fi
if asked create; then
  "$bin/figures" create "127.0.0.1:$port" "$DEMO/pki" /var/lib/libvirt/hostler-demo
fi
if asked storage; then
  "$bin/figures" storage
fi
if asked memory; then
  say "figures: memory after all of this"
  "$bin/figures" memory coordinator "$coordinator" - agent "$agent" -
fi
