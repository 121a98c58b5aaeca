# shellcheck shell=bash
# One host, over ssh: sends remote.sh and reads what it says. Uses HOST_ADDRESS, HOST_USER and HOST_PORT of inventory.sh.
# Never decides anything; a connection that fails is the exit code 255, as ssh has it.

# Set by the caller: more arguments for ssh, as -F FILE.
SSH_OPTIONS=()
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
  ssh "${arguments[@]}" -- "${HOST_ADDRESS[$host]}" \
    "C=$(quoted "$command"); export C; if [ \"\$(id -u)\" = 0 ]; then exec sh -c \"\$C\"; else exec sudo -n sh -c \"\$C\"; fi"
}

# host_remote HOST VERB ARGUMENTS...: a verb of remote.sh. A host may be anybody's by now: nothing that it says may move a
# terminal's cursor.
host_remote() {
  local host=$1
  shift
  host_shell "$host" "HOSTLER_REMOTE=$(quoted "$REMOTE_SCRIPT"); export HOSTLER_REMOTE; exec sh -c \"\$HOSTLER_REMOTE\" hostler-rollout $(quoted "$@")" |
    LC_ALL=C tr -cd '[:print:]\n'
}

# said TEXT: the sentence for people in a remote's output.
said() {
  sed -n 's/^said=//p' <<<"$1" | tail -n 1
}

# number TEXT NAME: a fact that is a number; 0 when it is none. Bash would run what stands in an array's index.
number() {
  local value
  value="$(fact "$1" "$2")"
  if [[ "$value" =~ ^[0-9]{1,15}$ ]]; then printf '%s\n' "$((10#$value))"; else echo 0; fi
}

# fact TEXT NAME
fact() {
  sed -n "s/^$2=//p" <<<"$1" | sed -n 1p
}
