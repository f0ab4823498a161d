#!/usr/bin/env bash
# From nothing to a trained, evaluated and merged miniature AnchorSeg with pictures, on a CPU.
#   bash scripts/quickstart.sh [RUN_FOLDER]     (default runs/quickstart; made anew each time)
set -euo pipefail
. "$(dirname "$0")/environment.sh"
python -m scripts.quickstart "${1:-runs/quickstart}"
