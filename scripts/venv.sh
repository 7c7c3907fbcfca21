#!/usr/bin/env bash
# Makes .venv: the pinned packages of requirements.lock and, editable, the project itself.
# Does nothing where that is already so. PYTHON names another interpreter than the first fit one on the PATH.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf 'venv: %s\n' "$*" >&2; }

fits() { "$1" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    local name
    for name in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if fits "$name"; then
            command -v "$name"
            return
        fi
    done
    say "Rebu needs Python 3.11 or newer; ${PYTHON:-python3} is $("${PYTHON:-python3}" --version 2>/dev/null || echo "not one")."
    say "Install one (Debian 12+, Ubuntu 24.04+: apt-get install python3 python3-venv; macOS: brew install python@3.13),"
    say "or name one: make venv PYTHON=/path/to/python3.11"
    return 1
}

checksum() {
    "$1" -c 'import hashlib, pathlib, sys
digest = hashlib.sha256(repr((sys.version, sys.prefix)).encode())
for name in sys.argv[1:]:
    digest.update(pathlib.Path(name).read_bytes())
print(digest.hexdigest())' pyproject.toml requirements.lock scripts/venv.sh
}

current() { [ -x .venv/bin/python ] && [ "$(cat .venv/.stamp 2>/dev/null)" = "$(checksum .venv/bin/python)" ]; }

current && exit
if command -v flock >/dev/null; then # two makes at once: the second one waits, then finds the work done
    exec 9<pyproject.toml
    flock 9
    current && exit
fi

python=$(find_python)
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    say "$python comes without its venv module. On Debian and Ubuntu: apt-get install python3-venv"
    exit 1
fi
# A moved folder or another Python needs a new environment; a changed lock does not.
if ! .venv/bin/python -c 'import pip, sys; raise SystemExit(sys.prefix != sys.argv[1])' "$PWD/.venv" 2>/dev/null; then
    say "making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
fi
rm -f .venv/.stamp
pip=(.venv/bin/python -m pip --disable-pip-version-check --no-input install -qq)
say "installing the pinned packages; most of the time goes into downloading them"
# pip compiles one file after the other; compileall uses every core. Some packages carry templates that are no Python.
"${pip[@]}" --no-compile --require-hashes -r requirements.lock
"${pip[@]}" --no-deps --no-build-isolation --editable .
.venv/bin/python -m compileall -qq -j 0 .venv/lib || true
checksum .venv/bin/python >.venv/.stamp
say "ready: .venv/bin/rebu"
