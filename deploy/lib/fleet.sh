# shellcheck shell=bash
# The demo's fleet: its certificates, configuration, libvirt objects and two daemons.
# Owns the names below and nothing else. Everything here may be done twice: `up` after a crash repairs.
# Uses DEMO, PORT, BIN, RECORDS and LOGS of demo.sh.

# QEMU runs as a user of its own, which cannot read every checkout; below /var/lib/libvirt it can, AppArmor included.
LIBVIRT_DIR=/var/lib/libvirt/hostler-demo
# The guests' pool and network are there from `up` to `down`, so that guests can be had while demo-host is out of
# service; those of demo-host come and go with it.
GUESTS=(demo-guest-1 demo-guest-2)
GUEST_POOL=hostler-demo
GUEST_NETWORK=hostler-demo
HOST_POOL=hostler-demo-host
HOST_NETWORK=hostler-demo-host
# All that the demo puts into DEMO; `down` removes exactly these.
# shellcheck disable=SC2034 # demo.sh uses it
DEMO_MAKES=(pki coordinator coordinator.toml agent agent-run agent.toml activation.sh host-in-service libvirt storage logs run port bin)

owns_libvirt_dir() {
  [[ "$(cat "$LIBVIRT_DIR/owner" 2>/dev/null)" == "$DEMO" ]]
}

# libvirt's names are the machine's: two demos would boot into each other's disks.
require_no_other_demo() {
  if [[ -e "$LIBVIRT_DIR/owner" ]] && ! owns_libvirt_dir; then
    local other
    other="$(cat "$LIBVIRT_DIR/owner")"
    fail "another demo is up on this machine, in $other. Take it down first: HOSTLER_DEMO_DIR=$other $0 down"
  fi
}

# guests_prepare IMAGE: kernel, base image, and the pool and network that the guests need.
guests_prepare() {
  local image=$1
  say "libvirt: pool and network for the guests"
  mkdir -p "$LIBVIRT_DIR"/{boot,pool,console,host-pool} "$DEMO/libvirt"
  echo "$DEMO" >"$LIBVIRT_DIR/owner"
  chmod 0711 "$LIBVIRT_DIR"
  install -m 0644 "$image/vmlinuz" "$image/initrd" "$LIBVIRT_DIR/boot/"
  # Running guests have it open; the same content is not written under them.
  if [[ ! -e "$LIBVIRT_DIR/pool/base.qcow2" ]]; then install -m 0644 "$image/base.qcow2" "$LIBVIRT_DIR/pool/"; fi
  write_pool "$GUEST_POOL" "$LIBVIRT_DIR/pool"
  write_pool "$HOST_POOL" "$LIBVIRT_DIR/host-pool"
  write_network "$GUEST_NETWORK" hostlerdemo0
  write_network "$HOST_NETWORK" hostlerdemo1

  virsh_quiet pool-info "$GUEST_POOL" >/dev/null 2>&1 || virsh_quiet pool-define "$DEMO/libvirt/pool-$GUEST_POOL.xml"
  is_active pool "$GUEST_POOL" || virsh_quiet pool-start "$GUEST_POOL"
  virsh_quiet pool-refresh "$GUEST_POOL"
  virsh_quiet net-info "$GUEST_NETWORK" >/dev/null 2>&1 || virsh_quiet net-define "$DEMO/libvirt/net-$GUEST_NETWORK.xml"
  is_active net "$GUEST_NETWORK" || virsh_quiet net-start "$GUEST_NETWORK"
  # The first question about QEMU makes libvirt probe it for some seconds; better now than within an operation.
  virsh_quiet domcapabilities --virttype qemu >/dev/null
}

is_active() {
  libvirt_lists "$2" "$1-list" --name 2>/dev/null
}

write_pool() {
  cat >"$DEMO/libvirt/pool-$1.xml" <<XML
<pool type='dir'>
  <name>$1</name>
  <target><path>$2</path></target>
</pool>
XML
}

# A bridge without address: isolated, and libvirt needs no dnsmasq for it.
write_network() {
  cat >"$DEMO/libvirt/net-$1.xml" <<XML
<network>
  <name>$1</name>
  <bridge name='$2' stp='off' delay='0'/>
</network>
XML
}

