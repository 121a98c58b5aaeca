#!/usr/bin/env bash
# Builds the Debian packages: hostler-coordinator (with hostler-pki), hostler-agent, and hostler, the client.
#
#   package.sh [--profile release|dev] [--version VERSION] [--output FOLDER] [--built FOLDER]
#
#   --profile   what cargo builds with (release). Packages of dev are for tests: larger and slower, and built in no time
#   --version   the packages' version (the workspace's, as 0.1.0-1)
#   --output    where they go (target/debian)
#   --built     takes the programs from this folder and builds none
#
# Owns .tools/cargo (cargo-deb) and .tools/package* (manual pages, completions, the changelog). The last lines of its output
# are the packages' paths.
set -Eeuo pipefail
top="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=deploy/lib/report.sh
source "$top/deploy/lib/report.sh"

CARGO_DEB=3.8.0
PROGRAMS=(hostler hostler-agent hostler-coordinator hostler-pki)
# One crate each; hostler-pki travels with the coordinator.
CRATES=(hostler-coordinator hostler-agent hostler-cli)
PARTS="$top/.tools/package"
MAINTAINER="The Hostler maintainers <maintainers@hostler.invalid>"

profile=release version="" output="" built=""
while [[ $# -gt 0 ]]; do
  [[ $# -ge 2 ]] || fail "usage: package.sh [--profile release|dev] [--version VERSION] [--output FOLDER] [--built FOLDER]"
  case "$1" in
    --profile) profile=$2 ;;
    --version) version=$2 ;;
    # A relative path is the caller's.
    --output) output="$(realpath -m "$2")" ;;
    --built) built="$(realpath "$2")" ;;
    *) fail "unknown option '$1'; usage: package.sh [--profile release|dev] [--version VERSION] [--output FOLDER] [--built FOLDER]" ;;
  esac
  shift 2
done
[[ "$profile" == release || "$profile" == dev ]] || fail "--profile is '$profile'; it is release or dev"
cd "$top"
for tool in cargo dpkg-shlibdeps jq; do
  command -v "$tool" >/dev/null || fail "$tool is missing. Run: deploy/packages.sh build, and install a Rust toolchain from https://rustup.rs"
done

cargo_deb="$top/.tools/cargo/bin/cargo-deb"
if [[ "$("$cargo_deb" --version 2>/dev/null)" != *"$CARGO_DEB" ]]; then
  say "packages: installing cargo-deb $CARGO_DEB"
  cargo install --locked "cargo-deb@$CARGO_DEB" --root "$top/.tools/cargo"
fi

metadata="$(cargo metadata --format-version 1 --no-deps --locked)"
target="$(jq -r .target_directory <<<"$metadata")"
built_by_cargo="$target/release" compression=(--compress-type xz)
if [[ "$profile" == dev ]]; then
  built_by_cargo="$target/debug"
  compression=(--fast)
fi
: "${output:=$target/debian}"
if [[ -z "$version" ]]; then
  version="$(jq -r '.packages[] | select(.name == "hostler-agent") | .version' <<<"$metadata")-1"
fi
[[ "$version" =~ ^[0-9][0-9A-Za-z.+~]*-[0-9A-Za-z.+~]+$ ]] || fail "--version is '$version'; Debian's are written as 0.1.0-1"

if [[ -z "$built" ]]; then
  say "packages: building the programs ($profile)"
  cargo build --locked --profile "$profile" --bins -p hostler-pki "${CRATES[@]/#/--package=}"
  built="$built_by_cargo"
fi
# One at a time: all of them use the same folder.
mkdir -p "$(dirname "$PARTS")"
exec {lock}>"$PARTS.lock"
flock "$lock"
rm -rf "$PARTS"
# cargo-deb takes programs from cargo's target folder alone. This one is its own: nobody else builds into it meanwhile.
export CARGO_TARGET_DIR="$PARTS/target"
for program in "${PROGRAMS[@]}"; do
  [[ -x "$built/$program" ]] || fail "$built holds no program $program; build it, or leave --built out"
  install -D "$built/$program" "$CARGO_TARGET_DIR/release/$program"
done
built="$CARGO_TARGET_DIR/release"

say "packages: manual pages, completions, the changelog"
mkdir -p "$PARTS"/man/{agent,client,pki} "$PARTS"/{completions,upstream}
gzip -9n <CHANGELOG.md >"$PARTS/upstream/changelog.gz"
"$built/hostler" man --dir "$PARTS/man/client"
"$built/hostler-pki" man --dir "$PARTS/man/pki"
"$built/hostler-coordinator" --man-page >"$PARTS/man/hostler-coordinator.8"
"$built/hostler-agent" --man-pages "$PARTS/man/agent"
# Examples and tables stay as they are written, in a section of a usual name.
find "$PARTS/man" -type f -exec sed -i 's/^\.SH EXTRA$/.SH NOTES\n.nf/' {} +
for shell in bash zsh fish; do "$built/hostler" completions "$shell" >"$PARTS/completions/$shell"; done
# The time of the newest commit, so that the same source gives the same packages.
when="$(git log -1 --format=%ct 2>/dev/null || date +%s)"
export SOURCE_DATE_EPOCH="$when"
mkdir -p "$output"

packages=()
for crate in "${CRATES[@]}"; do
  name="${crate%-cli}"
  {
    printf '%s (%s) unstable; urgency=medium\n\n' "$name" "$version"
    printf '  * What is new is in /usr/share/doc/%s/changelog.gz.\n\n' "$name"
    printf ' -- %s  %s\n' "$MAINTAINER" "$(LC_ALL=C date --utc --rfc-email --date "@$when")"
  } >"$PARTS/changelog"
  say "packages: $name $version"
  packages+=("$("$cargo_deb" --package "$crate" --no-build --strip --no-dbgsym --deb-version "$version" \
    --maintainer "$MAINTAINER" --output "$output/" "${compression[@]}" --locked --offline | tail -n 1)")
done
printf '%s\n' "${packages[@]}"
