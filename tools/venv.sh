#!/usr/bin/env bash
# Make .venv hold exactly what a lock file names: `tools/venv.sh run` for use, `tools/venv.sh test` for the tests too.
#
# The lock's hash, the interpreter and the checkout's place are written into a stamp when all is installed; while they
# are the same, nothing is done. Any other lock means a new environment, so that no package of an older one stays in it.
# Only wheels are taken: no compiler is needed, and no code of a package runs while it is installed.
set -euo pipefail
. "$(dirname "$0")/common.sh"

want=${1:?run or test}
log=.venv/install.log

find_python() {
    local candidate seen=""
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        command -v "$candidate" >/dev/null || continue
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
        seen+="${seen:+, }$("$candidate" -V 2>&1)"
    done
    fail "Python 3.11 to 3.14 is needed, found ${seen:-none}. Fix: apt install python3 python3-venv, or name one: make PYTHON=/path/to/python3.11"
}

check_venv_module() {
    "$python" -c 'import venv, ensurepip' 2>/dev/null && return
    fail "$python has no venv module. Fix: apt install python3-venv"
}

stamp_of() { # LOCK: what the environment must have been made from
    { printf '%s\n' "$PWD" "$("$python" -V)"; cat "$1" pyproject.toml tools/venv.sh; } | sha256sum | cut -d' ' -f1
}

is_current() { # run | test
    [ -x .venv/bin/python ] && [ "$(cat ".venv/.$1" 2>/dev/null)" = "${stamp[$1]}" ] && .venv/bin/python -c '' 2>/dev/null
}

create() {
    say "Creating .venv with $("$python" -V)"
    as_owner "$python" -m venv --clear .venv || fail "Cannot make $PWD/.venv. Fix: sudo rm -r .venv, then try again"
}

pip_install() {
    as_owner .venv/bin/python -m pip --no-input --disable-pip-version-check --retries 2 install \
        --progress-bar off --only-binary :all: "$@" >>"$log" 2>&1 && return
    if grep -qE 'NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|name resolution|unreachable|ProxyError' "$log"; then
        fail "No answer from the Python package index. Fix: check the network, or name your mirror in pip's configuration (pip config set global.index-url …)"
    fi
    if grep -q 'No space left on device' "$log"; then
        fail "No space is left for $PWD/.venv, which takes 300 MB. Fix: make room, or clone to a larger disk"
    fi
    if grep -q 'CERTIFICATE_VERIFY_FAILED' "$log"; then
        fail "The certificate of the Python package index is not trusted here. Fix: apt install ca-certificates, or name your network's own: export PIP_CERT=FILE"
    fi
    tail -3 "$log" >&2
    fail "Installing failed. Fix: see $log, the whole story"
}

install() { # LOCK
    say "Installing $(grep -c '^[a-z0-9].*==' "$1") packages from $1"
    pip_install --no-deps --require-hashes -r "$1"
    # The project itself, as a plain path entry: setuptools' default for such a layout is an import hook, which costs
    # every start of every process some milliseconds.
    pip_install --no-deps --no-build-isolation --config-settings editable_mode=compat --editable .
}

python=$(find_python)
check_venv_module
declare -A stamp=([run]=$(stamp_of requirements.lock) [test]=$(stamp_of requirements-test.lock))
is_current "$want" && exit 0
if [ -e .venv ]; then require_writable .venv; else require_writable .; fi
# The test lock contains the other one, so tests are added to a current environment and to nothing else.
if ! { [ "$want" = test ] && is_current run && [ ! -e .venv/.test ]; }; then
    create
fi
as_owner touch "$log"
if [ "$want" = test ]; then
    install requirements-test.lock
    as_owner sh -c 'printf %s "$1" > .venv/.test' - "${stamp[test]}"
else
    install requirements.lock
fi
as_owner sh -c 'printf %s "$1" > .venv/.run' - "${stamp[run]}"
