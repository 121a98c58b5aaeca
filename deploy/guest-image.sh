#!/usr/bin/env bash
# Builds what a small guest needs to boot, from Debian packages only: `vmlinuz` (Debian's cloud kernel), `initrd`
# (busybox and the virtio drivers) and `base.qcow2` (a labelled disk that guests take as their backing file).
#
#   guest-image.sh DIRECTORY
#
# Owns DIRECTORY and the download cache beside it (`DIRECTORY/cache`); installs nothing on this machine, not even the
# kernel. Nothing is downloaded or built again while what is there was made by this same recipe.
set -Eeuo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=deploy/lib/report.sh
source "$here/lib/report.sh"

[[ $# -eq 1 && "$1" != -* ]] || fail "usage: guest-image.sh DIRECTORY"
mkdir -p "$1"
out="$(cd "$1" && pwd)"
cache="$out/cache"

# Drivers the guest needs; what they need themselves is found in the modules.
DRIVERS=(virtio_pci virtio_blk virtio_net virtio-rng virtio_console button evdev)
# The label at the very start of the base disk; the guest prints it, which proves the backing file.
LABEL="hostler-base"
DISK_MIB=64

for tool in cpio gzip dpkg-deb qemu-img apt-get apt-cache; do
  command -v "$tool" >/dev/null || fail "$tool is missing. Run: deploy/packages.sh demo"
done

# What the result depends on; another recipe makes another image.
recipe="$(cat "${BASH_SOURCE[0]}" "$here/guest/init" | sha256sum | cut -d' ' -f1)"
if [[ -s "$out/vmlinuz" && -s "$out/initrd" && -s "$out/base.qcow2" && "$(cat "$out/recipe" 2>/dev/null)" == "$recipe" ]]; then
  say "guest image: $out is up to date"
  exit 0
fi

# linux-image-cloud-amd64 only names the current versioned kernel package.
kernel_package() {
  apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | sed -n 1p
}

# Downloaded, not installed: busybox-static would push out the busybox of a machine that has the other one.
download_packages() {
  local kernel
  kernel="$(kernel_package)"
  [[ -n "$kernel" ]] || return 1
  # The sandbox user of apt cannot write into every checkout; the packages are verified either way.
  (cd "$cache" && apt-get download -o APT::Sandbox::User=root "$kernel" busybox-static)
}

mkdir -p "$cache"
shopt -s nullglob
kernels=("$cache"/linux-image-*.deb)
busyboxes=("$cache"/busybox-static_*.deb)
if [[ ${#kernels[@]} -eq 0 || ${#busyboxes[@]} -eq 0 ]]; then
  say "guest image: downloading Debian's cloud kernel and busybox (about 28 MB)"
  # Package lists that are absent or older than the archive cure themselves by one update.
  if ! download_packages >"$cache/apt.log" 2>&1; then
    [[ $EUID -eq 0 ]] || fail "apt has no package lists that still hold; run as root: apt-get update"
    apt-get update >>"$cache/apt.log" 2>&1 || fail "apt-get update failed; see $cache/apt.log. Is there a network and a mirror?"
    download_packages >>"$cache/apt.log" 2>&1 || fail "cannot download the kernel of linux-image-cloud-amd64 and busybox-static; see $cache/apt.log"
  fi
  kernels=("$cache"/linux-image-*.deb)
  busyboxes=("$cache"/busybox-static_*.deb)
fi
kernel_deb="${kernels[-1]}"
busybox_deb="${busyboxes[-1]}"

say "guest image: building in $out from $(basename "$kernel_deb") and $(basename "$busybox_deb")"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
dpkg-deb -x "$kernel_deb" "$work/kernel"
dpkg-deb -x "$busybox_deb" "$work/busybox"
modules=("$work"/kernel/lib/modules/*)
[[ ${#modules[@]} -eq 1 ]] || fail "$kernel_deb holds no kernel modules; remove it and run this again"

root="$work/root"
mkdir -p "$root/bin" "$root/modules" "$root/etc/acpi/PWRF"
cp "$work/busybox/bin/busybox" "$root/bin/busybox"
install -m 0755 "$here/guest/init" "$root/init"
printf '#!/bin/sh\npoweroff -f\n' >"$root/etc/acpi/PWRF/00000080"
chmod 0755 "$root/etc/acpi/PWRF/00000080"

# Modules name their dependencies in their .modinfo section; reading it spares depmod and a generated modules.dep.
# A name may be spelled with - or _ in the file's name.
declare -A taken=()
take_module() {
  local name="${1//-/_}" file="" candidate needed
  [[ -z "${taken[$name]:-}" ]] || return 0
  taken[$name]=1
  while IFS= read -r candidate; do
    if [[ "$(basename "${candidate//-/_}" .ko)" == "$name" ]]; then file="$candidate"; fi
  done < <(find "${modules[0]}/kernel" -name "${name//_/[-_]}.ko")
  if [[ -z "$file" ]]; then
    grep -q "/${name//_/[-_]}\.ko$" "${modules[0]}/modules.builtin" && return 0
    fail "the kernel in $(basename "$kernel_deb") has no module $name (nor is it built in); compressed modules are not supported"
  fi
  for needed in $(tr '\0' '\n' <"$file" | sed -n 's/^depends=//p' | tr ',' ' '); do
    take_module "$needed"
  done
  cp "$file" "$root/modules/$name.ko"
  echo "$name.ko" >>"$root/modules/order"
}
for driver in "${DRIVERS[@]}"; do take_module "$driver"; done

(cd "$root" && find . | LC_ALL=C sort | cpio --quiet --create --format=newc --owner=0:0 | gzip -9n) >"$work/initrd"
printf '%s\n' "$LABEL" >"$work/base.raw"
truncate -s "${DISK_MIB}M" "$work/base.raw"
qemu-img convert -q -f raw -O qcow2 "$work/base.raw" "$work/base.qcow2"

# Readable by the user that QEMU runs as. The recipe comes last: without it, the image is built again.
rm -f "$out/recipe"
install -m 0644 "$work"/kernel/boot/vmlinuz-* "$out/vmlinuz"
install -m 0644 "$work/initrd" "$work/base.qcow2" "$out/"
echo "$recipe" >"$out/recipe"
note "vmlinuz $(du -h "$out/vmlinuz" | cut -f1), initrd $(du -h "$out/initrd" | cut -f1), base.qcow2 $(du -h "$out/base.qcow2" | cut -f1)"
