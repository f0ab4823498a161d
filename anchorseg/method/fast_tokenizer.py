"""The ids of `TokenRegistry` as a `tokenizer.json`, for whoever opens a model folder with `AutoTokenizer`.

transformers' own LLaMA tokenizers put a piece for the blank before every added token; this file states the rule
that the model was trained with. `<image>`, which stands for all image tokens, has an id after the vocabulary.
"""

from __future__ import annotations

import re
from typing import Any

from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from utils.errors import CheckpointError

BLANK = "\u2581"
"""What SentencePiece writes for a blank."""


def parse_model(model: bytes) -> Any:
    """The fields of a serialised SentencePiece model.

    Raises:
        CheckpointError: if it is damaged, or encodes by other rules than LLaMA's.
    """
    try:
        fields = sentencepiece_model_pb2.ModelProto.FromString(model)  # type: ignore[attr-defined]
    except DecodeError as error:
        raise CheckpointError(
            f"tokenizer.model is damaged: its {len(model)} bytes are no SentencePiece model; copy it again"
        ) from error
    normal = fields.normalizer_spec
    rules = {
        "byte pair encoding": fields.trainer_spec.model_type == fields.trainer_spec.BPE,
        "bytes for unknown letters": fields.trainer_spec.byte_fallback,
        "no normalization": not normal.precompiled_charsmap,
        "a blank in front": normal.add_dummy_prefix and normal.escape_whitespaces,
        "blanks as they are": not normal.remove_extra_whitespaces,
    }
    if not fields.pieces or not all(rules.values()):
        other = ", ".join(name for name, kept in rules.items() if not kept) or "no pieces"
        raise CheckpointError(
            f"tokenizer.model is none of LLaMA's ({other} expected otherwise); take that of LLaVA-1.5"
        )
    return fields


def fast_tokenizer(model: bytes, added: dict[str, int], specials: list[str], image: str) -> Tokenizer:
    """A tokenizer of the tokenizers library that gives `<s>` and then the ids of `TokenRegistry.encode`.

    Args:
        model: serialised SentencePiece model of LLaMA's kind.
        added: string to id of the added tokens, ids without a gap after the model's pieces.
        specials: pieces of the model that text is split at.
        image: string of the image; its id is the first after the added tokens.
    """
    fields = parse_model(model)
    kinds = fields.SentencePiece
    vocabulary = {piece.piece: index for index, piece in enumerate(fields.pieces)}
    scores = {piece.piece: piece.score for piece in fields.pieces if piece.type == kinds.NORMAL}
    fixed = [piece.piece for piece in fields.pieces if piece.type == kinds.USER_DEFINED]
    unknown = next(piece.piece for piece in fields.pieces if piece.type == kinds.UNKNOWN)
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=_merges(scores),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=True,
            ignore_merges=bool(fixed),
        )
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(BLANK), normalizers.Replace(" ", BLANK)])
    if fixed:
        longest_first = [re.escape(piece) for piece in sorted(fixed, key=len, reverse=True)]
        # A piece that stands alone is looked up whole, and a written "<0x0A>" must not be found as a byte.
        pattern = "|".join([*longest_first, "<(?=0x[0-9A-F]{2}>)"])
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    # Blanks that touch one of these belong to it and vanish.
    tokenizer.add_special_tokens(
        [
            AddedToken(token, lstrip=True, rstrip=True, normalized=False, special=True)
            for token in [*specials, *sorted(added, key=added.__getitem__), image]
        ]
    )
    first = fields.pieces[fields.trainer_spec.bos_id].piece
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A", pair=f"{first} $A {first} $B", special_tokens=[(first, vocabulary[first])]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(BLANK, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def _merges(scores: dict[str, float]) -> list[tuple[str, str]]:
    """Every pair of pieces whose union is a piece, the best union first, as SentencePiece chooses."""
    found = [
        (-score, piece[:cut], piece[cut:])
        for piece, score in scores.items()
        for cut in range(1, len(piece))
        if piece[:cut] in scores and piece[cut:] in scores
    ]
    return [(left, right) for _, left, right in sorted(found, key=lambda merge: merge[0])]
