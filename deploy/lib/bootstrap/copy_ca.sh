# shellcheck shell=bash
# The CA as one archive, for a place away from this machine. Reads the CA as its owner, and writes nothing but the copy.
# The invariant: a copy that is there under its name was read back and is what the CA is now.

copy_ca() {
  local target archive
  need_root "it reads the CA's key"
  [[ ${#PLAIN[@]} -eq 1 ]] || fail "$USAGE"
  as_owner hostler-pki rotate-ca status --dir "$CA_DIR" >/dev/null || fail "$CA_DIR holds no whole CA (see above)"
  target=${PLAIN[0]}
  if [[ "$target" == - ]]; then
    [[ ! -t 1 ]] || fail "the CA's key is not for a terminal. Write it into a program: $0 copy-ca - | gpg --symmetric --output ca.tar.gpg"
    ca_archive
    return
  fi
  [[ ! -e "$target" ]] || fail "$target is there already. Give the copy another name"
  archive="$(mktemp -- "$target.XXXXXX")"
  # shellcheck disable=SC2064 # its name as it is now
  trap "rm -f -- $(printf '%q' "$archive")" EXIT
  ca_archive >"$archive"
  sync -- "$archive"
  ca_archive | cmp -- "$archive" - || fail "the copy in $target is not what the CA is"
  mv -nT -- "$archive" "$target"
  # What came there meanwhile stays, and mv says nothing of it.
  [[ ! -e "$archive" ]] || fail "$target is there already. Give the copy another name"
  say "the CA of $(ca_domain) is in $target"
  note "whoever reads it is anybody in the fleet: put it where only you can, and remove it here"
  note "back: runuser -u hostler -- tar -C ${CA_DIR%/*} -x <FILE"
}

# With names alone, so that it goes back under any owner.
ca_archive() {
  as_owner tar -C "${CA_DIR%/*}" --sort=name --numeric-owner -c "${CA_DIR##*/}"
}
