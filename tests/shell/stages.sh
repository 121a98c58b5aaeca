# shellcheck shell=bash
# The stages of tests/run.sh: scripts, protos, Rust, and the demo's fleet with a client of another language.
# Each adds to `passed`, `failed`, FAILED and FAILED_LOGS and returns true, so that the next one runs as well.
# Uses TOOLS, LOGS and FEATURES of run.sh, whose working directory is the top of the checkout.

passed=0
failed=0
# What failed, and beside each the log that tells why.
FAILED=()
FAILED_LOGS=()
# Pinned: another version may lint otherwise.
BUF="@bufbuild/buf@1.75.0"
DEMO_TEST_DIR=""

# count PASSED FAILED NAME LOG
count() {
  passed=$((passed + $1))
  failed=$((failed + $2))
  [[ $2 -ne 0 ]] || return 0
  FAILED+=("$3 ($2)")
  FAILED_LOGS+=("$4")
}

# The end of a log, where the failure is told; marked, as it is somebody else's words.
show_end() {
  { tail -n "$2" "$1" || true; } | sed 's/^/        | /'
}

# Everything that failed, once more: who reads only the end of a long output finds it there.
report_failures() {
  local i log
  for i in "${!FAILED[@]}"; do
    log="${FAILED_LOGS[i]}"
    say "failed: ${FAILED[i]}; the end of $log:"
    # cargo's own end only names the tests; what they said is above it.
    if [[ "$log" == */rust.log ]]; then
      { grep -A 2 -E 'panicked at|^error' "$log" || true; } | sed -n '1,12s/^/        | /p'
    fi
    show_end "$log" 10
  done
}

# check SENTENCE COMMAND...: one test; the end of its output is shown when it fails.
check() {
  local sentence=$1 log
  shift
  log="$LOGS/$(tr -cs 'A-Za-z0-9\n' '-' <<<"$sentence").log"
  if "$@" >"$log" 2>&1 </dev/null; then
    note "ok      $sentence"
    count 1 0 "$sentence" "$log"
  else
    note "FAILED  $sentence"
    show_end "$log" 25
    note "the whole log is $log"
    count 0 1 "$sentence" "$log"
    return 1
  fi
}

# The last line that a test program wrote as "... N passed, N failed".
count_from() {
  local log=$1 name=$2 code=$3 line good=0 bad=0
  line="$(grep -oE '[0-9]+ passed, [0-9]+ failed' "$log" | tail -n 1 || true)"
  if [[ -n "$line" ]]; then read -r good _ bad _ <<<"$line"; fi
  # A program that fails without a failed test did not come to its tests.
  if [[ $code -ne 0 && $bad -eq 0 ]]; then bad=1; fi
  count "$good" "$bad" "$name" "$log"
}

stage_scripts() {
  say "scripts: shellcheck"
  local scripts
  mapfile -t scripts < <(git ls-files --cached --others --exclude-standard -- 'deploy/*.sh' deploy/bootstrap deploy/rollout 'deploy/debian/*.post*' 'tests/*.sh' .ci/run)
  check "every script is clean under shellcheck" shellcheck -x -a "${scripts[@]}" deploy/guest/init || true
  check "no script pipes into a program that leaves before the end" pipes_are_read_to_their_end "${scripts[@]}" || true
  check "a domain is found in a list that goes on after it" list_is_read_to_its_end || true
}

# All of them run with pipefail, which makes a failure of a match when the writer still had something to write: it
# dies of SIGPIPE, now and then.
pipes_are_read_to_their_end() {
  local early='head|grep( +[^|]*)? +(-[[:alpha:]]*[qm]|--quiet|--max-count)'
  ! grep -HnE "^ *[^# ].*[^|][|] *($early)" "$@"
}

# More follows the name than a pipe holds. No list at all is neither found nor missing.
list_is_read_to_its_end() (
  # shellcheck disable=SC2317 # libvirt_lists calls it
  virsh_quiet() {
    echo "$1"
    seq 100000
    return "$2"
  }
  libvirt_lists wanted wanted 0 || return 1
  ! libvirt_lists wanted other 0 || return 1
  code=0
  libvirt_lists wanted wanted 1 || code=$?
  [[ $code -eq 2 ]]
)

stage_protos() {
  say "protos: buf lint"
  local buf="$TOOLS/buf/node_modules/.bin/buf"
  if [[ "$("$buf" --version 2>/dev/null)" != "${BUF##*@}" ]]; then
    if ! check "npm installs $BUF" npm install --prefix "$TOOLS/buf" --no-save --no-audit --no-fund "$BUF"; then
      note "npm is needed for buf, which lints the protos: deploy/packages.sh test"
      return 0
    fi
  fi
  check "the protos are clean under buf lint" "$buf" lint proto || true
}

