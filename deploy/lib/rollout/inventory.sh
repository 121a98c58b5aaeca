# shellcheck shell=bash disable=SC2034 # deploy/rollout and deploy/bootstrap read the hosts
# The hosts of a rollout, from a file: plain lines "HOST [[USER@]ADDRESS[:PORT]]", or Ansible's INI.
# Fills HOSTS (in the file's order) and, for each, HOST_ADDRESS, HOST_USER and HOST_PORT. HOST is the name in the agent's
# certificate; in Ansible's form it is the variable hostler_host, or else the host's own name.
# Never asks a host anything. A line that it does not understand is an error with its number, never skipped.

HOSTS=()
declare -A HOST_ADDRESS=() HOST_USER=() HOST_PORT=()
# Ansible's: a group's hosts (names of lines), the groups within it, its variables ("GROUP VARIABLE").
declare -A INI_GROUP_HOSTS=() INI_GROUP_CHILDREN=() INI_VARIABLE=()
# A line's groups, for the variables that it has from them.
declare -A INI_HOST_GROUPS=()
declare -A INI_SEEN=()
INI_LINES=()
# "LINE GROUP" of each group that is said to be within another.
INI_CHILD_LINES=()
# More hosts than any site has, in one range, are a slip of the hand.
RANGE_AT_MOST=10000

inventory_line_fails() {
  fail "line $1 of $INVENTORY: $2"
}

# add_host LINE NAME USER ADDRESS PORT
inventory_add() {
  local line=$1 name=$2 user=$3 address=$4 port=$5
  [[ "$name" =~ ^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$ ]] || inventory_line_fails "$line" "'$name' is no host name: letters, digits, '.', '_' and '-'"
  # ssh would take a leading '-' for an option.
  [[ "$address" =~ ^[A-Za-z0-9:][A-Za-z0-9.:_%-]*$ ]] || inventory_line_fails "$line" "'$address' is no address"
  [[ -z "$user" || "$user" =~ ^[A-Za-z0-9_][A-Za-z0-9._-]*$ ]] || inventory_line_fails "$line" "'$user' is no user name"
  [[ -z "$port" ]] || { [[ "$port" =~ ^[1-9][0-9]{0,4}$ ]] && ((port <= 65535)); } || inventory_line_fails "$line" "'$port' is no port"
  [[ -z "${HOST_ADDRESS[$name]:-}" ]] || inventory_line_fails "$line" "the host $name is there twice"
  HOSTS+=("$name")
  HOST_ADDRESS[$name]=$address
  HOST_USER[$name]=$user
  HOST_PORT[$name]=$port
}

inventory_plain() {
  local text line=0 name target rest user address port
  while IFS= read -r text || [[ -n "$text" ]]; do
    line=$((line + 1))
    text="${text%%#*}"
    read -r name target rest <<<"$text"
    [[ -n "$name" ]] || continue
    [[ -z "$rest" ]] || inventory_line_fails "$line" "expected HOST [[USER@]ADDRESS[:PORT]], but there is more: '$rest'"
    target="${target:-$name}"
    user="" port=""
    if [[ "$target" == *@* ]]; then
      user="${target%%@*}" target="${target#*@}"
      [[ -n "$user" ]] || inventory_line_fails "$line" "there is no user before the '@'"
    fi
    if [[ "$target" =~ ^\[(.+)\](:([0-9]+))?$ ]]; then
      address="${BASH_REMATCH[1]}" port="${BASH_REMATCH[3]}"
    elif [[ "$target" =~ ^([^:]+):([^:]*)$ ]]; then
      address="${BASH_REMATCH[1]}" port="${BASH_REMATCH[2]}"
      [[ -n "$port" ]] || inventory_line_fails "$line" "there is no port after the ':'"
    else
      address=$target
    fi
    inventory_add "$line" "$name" "$user" "$address" "$port"
  done <<<"$INVENTORY_TEXT"
}

