# Shared by the scripts beside it; sourced, never run.
#
# Through sudo the scripts are root, but the checkout belongs to a person. What only needs the checkout (the virtual
# environment, linters) therefore runs as that person, and root writes no cache of its own, so that nothing of root's
# is left in somebody's working tree.

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Programs such as openvpn and nft live where an ordinary user's PATH, and root's after `su`, does not look.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "$1"
    exit "${2:-1}"
}

through_sudo() {
    [ "$(id -u)" = 0 ] && [ "${SUDO_UID:-0}" != 0 ] && [ "$(stat -c %u .)" = "$SUDO_UID" ]
}

# as_owner COMMAND…: run as the person who owns the checkout if sudo made us root, else as we are.
as_owner() {
    if through_sudo; then
        setpriv --reuid "$SUDO_UID" --regid "$SUDO_GID" --init-groups \
            env HOME="$(getent passwd "$SUDO_UID" | cut -d: -f6)" "$@"
    else
        "$@"
    fi
}

# through_root COMMAND: how an ordinary user of this host runs a command as root.
through_root() {
    if command -v sudo >/dev/null; then printf 'sudo %s\n' "$1"; else printf "su -c '%s'\n" "$1"; fi
}

# require_writable PATH: end with one line if the owner of the checkout may not write a file or directory of it.
require_writable() {
    as_owner test -w "$1" && return
    local owner place=$PWD/$1
    place=${place%/.}
    owner=$(stat -c %U "$1")
    if [ "$(id -u)" = 0 ] || [ "$owner" = "$(id -un)" ]; then
        fail "$place is read-only. Fix: clone into a directory that can be written"
    fi
    fail "$place belongs to $owner, you may not write there. Fix: clone into a directory of your own, or: sudo chown -R $(id -un) $(printf %q "$place")"
}

# Called before Python runs as root: compiled files come from the owner, caches go to a directory that is removed.
leave_nothing_of_root() {
    through_sudo || return 0
    as_owner .venv/bin/python -m compileall -q testbed vpn topologies scenarios tests 2>/dev/null || true
    export PYTHONDONTWRITEBYTECODE=1
    scratch=$(mktemp -d)
    trap 'rm -rf -- "$scratch"' EXIT
    export HYPOTHESIS_STORAGE_DIRECTORY="$scratch/hypothesis"
}
