#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Installs, from Debian packages only, everything the OpenAFS rig needs: server
# binaries, admin tools, the Rx development library, a Kerberos KDC. Nothing is
# started and no kernel module is built.
#
#   install.sh              install what is missing
#   install.sh --check      print what is missing, exit 1 if anything is
#   --captures              (with either) also tcpdump and tshark
#
# Needs root for the installation. Safe to run again.
set -u

PKGS=(openafs-dbserver openafs-fileserver openafs-client openafs-krb5
      libopenafs-dev krb5-kdc krb5-admin-server krb5-user libkrb5-dev
      gcc make libc6-dev iproute2 procps util-linux python3)
CHECK=
for a in "$@"; do
    case $a in
        --check) CHECK=1 ;;
        --captures) PKGS+=(tcpdump tshark) ;;
        *) sed -n '3,/^set -u/p' "$0" | sed 's/^# \{0,1\}//;$d' >&2; exit 2 ;;
    esac
done

missing() {
    local p
    for p in "${PKGS[@]}"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || echo "$p"
    done
}

mapfile -t need < <(missing)
[ ${#need[@]} -eq 0 ] && { echo "openafs rig: all packages present"; exit 0; }
[ -n "$CHECK" ] && { echo "missing: ${need[*]}"; exit 1; }
[ "$(id -u)" = 0 ] || { echo "install.sh: must be root to install: ${need[*]}" >&2; exit 1; }

export DEBIAN_FRONTEND=noninteractive LC_ALL=C
LOG=$(mktemp)

# The packages' maintainer scripts would start the AFS client (which wants a
# kernel module), the KDC and bosserver. A policy-rc.d that says no keeps all
# of them stopped; one that is already there is left alone.
made_policy=
if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
    made_policy=1
fi
trap '[ -n "$made_policy" ] && rm -f /usr/sbin/policy-rc.d; rm -f "$LOG"' EXIT

# apt waits for another apt's lock instead of failing.
apt() { timeout 900 apt-get -o DPkg::Lock::Timeout=300 "$@" </dev/null >> "$LOG" 2>&1; }
fail() { tail -n 20 "$LOG" >&2; echo "install.sh: $*" >&2; exit 1; }

apt update || true
apt install -y --no-install-recommends debconf debconf-utils || fail "cannot install debconf-utils"
debconf-set-selections <<'SEED'
krb5-config krb5-config/default_realm string RXTEST.LOCAL
openafs-client openafs-client/thiscell string rxtest.local
openafs-client openafs-client/run-client boolean false
openafs-client openafs-client/afsdb boolean true
openafs-client openafs-client/cell-info string
openafs-fileserver openafs-fileserver/thiscell string rxtest.local
wireshark-common wireshark-common/install-setuid boolean false
SEED
# --no-install-recommends keeps openafs-modules-dkms (the kernel module) out.
apt install -y --no-install-recommends "${need[@]}" || fail "cannot install: ${need[*]}"

mapfile -t need < <(missing)
[ ${#need[@]} -eq 0 ] || fail "still missing: ${need[*]}"
echo "openafs rig: installed"