# Tests of real binaries find them in HOSTLER_TEST_BIN. The tests' build makes the programs too; a build of the programs alone
# would compile most of it twice, since tests ask more features of shared libraries.
stage_programs() {
  local tests=(cargo test)
  if cargo nextest --version >/dev/null 2>&1; then tests=(cargo nextest run); fi
  say "programs: ${tests[*]} --no-run --workspace ${FEATURES[*]}"
  check "programs and tests build" "${tests[@]}" --no-run --workspace "${FEATURES[@]}" || return 0
  HOSTLER_TEST_BIN="$(cargo metadata --format-version 1 --no-deps --locked | jq -r .target_directory)/debug"
  export HOSTLER_TEST_BIN
}

stage_rust() {
  local filter=$1 code=0 log="$LOGS/rust.log" summary good bad
  if cargo nextest --version >/dev/null 2>&1; then
    say "Rust tests: cargo nextest run --workspace ${FEATURES[*]} $filter"
    cargo nextest run --workspace "${FEATURES[@]}" --no-fail-fast --status-level fail --final-status-level fail ${filter:+"$filter"} 2>&1 </dev/null | tee "$log" || code=$?
    # "Summary [12.3s] 10 tests run: 7 passed, 2 failed, 1 timed out, 0 skipped"
    summary="$(grep -E '^ *Summary ' "$log" | tail -n 1 || true)"
    good="$(counted 'passed' <<<"$summary" | add_up)"
    bad="$(counted 'failed|timed out' <<<"$summary" | add_up)"
  else
    say "Rust tests: cargo test --workspace ${FEATURES[*]} $filter (cargo-nextest is not installed)"
    cargo test --workspace "${FEATURES[@]}" --no-fail-fast ${filter:+"$filter"} 2>&1 </dev/null | tee "$log" || code=$?
    good="$(sed -nE 's/^test result: .* ([0-9]+) passed;.*/\1/p' "$log" | add_up)"
    bad="$(sed -nE 's/^test result: .* ([0-9]+) failed;.*/\1/p' "$log" | add_up)"
  fi
  # Nothing failed and yet an error: it did not compile, or no test has such a name.
  if [[ $code -ne 0 && $bad -eq 0 ]]; then bad=1; fi
  count "$good" "$bad" "Rust tests" "$log"
}

# The numbers before any of the WORDS (words|words), one a line.
counted() {
  { grep -oE "[0-9]+ ($1)" || true; } | cut -d' ' -f1
}

# Adds up the numbers of its input, one a line; nothing is 0.
add_up() {
  local number sum=0
  while read -r number; do sum=$((sum + number)); done
  printf '%s\n' "$sum"
}

demo() {
  HOSTLER_DEMO_DIR="$DEMO_TEST_DIR" HOSTLER_DEMO_PORT="$DEMO_TEST_PORT" HOSTLER_DEMO_BIN="$HOSTLER_TEST_BIN" deploy/demo.sh "$@"
}

# A port that nobody listens on, below those which the kernel hands out by itself.
free_port() {
  local port=$1
  while [[ -n "$(ss -ltnH "sport = :$port")" ]]; do port=$((port + 1)); done
  printf '%s\n' "$port"
}

python_client() {
  local name=$1 code=0 log
  shift
  log="$LOGS/$(tr -cs 'A-Za-z0-9\n' '-' <<<"$name").log"
  "$TOOLS/python/bin/python" tests/python/test_client.py "$@" 2>&1 </dev/null | tee "$log" || code=$?
  count_from "$log" "$name" "$code"
}

python_environment() {
  local stamp="$TOOLS/python/requirements"
  cmp -s tests/python/requirements.txt "$stamp" && return 0
  rm -rf "$TOOLS/python"
  /usr/bin/python3 -m venv "$TOOLS/python" &&
    "$TOOLS/python/bin/pip" install --quiet --disable-pip-version-check -r tests/python/requirements.txt &&
    cp tests/python/requirements.txt "$stamp"
}

