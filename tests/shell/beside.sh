# shellcheck shell=bash
# Stages that go on beside others, since they mostly wait for hosts to boot and services to start.
#
#   beside_start LOG CLEANUP STAGE...   starts them, one after the other; CLEANUP runs in their shell however they end
#   beside_join                         waits for them, shows what they said, and counts what they counted
#   beside_stop                         ends them, should they still go on; may be called at any time
#
# One at a time. Uses stages.sh's words, and owns BESIDE_PID and BESIDE_LOG. The invariant: stages that do not come to
# their end count as failed.

BESIDE_PID=""
BESIDE_LOG=""

beside_start() {
  BESIDE_LOG=$1
  rm -f "$BESIDE_LOG.counted"
  # With a process group of their own, all that they started is told to end with them.
  set -m
  (
    set +m
    beside_run "$@"
  ) >"$BESIDE_LOG" 2>&1 </dev/null &
  BESIDE_PID=$!
  set +m
}

beside_run() {
  local log=$1 cleanup=$2 stage i
  shift 2
  # shellcheck disable=SC2064 # the name as it is now
  trap "trap - ERR EXIT; set +e; $cleanup" EXIT
  trap 'exit 143' TERM
  passed=0 failed=0 FAILED=() FAILED_LOGS=()
  for stage in "$@"; do "$stage"; done
  {
    printf '%s %s\n' "$passed" "$failed"
    for i in "${!FAILED[@]}"; do printf '%s\t%s\n' "${FAILED[i]}" "${FAILED_LOGS[i]}"; done
  } >"$log.counted"
}

beside_join() {
  [[ -n "$BESIDE_PID" ]] || return 0
  local code=0 good bad name log
  wait "$BESIDE_PID" || code=$?
  BESIDE_PID=""
  cat "$BESIDE_LOG"
  if [[ ! -e "$BESIDE_LOG.counted" ]]; then
    note "FAILED  they ended early (exit $code)"
    count 0 1 "stages beside the Rust tests" "$BESIDE_LOG"
    return 0
  fi
  {
    read -r good bad
    passed=$((passed + good))
    failed=$((failed + bad))
    while IFS=$'\t' read -r name log; do
      FAILED+=("$name")
      FAILED_LOGS+=("$log")
    done
  } <"$BESIDE_LOG.counted"
}

beside_stop() {
  [[ -n "$BESIDE_PID" ]] || return 0
  kill -TERM -- "-$BESIDE_PID" 2>/dev/null || true
  wait "$BESIDE_PID" 2>/dev/null || true
  BESIDE_PID=""
}
