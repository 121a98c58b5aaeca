# shellcheck shell=bash
# The demo's storage pool: btrfs on loop devices, and a restic repository for its backups.
# Owns DEMO/storage. The devices have stable names there, as disks have under /dev/disk/by-id on a real host; a pool
# that is half made is made anew, one that holds files is kept. Uses DEMO and LOGS.

STORAGE="$DEMO/storage"
POOL_PATH="$STORAGE/pool"
POOL_DISKS=(disk-a disk-b disk-c)
POOL_DISK_SIZE=900M

# The loop device of a backing file, if it has one.
loop_of() {
  losetup --noheadings --output NAME --associated "$1" | sed -n 1p
}

# A disk of the pool, if there is one: a shrink may have taken the first one out.
pool_disk() {
  local disk device
  for disk in "${POOL_DISKS[@]}"; do
    device="$(readlink "$STORAGE/devices/$disk")"
    if blkid --probe --match-types btrfs "$device" >/dev/null 2>&1; then
      echo "$device"
      return
    fi
  done
}

storage_prepare() {
  local disk file device
  say "storage: a btrfs pool on loop devices, two of them spare, and a restic repository"
  mkdir -p "$STORAGE"/{files,devices,pool}
  for disk in "${POOL_DISKS[@]}"; do
    file="$STORAGE/files/$disk"
    [[ -e "$file" ]] || truncate --size "$POOL_DISK_SIZE" "$file"
    device="$(loop_of "$file")"
    [[ -n "$device" ]] || device="$(losetup --find --show "$file")" || fail "no loop device for $file; does this machine have /dev/loop-control?"
    ln -sfn "$device" "$STORAGE/devices/$disk"
  done
  btrfs device scan >/dev/null 2>&1 || true
  if ! mountpoint --quiet "$POOL_PATH"; then
    device="$(pool_disk)"
    if [[ -z "$device" ]]; then
      device="$(readlink "$STORAGE/devices/${POOL_DISKS[0]}")"
      logged "$LOGS/storage.log" mkfs.btrfs --quiet --label hostler-demo --data single --metadata dup "$device"
    fi
    mount -t btrfs "$device" "$POOL_PATH"
  fi
  if [[ ! -e "$STORAGE/backup.password" ]]; then
    (umask 0077 && openssl rand -hex 24 >"$STORAGE/backup.password")
  fi
  [[ -e "$STORAGE/repository/config" ]] ||
    logged "$LOGS/storage.log" restic init --repo "$STORAGE/repository" --password-file "$STORAGE/backup.password"
}

# For the agent's configuration.
storage_configuration() {
  cat <<TOML

[storage]
pool = "default"
backend = "btrfs"
path = "$POOL_PATH"
spare_devices = ["$STORAGE/devices/disk-*"]
reserve = "10 %"

[storage.backup]
repository = "$STORAGE/repository"
password_file = "$STORAGE/backup.password"
read_back = "100 %"
keep = { last = 3, daily = 7 }
TOML
}

storage_remove() {
  local file device
  [[ -d "$STORAGE" ]] || return 0
  say "storage: removing the demo's pool and its loop devices"
  if mountpoint --quiet "$POOL_PATH"; then
    umount "$POOL_PATH" || fail "something still uses $POOL_PATH; see: fuser -vm $POOL_PATH, then run this again"
  fi
  for file in "$STORAGE"/files/*; do
    [[ -e "$file" ]] || continue
    device="$(loop_of "$file")"
    [[ -z "$device" ]] || losetup --detach "$device"
  done
}
