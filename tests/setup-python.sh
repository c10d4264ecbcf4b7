#!/bin/bash
# Makes tests/.venv with what requirements.txt lists, and nothing when it is already there.
# `make test` runs it; run it by hand before `cargo test` on a fresh checkout.
set -euo pipefail
cd "$(dirname "$0")"

stamp=.venv/requirements.txt
if [ -x .venv/bin/python ] && cmp -s requirements.txt "$stamp" && .venv/bin/python -c 'import fastapi, uvicorn, httpx, h2, websockets, granian, gunicorn, hypercorn, uvicorn_worker' 2>/dev/null; then
    exit 0
fi
rm -rf .venv
python3 -m venv .venv || {
    echo "error: cannot make a virtual environment; install the package python3-venv and run tests/setup-python.sh again" >&2
    exit 1
}
.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt || {
    echo "error: cannot install tests/requirements.txt; is the package index reachable?" >&2
    exit 1
}
# Last, so that an interrupted install is done again.
cp requirements.txt "$stamp"
