#!/usr/bin/env bash
# gRefCOCO, every split, by all three protocols. All phrases of an image are one long prompt, hence the limit.
#   bash scripts/eval_grefcoco.sh MODEL DATA [flags of eval_reasonseg.py]
# NPROC is the number of processes; without it there is one for each visible accelerator.
set -euo pipefail
if [ $# -lt 2 ]; then
  echo "usage: [NPROC=n] bash scripts/eval_grefcoco.sh MODEL DATA [flags of eval_reasonseg.py]" >&2
  exit 2
fi
. "$(dirname "$0")/environment.sh"
splits="grefcoco|unc|val||grefcoco|unc|testA||grefcoco|unc|testB"
deepspeed ${NPROC:+--num_accelerators "$NPROC"} "$ROOT/eval_reasonseg.py" --version "$1" --dataset_dir "$2" \
  --val_dataset "$splits" --protocol all --model_max_length 4096 "${@:3}"
