"""Train the tiny preset's tokenizer: `python -m scripts.make_tiny_tokenizer DATA_DIR OUTPUT`.

The project's own lie in anchorseg/weights/assets: tiny_tokenizer.model, and with `--kind byte-pairs`
tiny_tokenizer.json. DATA_DIR holds drawn scenes (`python -m scripts.make_scenes DATA_DIR`; for the latter `--train 300
--val 5 --test 5`). Words of the scenes become whole pieces, and any other text falls back to letters and bytes. In the
first, of LLaMA's kind, each stretch of the prompt's fixed wording is a piece too; the second has the rules and special
tokens of Qwen's.
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from dataset.readers.reason_seg import FOLDER
from dataset.templates import reason_seg as templates
from utils.prompt_template import SYSTEM

VOCABULARY = 1000
BLANK = "\u2581"  # SentencePiece writes a blank so
QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Where Qwen's vocabulary cuts text before it joins bytes."""
QWEN_WORDING = ("user\n", "assistant\n", "system\nYou are a helpful assistant.")
QWEN_SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)


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


def sentence_pieces(lines: list[str]) -> bytes:
    """A `tokenizer.model` of LLaMA's kind."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
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
    return model.getvalue()


def byte_pairs(lines: list[str]) -> bytes:
    """A `tokenizer.json` of Qwen's kind."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words = pre_tokenizers.Split(Regex(QWEN_WORDS), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, as_bytes])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(QWEN_SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*lines, *QWEN_WORDING], trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in QWEN_SPECIALS])
    return f"{tokenizer.to_str(pretty=True)}\n".encode()


KINDS = {"sentence-pieces": sentence_pieces, "byte-pairs": byte_pairs}


def main() -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--kind", choices=KINDS, default="sentence-pieces", help="LLaMA's vocabulary, or Qwen's")
    arguments = parser.parse_args()
    content = KINDS[arguments.kind](sorted(set(corpus(arguments.data_dir))))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_bytes(content)


if __name__ == "__main__":
    main()
