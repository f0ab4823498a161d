"""The vocabulary of tiny-llava: a SentencePiece model of the lessons' words, trained anew in seconds."""

from __future__ import annotations

import io
from functools import lru_cache

import sentencepiece

from dataset.drawn.layout import draw_scene
from dataset.drawn.wordings import (
    ATTRIBUTE,
    FUNCTIONS,
    RELATION,
    SEVERAL,
    SUPERLATIVE,
    SUPERLATIVE_OF,
)
from dataset.templates import reason_seg as templates
from scripts.foundation.lessons import lessons
from scripts.make_tiny_tokenizer import fixed_wording
from utils.prompt_template import SYSTEM
from utils.seeding import generator_for

VOCABULARY = 1000
SCENES = 1500
"""Scenes whose lessons are read."""
REPEATED = 30
"""How often each wording is read beside them."""


def corpus() -> list[str]:
    """Every line of text that the vocabulary is made for, wordings so often that each of their words is one piece."""
    lines = {SYSTEM, "USER:", "ASSISTANT:", *templates.EXPLANATION_REQUESTS}
    lines |= {text.replace("{text}", "") for text in templates.PHRASE_QUESTIONS + templates.SENTENCE_QUESTIONS}
    lines |= {part.replace("{text}", "") for answer in templates.PHRASE_ANSWERS for part in answer}
    banks = (ATTRIBUTE, SUPERLATIVE, SUPERLATIVE_OF, SEVERAL, *FUNCTIONS.values(), *RELATION.values())
    lines |= {text.format(a="", one="", many="") for bank in banks for texts in bank.values() for text in texts}
    wordings = sorted(line for line in lines if line) * REPEATED
    for index in range(SCENES):
        rng = generator_for("tokenizer", index)
        scene = draw_scene(rng)
        for lesson in lessons(rng, scene.objects, scene.image.shape[:2]):
            lines |= {text for turn in lesson.turns for text in turn}
    return wordings + sorted(line for line in lines if line)


@lru_cache(maxsize=1)
def train_tokenizer() -> bytes:
    """The serialised model; the same on every machine."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCABULARY,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        byte_fallback=True,
        character_coverage=1.0,
        hard_vocab_limit=False,
        user_defined_symbols=[*fixed_wording(), "\u2581ASSISTANT:", "\u2581USER:"],
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def processor_of(tokenizer: bytes) -> sentencepiece.SentencePieceProcessor:
    """The tokenizer of a serialised model."""
    return sentencepiece.SentencePieceProcessor(model_proto=tokenizer)
