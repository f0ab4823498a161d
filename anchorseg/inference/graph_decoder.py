"""Greedy decoding that the host never steps in: tensors of fixed size, steps of fixed width, ids chosen on the device.

A step reads up to a whole bank of each question. Which ids it reads the step before has chosen on the device, and the
host looks for the end of answers one step late. Each question has a stretch of columns of its own behind the prefix, so
that columns are in reading order. Equal to `generation.answer_questions` without graphs.

Letters: B images, M questions of an image, T positions of the prefix, S columns, L width of a step, W width of a bank,
D language width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from anchorseg.inference.grammar import BankGrammar, Generated
from anchorseg.inference.prefix import ImagePrefix
from anchorseg.method.captured import CapturedParts
from anchorseg.method.modeling import AnchorSegModel
from anchorseg.method.query_bank import locate_banks
from dataset.batch import BankPositions, move
from utils.cuda_graphs import Recorder

NO_ID = -1
"""Stands where a question has no id."""


@dataclass(frozen=True)
class DecoderSizes:
    """What recorded steps depend on.

    Attributes:
        images: B.
        questions: M.
        prefix: T.
        question: longest question, in ids.
        answer: longest answer, in ids.
        bank: W.
    """

    images: int
    questions: int
    prefix: int
    question: int
    answer: int
    bank: int

    @property
    def stretch(self) -> int:
        """Columns of one question: it, its answer, and a step beyond, whose ids are thrown away."""
        return self.question + self.answer + self.bank

    @property
    def columns(self) -> int:
        """S, which attention kernels like to be even."""
        return _rounded(self.prefix + self.questions * self.stretch)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """At least one question, as `generation.answer_questions` takes them."""

    questions: Sequence[Sequence[int]]
    rows: Sequence[int]
    max_new_tokens: int
    answer: Sequence[int] | None

    @property
    def slots(self) -> list[tuple[int, int]]:
        """Of each question its image, and its number among those about it."""
        return [(row, self.rows[:question].count(row)) for question, row in enumerate(self.rows)]


def answer_with_graphs(model: AnchorSegModel, captured: CapturedParts, images: ImagePrefix, asked: Asked) -> Generated:
    """See `generation.answer_questions`.

    Sizes are rounded up, so that few decoders serve all questions.
    """
    most = max(Counter(asked.rows).values())
    sizes = DecoderSizes(
        images=len(images.images),
        questions=1 << (most - 1).bit_length(),
        prefix=images.hidden.shape[1],
        question=_rounded(max(map(len, asked.questions))),
        answer=_rounded(asked.max_new_tokens),
        bank=len(model.bank_ids),
    )
    with captured.decoding:
        decoder = captured.decoders.get(sizes, lambda: GraphDecoder(model, sizes, images, captured.record))
        return decoder.answer(images, asked)


def _rounded(length: int) -> int:
    return -(-length // 32) * 32


class GraphDecoder:
    """Answers up to M questions about each of B images; used by one caller at a time.

    Args:
        model: in evaluation mode.
        sizes: of the tensors.
        images: any images that were read, for their dtype and device.
        record: makes recordings of the two steps, of the question and of the answer.
    """

    def __init__(self, model: AnchorSegModel, sizes: DecoderSizes, images: ImagePrefix, record: Recorder) -> None:
        self._model, self._sizes = model, sizes
        state, integers = (sizes.images, sizes.questions), images.sequences.input_ids.new_zeros
        self._cache = model.language.fixed_cache(images.cache, sizes.columns)
        self._ids = integers((sizes.images, sizes.columns))
        self._hidden = images.hidden.new_zeros(sizes.images, sizes.columns, images.hidden.shape[2])
        self._prefix_valid = torch.zeros_like(images.valid)
        self._starts = sizes.prefix + sizes.stretch * torch.arange(sizes.questions, device=images.hidden.device)
        self._bank = integers(sizes.bank).copy_(torch.tensor(model.bank_ids))
        # Of each question: how many ids the next step reads, where they go, and how many of its answer were read; an
        # answer has a negative number before it begins.
        self._counts, self._written = integers(state), integers(state)
        self._places = integers(state).copy_(self._starts)
        self._limit = integers(1)
        self._question, self._next = integers((*state, sizes.question)), integers((*state, sizes.bank))
        # The answer that is given instead of the model's choice: ids from each of its places on, and how many.
        self._given, self._given_counts = integers(sizes.answer + 1), integers(sizes.answer + 1)
        self._read_question = record(partial(self._step, self._question)).replay
        self._read_next = record(partial(self._step, self._next)).replay

    def answer(self, images: ImagePrefix, asked: Asked) -> Generated:
        """See `generation.answer_questions`."""
        self._begin(images, asked)
        self._read_question()
        late = LateCounts(self._counts)
        while late.any():
            self._read_next()
        return self._finish(images, asked)

    def _begin(self, images: ImagePrefix, asked: Asked) -> None:
        prefix = self._sizes.prefix
        self._cache.fill(images.cache)
        self._ids.fill_(NO_ID)
        self._ids[:, :prefix] = images.sequences.input_ids
        self._hidden[:, :prefix] = images.hidden
        self._prefix_valid.copy_(images.valid)
        ids = torch.full(self._question.shape, NO_ID)
        for (row, slot), question in zip(asked.slots, asked.questions, strict=True):
            ids[row, slot, : len(question)] = torch.tensor(question)
        self._question.copy_(ids)
        counts = (ids != NO_ID).sum(dim=2)
        self._counts.copy_(counts)
        self._written.copy_(-counts)
        self._places.copy_(self._starts.expand_as(counts))
        self._limit.fill_(asked.max_new_tokens)
        given, given_counts = self._given_steps(asked.answer)
        self._given.copy_(given)
        self._given_counts.copy_(given_counts)

    def _given_steps(self, answer: Sequence[int] | None) -> tuple[Tensor, Tensor]:
        """First id and number of ids that a given answer goes on with, by how many were read; NO_ID: none is given."""
        length = self._sizes.answer + 1
        ids, counts = torch.full((length,), NO_ID), torch.zeros(length, dtype=torch.long)
        if answer is not None:
            grammar = BankGrammar(self._model.bank_ids)
            ahead = [grammar.dictate(answer, start) for start in range(length)]
            eos = self._model.config.token_ids["eos"]
            ids = torch.tensor([step[0] if step else eos for step in ahead])
            counts = torch.tensor([len(step) for step in ahead])
        return ids, counts

    def _step(self, pieces: Tensor) -> None:
        """Read the next ids (B, M, L) of each question, as many as count, and choose those of the next step."""
        offsets = torch.arange(pieces.shape[2], device=pieces.device)
        counted = offsets < self._counts.unsqueeze(2)
        ids = torch.where(counted, pieces, NO_ID).flatten(1)
        places = (self._places.unsqueeze(2) + offsets).flatten(1)
        starts = self._starts.unsqueeze(1).expand(-1, len(offsets)).flatten()
        # Columns that do not count are read, too, and overwritten later.
        self._cache.places = places
        states = self._model.language.hidden_states(
            self._model.language.embed_tokens(ids.clamp(min=0)),
            self._sizes.prefix + places - starts,
            self._visible(places, starts),
            self._cache,
        )
        self._ids.scatter_(1, places, ids)
        self._hidden.scatter_(1, places.unsqueeze(2).expand_as(states), states)
        last = (self._counts - 1).clamp(min=0)[..., None, None].expand(-1, -1, 1, states.shape[2])
        ends = states.unflatten(1, (self._sizes.questions, -1)).gather(2, last).squeeze(2)
        self._places += self._counts
        self._written += self._counts
        self._choose(self._model.language.logits(ends))

    def _visible(self, places: Tensor, starts: Tensor) -> Tensor:
        """(B, M L, S) which columns each column sees: the prefix without its padding, and its question so far."""
        columns = torch.arange(self._sizes.columns, device=places.device)
        own = (columns >= starts.unsqueeze(1)) & (columns <= places.unsqueeze(2))
        prefix = self._prefix_valid.unsqueeze(1).expand(-1, places.shape[1], -1)
        return own.slice_scatter(prefix, dim=2, end=self._sizes.prefix)

    def _choose(self, logits: Tensor) -> None:
        """From logits (B, M, V) the next ids of each question, whole banks, none behind an answer's end."""
        chosen = logits.index_fill(2, self._bank[1:], -torch.inf).argmax(dim=2)
        at = self._written.clamp(min=0, max=self._sizes.answer)
        given, free = self._given[at], self._given[at] == NO_ID
        first = torch.where(free, chosen, given)
        own_count = torch.where(chosen == self._bank[0], self._sizes.bank, 1)
        count = torch.where(free, own_count, self._given_counts[at]).minimum(self._limit - self._written)
        ended = (first == self._model.config.token_ids["eos"]) | (self._counts == 0)
        self._counts.copy_(count.masked_fill(ended, 0))
        self._next.copy_(self._bank.expand_as(self._next))
        self._next[..., 0] = first

    def _finish(self, images: ImagePrefix, asked: Asked) -> Generated:
        sizes, slots = self._sizes, asked.slots
        ids = self._ids.cpu()
        behind_prefix = ids[:, sizes.prefix : sizes.prefix + sizes.questions * sizes.stretch]
        stretches = behind_prefix.unflatten(1, (sizes.questions, sizes.stretch))
        written = []
        for (row, slot), question in zip(slots, asked.questions, strict=True):
            behind = stretches[row, slot, len(question) :]
            written.append(behind[behind != NO_ID].tolist())
        positions = locate_banks(ids, self._model.bank_ids)
        numbers = torch.full((sizes.images, sizes.questions), NO_ID)
        numbers[tuple(zip(*slots, strict=True))] = torch.arange(len(slots))
        of_targets = numbers[positions.rows, (positions.columns[:, -1] - sizes.prefix) // sizes.stretch]
        context = self._model.image_context(
            images.images, images.sequences, images.hidden, images.mask_features.result()
        )
        device = self._hidden.device
        targets: BankPositions = move(positions, device, self._hidden.dtype)
        return Generated(written, self._model.segment(self._hidden, targets, context), of_targets.to(device))


class LateCounts:
    """Whether any question goes on, known one step late, so that the device always has a step to do.

    Args:
        counts: (B, M), which each step writes anew.
    """

    def __init__(self, counts: Tensor) -> None:
        self._counts = counts
        self._copies: list[tuple[Tensor, torch.cuda.Event | None]] = []

    def any(self) -> bool:
        """After a step: whether the step before it left something to read; true behind the first one."""
        on_gpu = self._counts.is_cuda
        copy = torch.empty(self._counts.shape, dtype=self._counts.dtype, pin_memory=on_gpu)
        copy.copy_(self._counts, non_blocking=True)
        event = torch.cuda.Event() if on_gpu else None
        if event is not None:
            event.record()
        self._copies.append((copy, event))
        if len(self._copies) == 1:
            return True
        before, ready = self._copies.pop(0)
        if ready is not None:
            ready.synchronize()
        return bool(before.any())
