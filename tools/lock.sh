#!/usr/bin/env bash
# Write requirements.lock and requirements-test.lock: names, versions and the hashes of every file of every release.
#
# Versions that are locked stay unless `UPGRADE=1` is set. uv resolves for all supported Pythons at once, one version of
# each package for all of them: a newer one for newer Pythons alone has types that mypy, which reads the sources as the
# oldest Python does, cannot follow. uv reads nothing of pip's configuration, so a local index or folder of wheels cannot put
# its own hashes into the lock.
set -euo pipefail
. "$(dirname "$0")/common.sh"

if ! uv=$(command -v uv); then
    scratch=$(mktemp -d)
    trap 'rm -rf -- "$scratch"' EXIT
    python3 -m venv "$scratch"
    "$scratch/bin/pip" -q install uv
    uv=$scratch/bin/uv
fi

compile() { # OUTPUT ARGUMENT…
    env -u UV_INDEX -u UV_INDEX_URL -u UV_EXTRA_INDEX_URL -u UV_DEFAULT_INDEX -u UV_FIND_LINKS \
        "$uv" pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
        ${UPGRADE:+--upgrade} --output-file "$@" pyproject.toml
}

compile requirements.lock --group build
compile requirements-test.lock --group build --group test --constraint requirements.lock
