# shellcheck shell=bash
# What a rollout writes down, so that one that dies can be taken up: a directory a run, a directory a host in it.
# Every fact is one small file, replaced as a whole: a kill leaves the old or the new one.
# Owns the state directory (STATE) and its lock. One run at a time is the current one.

# A host's phases, in their order:
#   planned     nothing done yet                 waiting    for its operations to end
#   copying     the package goes there           installing dpkg may have begun: from here on it may need to be put back
#   verifying   installed; is it healthy?        done       healthy on the new version
#   skipped     in trouble before anything changed, and passed over
#   failed      in trouble, and not as it was    restored   had begun, and has the package before again
#   refused     in trouble before anything changed

RUN=""

record_lock() {
  { mkdir -p "$STATE/runs" && : >>"$STATE/lock"; } 2>/dev/null || fail "the state directory $STATE cannot be written. Another: --state DIR"
  exec {STATE_LOCK}<"$STATE/lock"
}

# For those who only look, who may be anybody.
record_watch() {
  [[ -r "$STATE/lock" ]] || fail "there was no rollout in $STATE, or it is not yours to read"
  exec {STATE_LOCK}<"$STATE/lock"
}

# record_try_lock SECONDS [SENTENCE]: what a dead run still does on a host holds the lock too.
record_try_lock() {
  flock --wait "$1" "$STATE_LOCK" || { [[ -z "$2" ]] || fail "$2"; return 1; }
}

record_new() {
  RUN="$(date -u +%Y%m%dT%H%M%SZ)-$$@$(hostname)"
  RUN_DIR="$STATE/runs/$RUN"
  # What never begins leaves nothing.
  trap 'if [[ ! "$STATE/current" -ef "$RUN_DIR" ]]; then rm -rf "$RUN_DIR"; fi' EXIT
  mkdir -p "$RUN_DIR/hosts" 2>/dev/null || fail "the state directory $STATE cannot be written. Another: --state DIR"
}

# A page of history; each run holds its packages.
record_forget() {
  find "$STATE/runs" -mindepth 1 -maxdepth 1 -type d -printf '%f\n' | LC_ALL=C sort -r | sed 1,10d |
    while IFS= read -r old; do if [[ "$old" != "$RUN" ]]; then rm -rf "${STATE:?}/runs/$old"; fi; done
}

# The run is the current one from here on: everything that it needs is in it.
record_begin() {
  put outcome running
  ln -sfn "runs/$RUN" "$STATE/current.new"
  mv -T "$STATE/current.new" "$STATE/current"
  record_forget
}

# A run has one of these outcomes:
#   running      forward; "going back" when it is being taken back. Also when it died on the way
#   done, failed, "taken back"   its end
record_has_ended() {
  [[ "$(get outcome)" != running && "$(get outcome)" != "going back" ]]
}

# Whether nobody works on it, though it is not at its end.
record_is_dead() {
  ! record_has_ended && flock --shared --nonblock "$STATE_LOCK"
}

record_open() {
  [[ -e "$STATE/current/outcome" ]] || return 1
  RUN_DIR="$(readlink -f "$STATE/current")"
  RUN="$(basename "$RUN_DIR")"
}

# put NAME WORDS..., get NAME: of the run. What cannot be written down must not be done, or nobody could take it up.
put() {
  local name=$1
  shift
  { printf '%s\n' "$*" >"$RUN_DIR/$name.new" && mv "$RUN_DIR/$name.new" "$RUN_DIR/$name"; } 2>/dev/null ||
    fail "$RUN_DIR cannot be written, so nothing further is begun. Is the disk full? When it is mended: $RESUME"
}

get() {
  local text=""
  { IFS= read -r -d '' text <"$RUN_DIR/$1"; } 2>/dev/null || true
  printf '%s' "$text"
}

# put_host HOST NAME WORDS..., get_host HOST NAME
put_host() {
  local host=$1 name=$2
  shift 2
  if [[ ! -d "$RUN_DIR/hosts/$host" ]]; then mkdir -p "$RUN_DIR/hosts/$host" 2>/dev/null || true; fi
  put "hosts/$host/$name" "$@"
}

get_host() {
  get "hosts/$1/$2"
}

# phase HOST PHASE [WORDS...]: written down, logged, and said when it is an end.
phase() {
  local host=$1 phase=$2 words
  shift 2
  # An agent may have said some of it, by way of the coordinator.
  words="$(LC_ALL=C tr -cd '[:print:]' <<<"$*")"
  put_host "$host" reason "$words"
  put_host "$host" phase "$phase"
  host_log "$host" "$phase${words:+: $words}"
  case "$phase" in
    done | restored) note "$host: $words" ;;
    skipped | failed | refused) note "$host: $phase: $words" ;;
  esac
}

phase_of() {
  get_host "$1" phase
}

host_log() {
  local host=$1
  shift
  printf '%s %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$*" >>"$RUN_DIR/hosts/$host/log" || true
}

# phase_now HOST: sets PHASE. Runs no program: with a thousand hosts it is asked a million times.
phase_now() {
  PHASE=""
  { read -r PHASE <"$RUN_DIR/hosts/$1/phase"; } 2>/dev/null || true
}

# hosts_in PHASE HOST...: those of the hosts that are in the phase.
hosts_in() {
  local phase=$1 host PHASE
  shift
  for host in "$@"; do
    phase_now "$host"
    if [[ "$PHASE" == "$phase" ]]; then printf '%s\n' "$host"; fi
  done
}
