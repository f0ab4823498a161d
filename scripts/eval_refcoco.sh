#!/usr/bin/env bash
# RefCOCO, RefCOCO+ and RefCOCOg, every split; forced and generated.
#   bash scripts/eval_refcoco.sh MODEL DATA [flags of eval_reasonseg.py]
# NPROC is the number of processes; without it there is one for each visible accelerator.
set -euo pipefail
if [ $# -lt 2 ]; then
  echo "usage: [NPROC=n] bash scripts/eval_refcoco.sh MODEL DATA [flags of eval_reasonseg.py]" >&2
  exit 2
fi
. "$(dirname "$0")/environment.sh"
splits="refcoco|unc|val||refcoco|unc|testA||refcoco|unc|testB"
splits+="||refcoco+|unc|val||refcoco+|unc|testA||refcoco+|unc|testB"
splits+="||refcocog|umd|val||refcocog|umd|test"
deepspeed ${NPROC:+--num_accelerators "$NPROC"} "$ROOT/eval_reasonseg.py" --version "$1" --dataset_dir "$2" \
  --val_dataset "$splits" "${@:3}"
