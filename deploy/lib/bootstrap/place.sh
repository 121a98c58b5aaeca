# shellcheck shell=bash
# Files and certificates of a new site, put in their places whole or not at all, whenever the script dies.
# Never reads or writes as root in a folder of the user hostler, who could have put a link to any of root's files there.
# The invariant: a name that says "done" (a certificate, a configuration) appears last. Uses CA_DIR and LOG of bootstrap.

# Beside the CA, whose user makes certificates in it.
ISSUING="${CA_DIR%/*}/issuing"

# as_owner PROGRAM ARGUMENTS...: as the user that the CA belongs to; its key is taken from nobody else's hands.
as_owner() {
  # A user that was there before may have another group of its own.
  runuser -u hostler -g hostler -- "$@"
}

# place MODE OWNER:GROUP FILE: standard input becomes the file.
place() {
  install -m "$1" -o "${2%:*}" -g "${2#*:}" /dev/stdin "$3.new"
  sync -- "$3.new"
  mv -T -- "$3.new" "$3"
}

# make_pair FOLDER STEM OWNER:GROUP WHOM...: STEM.key of that owner and STEM.crt, issued for WHOM as hostler-pki has it.
make_pair() {
  local folder=$1 stem=$2 owner=$3 certificate key
  shift 3
  # Our own unfinished work has the certificate beside it, as .new.
  [[ ! -e "$folder/$stem.key" || -e "$folder/$stem.crt.new" ]] ||
    fail "$folder holds $stem.key and no $stem.crt: a key that is not of this command. Put its certificate beside it, or move it away; then run this again"
  as_owner rm -rf "$ISSUING"
  as_owner mkdir -m 0700 "$ISSUING"
  logged "$LOG" as_owner hostler-pki issue "$@" --dir "$CA_DIR" --out "$ISSUING" --out-name "$stem"
  certificate="$(as_owner cat "$ISSUING/$stem.crt")"
  key="$(as_owner cat "$ISSUING/$stem.key")"
  as_owner rm -rf "$ISSUING"
  printf '%s\n' "$certificate" | install -m 0644 /dev/stdin "$folder/$stem.crt.new"
  printf '%s\n' "$key" | place 0600 "$owner" "$folder/$stem.key"
  mv -T "$folder/$stem.crt.new" "$folder/$stem.crt"
  sync "$folder"
}

# place_ca FOLDER: the site's roots, as ca.crt. Another site's stay, and are an error.
place_ca() {
  local roots
  roots="$(as_owner cat "$CA_DIR/ca.crt")"
  if [[ -e "$1/ca.crt" ]]; then
    [[ "$(cat "$1/ca.crt")" == "$roots" ]] || fail "$1/ca.crt is of another CA than $CA_DIR/ca.crt. Move it away when it is not wanted, and run this again"
    return
  fi
  printf '%s\n' "$roots" | place 0644 root:root "$1/ca.crt"
}