certificates_issue() {
  local pki="$DEMO/pki" role
  # All or none: half a directory is of no use, and neither is one that has expired.
  if "$BIN/hostler-pki" verify --ca "$pki/ca.crt" "$pki"/{coordinator,demo-host,viewer,operator,admin}.crt >/dev/null 2>&1; then return; fi
  say "certificates: a new CA, one for the coordinator, the host, and three people"
  rm -rf "$pki"
  logged "$LOGS/pki.log" "$BIN/hostler-pki" init --dir "$pki" --trust-domain demo.hostler
  logged "$LOGS/pki.log" "$BIN/hostler-pki" issue coordinator coordinator --dir "$pki" --dns localhost --ip 127.0.0.1
  logged "$LOGS/pki.log" "$BIN/hostler-pki" issue agent demo-host --dir "$pki"
  for role in viewer operator admin; do
    logged "$LOGS/pki.log" "$BIN/hostler-pki" issue client "$role" "$role" --dir "$pki"
  done
}

configuration_write() {
  local virsh guest
  virsh="$(command -v virsh)"
  say "configuration: $DEMO/coordinator.toml and $DEMO/agent.toml"
  cat >"$DEMO/coordinator.toml" <<TOML
# Written by deploy/demo.sh.
listen = "127.0.0.1:$PORT"
data_dir = "$DEMO/coordinator"
log = "text"

[tls]
ca = "$DEMO/pki/ca.crt"
certificate = "$DEMO/pki/coordinator.crt"
key = "$DEMO/pki/coordinator.key"
TOML
  cat >"$DEMO/activation.sh" <<SH
#!/bin/sh
# Stands for the service that a site starts on a host to put it in service. Written by deploy/demo.sh.
case "\$1" in
  start) : >"$DEMO/host-in-service" ;;
  stop) rm -f "$DEMO/host-in-service" ;;
  status) test -e "$DEMO/host-in-service" ;;
  *) echo "usage: \$0 start|stop|status" >&2; exit 2 ;;
esac
SH
  chmod 0755 "$DEMO/activation.sh"
  {
    cat <<TOML
# Written by deploy/demo.sh.
coordinator = "127.0.0.1:$PORT"
state_dir = "$DEMO/agent"
run_dir = "$DEMO/agent-run"
log = "text"

[tls]
ca = "$DEMO/pki/ca.crt"
certificate = "$DEMO/pki/demo-host.crt"
key = "$DEMO/pki/demo-host.key"

[libvirt]
uri = "$LIBVIRT_URI"

[[hypervisor]]
id = "demo-host"
kind = "host"
networks = [{ name = "$HOST_NETWORK", xml = "$DEMO/libvirt/net-$HOST_NETWORK.xml" }]
pools = [{ name = "$HOST_POOL", xml = "$DEMO/libvirt/pool-$HOST_POOL.xml" }]
free_disk = [{ path = "$LIBVIRT_DIR", at_least_mb = 64 }]
activation = { type = "exec", start = ["$DEMO/activation.sh", "start"], stop = ["$DEMO/activation.sh", "stop"], status = ["$DEMO/activation.sh", "status"] }
readiness = { type = "exec", command = ["$virsh", "--connect", "$LIBVIRT_URI", "version"] }
# Guests that are destroyed beside it get time to go. What still runs then is somebody else's and may stay.
drain_wait = "30s"
on_running_domains = "leave"
TOML
    storage_configuration
    for guest in "${GUESTS[@]}"; do
      cat <<TOML

[[hypervisor]]
id = "$guest"
kind = "guest"
cpu = 1
memory_mb = 256
pool = "$GUEST_POOL"
base_image = "base.qcow2"
networks = ["$GUEST_NETWORK"]
kernel = "$LIBVIRT_DIR/boot/vmlinuz"
initrd = "$LIBVIRT_DIR/boot/initrd"
cmdline = "console=ttyS0"
serial_log = "$LIBVIRT_DIR/console/$guest.log"
readiness = { type = "serial", text = "hostler guest ready" }
TOML
    done
  } >"$DEMO/agent.toml"
  logged "$LOGS/check.log" "$BIN/hostler-coordinator" --config "$DEMO/coordinator.toml" --check
  logged "$LOGS/check.log" "$BIN/hostler-agent" --config "$DEMO/agent.toml" --check
}

# hostler_as NAME ARGUMENTS...: the client with one of the demo's certificates and no other setting.
hostler_as() {
  local name=$1
  shift
  env -u HOSTLER_CONFIG -u HOSTLER_OUTPUT -u HOSTLER_TIMEOUT XDG_CONFIG_HOME="$DEMO/no-config" \
    HOSTLER_COORDINATOR="127.0.0.1:$PORT" HOSTLER_CA="$DEMO/pki/ca.crt" \
    HOSTLER_CERT="$DEMO/pki/$name.crt" HOSTLER_KEY="$DEMO/pki/$name.key" \
    "$BIN/hostler" "$@"
}

