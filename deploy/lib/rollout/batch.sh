# shellcheck shell=bash
# The order of a rollout: the canary, then batches, each of which has to be well before the next begins; and the way back.
# Never has more hosts away at once than MAX_UNAVAILABLE, those that were away before it among them.

# Set by a signal: nothing new is begun. What was begun is finished, and what failed goes back.
STOPPING=no

# stop: what a signal does. Whoever is in the middle of a host hears of it by the file.
stop() {
  if [[ $STOPPING == yes ]]; then
    note "it is stopping already. To end it at once: kill -KILL $$; then: $RESUME"
  else
    note "stopping: what was begun is finished first"
  fi
  STOPPING=yes
  : 2>/dev/null >"$RUN_DIR/stopping" || true
}

# A terminal that is gone can be told nothing.
stop_on_signals() {
  trap stop INT TERM
  trap 'exec >/dev/null 2>&1 3>&1; stop' HUP
}

# share OF TEXT: "10%" or "3" of so many, at least 1.
share() {
  local of=$1 text=$2 number
  if [[ "$text" == *% ]]; then number=$((of * ${text%\%} / 100)); else number=$text; fi
  if ((number < 1)); then number=1; fi
  printf '%s\n' "$number"
}

# Fills `batch` of each host: 0 for the canary, then 1, 2 and so on in the inventory's order.
batches_make() {
  local host size number=1 in_batch=0 canaries=() left=()
  if [[ "$CANARY" =~ ^[0-9]+$ ]]; then
    canaries=("${HOSTS[@]:0:$CANARY}")
  else
    for host in ${CANARY//,/ }; do
      [[ " ${HOSTS[*]} " == *" $host "* ]] || fail "--canary names '$host', which is no host of this rollout"
      canaries+=("$host")
    done
  fi
  size="$(share "${#HOSTS[@]}" "$BATCH")"
  for host in "${HOSTS[@]}"; do
    if [[ " ${canaries[*]} " == *" $host "* ]]; then put_host "$host" batch 0; else left+=("$host"); fi
  done
  for host in "${left[@]}"; do
    if ((in_batch == size)); then number=$((number + 1)) in_batch=0; fi
    put_host "$host" batch "$number"
    in_batch=$((in_batch + 1))
  done
}

batch_numbers() {
  local host
  for host in "${HOSTS[@]}"; do get_host "$host" batch; done | sort -nu
}

batch_hosts() {
  local host
  for host in "${HOSTS[@]}"; do
    if [[ "$(get_host "$host" batch)" == "$1" ]]; then printf '%s\n' "$host"; fi
  done
}

# slots HOST: how many hosts may be worked on at once, when this one is the next. What is away without us counts.
slots() {
  local others=() host PHASE
  for host in "${HOSTS[@]}"; do
    phase_now "$host"
    case "$PHASE" in
      waiting | copying | installing | verifying) ;;
      *) if [[ "$host" != "$1" ]]; then others+=("$host"); fi ;;
    esac
  done
  AWAY=""
  fleet_snapshot "$RUN_DIR/fleet.json" 2>/dev/null || return 1
  AWAY="$(fleet_away "$RUN_DIR/fleet.json" "${others[@]}" | tr '\n' ' ')"
  SLOTS=$((MAX_UNAVAILABLE - $(wc -w <<<"$AWAY")))
  # The way back is no worse than staying.
  if [[ $DIRECTION == back && $SLOTS -lt 1 ]]; then SLOTS=1; fi
  ((SLOTS >= 1))
}

slots_or_stop() {
  [[ $STOPPING == yes && $DIRECTION == forward ]] || slots "$1"
}

# each_host forward|back FUNCTION HOST...: the function for every host, each in a process of its own, as many at once as
# may be away. Forward, no further one begins when one has ended badly, or after a signal.
each_host() {
  local DIRECTION=$1 function=$2 host AWAY="" SLOTS=1
  shift 2
  local hosts=("$@")
  for host in "${hosts[@]}"; do
    if ! wait_for "$WAIT" slots_or_stop "$host" && [[ $DIRECTION == forward ]]; then
      if [[ -n "$AWAY" ]]; then
        STOPPED_BECAUSE="away already: ${AWAY% }; and --max-unavailable is $MAX_UNAVAILABLE"
      else
        STOPPED_BECAUSE="the coordinator does not answer"
      fi
      break
    fi
    while (($(jobs -pr | wc -l) >= SLOTS)); do wait -n || true; done
    # A stop in the middle of the way back would leave hosts that are not well.
    if [[ $DIRECTION == forward ]]; then
      [[ $STOPPING == no && -z "$(hosts_in failed "${hosts[@]}")$(hosts_in refused "${hosts[@]}")" ]] || break
    fi
    # ERR would speak of a line number; what matters is in the host's phase and log.
    (
      trap - ERR EXIT
      trap '' INT TERM HUP
      set +eE
      "$function" "$host"
    ) >&3 2>>"$RUN_DIR/hosts/$host/log" &
  done
  # A signal ends `wait` early; whoever works is waited for all the same.
  while [[ -n "$(jobs -pr)" ]]; do wait || true; done
}

# batches_run: true when every host is done or was skipped.
batches_run() {
  local number hosts left host
  STOPPED_BECAUSE=""
  for number in $(batch_numbers); do
    mapfile -t hosts < <(batch_hosts "$number")
    left=()
    for host in "${hosts[@]}"; do
      case "$(phase_of "$host")" in
        done | skipped) ;;
        *) left+=("$host") ;;
      esac
    done
    [[ ${#left[@]} -gt 0 ]] || continue
    if [[ $number -eq 0 ]]; then say "canary: ${left[*]}"; else say "batch $number: ${left[*]}"; fi
    each_host forward host_upgrade "${left[@]}"
    for host in "${left[@]}"; do
      # Its process died without a word.
      case "$(phase_of "$host")" in
        copying | installing | verifying) phase "$host" failed "its part of the rollout ended without a word; see $RUN_DIR/hosts/$host/log" ;;
      esac
    done
    if [[ -n "$STOPPED_BECAUSE" || -n "$(hosts_in failed "${left[@]}")$(hosts_in refused "${left[@]}")" ]]; then
      batch_failed "$number" "${hosts[@]}"
      return 1
    fi
    if [[ $STOPPING == yes ]]; then
      # Its end is still to come, so it is not `failed`.
      say "stopped by a signal; what was begun is finished. Go on: $RESUME"
      exit 130
    fi
  done
}

# The batch goes back to what it had; the batches before it were well and stay.
batch_failed() {
  local number=$1 host back=() begun=()
  shift
  for host in $(hosts_in failed "$@") $(hosts_in refused "$@"); do
    BLAME+="${BLAME:+; }$host: $(get_host "$host" reason)"
  done
  BLAME="${BLAME:-$STOPPED_BECAUSE}"
  put blame "$BLAME"
  mapfile -t begun < <(hosts_in failed "$@")
  mapfile -t back < <(hosts_in "done" "$@")
  back=("${begun[@]}" "${back[@]}")
  [[ ${#back[@]} -gt 0 ]] || return 0
  say "going back: ${back[*]}"
  each_host back host_restore "${back[@]}"
}
