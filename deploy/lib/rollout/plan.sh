# shellcheck shell=bash
# What would change, and what did. Only looks.

# Those that cannot have the package.
TROUBLED=()

# As many hosts at once as this machine can have ssh connections without a thought.
look_at_all() {
  local host trouble
  fleet_snapshot "$RUN_DIR/fleet.json" || fail "the coordinator does not answer (see above). Try: $HOSTLER hypervisors list"
  put coordinator "$(fleet_coordinator || true)"
  for host in "${HOSTS[@]}"; do
    while (($(jobs -pr | wc -l) >= 20)); do wait -n || true; done
    mkdir -p "$RUN_DIR/hosts/$host"
    (
      trap - ERR EXIT
      set +eE
      host_look "$host"
    ) 2>>"$RUN_DIR/hosts/$host/log" &
  done
  wait
  TROUBLED=()
  for host in "${HOSTS[@]}"; do
    trouble="$(trouble_of "$host")"
    put_host "$host" trouble "$trouble"
    if [[ -n "$trouble" ]]; then TROUBLED+=("$host"); fi
  done
}

# would HOST: in a word and a sentence.
would() {
  local host=$1 facts installed
  facts="$(get_host "$host" facts)"
  installed="$(fact "$facts" version)"
  if [[ -n "$(get_host "$host" trouble)" ]]; then
    printf 'trouble\t%s' "$(get_host "$host" trouble)"
  elif [[ -z "$installed" ]]; then
    printf 'install\t%s' "$(is_enrolled "$host" || echo "not enrolled: the agent will wait for its certificate")"
  elif [[ "$installed" == "$DEB_VERSION" ]]; then
    printf 'nothing\tup to date'
  elif dpkg --compare-versions "$installed" gt "$DEB_VERSION"; then
    printf 'downgrade\t'
  else
    printf 'upgrade\t'
  fi
}

plan_print() {
  local host facts what words seen others version arch connected operations
  local -A sees=() running=()
  while IFS=$'\t' read -r host connected operations; do
    sees[$host]=$connected running[$host]=$operations
  done < <(fleet_hosts "$RUN_DIR/fleet.json")
  printf '%-20s %-6s %-10s %-16s %-16s %-8s %s\n' HOST BATCH WOULD INSTALLED WANTED ARCH ""
  for host in "${HOSTS[@]}"; do
    facts="$(get_host "$host" facts)"
    version="$(fact "$facts" version)" arch="$(fact "$facts" arch)"
    IFS=$'\t' read -r what words <<<"$(would "$host")"
    seen=""
    if [[ "${sees[$host]:-}" == false ]]; then seen="the coordinator does not see it"; fi
    if [[ -z "${sees[$host]:-}" ]] && is_enrolled "$host"; then seen="the coordinator does not know it"; fi
    printf '%-20s %-6s %-10s %-16s %-16s %-8s %s\n' "$host" "$(get_host "$host" batch | sed 's/^0$/canary/')" "$what" \
      "${version:--}" "$DEB_VERSION" "${arch:--}" \
      "${words}${running[$host]:+${words:+; }waits for ${running[$host]}}${seen:+${words:+; }$seen}"
  done
  [[ -z "$LIMIT" ]] || return 0
  others="$(fleet_others "$RUN_DIR/fleet.json" "${HOSTS[@]}" | tr '\n' ' ' | LC_ALL=C tr -cd '[:print:]')"
  if [[ -n "$others" ]]; then note "the coordinator knows hosts that are not in the inventory: ${others% }"; fi
}

summary() {
  local host skipped=() code=0
  say "rollout $RUN of $PACKAGE $(get version): $(get outcome)"
  for host in "${HOSTS[@]}"; do
    printf '%-20s %-10s %s\n' "$host" "$(phase_of "$host" | sed 's/^$/planned/')" "$(get_host "$host" reason)"
  done
  mapfile -t skipped < <(hosts_in skipped "${HOSTS[@]}")
  case "$(get outcome)" in
    failed)
      printf '%s: stopped. %s. What every host went through is in %s/hosts. When it is mended: %s\n' "$REPORT_NAME" "$(get blame)" "$RUN_DIR" "$RESUME" >&2
      code=1
      ;;
    running) if record_is_dead; then note "it died, or was stopped. Go on: $RESUME"; else note "it is at work"; fi ;;
    "going back") if record_is_dead; then note "it died, or was stopped, on its way back. Go on: $ROLLBACK"; else note "it is at work"; fi ;;
    "taken back") if [[ -n "$(hosts_in failed "${HOSTS[@]}")" ]]; then code=1; fi ;;
    *)
      if [[ ${#skipped[@]} -gt 0 ]]; then
        note "${#skipped[@]} hosts were skipped; when they are mended: $0 apply again"
        code=4
      fi
      ;;
  esac
  exit "$code"
}
