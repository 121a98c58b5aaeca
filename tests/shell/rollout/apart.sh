# shellcheck shell=bash
# What a rollout does by itself, in a shell of its own and without any host: inventories, answers, inventories of agents, its record.
# Uses stages.sh's words and ROLLOUT_DIR; never the network.

# inventory_of LIMIT: standard input as an inventory, read in a shell of its own.
inventory_of() {
  cat >"$ROLLOUT_DIR/read"
  bash -c 'set -Eeuo pipefail
    source deploy/lib/report.sh
    source deploy/lib/rollout/inventory.sh
    inventory_read "$1" "$2"
    for host in "${HOSTS[@]}"; do echo "$host ${HOST_USER[$host]:--} ${HOST_ADDRESS[$host]} ${HOST_PORT[$host]:--}"; done' inventory "$ROLLOUT_DIR/read" "$1" 2>&1
}

rollout_inventories() {
  diff - <(printf '%s\n' '# rack 1' 'a' 'b root@192.0.2.1:2222 # spare' 'c [2001:db8::1]:22' '' 'd ops@d.example.org' | inventory_of "") <<'EXPECTED' || return 1
a - a -
b root 192.0.2.1 2222
c - 2001:db8::1 22
d ops d.example.org -
EXPECTED
  diff - <(inventory_of "prod" <<'INI'
gateway ansible_host=192.0.2.9
[hv]
hv[08:10] ansible_user=ops   ; three of them
[storage]
s1 ansible_host=192.0.2.20 ansible_port=2222 hostler_host=storage-1
[prod:children]
hv
storage
[prod:vars]
ansible_port = 22
[all:vars]
ansible_user="root"
INI
  ) <<'EXPECTED' || return 1
hv08 ops hv08 22
hv09 ops hv09 22
hv10 ops hv10 22
storage-1 root 192.0.2.20 2222
EXPECTED
  diff - <(printf '\xef\xbb\xbfa root@192.0.2.1\r\nb\r\n' | inventory_of "") <<'EXPECTED' || return 1
a root 192.0.2.1 -
b - b -
EXPECTED
  inventory_refused "line 2" 'a\nb -oProxyCommand=x\n' &&
    inventory_refused "there twice" 'a\na\n' &&
    inventory_refused "is no port" 'a 192.0.2.1:65536\n' &&
    inventory_refused "there is no port" 'a 192.0.2.1:\n' &&
    inventory_refused "there is no user" 'a @192.0.2.1\n' &&
    inventory_refused "control character" 'a\nb\033[2J\n' &&
    inventory_refused "is no range" '[hv]\nhv[9:1]\n' &&
    inventory_refused "is no range" '[hv]\nhv[1:99999999]\n' &&
    inventory_refused "has no end" "[hv]\na ansible_user='ops\n" &&
    inventory_refused "there is no group 'hw'" '[all:children]\nhw\n[hv]\na\n' &&
    inventory_refused "is within itself" '[x:children]\ny\n[y:children]\nx\n[y]\na\n' &&
    inventory_refused "neither a host nor a group" 'a\n' elsewhere &&
    inventory_refused "names '*'" 'a\n' '*' &&
    inventory_refused "leaves no host" 'a\n' ,
}

# inventory_refused WORDS TEXT [LIMIT]
inventory_refused() {
  # shellcheck disable=SC2059 # its escapes are meant
  says "$1" inventory_of "${3:-}" < <(printf "$2")
}

