#!/usr/bin/env bash
# From nothing to a trained, evaluated and merged miniature AnchorSeg with pictures, on a CPU.
#   bash scripts/quickstart.sh [RUN_FOLDER]     (default runs/quickstart; made anew each time)
set -euo pipefail
. "$(dirname "$0")/environment.sh"
target=${1:+$(realpath -m "$1")}
cd "$ROOT"
python -m scripts.quickstart "${target:-runs/quickstart}"
