#!/bin/sh
# A coordinator, an agent and a client on one host of the test bed, which has the packages and nothing else.
set -eu
umask 077
cd /root
hostler-pki init --dir pki --trust-domain bed.test
hostler-pki issue coordinator c1 --dir pki --dns "$(hostname)" --ip 127.0.0.1
hostler-pki issue agent hv1 --dir pki
hostler-pki issue client admin ada --dir pki

install -o root -g hostler -m 0640 pki/ca.crt /etc/hostler/tls/ca.crt
install -o hostler -g hostler -m 0600 pki/c1.key /etc/hostler/tls/coordinator.key
install -o root -g hostler -m 0640 pki/c1.crt /etc/hostler/tls/coordinator.crt
install -m 0600 pki/ca.crt /var/lib/hostler-agent/identity/ca.crt
(umask 0077 && cat pki/hv1.crt pki/hv1.key >/var/lib/hostler-agent/identity/agent.pem)

# As a person would: the shipped file, with what the host offers.
sed -i 's/^coordinator = .*/coordinator = "127.0.0.1"/' /etc/hostler/agent.toml
cat >>/etc/hostler/agent.toml <<'CONF'
[libvirt]
uri = "test:///default"
[[hypervisor]]
kind = "host"
id = "hv1"
networks = [{ name = "default" }]
# The test driver has a domain that always runs.
on_running_domains = "leave"
activation = { type = "exec", start = ["/root/site.sh", "start"], stop = ["/root/site.sh", "stop"], status = ["/root/site.sh", "status"] }
CONF

mkdir -p .config/hostler
cp pki/ca.crt pki/ada.crt pki/ada.key .config/hostler/
cat >.config/hostler/config.toml <<'CONF'
coordinator = "127.0.0.1"
ca = "ca.crt"
cert = "ada.crt"
key = "ada.key"
CONF

# Faster than a site has them, so that the test is.
for unit in hostler-agent hostler-coordinator; do
  mkdir -p "/etc/systemd/system/$unit.service.d"
  printf '[Service]\nWatchdogSec=3s\nRestartSec=100ms\n' >"/etc/systemd/system/$unit.service.d/test.conf"
done
systemctl daemon-reload
systemctl start hostler-coordinator hostler-agent
