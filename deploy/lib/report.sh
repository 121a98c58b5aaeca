# shellcheck shell=bash
# What a script says: one "==> ..." line a step, and one sentence that says what to do when it fails.
# Owns the words and the ERR trap; never decides whether something is an error.
# Every step that may fail silently runs through `logged`, so that a failure always names its log file.

# Names the running script in its messages.
REPORT_NAME="$(basename "$0")"
# What was being done, for the message of the ERR trap.
REPORT_STEP="starting"
# Where the output of the current step went; empty when it went to the screen.
REPORT_LOG=""

say() {
  REPORT_STEP="$*"
  REPORT_LOG=""
  printf '==> %s\n' "$*"
}

note() {
  printf '    %s\n' "$*"
}

# fail SENTENCE...: the sentence says what is wrong and what to do about it.
fail() {
  trap - ERR
  printf '%s: %s\n' "$REPORT_NAME" "$*" >&2
  exit 1
}

report_trap() {
  local code=$? line=$1
  trap - ERR
  # The parent of a subshell sees the same failure and says it.
  ((BASH_SUBSHELL == 0)) || exit "$code"
  printf '%s: stopped (exit %s) at line %s while: %s.\n' "$REPORT_NAME" "$code" "$line" "$REPORT_STEP" >&2
  if [[ -n "$REPORT_LOG" && -s "$REPORT_LOG" ]]; then
    tail -n 20 "$REPORT_LOG" | sed 's/^/    | /' >&2
    printf '%s: the whole log is %s.\n' "$REPORT_NAME" "$REPORT_LOG" >&2
  fi
  exit "$code"
}

# Needs `set -E` in the script, or functions would end without the message.
trap 'report_trap "$LINENO"' ERR

# logged FILE COMMAND...: the output goes to FILE, and its end to the screen when the command fails.
logged() {
  local log=$1 code=0
  shift
  mkdir -p "$(dirname "$log")"
  REPORT_LOG=$log
  # Told by the caller: in here, what the ERR trap says would go to the log too.
  "$@" >>"$log" 2>&1 </dev/null || code=$?
  [[ $code -eq 0 ]] || return "$code"
  REPORT_LOG=""
}

# wait_for SECONDS COMMAND...: true as soon as the command is, false when the time is over.
wait_for() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}

need_root() {
  [[ $EUID -eq 0 ]] || fail "must run as root ($1). Try: sudo $0"
}
