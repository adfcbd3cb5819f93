#!/bin/sh
# openvpn's up script in the client's node: writes the pushed resolvers into the node's resolv.conf, in place, because
# the file is a bind mount. openvpn hands pushed dhcp-options over as foreign_option_1, foreign_option_2, ...
set -eu
servers=""
n=1
while :; do
    eval "option=\${foreign_option_$n:-}"
    [ -n "$option" ] || break
    case "$option" in
        "dhcp-option DNS "* | "dhcp-option DNS6 "*) servers="${servers}nameserver ${option##* }
" ;;
    esac
    n=$((n + 1))
done
[ -z "$servers" ] || printf '%s' "$servers" > /etc/resolv.conf
