#!/usr/bin/env bash
# Install the real programs that the tests hold the project against, where they are missing.
#
# A program that is still missing afterwards is a failure that names its package: a test that silently skips proves
# nothing. Debian's and Ubuntu's package names; elsewhere, install the programs named by hand.
set -euo pipefail
. "$(dirname "$0")/common.sh"

# command        package (alternatives: any of these commands will do; the first package that exists is installed)
peers='
openvpn          openvpn
tshark           tshark
dig              bind9-dnsutils
curl             curl
iperf3           iperf3
mn               mininet
chromium|chromium-browser|google-chrome  chromium|chromium-browser
sudo             sudo
nft              nftables
ip               iproute2
ping             iputils-ping
ethtool          ethtool
tcpdump          tcpdump
strace           strace
openssl          openssl
ssh              openssh-client
dropbear         dropbear-bin
tincd            tinc
fastd            fastd
wireguard-go     wireguard-go
wg               wireguard-tools
'

have() { # one command of several
    local command
    for command in ${1//|/ }; do
        # A virtual environment's mn is the library's; the peer is the distribution's.
        [[ $(command -v "$command" || true) == /* ]] && return 0
    done
    return 1
}

packages_missing() {
    local commands packages
    while read -r commands packages; do
        [ -z "$commands" ] || have "$commands" || printf '%s\n' "$packages"
    done <<<"$peers"
}

available() { # the first of several packages that apt can install
    local package
    for package in ${1//|/ }; do
        if [[ $(apt-cache policy "$package" 2>/dev/null) == *"Candidate: "[!\(]* ]]; then
            printf '%s\n' "$package"
            return
        fi
    done
    give_up "apt knows no package ${1//|/ or }" "add the distribution's main archive (on Ubuntu also universe) to apt's sources"
}

apt() { # ARGUMENT…: what it says is shown only if it is the reason to give up
    LC_ALL=C apt-get -qq "$@" </dev/null >>"$log" 2>&1
}

give_up() { # WHAT FIX
    if grep -qE 'Temporary failure resolving|Could not (resolve|connect)|[Uu]nable to connect|unreachable|timed out' "$log"; then
        fail "$1: no answer from the package archive. Fix: check the network and /etc/apt"
    fi
    grep '^E:' "$log" | tail -3 >&2 || true
    fail "$1. Fix: $2"
}

missing=$(packages_missing)
[ -n "$missing" ] || exit 0
names=$(sed 's/|.*//' <<<"$missing" | paste -sd' ')
[ "$(id -u)" = 0 ] || fail "The tests need programs that are missing here: $names. Fix: $(through_root "make test")"
command -v apt-get >/dev/null || fail "The tests need programs that are missing here, and there is no apt-get: install $names"

say "Installing for the tests: $names"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f -- "$log"' EXIT
# An archive that does not answer is no failure yet: what is wanted may come from another one.
apt update || give_up "apt cannot read its package lists" "mend /etc/apt until apt-get update succeeds"
chosen=()
for alternatives in $missing; do
    package=$(available "$alternatives")
    chosen+=("$package")
done
# tshark asks whether ordinary users may capture: no, the tests only read files.
command -v debconf-set-selections >/dev/null &&
    debconf-set-selections <<<'wireshark-common wireshark-common/install-setuid boolean false'
apt install -y --no-install-recommends "${chosen[@]}" ||
    give_up "apt could not install all of these" "apt-get install ${chosen[*]}"

missing=$(packages_missing)
[ -z "$missing" ] || fail "Still missing after the installation, from these packages: $(paste -sd' ' <<<"$missing")"