# ini_expand LINE PATTERN: the names that it stands for: hv[01:12] is hv01 to hv12, leading zeros kept.
ini_expand() {
  local line=$1 pattern=$2 number width
  if [[ "$pattern" =~ ^([^][]*)\[([0-9]+):([0-9]+)\]([^][]*)$ ]]; then
    local before="${BASH_REMATCH[1]}" first="${BASH_REMATCH[2]}" last="${BASH_REMATCH[3]}" after="${BASH_REMATCH[4]}"
    width=${#first}
    ((${#first} <= 9 && ${#last} <= 9 && 10#$last - 10#$first >= 0 && 10#$last - 10#$first < RANGE_AT_MOST)) ||
      inventory_line_fails "$line" "'$pattern' is no range of 1 to $RANGE_AT_MOST hosts"
    for ((number = 10#$first; number <= 10#$last; number++)); do printf '%s%0*d%s\n' "$before" "$width" "$number" "$after"; done
  else
    printf '%s\n' "$pattern"
  fi
}

# ini_words LINE TEXT: its words one a line, quotes removed.
ini_words() {
  xargs -n 1 printf '%s\n' <<<"$2" 2>/dev/null || inventory_line_fails "$1" "a quote in '$2' has no end"
}

ini_variables() {
  local line=$1 subject=$2 words word
  words="$(ini_words "$line" "$3")" || exit 1
  while IFS= read -r word; do
    [[ -n "$word" ]] || continue
    [[ "$word" == *=* ]] || inventory_line_fails "$line" "expected NAME=VALUE, but there is '$word'"
    INI_VARIABLE["$subject ${word%%=*}"]="${word#*=}"
  done <<<"$words"
}

inventory_ini() {
  local text line=0 group=ungrouped kind=hosts pattern rest name names
  while IFS= read -r text || [[ -n "$text" ]]; do
    line=$((line + 1))
    # A comment begins the line or follows a space; values may hold the characters.
    text="$(sed -e 's/^[[:space:]]*//' -e 's/^[#;].*//' -e 's/[[:space:]][#;].*//' -e 's/[[:space:]]*$//' <<<"$text")"
    [[ -n "$text" ]] || continue
    if [[ "$text" =~ ^\[([A-Za-z0-9_.-]+)(:(vars|children))?\]$ ]]; then
      group="${BASH_REMATCH[1]}" kind="${BASH_REMATCH[3]:-hosts}"
      INI_GROUP_HOSTS[$group]="${INI_GROUP_HOSTS[$group]:-}"
      continue
    fi
    [[ "$text" != \[* ]] || inventory_line_fails "$line" "'$text' is no [group], [group:vars] or [group:children]"
    case "$kind" in
      vars)
        [[ "$text" =~ ^([A-Za-z0-9_]+)[[:space:]]*=[[:space:]]*(.*)$ ]] || inventory_line_fails "$line" "expected NAME=VALUE"
        name="${BASH_REMATCH[1]}"
        names="$(ini_words "$line" "${BASH_REMATCH[2]}")" || exit 1
        INI_VARIABLE["group:$group $name"]="$(sed -n 1p <<<"$names")"
        ;;
      children)
        INI_GROUP_CHILDREN[$group]+=" $text"
        INI_CHILD_LINES+=("$line $text")
        ;;
      hosts)
        read -r pattern rest <<<"$text"
        names="$(ini_expand "$line" "$pattern")" || exit 1
        while IFS= read -r name; do
          if [[ -z "${INI_SEEN[$name]:-}" ]]; then INI_LINES+=("$line $name"); fi
          INI_SEEN[$name]=1
          INI_GROUP_HOSTS[$group]+=" $name"
          INI_HOST_GROUPS[$name]+=" $group"
          ini_variables "$line" "host:$name" "$rest"
        done <<<"$names"
        ;;
    esac
  done <<<"$INVENTORY_TEXT"
  ini_groups_fit
  local entry address user port hostler
  for entry in "${INI_LINES[@]}"; do
    read -r line name <<<"$entry"
    address="$(ini_variable "$name" ansible_host ansible_ssh_host)"
    user="$(ini_variable "$name" ansible_user ansible_ssh_user)"
    port="$(ini_variable "$name" ansible_port ansible_ssh_port)"
    hostler="$(ini_variable "$name" hostler_host)"
    INI_SEEN[$name]="${hostler:-$name}"
    inventory_add "$line" "${hostler:-$name}" "$user" "${address:-$name}" "$port"
  done
}

# ini_variable NAME VARIABLE...: the host's own, or that of one of its groups, or of a group around it, or of all.
ini_variable() {
  local name=$1 variable group around
  shift
  for variable in "$@"; do
    for group in "host:$name" $(ini_groups_around "$name"); do
      around="${INI_VARIABLE["$group $variable"]:-}"
      if [[ -n "$around" ]]; then
        printf '%s\n' "$around"
        return
      fi
    done
  done
}

# A group that is nowhere would leave hosts out in silence, and one within itself has no end.
ini_groups_fit() {
  local entry line group
  for entry in "${INI_CHILD_LINES[@]}"; do
    read -r line group <<<"$entry"
    [[ -n "${INI_GROUP_HOSTS[$group]+set}" ]] || inventory_line_fails "$line" "there is no group '$group'"
    [[ " $(ini_closure "$(ini_parents "$group")") " != *" $group "* ]] || inventory_line_fails "$line" "the group '$group' is within itself"
  done
}

ini_parents() {
  local parent
  for parent in "${!INI_GROUP_CHILDREN[@]}"; do
    if [[ " ${INI_GROUP_CHILDREN[$parent]} " == *" $1 "* ]]; then printf '%s ' "$parent"; fi
  done
}

# ini_closure GROUPS: these and all groups around them, on one line.
ini_closure() {
  local group parent found=$1 before=""
  while [[ "$found" != "$before" ]]; do
    before=$found
    for group in $before; do
      for parent in $(ini_parents "$group"); do
        if [[ " $found " != *" $parent "* ]]; then found+=" $parent"; fi
      done
    done
  done
  printf '%s\n' "$found"
}

ini_groups_around() {
  local group
  for group in $(ini_closure "${INI_HOST_GROUPS[$1]:-}") all; do printf 'group:%s\n' "$group"; done
}

ini_hosts_of() {
  local child
  for child in ${INI_GROUP_HOSTS[$1]:-}; do printf '%s\n' "${INI_SEEN[$child]}"; done
  for child in ${INI_GROUP_CHILDREN[$1]:-}; do ini_hosts_of "$child"; done
}

# inventory_limit LIST: only these hosts and groups, separated by commas.
inventory_limit() {
  local wanted all kept=() name chosen=" "
  IFS=', ' read -ra all <<<"$1"
  for wanted in "${all[@]}"; do
    [[ -n "$wanted" ]] || continue
    if [[ -n "${HOST_ADDRESS[$wanted]:-}" ]]; then
      chosen+="$wanted "
    elif [[ -n "${INI_GROUP_HOSTS[$wanted]+set}${INI_GROUP_CHILDREN[$wanted]+set}" ]]; then
      chosen+="$(ini_hosts_of "$wanted" | tr '\n' ' ') "
    elif [[ "$wanted" == all ]]; then
      chosen+="${HOSTS[*]} "
    else
      fail "--limit names '$wanted', which is neither a host nor a group of $INVENTORY"
    fi
  done
  for name in "${HOSTS[@]}"; do
    if [[ "$chosen" == *" $name "* ]]; then kept+=("$name"); fi
  done
  HOSTS=("${kept[@]}")
}

# inventory_read FILE LIMIT
inventory_read() {
  INVENTORY=$1
  [[ -f "$INVENTORY" && -r "$INVENTORY" ]] || fail "the inventory '$INVENTORY' cannot be read"
  local line
  # What is not text is shown to nobody. A return belongs at the end of a line only.
  line="$(LC_ALL=C grep -naP '[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r.' "$INVENTORY" | LC_ALL=C sed -n '1s/:.*//p' || true)"
  [[ -z "$line" ]] || inventory_line_fails "$line" "it is no text: there is a control character in it"
  # As editors on Windows write it, too.
  INVENTORY_TEXT="$(LC_ALL=C sed -e '1s/^\xef\xbb\xbf//' -e 's/\r$//' "$INVENTORY")"
  if grep -Eq '^[[:space:]]*\[[A-Za-z0-9_.-]+(:[a-z]+)?\][[:space:]]*([#;].*)?$|^[^#;]*[[:space:]][a-z_]+=' <<<"$INVENTORY_TEXT"; then
    inventory_ini
  else
    inventory_plain
  fi
  [[ ${#HOSTS[@]} -gt 0 ]] || fail "the inventory $INVENTORY names no host"
  if [[ -n "$2" ]]; then inventory_limit "$2"; fi
  [[ ${#HOSTS[@]} -gt 0 ]] || fail "--limit $2 leaves no host of $INVENTORY"
}