# A host in other hands answers with a command where a number belongs, and with a terminal's escapes.
rollout_rogue() {
  local said
  mkdir "$ROLLOUT_DIR/rogue"
  cat >"$ROLLOUT_DIR/rogue/ssh" <<'SH'
#!/bin/sh
printf 'arch=amd64\nsystemd=yes\nstatus=installed\nversion=0.\0331\nfree_kb=a[$(touch run-by-a-host)]\nneed_kb=1\n'
printf 'a curse \033[2J\n' >&2
SH
  chmod +x "$ROLLOUT_DIR/rogue/ssh"
  said="$(bash -c 'set -Eeuo pipefail
    source deploy/lib/report.sh
    source deploy/lib/rollout/inventory.sh
    source deploy/lib/rollout/host.sh
    source deploy/lib/rollout/record.sh
    source deploy/lib/rollout/upgrade.sh
    source deploy/lib/rollout/package.sh
    source deploy/lib/rollout/trouble.sh
    cd "$1"
    PATH="$1/rogue:$PATH"
    HOST_ADDRESS[rogue]=192.0.2.1 HOST_USER[rogue]="" HOST_PORT[rogue]=""
    RUN=test RUN_DIR=$PWD STATE=$PWD DEB_VERSION=1 DEB_FILE[amd64]=x DEB_FILES_SUM[amd64]="" TAKE_OVER=no CA="" DIALS="" ALLOW_DOWNGRADE=no RESUME="" ROLLBACK=""
    mkdir -p hosts/rogue
    host_look rogue
    trouble_of rogue
    get_host rogue facts
    # A host that never stops talking is not listened to for ever.
    printf "#!/bin/sh\nyes & yes >&2\n" >rogue/ssh
    host_look rogue || true
    trouble_of rogue
    (($(du -k hosts/rogue | cut -f1) < 1000)) && echo little
    printf "#!/bin/sh\nexec sleep 1000\n" >rogue/ssh
    verb_seconds() { echo 1; }
    host_look rogue || true
    trouble_of rogue
    openssl req -x509 -newkey ed25519 -nodes -subj /CN=rogue -addext subjectAltName=URI:spiffe://bed.example/agent/rogue -keyout key -out young 2>/dev/null
    openssl x509 -in young -signkey key -days 0 -out pem 2>/dev/null
    identity_trouble rogue "pem=$(tr "\n" "|" <pem)"' rogue "$ROLLOUT_DIR" | cat -v)" || return 1
  echo "$said"
  [[ "$said" == *"no space: 0 kB"* && "$said" == *"it said more than 64 KiB"* && "$said" == *little* && "$said" == *"did not come to an end within 1 s"* && "$said" == *"its certificate ended "*"Enrol it again"* && "$said" != *'^['* && ! -e "$ROLLOUT_DIR/run-by-a-host" ]]
}

rollout_difference() {
  diff - <(bash -c 'set -Eeuo pipefail
    source deploy/lib/rollout/fleet.sh
    gpus() { printf "{ \"hypervisors\": [{ \"id\": \"h1\", \"state\": \"%s\", \"gpus\": [%s] }], \"pools\": [%s] }" "$@"; }
    p="{ \"name\": \"p1\", \"devices\": [1, 2] }"
    fleet_difference "$(gpus in_service 1,2 "$p")" "$(gpus in_service 1 "$p")"
    fleet_difference "$(gpus in_service 1,2 "$p")" "$(gpus in_service 1,2 "{ \"name\": \"p1\", \"devices\": [1] }")"
    fleet_difference "$(gpus in_service 1 "$p")" "$(gpus failed 1 "")"
    fleet_difference "$(gpus unknown 1 "")" "$(gpus in_service 1 "$p")"' difference) <<'EXPECTED'
gpus of h1 was [1,2] and is [1]
devices of p1 was [1,2] and is [1]
state of h1 was "in_service" and is "failed"; the pool p1 is gone

EXPECTED
}

# A folder that nobody can write to.
rollout_unwritable() {
  local said
  said="$(bash -c 'set -Eeuo pipefail
    source deploy/lib/report.sh
    source deploy/lib/rollout/record.sh
    RUN_DIR=/proc/self/fdinfo RESUME="rollout resume"
    set +eE
    phase h1 installing
    echo went on' 2>&1)"
  echo "$said"
  [[ "$said" == *"cannot be written, so nothing further is begun"* && "$said" != *"went on"* ]]
}
