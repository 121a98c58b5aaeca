# shellcheck shell=bash
# One host's way through a rollout, forward and back. Each step may be done twice, so a host that was left in any phase
# is simply sent this way again.
# Never touches a host that is in trouble: what was found is said, and the host stays as it is.

# shellcheck disable=SC2100 # a name, no sum
PACKAGE=hostler-agent
# shellcheck disable=SC2100
SERVICE=hostler-agent
# So many restarts by systemd, one after the other, and a service is given up.
HOPELESS=5

# host_look HOST: its facts, fresh; the exit code of ssh.
host_look() {
  local host=$1 facts code=0 answer=""
  facts="$(host_remote "$host" look "$PACKAGE" "$DEB_KB" "$INSTALLED_KB" </dev/null 2>>"$RUN_DIR/hosts/$host/log")" || code=$?
  put_host "$host" facts "$facts"
  # ssh says itself what keeps it from a host.
  if [[ $code -ne 0 && $code -ne 255 ]]; then answer="$(ended "$code" look):"; fi
  put_host "$host" answer "$answer"
  return "$code"
}

# Nobody waits for work whose rollout was killed; the next one takes it up.
orphaned() {
  [[ ! -e "/proc/$$" ]]
}

is_enrolled() {
  [[ -n "$(fact "$(get_host "$1" facts)" pem)" ]]
}

# until_idle HOST: returns when nothing runs on the host; false when it takes too long.
until_idle() {
  local host=$1 deadline=$((SECONDS + OPERATION_WAIT)) snapshot="$RUN_DIR/hosts/$1/fleet.json" running said=""
  while ! orphaned && [[ ! -e "$RUN_DIR/stopping" ]]; do
    if fleet_snapshot "$snapshot" 2>>"$RUN_DIR/hosts/$host/log"; then
      running="$(fleet_operations "$snapshot" "$host")"
      [[ -n "$running" ]] || return 0
      if [[ "$running" != "$said" ]]; then
        phase "$host" waiting "for $running"
        note "$host: waits for ${running// /, }"
        said=$running
      fi
    fi
    ((SECONDS < deadline)) || break
    sleep 1
  done
  if [[ -e "$RUN_DIR/stopping" ]]; then return 1; fi
  WORDS="operations ran on it for longer than $OPERATION_WAIT s (${running:-the coordinator does not answer})"
  return 1
}

# unhealthy HOST: what is not well yet, in words; nothing when all is.
unhealthy() {
  local host=$1 snapshot="$RUN_DIR/hosts/$1/fleet.json" state program difference before
  state="$(host_remote "$host" service "$SERVICE" </dev/null 2>>"$RUN_DIR/hosts/$host/log")" || { echo "it does not answer by ssh"; return; }
  put_host "$host" service "$state"
  program="$(fact "$state" program)"
  if [[ "$(fact "$state" activestate)" != active ]]; then
    echo "$SERVICE is $(fact "$state" activestate) ($(fact "$state" substate), $(fact "$state" nrestarts) restarts)" && return
  fi
  fleet_snapshot "$snapshot" 2>>"$RUN_DIR/hosts/$host/log" || { echo "the coordinator does not answer"; return; }
  if ! fleet_connected "$snapshot" "$host"; then echo "the coordinator does not see it" && return; fi
  # A host that only owns a pool has no line with a version.
  if ! fleet_lists "$snapshot" "$host"; then return; fi
  if [[ "$(fleet_version "$snapshot" "$host")" != "$program" ]]; then
    echo "the coordinator sees version $(fleet_version "$snapshot" "$host"), installed is $program" && return
  fi
  # A session of before the restart may still be listed: it has to be heard from again.
  if [[ -z "$(get_host "$host" heard)" ]]; then put_host "$host" heard "$(fleet_heard "$snapshot" "$host")"; fi
  if [[ ! "$(fleet_heard "$snapshot" "$host")" > "$(get_host "$host" heard)" ]]; then echo "the coordinator has not heard of it since" && return; fi
  before="$(get_host "$host" before.json)"
  if [[ -n "$before" ]]; then
    difference="$(fleet_difference "$before" "$(fleet_inventory "$snapshot" "$host")")"
    if [[ -n "$difference" ]]; then echo "its inventory is not what it was: $difference"; fi
  fi
}

# until_healthy HOST: true when it has been well for SETTLE s without a restart; else false, with WORDS.
until_healthy() {
  local host=$1 deadline=$((SECONDS + WAIT)) since="" life="" now restarts first=""
  put_host "$host" heard ""
  while ! orphaned; do
    WORDS="$(unhealthy "$host")"
    restarts="$(number "$(get_host "$host" service)" nrestarts)"
    first="${first:-$restarts}"
    # Nothing is gained by watching it crash until the time is over.
    if ((restarts - first >= HOPELESS)); then
      WORDS="$SERVICE starts again and again: ${WORDS:-$restarts restarts}"
      return 1
    fi
    now="$(fact "$(get_host "$host" service)" mainpid)/$restarts"
    if [[ -n "$WORDS" || "$now" != "$life" ]]; then since=$SECONDS; fi
    life=$now
    if [[ -z "$WORDS" ]] && ((SECONDS - since >= SETTLE)); then return 0; fi
    if ((SECONDS >= deadline)); then
      WORDS="not healthy within $WAIT s: ${WORDS:-$SERVICE was started anew}"
      return 1
    fi
    sleep 1
  done
  return 1
}

