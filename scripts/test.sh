#!/usr/bin/env bash
# Environment, lint, types, tests: everything that a change must pass.
set -euo pipefail
. "$(dirname "$0")/environment.sh"
ruff check .
mypy .
python -m pytest "$@"
