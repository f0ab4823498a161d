#!/usr/bin/env bash
# Environment, lint, types, tests: everything that a change must pass.
set -euo pipefail
. "$(dirname "$0")/environment.sh"
cd "$ROOT"
ruff check .
mypy .
# A process for each core, with one thread; tests of a file share what they set up, and the longest files come first
# (tests/conftest.py). A process that dies ends the run: pytest-xdist may otherwise wait for its replacement for ever.
OMP_NUM_THREADS=1 python -m pytest -n auto --dist loadfile --no-loadscope-reorder --max-worker-restart 0 "$@"
