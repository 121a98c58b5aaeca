#!/bin/sh
# What a rollout does on a host, one verb a call: sent over ssh as it is, so a host needs nothing but sh, dpkg and systemd.
#
#   look PACKAGE DEB_KB INSTALLED_KB   prints what is true here, as NAME=VALUE lines; changes nothing
#   take RUN FILE SHA256 FORCE         a package from standard input into CACHE, only when it is whole; the host is RUN's then
#   install RUN PACKAGE FILE           the package, in a unit that outlives the ssh connection; the one before is kept first
#   bring RUN PACKAGE FILE             a host's first package with all that it depends on, by apt, in such a unit
#   restore RUN PACKAGE                the package before again, or none when there was none
#   release RUN PACKAGE                the host is nobody's again
#   service UNIT                       what is true of a service, as NAME=VALUE lines
#
# Never leaves a package half installed: what cannot be installed is replaced by what was there. Never removes
# configuration, state or keys. The last line that starts with "said=" is the sentence for people.
set -eu
CACHE=/var/cache/hostler
OWNER="$CACHE/rollout"
# "RUN FILE": what was installed before RUN came, as a package file; the file is "none" when nothing was.
PREVIOUS="$CACHE/previous"
UNIT=hostler-rollout
# In memory: a full disk must not keep anybody from putting a package back.
LOG=/run/hostler-rollout.log
# POSIX shells have no local variables: no function may set one that its caller still needs.
export DEBIAN_FRONTEND=noninteractive LC_ALL=C

said() {
  printf 'said=%s\n' "$*"
}

refuse() {
  said "$*"
  exit 1
}

# Its installed version, whole or not; nothing when it is not here or only its configuration is left.
version_of() {
  dpkg-query -W -f '${db:Status-Status} ${Version}' "$1" 2>/dev/null |
    sed -n -e 's/^\(not-installed\|config-files\) .*//p' -e 's/^[a-z-]* \(.*\)$/\1/p' | sed -n '/./p'
}

status_of() {
  dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null || echo not-installed
}

# The sum over the list of sums that the installed package brought.
files_sum() {
  if [ -r "/var/lib/dpkg/info/$1.md5sums" ]; then sort "/var/lib/dpkg/info/$1.md5sums" | sha256sum | cut -d' ' -f1; fi
}

free_kb() {
  df -Pk "$1" | awk 'NR == 2 { print $4 }'
}

# The smallest of what the places have where a package's files go.
free_anywhere_kb() {
  for place in /usr /var/lib/dpkg /var/cache; do free_kb "$place"; done | sort -n | sed -n 1p
}

# A key of a table of agent.toml, which holds one key a line.
configured() {
  sed -n "s/^[[:space:]]*$1[[:space:]]*=[[:space:]]*\"\([^\"]*\)\".*/\1/p" /etc/hostler/agent.toml 2>/dev/null | sed -n 1p
}

# config_of PACKAGE: none, shipped or edited; dpkg keeps the sum of what it brought.
config_of() {
  [ -e /etc/hostler/agent.toml ] || { echo none; return; }
  sum="$(md5sum </etc/hostler/agent.toml | cut -d' ' -f1)"
  case "$(dpkg-query -W -f '${Conffiles}' "$1" 2>/dev/null)" in
    *" /etc/hostler/agent.toml $sum"*) echo shipped ;;
    *) echo edited ;;
  esac
}

owner() {
  cat "$OWNER" 2>/dev/null || true
}

look() {
  package=$1 need_kb=$(($2 * 3 + $3 + 16384))
  certificate="$(configured certificate)"
  [ -n "$certificate" ] || certificate=/var/lib/hostler-agent/identity/agent.pem
  echo "arch=$(dpkg --print-architecture)"
  echo "version=$(version_of "$package")"
  echo "status=$(status_of "$package")"
  echo "want=$(dpkg-query -W -f '${db:Status-Want}' "$package" 2>/dev/null || true)"
  echo "files_sum=$(files_sum "$package")"
  echo "free_kb=$(free_anywhere_kb)"
  echo "need_kb=$need_kb"
  echo "systemd=$([ -d /run/systemd/system ] && echo yes || echo no)"
  echo "owner=$(owner)"
  echo "dials=$(configured coordinator)"
  echo "config=$(config_of "$package")"
  # One line, so that it fits among the others. The file may hold the key as well, also before the certificate: that stays here.
  if [ -e "$certificate" ]; then
    echo "pem=$(sed -n '/^-----BEGIN CERTIFICATE-----/,/^-----END CERTIFICATE-----/{p;/^-----END/q;}' "$certificate" | tr '\n' '|')"
  fi
}