stage_demo() {
  say "demo: what it needs"
  check "the programs are there" test -x "${HOSTLER_TEST_BIN:-}/hostler-agent" || return 0
  check "pip installs the Python client's packages" python_environment || return 0
  DEMO_TEST_DIR="$(mktemp -d)/demo"
  DEMO_TEST_PORT="$(free_port 21312)"
  local proxy_port pki="$DEMO_TEST_DIR/pki"
  proxy_port="$(free_port $((DEMO_TEST_PORT + 1)))"

  say "demo: a fleet on port $DEMO_TEST_PORT"
  check "a port that is taken is named, and by whom" demo_port_taken || true
  check "the demo comes up" demo up || return 0
  check "a second up is harmless" demo up || true
  demo_refusals
  check "up starts a coordinator again that was killed" demo_repairs || true
  check "the tour finds everything as it should be" demo tour || true

  say "demo: a Python client at the coordinator"
  python_client "Python client at the coordinator" --coordinator "127.0.0.1:$DEMO_TEST_PORT" \
    --ca "$pki/ca.crt" --cert "$pki/operator.crt" --key "$pki/operator.key"

  say "demo: a Python client through hostler proxy"
  process_start "$DEMO_TEST_DIR/run" proxy "$LOGS/proxy.log" "$HOSTLER_TEST_BIN/hostler" --coordinator "127.0.0.1:$DEMO_TEST_PORT" \
    --ca "$pki/ca.crt" --cert "$pki/operator.crt" --key "$pki/operator.key" proxy --listen "127.0.0.1:$proxy_port"
  if check "the proxy listens" wait_for 20 port_listens "$proxy_port"; then
    python_client "Python client through hostler proxy" --proxy "127.0.0.1:$proxy_port"
  fi
  process_stop "$DEMO_TEST_DIR/run" proxy 10

  say "demo: down"
  check "the demo goes down" demo down || true
  check "and leaves nothing behind" demo_left_nothing || true
}

# says SENTENCE-PART COMMAND...: the command fails, and what it says holds the part.
says() {
  local part=$1 words
  shift
  if words="$("$@" 2>&1)"; then
    printf 'ended well, but should have failed:\n%s\n' "$words"
    return 1
  fi
  printf '%s\n' "$words"
  grep -qF -- "$part" <<<"$words"
}

# What demo.sh refuses, beside a fleet that is up.
demo_refusals() {
  local elsewhere
  elsewhere="$(dirname "$DEMO_TEST_DIR")/other"
  check "an unknown verb is refused" says "unknown verb 'sideways'" deploy/demo.sh sideways || true
  check "a port that is no port is refused" says "must be a port number" env HOSTLER_DEMO_PORT=http deploy/demo.sh up || true
  check "a folder whose name would need quoting is refused" says "may hold only letters" env HOSTLER_DEMO_DIR="/tmp/a\"b" deploy/demo.sh up || true
  check "a second demo on one machine is refused" says "another demo is up on this machine" \
    env HOSTLER_DEMO_DIR="$elsewhere" HOSTLER_DEMO_PORT="$DEMO_TEST_PORT" deploy/demo.sh up || true
  check "another port for the demo that is up is refused" says "is up already, on port $DEMO_TEST_PORT" \
    env HOSTLER_DEMO_DIR="$DEMO_TEST_DIR" HOSTLER_DEMO_PORT=1 deploy/demo.sh up || true
  check "down without a demo does nothing" env HOSTLER_DEMO_DIR="$elsewhere" deploy/demo.sh down || true
}

# A coordinator that died is started again by `up`, and the fleet is what it was.
demo_repairs() {
  local pid
  pid="$(process_pid "$DEMO_TEST_DIR/run" coordinator)" || return 1
  kill -KILL "$pid"
  wait_for 10 process_gone "$DEMO_TEST_DIR/run" coordinator || return 1
  demo up
}

# Somebody else's listener on the port.
demo_port_taken() {
  local port code=0
  port="$(free_port $((DEMO_TEST_PORT + 100)))"
  process_start "$RECORDS" listener "$LOGS/listener.log" /usr/bin/python3 -m http.server --bind 127.0.0.1 "$port"
  if wait_for 20 port_listens "$port"; then
    says "port $port is taken by python3" env HOSTLER_DEMO_DIR="$DEMO_TEST_DIR" HOSTLER_DEMO_PORT="$port" deploy/demo.sh up || code=1
  else
    code=1
  fi
  process_stop "$RECORDS" listener 10
  return "$code"
}

port_listens() {
  [[ -n "$(ss -ltnH "sport = :$1")" ]]
}

demo_left_nothing() {
  local left
  left="$(
    virsh_quiet list --all --name
    virsh_quiet pool-list --all --name
    virsh_quiet net-list --all --name
  )"
  if grep -E '^(hostler-demo|demo-guest)' <<<"$left"; then return 1; fi
  [[ ! -e "$DEMO_TEST_DIR" && ! -e /var/lib/libvirt/hostler-demo ]] || return 1
  ! port_listens "$DEMO_TEST_PORT"
}

# Whatever happened, the demo of this run is down at its end.
demo_cleanup() {
  [[ -n "$DEMO_TEST_DIR" ]] || return 0
  if [[ -e "$DEMO_TEST_DIR" ]]; then
    if [[ -d "$DEMO_TEST_DIR/logs" ]]; then cp -r "$DEMO_TEST_DIR/logs" "$LOGS/demo"; fi
    process_stop "$DEMO_TEST_DIR/run" proxy 10
    demo down >/dev/null 2>&1
  fi
  rm -rf "$(dirname "$DEMO_TEST_DIR")"
}
