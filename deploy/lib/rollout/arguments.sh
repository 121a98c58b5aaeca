# shellcheck shell=bash disable=SC2034 # the other parts of deploy/rollout read what is asked for
# What was asked for, and the same written down for `resume`. An argument that is not understood ends with the code 2.

VERB="" INVENTORY_FILE="" LIMIT="" PACKAGE_FILES=() SHA256="" ALLOW_DOWNGRADE=no CANARY=1 BATCH=10% MAX_UNAVAILABLE="" WAIT=120 SETTLE=10
OPERATION_WAIT=600 ON_TROUBLE=fail DIALS="" TAKE_OVER=no CA="${HOSTLER_CA:-}" SSH_CONFIG=""
STATE="${XDG_STATE_HOME:-$HOME/.local/state}/hostler/rollout"
# What a run keeps for those that go on with it.
declare -A GIVEN=()
KEPT=(MAX_UNAVAILABLE WAIT SETTLE OPERATION_WAIT ON_TROUBLE DIALS TAKE_OVER ALLOW_DOWNGRADE CA SSH_CONFIG HOSTLER)
# What a rollout is, which is settled when it begins.
SETTLED=" --inventory --limit --package --sha256 --canary --batch --allow-downgrade "

usage_fails() {
  printf '%s: %s. See: %s --help\n' "$REPORT_NAME" "$*" "$0" >&2
  exit 2
}

