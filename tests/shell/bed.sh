# shellcheck shell=bash
# The test bed: Debian hosts that boot systemd, each with an sshd, on a network of their own.
#
#   bed_up HOST...                boots hosts of these names and returns when sshd of each answers
#   bed_in COMMAND...             runs a command of this machine on the bed's network, as an operator beside the hosts
#   bed_ssh HOST COMMAND          runs a shell command on a host, as root
#   bed_enter HOST COMMAND...     runs a command on a host without ssh, for when that is what is broken
#   bed_copy FILE... HOST:PATH    copies files to a host
#   bed_address HOST              its address
#   bed_ssh_config                an ssh_config(5) that knows every host and how to get in
#   bed_unplug HOST, bed_plug HOST                     takes its cable out, and puts it in again
#   bed_sabotage_disk_full HOST, bed_relieve HOST      leaves no byte free on its disk, and gives it back
#   bed_crash HOST                the host dies as by a power cut; bed_up HOST boots it anew, empty
#   bed_logs FOLDER               keeps each host's journal in FOLDER
#   bed_down                      takes everything away; may be called at any time, also twice
#
# A host is an overlay on one cached Debian tree (.tools/bed), its changes live in memory and go with it. Hosts run in
# namespaces and control groups named after BED, which holds the pid of the shell that owns them: beds do not see each
# other, and the next bed sweeps what a killed one left. Nothing reaches this machine's network.
# Owns /run/BED, the network namespaces BED and BED-*, the control group BED. Never touches another bed that is alive.
# Needs deploy/lib/report.sh and process.sh, and `deploy/packages.sh test`.

BED="hostler-bed-$$"
BED_DIR="/run/$BED"
BED_CACHE="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/.tools/bed"
BED_SUITE=bookworm
# What hosts have from the start: a service manager, a way in, and what Hostler's packages depend on.
BED_PACKAGES=(systemd systemd-sysv dbus openssh-server iproute2 procps libvirt0 btrfs-progs restic adduser ca-certificates jq)
# Documentation's network (RFC 5737): nobody has it.
BED_NET=192.0.2
# What a host may write in all: its disk.
BED_DISK=768m
BED_BOOT_SECONDS=120

# The control groups of a name: systemd wants its own hierarchy on machines with the first kind of control groups.
bed_groups() {
  local root
  for root in /sys/fs/cgroup/unified /sys/fs/cgroup/systemd /sys/fs/cgroup; do
    if [[ -e "$root/cgroup.procs" ]]; then printf '%s/%s\n' "$root" "$1"; fi
  done
}