# host_upgrade HOST: runs as a process of its own; says how it ended by the host's phase.
host_upgrade() {
  local host=$1 out code=0 trouble WORDS="" begun=no arch
  case "$(phase_of "$host")" in installing | verifying | failed) begun=yes ;; esac
  host_look "$host" || true
  trouble="$(trouble_of "$host")"
  if [[ -n "$trouble" ]]; then
    if [[ $begun == yes ]]; then phase "$host" failed "$trouble"; else in_trouble "$host" "$trouble"; fi
    return
  fi
  if [[ $begun == no && "$(fact "$(get_host "$host" facts)" version)" == "$DEB_VERSION" && "$(fact "$(get_host "$host" facts)" status)" == installed ]]; then
    if ! is_enrolled "$host" || until_healthy "$host"; then phase "$host" "done" "had $DEB_VERSION already"; else in_trouble "$host" "has $DEB_VERSION already, but is $WORDS"; fi
    return
  fi
  # The first look of a run counts: after a death in the middle the host may not be what it was.
  if [[ $begun == no ]] && is_enrolled "$host"; then
    if ! until_idle "$host"; then
      if [[ -n "$WORDS" ]]; then in_trouble "$host" "$WORDS"; else phase "$host" planned; fi
      return
    fi
    if fleet_lists "$RUN_DIR/hosts/$host/fleet.json" "$host"; then
      put_host "$host" before.json "$(fleet_inventory "$RUN_DIR/hosts/$host/fleet.json" "$host")"
    fi
  fi
  if orphaned; then return; fi
  arch="$(package_of "$(get_host "$host" facts)")"
  if [[ $begun == no ]]; then
    put_host "$host" version_before "$(fact "$(get_host "$host" facts)" version)"
    phase "$host" copying
  fi
  out="$(host_remote "$host" take "$RUN" "${DEB_NAME[$arch]}" "${DEB_SUM[$arch]}" "$TAKE_OVER" <"${DEB_FILE[$arch]}" 2>>"$RUN_DIR/hosts/$host/log")" || code=$?
  if [[ $code -ne 0 ]]; then
    trouble="$(said "$out")"
    trouble="${trouble:-the package was not copied: $(ended "$code" take)}"
    if [[ $begun == yes ]]; then phase "$host" failed "$trouble"; else in_trouble "$host" "$trouble"; fi
    return
  fi
  put_host "$host" began yes
  phase "$host" installing
  remote_patiently "$host" install "$RUN" "$PACKAGE" "${DEB_NAME[$arch]}" || { phase "$host" failed "$WORDS" && return; }
  phase "$host" verifying
  if ! is_enrolled "$host"; then
    finish "$host" "has $DEB_VERSION; it is not enrolled, so its agent waits for a certificate"
  elif until_healthy "$host"; then
    finish "$host" "has $DEB_VERSION and is well"
  elif ! orphaned; then
    phase "$host" failed "$WORDS"
  fi
}

finish() {
  host_remote "$1" release "$RUN" "$PACKAGE" </dev/null >>"$RUN_DIR/hosts/$1/log" 2>&1 || true
  phase "$1" "done" "$2"
}

in_trouble() {
  if [[ "$ON_TROUBLE" == skip ]]; then phase "$1" skipped "$2"; else phase "$1" refused "$2"; fi
}

# remote_patiently HOST VERB ARGUMENTS...: the verb goes on there when the connection breaks, and asked again it waits
# for the first. False with WORDS when it failed or cannot be asked.
remote_patiently() {
  local host=$1 out code deadline=$((SECONDS + WAIT))
  while :; do
    code=0
    out="$(host_remote "$@" </dev/null 2>>"$RUN_DIR/hosts/$host/log")" || code=$?
    printf '%s\n' "$out" >>"$RUN_DIR/hosts/$host/log"
    [[ $code -ne 0 ]] || return 0
    WORDS="$(said "$out")"
    WORDS="${WORDS:-$(ended "$code" "$2")}"
    [[ $code -eq 255 ]] && ((SECONDS < deadline)) && ! orphaned || return 1
    sleep 1
  done
}

# host_restore HOST: back to the package before, if the run had begun on it.
host_restore() {
  local host=$1 WORDS="" was
  was="$(get_host "$host" reason)"
  if [[ -z "$(get_host "$host" began)" ]]; then
    host_remote "$host" release "$RUN" "$PACKAGE" </dev/null >>"$RUN_DIR/hosts/$host/log" 2>&1 || true
    phase "$host" restored "nothing had been changed on it"
    return
  fi
  if ! remote_patiently "$host" restore "$RUN" "$PACKAGE"; then
    phase "$host" failed "$was; and the way back failed: $WORDS"
    return
  fi
  was="$(get_host "$host" version_before)"
  if is_enrolled "$host" && [[ -n "$was" ]] && ! until_healthy "$host"; then
    phase "$host" failed "has the package of before, but is $WORDS"
    return
  fi
  host_remote "$host" release "$RUN" "$PACKAGE" </dev/null >>"$RUN_DIR/hosts/$host/log" 2>&1 || true
  phase "$host" restored "back to ${was:-no package}"
}
