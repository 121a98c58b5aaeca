# shellcheck shell=bash
# One host, over ssh: sends remote.sh and reads what it says. Uses HOST_ADDRESS, HOST_USER and HOST_PORT of inventory.sh.
# Never decides anything; a connection that fails is the exit code 255, as ssh has it.

# Set by the caller: more arguments for ssh, as -F FILE.
SSH_OPTIONS=()
# Set where a host's answer is waited for: a program that ends what takes too long.
SSH_PATIENCE=()
# So many KiB of an answer are read, and so many characters of it shown. A host that says more is cut off.
ANSWER_KB=64
SHOWN_AT_MOST=300
REMOTE_SCRIPT="$(cat "$(dirname "${BASH_SOURCE[0]}")/remote.sh")"

# In single quotes, for whatever shell the host's user has.
quoted() {
  local word
  for word in "$@"; do printf "'%s' " "${word//\'/\'\\\'\'}"; done
}

# host_shell HOST COMMAND: as root, by sudo where the user is somebody else. Standard input goes to the command.
host_shell() {
  local host=$1 command=$2 arguments=("${SSH_OPTIONS[@]}" -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=5 -o ServerAliveCountMax=3)
  if [[ -n "${HOST_PORT[$host]}" ]]; then arguments+=(-p "${HOST_PORT[$host]}"); fi
  if [[ -n "${HOST_USER[$host]}" ]]; then arguments+=(-l "${HOST_USER[$host]}"); fi
  "${SSH_PATIENCE[@]}" ssh "${arguments[@]}" -- "${HOST_ADDRESS[$host]}" \
    "C=$(quoted "$command"); export C; if [ \"\$(id -u)\" = 0 ]; then exec sh -c \"\$C\"; else exec sudo -n sh -c \"\$C\"; fi"
}

# tame: what a host says, as text. A host may be anybody's by now: nothing that it says may move a terminal's cursor, nor
# fill a memory or a disk.
tame() {
  LC_ALL=C tr -cd '[:print:]\n' | dd bs=1k count="$ANSWER_KB" iflag=fullblock status=none
}

# verb_seconds VERB: a host whose disk or whose dpkg hangs takes a connection and says nothing for ever.
verb_seconds() {
  case "$1" in
    take) echo 1800 ;;
    install | bring | restore) echo 900 ;;
    *) echo 60 ;;
  esac
}

# host_remote HOST VERB ARGUMENTS...: a verb of remote.sh; ends with 124 when it took too long.
host_remote() {
  local host=$1 SSH_PATIENCE=()
  shift
  SSH_PATIENCE=(timeout --kill-after=5 "$(verb_seconds "$1")")
  {
    host_shell "$host" "HOSTLER_REMOTE=$(quoted "$REMOTE_SCRIPT"); export HOSTLER_REMOTE; exec sh -c \"\$HOSTLER_REMOTE\" hostler-rollout $(quoted "$@")" \
      2>&1 >&4 | tame >&2
  } 4>&1 | tame
}

# ended CODE VERB: why there is no sentence of the host's own.
ended() {
  case "$1" in
    124 | 137) echo "it did not come to an end within $(verb_seconds "$2") s" ;;
    141) echo "it said more than $ANSWER_KB KiB" ;;
    255) echo "the connection broke" ;;
    *) echo "it ended with $1" ;;
  esac
}

# said TEXT: the sentence for people in a remote's output.
said() {
  sed -n 's/^said=//p' <<<"$1" | tail -n 1 | cut -c "-$SHOWN_AT_MOST"
}

# number TEXT NAME: a fact that is a number; 0 when it is none. Bash would run what stands in an array's index.
number() {
  local value
  value="$(fact "$1" "$2")"
  if [[ "$value" =~ ^[0-9]{1,15}$ ]]; then printf '%s\n' "$((10#$value))"; else echo 0; fi
}

# fact TEXT NAME: the certificate alone may be long. No program is run, since a plan asks for it ten times a host.
fact() {
  local line
  while IFS= read -r line; do
    [[ "$line" == "$2="* ]] || continue
    line="${line#*=}"
    if [[ "$2" != pem ]]; then line="${line:0:SHOWN_AT_MOST}"; fi
    if [[ -n "$line" ]]; then printf '%s\n' "$line"; fi
    return
  done <<<"$1"
}
