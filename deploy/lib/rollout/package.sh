# shellcheck shell=bash disable=SC2034 # the other parts of deploy/rollout read the facts of the packages
# The packages of a rollout: one version of one program, a file for each architecture. Says what is wrong with them.
# Only reads them. Every fact is of the file that is sent: a run has copies of its own.

DEB_VERSION=""
# Of each architecture, "all" among them: the file, its checksum, its name on a host, and the sum over its own list of sums.
declare -A DEB_FILE=() DEB_SUM=() DEB_NAME=() DEB_FILES_SUM=()
# Of the largest, since it is asked before the architecture is known.
DEB_KB=0 INSTALLED_KB=0

packages_read() {
  local file
  for file in "$@"; do package_read "$file" "$file"; done
}

# packages_keep FILE...: into the run, and read there.
packages_keep() {
  local file kept number=0
  mkdir "$RUN_DIR/packages"
  for file in "$@"; do
    number=$((number + 1)) kept="$RUN_DIR/packages/$number.deb"
    [[ -f "$file" && -r "$file" ]] || fail "the package '$file' cannot be read"
    cp "$file" "$kept" 2>/dev/null || fail "the package '$file' cannot be copied to $RUN_DIR. Is the disk full?"
    package_read "$kept" "$file"
  done
}

# package_read FILE NAME: its facts, or a sentence on NAME why it is no package of ours.
package_read() {
  local file=$1 name=$2 fields version arch sum kb
  [[ -f "$file" && -r "$file" ]] || fail "the package '$name' cannot be read"
  fields="$(dpkg-deb -f "$file" Package Version Architecture Installed-Size 2>/dev/null)" || fail "$name is no Debian package, or a broken one"
  # Its control part may be whole while its files are not.
  dpkg-deb --fsys-tarfile "$file" 2>/dev/null | tar -t >/dev/null 2>&1 || fail "$name is a broken package: its files cannot be read"
  [[ "$(package_field Package)" == "$PACKAGE" ]] || fail "$name is the package $(package_field Package), not $PACKAGE"
  version="$(package_field Version)" arch="$(package_field Architecture)" kb="$(package_field Installed-Size)"
  [[ "$version" =~ ^[0-9][0-9A-Za-z.+~:-]*$ && "$arch" =~ ^[a-z0-9-]+$ && "$kb" =~ ^[0-9]{0,9}$ ]] || fail "$name is no package that a build made: its version, architecture or size is none"
  [[ -z "$DEB_VERSION" || "$DEB_VERSION" == "$version" ]] || fail "the packages of a rollout have one version: $name is $version, another is $DEB_VERSION"
  [[ -z "${DEB_FILE[$arch]:-}" ]] || fail "there are two packages for $arch; $name is the second"
  sum="$(sha256sum "$file" | cut -d' ' -f1)"
  [[ -z "$SHA256" || "$SHA256 " == *" $sum "* ]] || fail "$name is not what it should be: its SHA-256 is $sum, not$SHA256"
  DEB_VERSION=$version
  DEB_FILE[$arch]=$file
  DEB_SUM[$arch]=$sum
  # An epoch's colon is no character for a file name.
  DEB_NAME[$arch]="${PACKAGE}_${version//:/%3a}_$arch.deb"
  DEB_FILES_SUM[$arch]="$(package_files_sum "$file")"
  if ((10#0$kb > INSTALLED_KB)); then INSTALLED_KB=$((10#0$kb)); fi
  kb=$(($(stat -c %s "$file") / 1024 + 1))
  if ((kb > DEB_KB)); then DEB_KB=$kb; fi
}

# package_field NAME: of `fields`.
package_field() {
  sed -n "s/^$1: //p" <<<"$fields"
}

# Nothing for a package that brings no list of its files.
package_files_sum() {
  local sums
  sums="$(dpkg-deb --ctrl-tarfile "$1" | tar -xO ./md5sums 2>/dev/null)" || return 0
  LC_ALL=C sort <<<"$sums" | sha256sum | cut -d' ' -f1
}

# package_arch ARCHITECTURE: the key of the package for such a host; nothing when there is none.
package_arch() {
  if [[ -n "$1" && -n "${DEB_FILE[$1]:-}" ]]; then
    printf '%s\n' "$1"
  elif [[ -n "${DEB_FILE[all]:-}" ]]; then
    echo all
  fi
}
