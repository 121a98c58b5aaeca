# shellcheck shell=bash
# A libvirtd to talk to: the one that runs, or else one that is started here and stopped again by `libvirt_release`.
# Never stops or changes a libvirtd that somebody else started.

LIBVIRT_URI="qemu:///system"

# virsh in a session of its own and without a terminal: on one it starts polkit's agent, which complains where no
# polkit runs.
virsh_alone() {
  setsid --wait virsh "$@" </dev/null
}

virsh_quiet() {
  virsh_alone --quiet --connect "$LIBVIRT_URI" "$@"
}

libvirt_answers() {
  virsh_quiet version >/dev/null 2>&1
}

# libvirt_lists NAME VERB...: whether a list of names holds NAME; 2 when there is no list.
# The list is read to its end first. virsh writes it name by name: a `grep -q` at the end of a pipe leaves at the
# match, virsh dies of SIGPIPE at the next name, and with pipefail what was found counts as missing.
libvirt_lists() {
  local name=$1 names
  shift
  names="$(virsh_quiet "$@")" || return 2
  # Some of its lists pad the names.
  grep -qx -e "$name *" <<<"$names"
}

# libvirt_ensure RECORDS LOGS: returns when libvirt answers.
libvirt_ensure() {
  local records=$1 logs=$2
  if libvirt_answers; then
    say "libvirt: $LIBVIRT_URI answers already"
    return
  fi
  if [[ -d /run/systemd/system ]]; then
    # systemd owns the service from here on, as if a client had touched its socket.
    say "libvirt: starting libvirtd by systemd"
    logged "$logs/libvirtd.log" systemctl start libvirtd
  else
    say "libvirt: starting virtlogd and libvirtd (no service manager runs here)"
    libvirt_open_kvm "$records"
    # libvirt waits until each QEMU that it probed is reaped. QEMU daemonizes, so PID 1 has to do that, and a PID 1
    # that is no init takes seconds for each: a minute a domain. tini as a subreaper does it at once.
    if ! pidof virtlogd >/dev/null; then
      process_start "$records" virtlogd "$logs/virtlogd.log" tini -s -- "$(command -v virtlogd || echo /usr/sbin/virtlogd)"
    fi
    process_start "$records" libvirtd "$logs/libvirtd.log" tini -s -- "$(command -v libvirtd || echo /usr/sbin/libvirtd)"
  fi
  wait_for 60 libvirt_answers || fail "libvirtd does not answer on $LIBVIRT_URI; see $logs/libvirtd.log"
}

# Without udev nobody gives /dev/kvm to the group kvm. libvirt then finds at every single start of a domain that its
# cached knowledge of QEMU no longer holds, and probes QEMU anew for seconds. The rule of Debian's udev is applied and
# the old state kept for `libvirt_release`.
libvirt_open_kvm() {
  [[ -c /dev/kvm && ! -e /run/udev/control ]] && getent group kvm >/dev/null || return 0
  [[ "$(stat -c '%G %a' /dev/kvm)" != "kvm 660" ]] || return 0
  mkdir -p "$1"
  stat -c '%u:%g %a' /dev/kvm >"$1/dev-kvm"
  chgrp kvm /dev/kvm
  chmod 0660 /dev/kvm
}

# libvirt_release RECORDS: stops what libvirt_ensure started with the same RECORDS.
libvirt_release() {
  local records=$1 owner mode
  process_stop "$records" libvirtd 20
  process_stop "$records" virtlogd 20
  if read -r owner mode 2>/dev/null <"$records/dev-kvm"; then
    chown "$owner" /dev/kvm
    chmod "$mode" /dev/kvm
    rm -f "$records/dev-kvm"
  fi
}
