#!/usr/bin/env bash
# Installs the Debian packages that a purpose needs, and only those that are missing.
#
#   packages.sh [build] [demo] [test] [fuzz]
#
# Owns the list of packages. Never upgrades or removes anything, save one repair: a qemu-utils from another suite that
# conflicts with the distribution's qemu-system-x86 is replaced by its sibling. Touches no network when all is there.
set -Eeuo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=deploy/lib/report.sh
source "$here/lib/report.sh"

# libvirt's headers for the agent; a C compiler and linker for SQLite and for rustc; what deploy/package.sh asks on which
# libraries the packages depend.
BUILD=(libvirt-dev pkg-config gcc libc6-dev dpkg-dev jq)
# tini: libvirtd's orphans must be reaped where PID 1 does not do it (see lib/libvirt.sh).
DEMO=(
  libvirt-daemon-system libvirt-daemon-driver-qemu libvirt-clients qemu-system-x86 qemu-utils iptables
  cpio openssl iproute2 jq procps tini
  btrfs-progs restic util-linux mount
)
# debootstrap, systemd-container, openssh-client: the hosts of tests/shell/bed.sh.
# libfaketime sets the clock of one program.
TEST=(
  "${DEMO[@]}" python3 python3-venv sqlite3 shellcheck ca-certificates fdisk e2fsprogs libcap2-bin
  debootstrap systemd-container openssh-client lintian libfaketime
)

# libFuzzer is C++.
FUZZ=(g++)

usage="usage: packages.sh [build] [demo] [test] [fuzz]"
[[ $# -gt 0 ]] || fail "$usage"
wanted=()
for purpose in "$@"; do
  case "$purpose" in
    build) wanted+=("${BUILD[@]}") ;;
    demo) wanted+=("${DEMO[@]}") ;;
    fuzz) wanted+=("${FUZZ[@]}") ;;
    test)
      wanted+=("${TEST[@]}")
      # npm runs `buf lint`. Other packagings of Node.js bring their own and conflict with Debian's.
      command -v npm >/dev/null || wanted+=(npm)
      ;;
    *) fail "unknown purpose '$purpose'; $usage" ;;
  esac
done

is_installed() {
  [[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" == installed ]]
}

list_missing() {
  missing=()
  local package
  for package in $(printf '%s\n' "${wanted[@]}" | LC_ALL=C sort -u); do
    is_installed "$package" || missing+=("$package")
  done
}

# One by one: asked for two at once, `command -v` is content with either.
for tool in dpkg-query apt-get; do
  command -v "$tool" >/dev/null || fail "this machine has no $tool. Install by hand what your system calls: ${wanted[*]}"
done
list_missing
if [[ ${#missing[@]} -eq 0 ]]; then
  say "packages for $*: all installed"
  exit 0
fi
[[ $EUID -eq 0 ]] || fail "these packages are missing: ${missing[*]}. Run as root: $0 $*"

log="$(mktemp -t hostler-packages.XXXXXX.log)"
export DEBIAN_FRONTEND=noninteractive
apt_install() {
  logged "$log" apt-get install --yes --no-install-recommends --allow-downgrades "$@"
}

say "packages for $*: updating the package lists"
logged "$log" apt-get update
say "packages for $*: installing ${missing[*]} (log: $log)"
# A qemu-utils from another suite may conflict with the qemu-system-x86 to come: both from one source package then.
if [[ " ${missing[*]} " == *" qemu-system-x86 "* ]] && is_installed qemu-utils; then
  candidate="$(apt-cache policy qemu-system-x86 | sed -n 's/^ *Candidate: //p')"
  current="$(dpkg-query -W -f '${Version}' qemu-utils)"
  if [[ "$candidate" != "$current" ]] && [[ "$(apt-cache madison qemu-utils)" == *"| $candidate |"* ]]; then
    note "qemu-utils $current becomes $candidate, as qemu-system-x86 needs"
    missing+=("qemu-utils=$candidate")
  fi
fi
apt_install "${missing[@]}"
list_missing
[[ ${#missing[@]} -eq 0 ]] || fail "apt-get ended well, yet these are still missing: ${missing[*]}; see $log"
rm -f "$log"
