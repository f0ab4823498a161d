#!/usr/bin/env bash
# ReasonSeg: val, test by short and by long queries, and all of test; forced and generated.
#   bash scripts/eval_reasonseg.sh MODEL DATA [flags of eval_reasonseg.py]
# NPROC is the number of processes; without it there is one for each visible accelerator.
set -euo pipefail
if [ $# -lt 2 ]; then
  echo "usage: [NPROC=n] bash scripts/eval_reasonseg.sh MODEL DATA [flags of eval_reasonseg.py]" >&2
  exit 2
fi
. "$(dirname "$0")/environment.sh"
splits="ReasonSeg|val||ReasonSeg|test_shortquery||ReasonSeg|test_longquery||ReasonSeg|test_overall"
deepspeed ${NPROC:+--num_accelerators "$NPROC"} "$ROOT/eval_reasonseg.py" --version "$1" --dataset_dir "$2" \
  --val_dataset "$splits" "${@:3}"