# The CA in the client's configuration file, whose paths begin at its folder.
client_ca() {
  local file="${HOSTLER_CONFIG:-${XDG_CONFIG_HOME:-$HOME/.config}/hostler/config.toml}" ca
  # Without the file everything may be in HOSTLER_*; otherwise the client says what is missing.
  ca="$({ sed -n 's/^[[:space:]]*ca[[:space:]]*=[[:space:]]*"\([^"]*\)".*/\1/p' "$file" 2>/dev/null || true; } | sed -n 1p)"
  if [[ -n "$ca" && "$ca" != /* ]]; then ca="$(dirname "$(realpath "$file")")/$ca"; fi
  printf '%s\n' "$ca"
}

absolute() {
  if [[ -z "$1" || "$1" == /* ]]; then printf '%s\n' "$1"; else printf '%s/%s\n' "$PWD" "$1"; fi
}

arguments_read() {
  VERB="${1:-}"
  case "$VERB" in
    plan | apply | status | resume | rollback) shift ;;
    "" | help | -h | --help)
      sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0"
      exit 0
      ;;
    *) usage_fails "unknown verb '$VERB'" ;;
  esac
  while [[ $# -gt 0 ]]; do
    local option=$1
    [[ "$option" == --* ]] || usage_fails "'$option' is not understood"
    if [[ "$VERB" != plan && "$VERB" != apply && "$SETTLED" == *" $option "* ]]; then
      usage_fails "$option is settled when a rollout begins: $VERB takes what apply was told"
    fi
    case "$option" in
      --take-over) TAKE_OVER=take-over ;;
      --allow-downgrade) ALLOW_DOWNGRADE=yes ;;
      *) [[ $# -ge 2 && -n "$2" ]] || usage_fails "$option needs a value" ;;
    esac
    case "$option" in
      --inventory) INVENTORY_FILE=$2 ;;
      --limit) LIMIT=$2 ;;
      --take-over | --allow-downgrade) set -- "$1" "$@" ;;
      --package) PACKAGE_FILES+=("$2") ;;
      --sha256) SHA256+=" $2" ;;
      --canary) CANARY=$2 ;;
      --batch) BATCH=$2 ;;
      --max-unavailable) MAX_UNAVAILABLE=$2 ;;
      --wait) WAIT=$2 ;;
      --settle) SETTLE=$2 ;;
      --operation-wait) OPERATION_WAIT=$2 ;;
      --on-trouble) ON_TROUBLE=$2 ;;
      --dials) DIALS=$2 ;;
      --ca) CA="$(absolute "$2")" ;;
      --hostler) if [[ "$2" == */* ]]; then HOSTLER="$(absolute "$2")"; else HOSTLER=$2; fi ;;
      --ssh-config) SSH_CONFIG="$(absolute "$2")" ;;
      --state) STATE="$(absolute "$2")" ;;
      *) usage_fails "unknown option $option" ;;
    esac
    option="${option#--}"
    option="${option//-/_}"
    GIVEN[${option^^}]=1
    shift 2
  done
  numbers_fit
  [[ "$ON_TROUBLE" =~ ^(skip|fail)$ ]] || usage_fails "--on-trouble is skip or fail, not '$ON_TROUBLE'"
  if [[ "$VERB" == plan || "$VERB" == apply ]]; then
    [[ -n "$INVENTORY_FILE" ]] || usage_fails "$VERB needs --inventory FILE"
    [[ ${#PACKAGE_FILES[@]} -gt 0 ]] || usage_fails "$VERB needs --package FILE"
  fi
  if [[ -z "$CA" ]]; then CA="$(client_ca)"; fi
  RESUME="$0 resume --state $STATE" ROLLBACK="$0 rollback --state $STATE"
}

# Numbers in their plain form: bash would read 010 as 8.
numbers_fit() {
  local name
  for name in BATCH MAX_UNAVAILABLE; do
    [[ "${!name}" =~ ^([1-9][0-9]{0,5}|[1-9][0-9]?%|100%|)$ ]] || usage_fails "'${!name}' is neither a number nor a share as 10%"
  done
  for name in WAIT SETTLE OPERATION_WAIT; do
    [[ "${!name}" =~ ^[0-9]{1,6}$ ]] || usage_fails "'${!name}' is no number of seconds"
    printf -v "$name" '%s' "$((10#${!name}))"
  done
  if [[ "$CANARY" =~ ^[0-9]{1,6}$ ]]; then CANARY=$((10#$CANARY)); fi
  [[ "$CANARY" != 0 ]] || usage_fails "--canary is at least 1: somebody has to go first"
}

tools_ready() {
  local tool file
  for tool in ssh jq openssl dpkg-deb flock sha256sum timeout "$HOSTLER"; do
    command -v "$tool" >/dev/null || fail "$tool is missing here"
  done
  for file in "$CA" "$SSH_CONFIG"; do
    [[ -z "$file" || -r "$file" ]] || fail "$file cannot be read"
  done
  # Nobody could be well for longer than is waited for.
  ((SETTLE < WAIT)) || usage_fails "--settle is $SETTLE s, and --wait only $WAIT"
  if [[ -n "$SSH_CONFIG" ]]; then SSH_OPTIONS=(-F "$SSH_CONFIG"); fi
}

# The settings and the hosts of this run.
settings_put() {
  local name host
  for name in "${KEPT[@]}"; do put "setting.$name" "${!name}"; done
  put version "$DEB_VERSION"
  for host in "${HOSTS[@]}"; do
    printf '%s\t%s\t%s\t%s\n' "$host" "${HOST_ADDRESS[$host]}" "${HOST_USER[$host]:--}" "${HOST_PORT[$host]:--}"
  done >"$RUN_DIR/inventory"
}

settings_get() {
  local name host address user port
  for name in "${KEPT[@]}"; do
    # What is said now counts more, and counts from now on. Who only looks settles nothing.
    if [[ -n "${GIVEN[$name]:-}" && "$VERB" != status ]]; then put "setting.$name" "${!name}"; fi
    printf -v "$name" '%s' "$(get "setting.$name")"
  done
  HOSTS=()
  declare -gA HOST_ADDRESS=() HOST_USER=() HOST_PORT=()
  while IFS=$'\t' read -r host address user port; do
    HOSTS+=("$host")
    HOST_ADDRESS[$host]=$address
    HOST_USER[$host]="${user#-}"
    HOST_PORT[$host]="${port#-}"
  done <"$RUN_DIR/inventory"
  MAX_UNAVAILABLE="$(share "${#HOSTS[@]}" "$MAX_UNAVAILABLE")"
  if [[ "$VERB" != status ]]; then tools_ready; fi
}