# listed ID FIELD: what the fleet's list says of it; nothing when it is not there.
listed() {
  hostler_as viewer --output json --timeout 10s hypervisors list |
    jq -r --arg id "$1" --arg field "$2" '.hypervisors[] | select(.id == $id) | .[$field]'
}

state_of() {
  listed "$1" state
}

# pool_figure FIELD: what the fleet says of the demo's pool, a number of bytes.
pool_figure() {
  hostler_as viewer --output json --timeout 10s storage list | jq -r --arg field "$1" '.pools[] | select(.name == "default") | .[$field]'
}

fleet_listed() {
  local id
  [[ "$(pool_figure size_bytes 2>/dev/null)" =~ ^[1-9] ]] || return 1
  for id in demo-host "${GUESTS[@]}"; do
    [[ "$(state_of "$id" 2>/dev/null)" =~ ^(in_service|out_of_service)$ ]] || return 1
  done
}

fleet_settled() {
  daemons_live || return 0
  fleet_listed
}

daemons_live() {
  process_alive "$RECORDS" coordinator && process_alive "$RECORDS" agent
}

fleet_is_up() {
  daemons_live && [[ -s "$DEMO/port" && -s "$DEMO/bin" ]]
}

fleet_start() {
  say "fleet: starting the coordinator on 127.0.0.1:$PORT and the agent of demo-host"
  process_start "$RECORDS" coordinator "$LOGS/coordinator.log" "$BIN/hostler-coordinator" --config "$DEMO/coordinator.toml"
  process_start "$RECORDS" agent "$LOGS/agent.log" "$BIN/hostler-agent" --config "$DEMO/agent.toml"
  if ! wait_for 60 fleet_settled || ! daemons_live; then
    tail -n 15 "$LOGS/coordinator.log" "$LOGS/agent.log" >&2 || true
    fail "the fleet did not list demo-host, ${GUESTS[*]} within 60 s; see $LOGS/coordinator.log and $LOGS/agent.log, then run: $0 down"
  fi
}

fleet_stop() {
  say "fleet: stopping the agent and the coordinator"
  process_stop "$RECORDS" agent 20
  process_stop "$RECORDS" coordinator 20
}

# Only names of ours, and domains only when their disk lies in our directory.
libvirt_remove() {
  say "libvirt: removing the demo's domains, pools and networks"
  local guest pool network xml
  for guest in "${GUESTS[@]}"; do
    xml="$(virsh_quiet dumpxml "$guest" 2>/dev/null)" || continue
    if ! grep -qF -e "$LIBVIRT_DIR/" -e "pool='$GUEST_POOL'" <<<"$xml"; then
      note "the domain $guest is not the demo's; it stays"
      continue
    fi
    virsh_quiet destroy "$guest" >/dev/null 2>&1 || true
    virsh_quiet undefine "$guest" --nvram --managed-save --snapshots-metadata >/dev/null 2>&1 || true
    if virsh_quiet dominfo "$guest" >/dev/null 2>&1; then fail "libvirt does not let go of the domain $guest; try: virsh undefine $guest"; fi
  done
  for pool in "$GUEST_POOL" "$HOST_POOL"; do
    virsh_quiet pool-info "$pool" >/dev/null 2>&1 || continue
    if is_active pool "$pool"; then virsh_quiet pool-destroy "$pool"; fi
    virsh_quiet pool-undefine "$pool"
  done
  for network in "$GUEST_NETWORK" "$HOST_NETWORK"; do
    virsh_quiet net-info "$network" >/dev/null 2>&1 || continue
    if is_active net "$network"; then virsh_quiet net-destroy "$network"; fi
    virsh_quiet net-undefine "$network"
  done
  rm -rf "$LIBVIRT_DIR"
}

print_how_to_talk() {
  cat <<TEXT

The coordinator listens on 127.0.0.1:$PORT. Talk to it:

  export PATH="$BIN:\$PATH"
  export HOSTLER_COORDINATOR=127.0.0.1:$PORT HOSTLER_CA=$DEMO/pki/ca.crt
  export HOSTLER_CERT=$DEMO/pki/operator.crt HOSTLER_KEY=$DEMO/pki/operator.key
  hostler hypervisors list
  hostler storage list

The storage pool is mounted at $POOL_PATH.

The certificates viewer, operator and admin are in $DEMO/pki. A client in Python: tests/python/test_client.py.
The logs are in $LOGS. Take it down: $0 down
TEXT
}
