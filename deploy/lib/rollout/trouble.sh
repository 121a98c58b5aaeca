# shellcheck shell=bash
# Why a host cannot have the package, or must not be touched: in words, with the way out.
# Reads the facts of a host, the packages and the snapshot of the fleet; asks and changes nothing.

# trouble_of HOST: nothing when the host can have the package.
trouble_of() {
  local host=$1 facts words part
  facts="$(get_host "$host" facts)"
  if [[ -z "$(fact "$facts" arch)" ]]; then
    words="$(get_host "$host" answer)"
    # What ssh said, or the host.
    words+=" $({ grep -v '^20[0-9-]*T' "$RUN_DIR/hosts/$host/log" || true; } | tail -n 1 | LC_ALL=C tr -cd '[:print:]' | cut -c "-$SHOWN_AT_MOST")"
    echo "not reachable by ssh (${words# })"
    return
  fi
  if [[ "$(fact "$facts" systemd)" != yes ]]; then echo "no systemd runs on it" && return; fi
  if [[ -z "$(package_of "$facts")" ]]; then
    echo "its architecture is $(fact "$facts" arch); there are packages for: ${!DEB_FILE[*]}" && return
  fi
  for part in owner_trouble identity_trouble package_trouble space_trouble; do
    words="$("$part" "$host" "$facts")"
    if [[ -n "$words" ]]; then echo "$words" && return; fi
  done
}

# package_of FACTS: the key of the package for this host.
package_of() {
  package_arch "$(fact "$1" arch)"
}

owner_trouble() {
  local owner
  owner="$(fact "$2" owner)"
  if [[ -z "$owner" || "$owner" == "$RUN" || "$TAKE_OVER" == take-over ]]; then return; fi
  if [[ -d "$STATE/runs/$owner" ]]; then
    echo "the rollout before this one has not let go of it: $owner. Once more: $RESUME, or $ROLLBACK; to leave it as it is: --take-over"
  else
    echo "another rollout has it: $owner. If that one is dead for good: --take-over"
  fi
}

identity_trouble() {
  local host=$1 pem words
  pem="$(fact "$2" pem | tr '|' '\n')"
  words="$(foreign_of "$host" "$pem" "$(fact "$2" dials)")"
  if [[ -n "$words" ]]; then echo "its agent is foreign: $words" && return; fi
  if [[ -n "$pem" ]] && ! openssl x509 -noout -checkend 0 <<<"$pem" >/dev/null 2>&1; then
    words="$(openssl x509 -noout -enddate <<<"$pem" 2>/dev/null | LC_ALL=C tr -cd '[:print:]')"
    echo "its certificate ended ${words#*=}, so its agent cannot come back. Enrol it again: hostler tokens create --host $host, and there: hostler-agent enrol"
  fi
}

# The package that is there, against the one that is wanted.
package_trouble() {
  local host=$1 facts=$2 installed status words
  installed="$(fact "$facts" version)" status="$(fact "$facts" status)"
  if [[ "$(fact "$facts" want)" == hold ]]; then
    echo "its package is held. To let go: apt-mark unhold hostler-agent" && return
  fi
  if [[ -n "$installed" && ! "$installed" =~ ^[0-9][0-9A-Za-z.+~:-]*$ ]]; then
    echo "it says that its package has the version '$installed', which is none" && return
  fi
  # What this run left in the middle is its own to mend.
  if [[ -n "$installed" && "$status" != installed && "$(fact "$facts" owner)" != "$RUN" ]]; then
    echo "its package is not whole ($status). See there: dpkg --audit" && return
  fi
  if [[ "$installed" == "$DEB_VERSION" && "$status" == installed ]]; then
    words="${DEB_FILES_SUM[$(package_of "$facts")]}"
    if [[ -n "$words" && "$(fact "$facts" files_sum)" != "$words" ]]; then
      echo "it has $installed already, with other files: what differs needs another version"
    fi
    return
  fi
  words="$(skew_of "$(get coordinator)" "$DEB_VERSION")"
  if [[ -n "$words" ]]; then echo "$words" && return; fi
  if [[ -n "$installed" && "$ALLOW_DOWNGRADE" != yes ]] && dpkg --compare-versions "$installed" gt "$DEB_VERSION"; then
    echo "it has $installed, which is newer than $DEB_VERSION. If that is meant: --allow-downgrade"
  fi
}

space_trouble() {
  local facts=$2
  if [[ "$(fact "$facts" version)" == "$DEB_VERSION" && "$(fact "$facts" status)" == installed ]]; then return; fi
  if (($(number "$facts" free_kb) < $(number "$facts" need_kb))); then
    echo "no space: $(number "$facts" free_kb) kB are free and $(number "$facts" need_kb) kB needed"
  fi
}

# skew_of COORDINATOR PACKAGE: why the coordinator would refuse the version, by the rule that it has itself: the same major
# number, and minor ones that are at most one apart.
skew_of() {
  local own package
  [[ "$1" =~ ^([0-9]{1,6})\.([0-9]{1,6})\. ]] || return 0
  own=("${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}")
  # An epoch is dpkg's alone.
  [[ "${2#*:}" =~ ^([0-9]{1,6})\.([0-9]{1,6})\. ]] || return 0
  package=("${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}")
  if ((10#${own[0]} == 10#${package[0]} && 10#${own[1]} - 10#${package[1]} <= 1 && 10#${package[1]} - 10#${own[1]} <= 1)); then return; fi
  echo "the coordinator is $1 and would refuse an agent of ${2#*:}: at most one minor version apart. Go step by step, the coordinator first"
}

# foreign_of HOST PEM DIALS: why an agent is another site's; nothing when it is ours, or has no certificate yet.
foreign_of() {
  local host=$1 pem=$2 dials=$3 uri
  if [[ -n "$DIALS" && -n "$dials" && ",$DIALS," != *",$dials,"* ]]; then echo "it dials $dials" && return; fi
  [[ -n "$pem" ]] || return 0
  uri="$(openssl x509 -noout -ext subjectAltName <<<"$pem" 2>/dev/null | grep -o 'URI:[^, ]*' | sed 's/^URI://')"
  # Expired or not: whose it is does not change with the time.
  if [[ -n "$CA" ]] && ! openssl verify -no_check_time -partial_chain -CAfile "$CA" <<<"$pem" >/dev/null 2>&1; then
    echo "its certificate (${uri:-without identity}) is not signed by $CA"
  elif [[ "$uri" != spiffe://*/agent/"$host" ]]; then
    echo "its certificate is of ${uri:-nobody}"
  fi
}
