"""Train the tiny preset's tokenizer: `python -m scripts.make_tiny_tokenizer DATA_DIR OUTPUT`.

The project's own lies in anchorseg/weights/assets/tiny_tokenizer.model. DATA_DIR holds drawn scenes
(`python -m scripts.make_scenes DATA_DIR`). Words of the scenes become whole pieces, and so does each stretch of the
prompt's fixed wording; any other text falls back to letters and bytes.
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import sentencepiece

from dataset.readers.reason_seg import FOLDER
from dataset.templates import reason_seg as templates
from utils.prompt_template import SYSTEM

VOCABULARY = 1000
BLANK = "\u2581"  # SentencePiece writes a blank so


def fixed_wording() -> list[str]:
    """The prompt's fixed wording, each stretch one piece, so that a miniature reads short sequences."""
    stretches = [f"{SYSTEM} USER:"]
    for template in templates.PHRASE_QUESTIONS + templates.SENTENCE_QUESTIONS:
        stretches.append(template.partition("{text}")[2] + " ASSISTANT:")
    stretches += [f" {request} ASSISTANT:" for request in templates.EXPLANATION_REQUESTS]
    return sorted({BLANK + stretch.strip().replace(" ", BLANK) for stretch in stretches})


def corpus(root: Path) -> list[str]:
    """Every line of text that the tiny preset is trained on."""
    lines = [SYSTEM, "USER:", "ASSISTANT:", *templates.EXPLANATION_REQUESTS]
    lines += [text.replace("{text}", "") for text in templates.PHRASE_QUESTIONS + templates.SENTENCE_QUESTIONS]
    lines += [part for answer in templates.ANSWERS for part in answer]
    for path in sorted((root / FOLDER / "train").glob("*.json")):
        lines += json.loads(path.read_text(encoding="utf-8"))["text"]
    explanations = root / FOLDER / "explanatory" / "train.json"
    if explanations.is_file():
        lines += [entry["outputs"] for entry in json.loads(explanations.read_text(encoding="utf-8"))]
    return lines


def main() -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sorted(set(corpus(arguments.data_dir)))),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCABULARY,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        byte_fallback=True,
        character_coverage=1.0,
        hard_vocab_limit=False,
        user_defined_symbols=fixed_wording(),
        num_threads=1,
        minloglevel=2,
    )
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_bytes(model.getvalue())


if __name__ == "__main__":
    main()