# The Debian tree that all hosts share; made once for a list of packages.
bed_base() {
  local recipe base mirror log="$BED_CACHE/debootstrap.log" packages
  packages="$(IFS=,; echo "${BED_PACKAGES[*]}")"
  recipe="$(printf '%s %s\n' "$BED_SUITE" "$packages" | sha256sum | cut -c1-16)"
  base="$BED_CACHE/base-$recipe"
  BED_BASE=$base
  mkdir -p "$BED_CACHE"
  exec {BED_LOCK}>"$BED_CACHE/lock"
  flock "$BED_LOCK"
  if [[ ! -d "$base" ]]; then
    command -v debootstrap >/dev/null || fail "debootstrap is missing. Run: deploy/packages.sh test"
    # The machine's own source, whatever mirror that is.
    # shellcheck disable=SC2016 # apt's word, not the shell's
    mirror="$(apt-get indextargets --format '$(REPO_URI)' "Codename: $BED_SUITE" "Created-By: Packages" | sed -n 1p)"
    [[ -n "$mirror" ]] || fail "apt knows no source of Debian $BED_SUITE, which the test bed's hosts are made of; run: apt-get update"
    say "bed: making a Debian $BED_SUITE for its hosts in $base (about a minute)"
    rm -rf "$BED_CACHE"/making.*
    local making="$BED_CACHE/making.$$"
    logged "$log" debootstrap --variant=minbase --include="$packages" "$BED_SUITE" "$making" "$mirror"
    # Each host makes its own id at its first boot.
    : >"$making/etc/machine-id"
    rm -rf "$making"/var/cache/apt/archives/*.deb "$making"/var/lib/apt/lists/*
    # Hosts of a test have no use for a console or for timers that look for updates.
    local unit
    for unit in console-getty.service getty@.service apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service \
      fstrim.timer dpkg-db-backup.timer systemd-networkd.service systemd-resolved.service; do
      ln -sf /dev/null "$making/etc/systemd/system/$unit"
    done
    # PAM's loginuid cannot be set in a container.
    cat >"$making/etc/ssh/sshd_config.d/bed.conf" <<CONF
PermitRootLogin prohibit-password
UsePAM no
UseDNS no
MaxStartups 100
CONF
    mv "$making" "$base"
  fi
  flock --unlock "$BED_LOCK"
  exec {BED_LOCK}>&-
}

# What beds left behind whose shell is gone.
bed_sweep() {
  local left name pid
  for left in /run/hostler-bed-*; do
    name="$(basename "$left")"
    pid="${name##*-}"
    [[ "$pid" =~ ^[0-9]+$ && ! -e "/proc/$pid" ]] || continue
    note "bed: sweeping what a killed run left ($name)"
    bed_remove "$name"
  done
}

# bed_kill NAME: every process of a bed, or of one of its hosts (BED/HOST), and its control groups.
bed_kill() {
  local group root
  while read -r group; do
    [[ -d "$group" ]] || continue
    if [[ -e "$group/cgroup.kill" ]]; then echo 1 >"$group/cgroup.kill"; fi
  done < <(bed_groups "$1")
  while read -r group; do
    [[ -d "$group" ]] || continue
    wait_for 20 bed_group_removed "$group" || note "bed: $group does not go away"
  done < <(bed_groups "$1")
}

bed_group_removed() {
  find "$1" -depth -type d -exec rmdir {} + 2>/dev/null || true
  [[ ! -e "$1" ]]
}

bed_remove() {
  local name=$1 space
  bed_kill "$name"
  for space in /run/netns/"$name" /run/netns/"$name"-*; do
    if [[ -e "$space" ]]; then ip netns delete "$(basename "$space")" || true; fi
  done
  rm -rf "/run/${name:?}"
}

bed_down() {
  [[ -d "$BED_DIR" ]] || return 0
  bed_remove "$BED"
}

# The network and the key of the bed; once.
bed_prepare() {
  [[ ! -d "$BED_DIR" ]] || return 0
  local tool
  for tool in systemd-nspawn ip nsenter ssh ssh-keygen; do
    command -v "$tool" >/dev/null || fail "$tool is missing. Run: deploy/packages.sh test"
  done
  bed_sweep
  bed_base
  mkdir -p "$BED_DIR/hosts"
  chmod 0700 "$BED_DIR"
  ip netns add "$BED"
  ip -n "$BED" link set lo up
  ip -n "$BED" link add bed0 type bridge
  ip -n "$BED" address add "$BED_NET.1/24" dev bed0
  ip -n "$BED" link set bed0 up
  ssh-keygen -q -t ed25519 -N '' -C bed -f "$BED_DIR/key"
  cat >"$BED_DIR/ssh_config" <<CONF
Host *
  User root
  IdentityFile $BED_DIR/key
  IdentitiesOnly yes
  UserKnownHostsFile $BED_DIR/known_hosts
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  BatchMode yes
  ConnectTimeout 5
  LogLevel ERROR
CONF
  : >"$BED_DIR/known_hosts"
  echo "127.0.0.1 localhost" >"$BED_DIR/hosts.table"
}

# Runs as the first process of a host, in mount and network namespaces of its own; ends as systemd-nspawn.
bed_host_main() {
  local host=$1 root="$BED_DIR/hosts/$1" group
  while read -r group; do
    mkdir -p "$group"
    echo "$BASHPID" >"$group/cgroup.procs"
  done < <(bed_groups "$BED/$host")
  # These mounts are seen by this host alone and go with its last process.
  mkdir -p /run/systemd
  mount -t tmpfs -o mode=0755 bed /run/systemd
  mount -t tmpfs -o "size=$BED_DISK,mode=0755" bed "$root"
  mkdir "$root"/{upper,work,tree}
  mount -t overlay -o "lowerdir=$BED_BASE,upperdir=$root/upper,workdir=$root/work" bed "$root/tree"
  echo "$host" >"$root/tree/etc/hostname"
  cp "$BED_DIR/hosts.table" "$root/tree/etc/hosts"
  install -d -m 0700 "$root/tree/root/.ssh"
  install -m 0600 "$BED_DIR/key.pub" "$root/tree/root/.ssh/authorized_keys"
  exec systemd-nspawn --quiet --directory "$root/tree" --boot --register=no --keep-unit --machine="$host" \
    --network-namespace-path="/run/netns/$BED-$host" --resolv-conf=off --timezone=off --link-journal=no --console=pipe
}

bed_address() {
  local number
  number="$(cat "$BED_DIR/hosts/$1.number" 2>/dev/null)" || fail "the test bed has no host '$1'"
  printf '%s.%s\n' "$BED_NET" "$number"
}

bed_ssh_config() {
  printf '%s\n' "$BED_DIR/ssh_config"
}

bed_up() {
  local host number address space
  bed_prepare
  for host in "$@"; do
    [[ "$host" =~ ^[a-z][a-z0-9-]{0,13}$ ]] || fail "'$host' is no name for a host of the test bed: at most 14 of a-z, 0-9 and -"
    if [[ -e "$BED_DIR/hosts/$host.number" ]]; then continue; fi
    number=$((10 + $(find "$BED_DIR/hosts" -name '*.number' | wc -l)))
    address="$BED_NET.$number"
    echo "$number" >"$BED_DIR/hosts/$host.number"
    printf '%s %s\n' "$address" "$host" >>"$BED_DIR/hosts.table"
    printf 'Host %s\n  HostName %s\n' "$host" "$address" >>"$BED_DIR/ssh_config"
    printf '%s,%s %s\n' "$host" "$address" "$(cut -d' ' -f1,2 "$BED_BASE/etc/ssh/ssh_host_ed25519_key.pub")" >>"$BED_DIR/known_hosts"
    space="$BED-$host"
    ip netns add "$space"
    ip -n "$BED" link add "$host" type veth peer name eth0 netns "$space"
    ip -n "$BED" link set "$host" master bed0 up
    ip -n "$space" address add "$address/24" dev eth0
    ip -n "$space" link set eth0 up
    ip -n "$space" link set lo up
  done
  for host in "$@"; do
    mkdir -p "$BED_DIR/hosts/$host"
    process_start "$BED_DIR/run" "$host" "$BED_DIR/$host.log" \
      env BED="$BED" BED_DIR="$BED_DIR" BED_BASE="$BED_BASE" BED_DISK="$BED_DISK" \
      unshare --mount --propagation private bash -eu -c "$(declare -f bed_groups bed_host_main); bed_host_main $host"
  done
  for host in "$@"; do
    if ! wait_for "$BED_BOOT_SECONDS" bed_settled "$host" || ! bed_answers "$host"; then
      tail -n 20 "$BED_DIR/$host.log" >&2
      fail "the test bed's host $host does not answer on ssh within $BED_BOOT_SECONDS s"
    fi
  done
}

bed_answers() {
  bed_ssh "$1" true >/dev/null 2>&1
}

# Up, or dead: nobody has to wait any longer.
bed_settled() {
  ! process_alive "$BED_DIR/run" "$1" || bed_answers "$1"
}

bed_in() {
  nsenter --net="/run/netns/$BED" "$@"
}

bed_ssh() {
  bed_in ssh -F "$BED_DIR/ssh_config" "$@"
}

# The first process of the host is the one in its namespaces whose number is 1 there.
bed_enter() {
  local host=$1 pid
  shift
  pid="$(cat "/proc/$(process_pid "$BED_DIR/run" "$host")/task"/*/children | cut -d' ' -f1)"
  nsenter --target "$pid" --mount --uts --ipc --net --pid -- "$@"
}

bed_copy() {
  bed_in scp -q -p -F "$BED_DIR/ssh_config" "$@"
}

bed_unplug() {
  ip -n "$BED" link set "$1" down
}

bed_plug() {
  ip -n "$BED" link set "$1" up
}

bed_sabotage_disk_full() {
  bed_ssh "$1" 'cat /dev/zero >/var/ballast 2>/dev/null; sync; ! (echo more >/var/ballast.more) 2>/dev/null'
}

bed_relieve() {
  bed_ssh "$1" 'rm -f /var/ballast /var/ballast.more'
}

bed_crash() {
  bed_kill "$BED/$1"
}

bed_logs() {
  local number host
  mkdir -p "$1"
  for number in "$BED_DIR"/hosts/*.number; do
    [[ -e "$number" ]] || continue
    host="$(basename "$number" .number)"
    bed_ssh "$host" 'journalctl --no-pager --boot' >"$1/$host.journal" 2>&1 || true
  done
}
