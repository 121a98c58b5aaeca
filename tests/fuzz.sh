#!/usr/bin/env bash
# The long form of fuzzing: libFuzzer on every target, one after the other, then a table of what came of it.
#
#   fuzz.sh                      ten minutes a target
#   fuzz.sh MINUTES [TARGET...]  so many a target (0.5 is half a minute); only these targets
#
# Owns .tools/fuzz/: what the fuzzer found worth keeping goes on from run to run, and an input that panics is kept beside
# it. Never changes fuzz/corpus/. Runs on after a panic, so that one run tells all; fails when there was one.
set -Eeuo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
top="$(dirname "$here")"
# shellcheck source=deploy/lib/report.sh
source "$top/deploy/lib/report.sh"

CARGO_FUZZ=0.13.2
# Nothing that is read here is longer but a name of a megabyte, which the short form reads.
LONGEST_INPUT=16384
# An input that takes so many seconds hangs whoever reads it.
SLOWEST_INPUT=20

minutes="${1:-10}"
[[ "$minutes" =~ ^[0-9]+(\.[0-9]+)?$ ]] || fail "'$minutes' is no number of minutes. Usage: fuzz.sh [MINUTES [TARGET...]]"
shift $(($# > 0))
cd "$top"
seconds="$(awk -v minutes="$minutes" 'BEGIN { printf "%d", minutes * 60 }')"
((seconds > 0)) || fail "$minutes minutes are less than a second"

all=()
for program in fuzz/libfuzzer/fuzz_targets/*.rs; do all+=("$(basename "$program" .rs)"); done
targets=("$@")
if [[ $# -eq 0 ]]; then targets=("${all[@]}"); fi
for target in "${targets[@]}"; do
  [[ -f "fuzz/libfuzzer/fuzz_targets/$target.rs" ]] || fail "there is no target '$target'; there are: ${all[*]}"
done

command -v cargo >/dev/null || fail "cargo is missing. Install a Rust toolchain: https://rustup.rs"
deploy/packages.sh build fuzz
export PATH="$top/.tools/cargo/bin:$PATH"
if [[ "$(cargo fuzz --version 2>/dev/null)" != "cargo-fuzz $CARGO_FUZZ" ]]; then
  say "fuzzing: installing cargo-fuzz $CARGO_FUZZ"
  cargo install --locked "cargo-fuzz@$CARGO_FUZZ" --root "$top/.tools/cargo"
fi

# What the targets write is small and need not outlive them.
scratch="$(mktemp -d --tmpdir="$([[ -w /dev/shm ]] && echo /dev/shm || echo "${TMPDIR:-/tmp}")" hostler-fuzz.XXXXXX)"
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say "fuzzing: building ${#all[@]} programs (some minutes the first time)"
# Coverage needs a flag that a stable compiler hides. No sanitizer: what is fuzzed has no unsafe code.
RUSTC_BOOTSTRAP=1 cargo fuzz build --fuzz-dir fuzz/libfuzzer --sanitizer none --target-dir target/fuzz
host="$(rustc -vV | sed -n 's/^host: //p')"
bin="target/fuzz/$host/release"
work=.tools/fuzz
mkdir -p "$work"

stat_of() {
  sed -n "s/^stat::$1: *//p" "$2" | tail -n 1
}

table="$(printf '%-22s %12s %9s %8s %7s' target inputs per-second kept panics)"
failed=()
for target in "${targets[@]}"; do
  say "fuzzing: $target for $seconds s"
  mkdir -p "$work/$target" "$work/$target.panics"
  log="$work/$target.log"
  panics=0
  TMPDIR="$scratch" "$bin/$target" -max_total_time="$seconds" -max_len="$LONGEST_INPUT" -timeout="$SLOWEST_INPUT" \
    -rss_limit_mb=4096 -print_final_stats=1 -artifact_prefix="$work/$target.panics/" \
    "$work/$target" "fuzz/corpus/$target" >"$log" 2>&1 </dev/null || panics=1
  rm -rf "${scratch:?}"/*
  inputs="$(stat_of number_of_executed_units "$log")"
  each="$(stat_of average_exec_per_sec "$log")"
  kept="$(find "$work/$target" -type f | wc -l)"
  table+="$(printf '\n%-22s %12s %9s %8s %7s' "$target" "${inputs:-?}" "${each:-?}" "$kept" "$panics")"
  if ((panics)); then
    failed+=("$target")
    grep -E -m 3 'panicked at|ERROR: libFuzzer|Test unit written' "$log" | sed 's/^/    | /' || true
    note "the whole log is $log; the input is in $work/$target.panics/"
  fi
done

printf '%s\n' "$table"
if ((${#failed[@]})); then
  fail "these targets panic: ${failed[*]}. Mend it, and keep the input in fuzz/corpus/"
fi
