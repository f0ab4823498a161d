"""Generation: the model writes its own answer, and the states it wrote it with give the masks.

Letters: R rows (one question each), T prompt positions, P image tokens, D language width.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from anchorseg.modeling import AnchorSegModel, ImageContext, Segmentation, visibility
from anchorseg.query_bank import locate_banks
from dataset.batch import PADDING, Batch


@dataclass(frozen=True)
class Generated:
    """For each row the ids that the model wrote, `</s>` left out, and the masks of all targets it wrote.

    `target_rows` (N,) gives the row of each target, in reading order.
    """

    ids: list[list[int]]
    segmentation: Segmentation
    target_rows: Tensor


class BankGrammar:
    """Keeps a query bank in order: `<REAS_1>` begins one, then every next token of it is the only choice.

    Without latents `<SEG>` is free.
    """

    def __init__(self, bank_ids: tuple[int, ...]) -> None:
        self._next = dict(itertools.pairwise(bank_ids))
        self._inner = list(bank_ids[1:])

    def choose(self, logits: Tensor, last: Tensor) -> Tensor:
        """Greedy next ids (R,) from logits (R, V), given the last ids (R,)."""
        logits = logits.clone()
        logits[:, self._inner] = -torch.inf
        chosen = logits.argmax(dim=-1)
        for current, following in self._next.items():
            chosen = torch.where(last == current, following, chosen)
        return chosen


class _Rows:
    """The growing sequences: ids, states and visibility of every column so far."""

    def __init__(self, batch: Batch, hidden: Tensor, valid: Tensor) -> None:
        self.ids = batch.input_ids
        self.hidden = hidden
        self.valid = valid
        self.lengths = (batch.segments != PADDING).sum(dim=1)
        self.positions = batch.positions.gather(1, (self.lengths - 1).unsqueeze(1))

    def append(self, ids: Tensor, hidden: Tensor, alive: Tensor) -> None:
        self.ids = torch.cat([self.ids, ids.unsqueeze(1)], dim=1)
        self.hidden = torch.cat([self.hidden, hidden], dim=1)
        self.valid = torch.cat([self.valid, alive.unsqueeze(1)], dim=1)

    def compact(self, prompt_columns: int) -> tuple[Tensor, Tensor]:
        """Move generated columns to directly behind each row's own prompt, so that predecessors are neighbours."""
        total = self.ids.shape[1]
        columns = torch.arange(total, device=self.ids.device).expand(len(self.ids), -1)
        behind = columns - self.lengths.unsqueeze(1) + prompt_columns
        source = torch.where(columns < self.lengths.unsqueeze(1), columns, behind).clamp(max=total - 1)
        written = behind < total
        ids = torch.where((columns < self.lengths.unsqueeze(1)) | written, self.ids.gather(1, source), 0)
        return ids, self.hidden.gather(1, source.unsqueeze(-1).expand_as(self.hidden))


@torch.inference_mode()
def generate(
    model: AnchorSegModel, batch: Batch, *, max_new_tokens: int = 128, answer: Sequence[int] | None = None
) -> Generated:
    """Answer every row greedily and decode the masks of the targets written.

    Args:
        model: in evaluation mode.
        batch: prompts that end with `ASSISTANT:`, one conversation a row.
        max_new_tokens: most tokens an answer may have; an unfinished bank at the end gives no target.
        answer: ids that every row writes instead of choosing, to compare with the same answer in a prompt.
    """
    eos = model.config.token_ids["eos"]
    grammar = BankGrammar(model.bank_ids)
    features = model.llava.image_features(batch.clip_pixels, batch.patch_valid)[batch.row_images]
    valid = model.token_valid(batch.input_ids, batch.segments, batch.patch_valid[batch.row_images])
    visible = visibility(batch.segments, valid, zero_padding=model.method.padding_attention == "zero")
    cache = DynamicCache(config=model.llava.language_model.config)
    hidden = model.llava.hidden_states(model.llava.embed(batch.input_ids, features), batch.positions, visible, cache)
    rows = _Rows(batch, hidden, valid)
    alive = torch.ones(len(valid), dtype=torch.bool, device=valid.device)
    state = hidden.gather(1, (rows.lengths - 1).view(-1, 1, 1).expand(-1, 1, hidden.shape[-1]))
    last = torch.full_like(rows.lengths, -1)
    for step in range(max_new_tokens):
        if answer is None:
            last = grammar.choose(model.llava.logits(state[:, 0]), last)
        else:
            last = torch.full_like(last, answer[step] if step < len(answer) else eos)
        last = torch.where(alive, last, eos)
        alive = alive & (last != eos)
        if not alive.any():
            break
        state = model.llava.hidden_states(
            model.llava.language_model.embed_tokens(last.unsqueeze(1)),
            rows.positions + step + 1,
            torch.cat([rows.valid, alive.unsqueeze(1)], dim=1).unsqueeze(1),
            cache,
        )
        rows.append(torch.where(alive, last, 0), state, alive)
    return _finish(model, batch, rows)


def _finish(model: AnchorSegModel, batch: Batch, rows: _Rows) -> Generated:
    columns = batch.input_ids.shape[1]
    written, kept = rows.ids[:, columns:], rows.valid[:, columns:]
    ids, hidden = rows.compact(columns)
    positions = locate_banks(ids, model.bank_ids)
    segmentation = model.segment(hidden, ids, positions, ImageContext.of(batch))
    answers = [row[mask].tolist() for row, mask in zip(written, kept, strict=True)]
    return Generated(answers, segmentation, positions.rows)
