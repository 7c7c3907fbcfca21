#!/usr/bin/env bash
# Writes requirements.lock from pyproject.toml: every package of the product, its extras, the tests and the build, with hashes,
# for every platform and Python that pyproject.toml allows. Keeps the present pins; with --upgrade takes the newest.
# The packages are asked of whatever index uv is set to; the file names none.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! command -v uv >/dev/null; then
    tools=$(mktemp -d)
    trap 'rm -rf "$tools"' EXIT
    python3 -m venv "$tools"
    "$tools/bin/pip" --disable-pip-version-check install --quiet uv
    PATH=$tools/bin:$PATH
fi
uv pip compile pyproject.toml --extra test --extra build --extra traces --universal --python-version 3.11 \
    --generate-hashes --no-config --no-header --no-emit-index-url --no-emit-find-links --no-annotate --quiet "$@" \
    --output-file requirements.lock
if grep -nE '://|^-|@ ' requirements.lock; then
    echo "lock: the lines above name an index or a file; they would not install elsewhere" >&2
    exit 1
fi
