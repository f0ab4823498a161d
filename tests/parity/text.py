"""collate.json: conversations as text to ids and labels, through the prompt encoder and the collator."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch

from anchorseg.method.tokens import IMAGE_TOKEN, TokenRegistry
from dataset.batch import PADDING
from dataset.collator import Collator
from dataset.prompt import PromptEncoder
from dataset.sample import AnswerPart, Conversation, RejectSlot, Sample, TargetSlot, Turn
from model.network_backbone import IMAGE_PLACEHOLDER
from tests.parity import released
from tests.parity.batches import collapse, image_views
from tests.parity.context import Context
from tests.parity.reference import Row
from tests.parity.samples import ReferenceFileError
from utils.prompt_template import SYSTEM, VICUNA

LONGEST = 4096
BLANK = (8, 8)
"""Size of the image in front of the text, of which nothing here depends."""


def parse_conversation(text: str, registry: TokenRegistry) -> Conversation:
    """A conversation in the published template, before its tokens are written out.

    Raises:
        ReferenceFileError: if the text is not in the template.
    """
    opening = f"{SYSTEM} USER: "
    if not text.startswith(opening):
        raise ReferenceFileError(f"a conversation does not begin with {opening!r}: {text[:80]!r}")
    rounds = text.removeprefix(opening).split("</s>")
    turns = []
    for index, words in enumerate(part for part in rounds if part.strip()):
        question, marker, answer = words.partition("ASSISTANT:")
        if not marker:
            raise ReferenceFileError(f"a turn has no ASSISTANT: {words[:80]!r}")
        question = question.replace(f"{IMAGE_TOKEN}\n", "").strip()
        question = question if index == 0 else question.removeprefix("USER:").strip()
        turns.append(Turn(question, _answer(answer, registry) if answer.strip() else None))
    return Conversation(tuple(turns))


def _answer(text: str, registry: TokenRegistry) -> tuple[AnswerPart, ...]:
    slots: dict[str, AnswerPart] = {
        registry.strings.segment: TargetSlot(0),
        registry.strings.reject: RejectSlot(),
    }
    parts = re.split("(" + "|".join(re.escape(token) for token in slots) + ")", text)
    return tuple(slots.get(part, part) for part in parts if part.strip())


def check_collate(path: Path, context: Context) -> list[Row]:
    """Every entry of collate.json."""
    listed = released.read_json(path.parent, path.name)
    registry = context.registry
    own = {**registry.added, "<s>": registry.bos_id, "</s>": registry.eos_id, "<unk>": 0}
    rows = [
        _row(path, "latent_placeholder", listed.pop("latent_placeholder"), " ".join(registry.strings.reasoning)),
        _row(path, "special_ids", listed.pop("special_ids"), own),
    ]
    for section, entries in listed.items():
        if isinstance(entries, dict) and "conversations_before_collate" in entries:
            rows += _check_section(path, section, dict(entries), context)
        else:
            rows.append(Row(path.name, section, "FAIL", note="unknown entry"))
    return rows


def _row(path: Path, array: str, expected: Any, found: Any) -> Row:
    note = "" if expected == found else f"{_first_difference(expected, found)}"
    return Row(path.name, array, "FAIL" if note else "pass", note=note)


def _first_difference(expected: Any, found: Any) -> str:
    if isinstance(expected, list) and isinstance(found, list):
        for index, (one, other) in enumerate(zip(expected, found, strict=False)):
            if one != other:
                return f"[{index}]{_first_difference(one, other)}"
        return f" has {len(found)} entries instead of {len(expected)}"
    return f" {found!r} instead of {expected!r}"


def _check_section(path: Path, section: str, entries: dict[str, Any], context: Context) -> list[Row]:
    registry = context.registry
    texts = entries.pop("conversations_before_collate")
    found = collate(texts, entries["offset"], registry, context)
    after = entries.pop("conversations_after_collate", None)
    rows = [_row(path, f"{section}.{name}", entries.pop(name, "nothing"), value) for name, value in found.items()]
    if after is not None:
        lengths = found["n_real_tokens"]
        expected = [ids[:length] for ids, length in zip(found["input_ids"], lengths, strict=True)]
        encoded = [[registry.bos_id, *registry.encode(text, IMAGE_PLACEHOLDER)] for text in after]
        rows.append(_row(path, f"{section}.conversations_after_collate", expected, encoded))
    rows.append(Row(path.name, f"{section}.conversations_before_collate", "input"))
    return rows + [Row(path.name, f"{section}.{name}", "FAIL", note="unknown entry") for name in entries]


def collate(texts: list[str], offset: list[int], registry: TokenRegistry, context: Context) -> dict[str, Any]:
    """Ids, labels, token strings and lengths of conversations in text, the image as one id.

    Args:
        texts: conversations in the published template.
        offset: conversations of image i are offset[i] up to offset[i + 1].
        registry: the tokenizer.
        context: of the model, for the number of image tokens.
    """
    prompt = PromptEncoder(
        registry,
        VICUNA,
        image_placeholder=IMAGE_PLACEHOLDER,
        num_image_tokens=context.model.config.language_view.num_tokens,
        max_length=LONGEST,
    )
    conversations = [parse_conversation(text, registry) for text in texts]
    samples = [
        Sample(
            record="",
            image=np.zeros((*BLANK, 3), dtype=np.uint8),
            conversations=tuple(conversations[first:last]),
            masks=np.zeros((1, *BLANK), dtype=bool),
        )
        for first, last in pairwise(offset)
    ]
    batch = Collator(prompt, *image_views(context.model), share_prefix=False)(samples)
    ids = collapse(batch, batch.conversations.input_ids).tolist()
    counts = torch.bincount(batch.conversations.row_images, minlength=len(samples)).cumsum(0).tolist()
    return {
        "input_ids": ids,
        "labels": collapse(batch, batch.conversations.labels).tolist(),
        "tokens": [_names(row, registry, context.folder) for row in ids],
        "n_real_tokens": collapse(batch, batch.conversations.segments != PADDING).sum(dim=1).tolist(),
        "offset": [0, *counts],
    }


def _names(ids: list[int], registry: TokenRegistry, folder: Path) -> list[str]:
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    names = {index: token for token, index in registry.added.items()} | {IMAGE_PLACEHOLDER: IMAGE_TOKEN}
    return [names[index] if index in names else pieces.id_to_piece(index) for index in ids]