take() {
  run=$1 file=$2 sum=$3 force=$4
  mkdir -p "$CACHE"
  if [ -n "$(owner)" ] && [ "$(owner)" != "$run" ] && [ "$force" != take-over ]; then
    refuse "another rollout has this host: $(owner). If it is dead for good: --take-over"
  fi
  incoming="$CACHE/.incoming.$$"
  trap 'rm -f "$incoming" "$OWNER.$$"' EXIT
  # Also when the disk is full: then neither of the two is there.
  { printf '%s\n' "$run" >"$OWNER.$$" && cat >"$incoming"; } 2>/dev/null || refuse "no space for the package in $CACHE"
  [ "$(sha256sum "$incoming" | cut -d' ' -f1)" = "$sum" ] || refuse "the package arrived damaged: its SHA-256 is not what it was when it left"
  dpkg-deb -I "$incoming" >/dev/null 2>&1 || refuse "dpkg cannot read the package"
  mv "$incoming" "$CACHE/$file"
  mv "$OWNER.$$" "$OWNER"
  said "took $file"
}

# Its configuration files; one that is no file's name when there are none, since nothing matches that.
conffiles_of() {
  { dpkg-query -W -f '${Conffiles}\n' "$1" | awk '{ print $1 }' | sed '/^$/d' | grep . || echo none; }
}

# The installed package as a file again, from dpkg's own records: for hosts whose package came by another way.
repack() {
  package=$1 version=$2 out=$3 tree="$CACHE/.repack.$$"
  # Also what a run left that had no space, or lost its power.
  rm -rf "$CACHE"/.repack.*
  mkdir -p "$tree/DEBIAN"
  # Not its configuration: what is there is the host's own by now, and dpkg would take it for what the package had brought.
  dpkg-query -L "$package" | grep -vxF "$(conffiles_of "$package")" | while IFS= read -r path; do
    if [ -d "$path" ] && [ ! -L "$path" ]; then mkdir -p "$tree$path"; elif [ -e "$path" ] || [ -L "$path" ]; then cp -a "$path" "$tree$path"; fi
  done
  dpkg-query -s "$package" | sed -e '/^Status:/d' -e '/^Conffiles:/,/^[^ ]/{/^Conffiles:/d;/^ /d}' >"$tree/DEBIAN/control"
  for script in preinst postinst prerm postrm triggers shlibs md5sums; do
    if [ -e "/var/lib/dpkg/info/$package.$script" ]; then cp -a "/var/lib/dpkg/info/$package.$script" "$tree/DEBIAN/$script"; fi
  done
  # For this host alone: time counts more than size.
  dpkg-deb --root-owner-group -Zgzip -z1 -b "$tree" "$out.new" >/dev/null
  rm -rf "$tree"
  mv "$out.new" "$out"
  echo "the package $package $version was packed again from what is installed"
}

# previous_of RUN: the file to go back to. Nothing when RUN has not begun here.
previous_of() {
  sed -n "s/^$1 //p" "$PREVIOUS" 2>/dev/null || true
}

