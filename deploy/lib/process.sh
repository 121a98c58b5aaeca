# shellcheck shell=bash
# Processes that outlive the script which starts them: one record a process, with what tells it from every other.
# Never signals a process that it did not start: a pid alone may belong to somebody else by now, so the record holds
# the boot and the start time as well, and both must match.

# Field 22 of /proc/PID/stat, counted behind the name, which may hold spaces. Empty for the dead, zombies included.
process_start_time() {
  local stat
  stat="$(cat "/proc/$1/stat" 2>/dev/null)" || return 0
  stat="${stat##*) }"
  [[ "$stat" != Z* ]] || return 0
  cut -d' ' -f20 <<<"$stat"
}

# process_start RECORDS NAME LOG COMMAND...: in a session of its own, so that Ctrl-C here does not reach it.
process_start() {
  local records=$1 name=$2 log=$3
  shift 3
  mkdir -p "$records" "$(dirname "$log")"
  setsid "$@" </dev/null >>"$log" 2>&1 &
  # No word from bash when it is killed.
  disown "$!"
  printf '%s %s %s\n' "$!" "$(process_start_time "$!")" "$(cat /proc/sys/kernel/random/boot_id)" >"$records/$name.pid"
}

# process_pid RECORDS NAME: its pid when it lives, else nothing and false.
process_pid() {
  local pid start boot
  read -r pid start boot 2>/dev/null <"$1/$2.pid" || return 1
  [[ -n "$start" && "$boot" == "$(cat /proc/sys/kernel/random/boot_id)" ]] || return 1
  [[ "$(process_start_time "$pid")" == "$start" ]] || return 1
  printf '%s\n' "$pid"
}

process_alive() {
  process_pid "$1" "$2" >/dev/null
}

process_gone() {
  ! process_alive "$1" "$2"
}

# process_stop RECORDS NAME SECONDS: TERM, then KILL (children first) when it does not end in time.
process_stop() {
  local records=$1 name=$2 seconds=$3 pid child
  if pid="$(process_pid "$records" "$name")"; then
    kill -TERM "$pid" 2>/dev/null || true
    if ! wait_for "$seconds" process_gone "$records" "$name"; then
      note "$name (pid $pid) does not end within $seconds s; killing it"
      # shellcheck disable=SC2013 # the kernel writes words on one line
      for child in $(cat "/proc/$pid/task/$pid/children" 2>/dev/null); do kill -KILL "$child" 2>/dev/null || true; done
      kill -KILL "$pid" 2>/dev/null || true
      wait_for 10 process_gone "$records" "$name" || fail "$name (pid $pid) cannot be killed; look at it with: ps -fp $pid"
    fi
  fi
  rm -f "$records/$name.pid"
}
