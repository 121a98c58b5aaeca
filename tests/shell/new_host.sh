# shellcheck shell=bash
# The figure of a new host: how long `deploy/bootstrap host` takes, until the coordinator lists the host as connected, on
# hosts that boot systemd (bed.sh). Prints one row, as the other figures do; never decides whether an aim is met well enough.
# Owns the bed of its shell and what it makes in the folder that it is given.

NEW_HOSTS=(n1 n2 n3 n4 n5)
NEW_HOST_AIM=10

# new_host_measure FOLDER: FOLDER/debs holds the packages.
new_host_measure() {
  local folder=$1 host brought=() there=()
  bed_up nc "${NEW_HOSTS[@]}"
  # libvirt's own test driver: what a real one answers is no part of a host's way into the fleet.
  {
    sed '/^# The host itself/,$d' deploy/lib/agent.toml.in
    printf '[libvirt]\nuri = "test:///default"\n[[hypervisor]]\nkind = "host"\nid = "@HOST@"\nnetworks = [{ name = "default" }]\n'
  } >"$folder/agent.toml.in"
  bed_copy -r deploy "$folder/debs" "$folder/agent.toml.in" nc:/root/
  bed_copy "$BED_DIR/key" nc:/root/.ssh/id_ed25519
  bed_copy "$BED_DIR/known_hosts" nc:/root/.ssh/known_hosts
  bed_ssh nc "deploy/bootstrap coordinator --trust-domain bed.example --address $(bed_address nc) --packages debs" >"$folder/coordinator.log"
  for host in "${NEW_HOSTS[@]}"; do
    brought+=("$(new_host_added "$host")")
    # As one that was prepared, or comes back: the package is there, and nothing else.
    bed_ssh "$host" 'systemctl stop hostler-agent; rm -r /var/lib/hostler-agent/*'
    there+=("$(new_host_added "$host")")
  done
  new_host_row "the package brought and installed" "${brought[@]}"
  new_host_row "the package there" "${there[@]}"
}

# new_host_added HOST: milliseconds.
new_host_added() {
  local began
  began="$(date +%s%3N)"
  bed_ssh nc "deploy/bootstrap host $1 root@$(bed_address "$1") --packages debs --config agent.toml.in" >"$BED_DIR/$1.added"
  echo $(($(date +%s%3N) - began))
}

# new_host_row HOW MILLISECONDS...: their median, beside the aim, and the slowest.
new_host_row() {
  local how=$1
  shift
  printf '%s\n' "$@" | sort -n | awk -v how="$how" -v aim="$NEW_HOST_AIM" '{ all[NR] = $1 / 1000 }
    END {
      printf "%-54s%8.2f s   (aim at most %d s, one command: %s)\n", "a host is added, " how, all[int((NR + 1) / 2)], aim, all[NR] <= aim ? "met" : "MISSED"
      printf "  %-52s%8.2f s\n", "the slowest of " NR, all[NR]
    }'
}