# Makes sure that the installed package can be had back, and notes which file that is.
keep_previous() {
  run=$1 package=$2
  version="$(version_of "$package")"
  if [ -z "$version" ]; then
    kept=none
  else
    kept=""
    for candidate in "$CACHE"/*.deb; do
      [ -e "$candidate" ] || continue
      if [ "$(dpkg-deb -f "$candidate" Package 2>/dev/null) $(dpkg-deb -f "$candidate" Version 2>/dev/null)" = "$package $version" ]; then kept=$candidate; fi
    done
    if [ -z "$kept" ]; then
      kept="$CACHE/${package}_${version}_before.deb"
      repack "$package" "$version" "$kept"
    fi
  fi
  echo "$run $kept" >"$PREVIOUS.new"
  mv "$PREVIOUS.new" "$PREVIOUS"
}

# dpkg waits for nobody; another package manager may be at work for a minute.
dpkg_patiently() {
  tries=0
  until dpkg --force-confold --force-confdef "$@" >"$LOG.dpkg" 2>&1; do
    cat "$LOG.dpkg"
    grep -q 'locked by another process' "$LOG.dpkg" || return 1
    tries=$((tries + 1))
    [ "$tries" -lt 60 ] || return 1
    sleep 1
  done
  cat "$LOG.dpkg"
}

is_whole() {
  [ "$(status_of "$1")" = installed ] && [ -z "$(dpkg --audit "$1" 2>/dev/null)" ]
}

# What is noted as the one before, whatever state the package is in now.
put_back() {
  package=$1 previous=$2
  if [ "$previous" = none ]; then
    if [ "$(status_of "$package")" != not-installed ]; then
      # Not purged: configuration, state and keys stay.
      dpkg_patiently --remove "$package" || dpkg_patiently --force-remove-reinstreq --remove "$package"
    fi
  else
    # dpkg takes its own failures back where it can; on a full disk that is all there is.
    if is_whole "$package" && [ "$(version_of "$package")" = "$(dpkg-deb -f "$previous" Version)" ]; then return 0; fi
    dpkg_patiently --install "$previous" && is_whole "$package"
  fi
}

# Runs within the unit.
install_here() {
  run=$1 package=$2 file=$3
  # A second try after a death in the middle must not take the half new one for the one before.
  if [ -z "$(previous_of "$run")" ]; then
    # A shell of its own: what fails in it ends it.
    sh -c "$HOSTLER_REMOTE" hostler-rollout keep "$run" "$package" ||
      refuse "the package before could not be kept, so nothing was changed: $(tail -n 1 "$LOG")"
  fi
  if is_whole "$package" && [ "$(version_of "$package")" = "$(dpkg-deb -f "$CACHE/$file" Version)" ]; then
    said "$file was installed already"
    return
  fi
  if dpkg_patiently --install "$CACHE/$file" && is_whole "$package"; then
    said "installed $file"
    return
  fi
  reason="$(grep -v '^(Reading' "$LOG.dpkg" | grep -E 'error|cannot|depend|No space' | sed -n 1p)"
  if put_back "$package" "$(previous_of "$run")"; then
    refuse "dpkg could not install the package (${reason:-see its log}); the host has what it had before"
  fi
  refuse "dpkg could not install the package (${reason:-see its log}), nor put back what was there: look at this host with: dpkg --audit"
}

# Within the unit. A host that lost its power in the middle has a package half installed: apt does not begin then, and takes
# the package for installed.
bring_here() {
  dpkg --force-confold --force-confdef --configure -a
  apt-get install --yes --quiet --no-install-recommends --reinstall --allow-downgrades \
    -o Dpkg::Options::=--force-confold -o DPkg::Lock::Timeout=60 "$CACHE/$3"
  is_whole "$2" || refuse "apt ended well, yet the package is not whole; look at this host with: dpkg --audit"
}

restore_here() {
  run=$1 package=$2 previous="$(previous_of "$1")"
  if [ -z "$previous" ]; then
    said "nothing had been installed here"
    return
  fi
  put_back "$package" "$previous" || refuse "the package before could not be put back; look at this host with: dpkg --audit"
  said "put back: $(version_of "$package" | sed 's/^$/none/')"
}

# in_unit VERB ARGUMENTS...: this script again, as a unit that goes on when the connection is lost.
in_unit() {
  # What a lost connection left running ends first.
  while [ "$(systemctl is-active "$UNIT")" = active ] || [ "$(systemctl is-active "$UNIT")" = activating ]; do sleep 0.2; done
  systemctl reset-failed "$UNIT" 2>/dev/null || true
  : >"$LOG"
  code=0
  # shellcheck disable=SC2016 # the shell of the unit reads its variable
  systemd-run --quiet --collect --wait --unit="$UNIT" --property=StandardOutput="append:$LOG" --property=StandardError="append:$LOG" \
    --setenv=HOSTLER_REMOTE="$HOSTLER_REMOTE" /bin/sh -c 'sh -c "$HOSTLER_REMOTE" hostler-rollout "$@"' hostler-rollout "$@" || code=$?
  cat "$LOG"
  return "$code"
}

# Only what is installed and the one before are worth the space.
tidy() {
  package=$1 version="$(version_of "$1")" previous="$(sed 's/^[^ ]* //' "$PREVIOUS" 2>/dev/null || true)"
  for file in "$CACHE"/*.deb; do
    [ -e "$file" ] || continue
    [ "$file" = "$previous" ] || [ "$(dpkg-deb -f "$file" Version 2>/dev/null)" = "$version" ] || rm -f "$file"
  done
}

service() {
  systemctl show "$1" --property=ActiveState,SubState,NRestarts,MainPID,ConditionResult,Result | tr '[:upper:]' '[:lower:]'
  echo "program=$("/usr/bin/$1" --version 2>/dev/null | awk '{ print $2 }')"
}

verb=$1
shift
case "$verb" in
  look) look "$@" ;;
  take) take "$@" ;;
  install | bring)
    [ "$(owner)" = "$1" ] || refuse "the host belongs to the rollout '$(owner)', not to $1"
    in_unit "${verb}_here" "$@"
    ;;
  restore)
    # A rollout that was done here has let go of the host, and is the only one that may take it again.
    if [ -z "$(owner)" ] && [ -n "$(previous_of "$1")" ]; then echo "$1" >"$OWNER"; fi
    [ "$(owner)" = "$1" ] || refuse "another rollout was here since, so what was before $1 is not known any more"
    in_unit restore_here "$@"
    ;;
  keep)
    trap 'rm -rf "$CACHE"/.repack.*' EXIT
    keep_previous "$@"
    ;;
  install_here) install_here "$@" ;;
  bring_here) bring_here "$@" ;;
  restore_here) restore_here "$@" ;;
  release)
    if [ "$(owner)" = "$1" ]; then
      rm -f "$OWNER"
      tidy "$2"
    fi
    ;;
  service) service "$@" ;;
  *) refuse "unknown verb '$verb'" ;;
esac
