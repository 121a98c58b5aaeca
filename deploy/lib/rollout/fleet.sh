# shellcheck shell=bash
# What the coordinator says of a host, through the client `hostler` with whatever settings it has (a viewer's suffices).
# Reads snapshots, so that all that is said of one moment fits together. Never asks the coordinator to do anything.

# The client; the caller may set another.
HOSTLER=hostler

# fleet_snapshot FILE: the whole fleet as one document; false when the coordinator does not answer.
fleet_snapshot() {
  local file=$1
  "$HOSTLER" --json --timeout 20s hypervisors list >"$file.hypervisors" </dev/null || return 1
  "$HOSTLER" --json --timeout 20s storage list >"$file.pools" </dev/null || return 1
  jq -s '{ hypervisors: .[0].hypervisors, pools: .[1].pools }' "$file.hypervisors" "$file.pools" >"$file.new" || return 1
  rm -f "$file.hypervisors" "$file.pools"
  mv "$file.new" "$file"
}

# fleet_coordinator: the coordinator's version; nothing when it does not say.
fleet_coordinator() {
  "$HOSTLER" --json --timeout 20s status </dev/null 2>/dev/null | jq -r '.version // ""'
}

# of_host FILE HOST EXPRESSION: jq over the host's hypervisors and pools.
of_host() {
  jq -r --arg host "$2" "{ hypervisors: [.hypervisors[] | select(.host == \$host)], pools: [.pools[] | select(.host == \$host)] } | $3" "$1"
}

fleet_lists() {
  [[ "$(of_host "$1" "$2" '.hypervisors | length')" != 0 ]]
}

fleet_connected() {
  [[ "$(of_host "$1" "$2" '[.hypervisors[].connected, .pools[].connected] | length > 0 and all')" == true ]]
}

# The agent's version, as it said itself.
fleet_version() {
  of_host "$1" "$2" '[.hypervisors[].agent_version] | max // ""'
}

# When it was last heard, in whole seconds of the coordinator's clock: only to be compared with another such time.
fleet_heard() {
  of_host "$1" "$2" '[.hypervisors[].last_heard // ""] | max // ""'
}

# What has not ended on the host's hypervisors and pools, people's locks among it.
fleet_operations() {
  of_host "$1" "$2" '[.hypervisors[].operation_ids[], .pools[].operation_ids[]] | unique | join(" ")'
}

# What must be the same after an upgrade. Figures that change by themselves are left out.
fleet_inventory() {
  of_host "$1" "$2" '{
    hypervisors: [.hypervisors[] | { id, kind, state, cpu_threads, memory_mb, capabilities, gpus,
      shared_storage: [.shared_storage[] | { path, usable }], libvirt: (.libvirt | { uri: .uri, problem: .problem }) }] | sort_by(.id),
    pools: [.pools[] | { name, backend, path, size_bytes, problem, devices: [.devices[] | { path, role }] }] | sort_by(.name)
  }'
}

# fleet_difference BEFORE AFTER: which fields of two inventories differ, in words; nothing when none does. What was
# unknown before, since the host was away or locked, may be anything.
fleet_difference() {
  jq -rn --argjson before "$1" --argjson after "$2" '
    def named(key): map({ (.[key]): . }) | add // {};
    def compare($what; $old; $new):
      ($old | keys[]) as $id
      | if $new[$id] == null then "\($what) \($id) is gone"
        else $old[$id] | keys[] as $key
          | select($key != "state" or .state != "unknown")
          | select(.[$key] != $new[$id][$key])
          | "\($key) of \($id) was \(.[$key] | tojson) and is \($new[$id][$key] | tojson)"
        end;
    [ compare("the hypervisor"; $before.hypervisors | named("id"); $after.hypervisors | named("id")),
      compare("the pool"; $before.pools | named("name"); $after.pools | named("name")) ] | join("; ")'
}

# fleet_hosts FILE: a line a host: its name, whether the coordinator sees all of it, and what has not ended there.
fleet_hosts() {
  jq -r '[.hypervisors[], .pools[]] | group_by(.host)[]
    | [.[0].host, all(.[]; .connected), ([.[].operation_ids[]] | unique | join(", "))] | @tsv' "$1"
}

# fleet_others FILE HOST...: which hosts the coordinator knows beside these.
fleet_others() {
  local file=$1
  shift
  jq -r '($ARGS.positional | map({ (.): true }) | add // {}) as $asked
    | [.hypervisors[].host, .pools[].host] | unique[] | select($asked[.] | not)' "$file" --args "$@"
}

# fleet_away FILE HOST...: which of these hosts the coordinator knows and does not see.
fleet_away() {
  local file=$1
  shift
  jq -r '($ARGS.positional | map({ (.): true }) | add // {}) as $asked
    | [.hypervisors[], .pools[]] | group_by(.host)[] | select($asked[.[0].host] and any(.[]; .connected | not)) | .[0].host' "$file" --args "$@"
}
