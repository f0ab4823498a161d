"""Greedy decoding as CUDA graphs: tensors of fixed size, steps of fixed width, ids chosen and checked on the device.

A step reads ids ahead of those that the model has chosen: the rest of a query bank, which is certain, and the answer
that was written last, which is often written again. Ids are kept as far as the model would have chosen them, so that
answers are those of `generation.answer_questions` without graphs, in fewer steps (speculative decoding, Leviathan et
al. 2023, with the last answer as the draft). Each question has a stretch of columns of its own behind the prefix, so
that columns are in reading order.

Letters: B images, M questions of an image, T positions of the prefix, S columns, L width of a step, W width of a bank,
D language width, V vocabulary.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from anchorseg.inference.grammar import Asked, Generated
from anchorseg.inference.prefix import ImagePrefix
from anchorseg.inference.written import NO_ID, segment_written
from anchorseg.method.captured import CapturedParts
from anchorseg.method.modeling import AnchorSegModel
from utils.cuda_graphs import Recorder


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
        ends_itself: whether the model ends a bank where it likes.
    """

    images: int
    questions: int
    prefix: int
    question: int
    answer: int
    bank: int
    ends_itself: bool

    @property
    def step(self) -> int:
        """L of an answer's steps: a bank, and more where the weights take longer to read than the ids."""
        return _rounded(self.bank, 16)

    @property
    def stretch(self) -> int:
        """Columns of one question: it, its answer, and a step beyond, whose ids are thrown away."""
        return self.question + self.answer + self.step

    @property
    def columns(self) -> int:
        """S, which attention kernels like to be even."""
        return _rounded(self.prefix + self.questions * self.stretch)


def answer_with_graphs(model: AnchorSegModel, captured: CapturedParts, images: ImagePrefix, asked: Asked) -> Generated:
    """See `generation.answer_questions`.

    Sizes are rounded up, so that few decoders serve all questions.
    """
    most = max(Counter(asked.rows).values())
    sizes = DecoderSizes(
        images=len(images.images),
        questions=1 << (most - 1).bit_length(),
        prefix=images.hidden.shape[1],
        question=_rounded(max(map(len, asked.questions)) + len(model.bank_ids)),
        answer=_rounded(asked.max_new_tokens),
        bank=len(model.bank_ids),
        ends_itself=model.bank_rule.chosen,
    )
    with captured.decoding:
        decoder = captured.decoders.get(sizes, lambda: GraphDecoder(model, sizes, images, captured.record))
        return decoder.answer(images, asked)


def _rounded(length: int, to: int = 32) -> int:
    return -(-length // to) * to


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
        self._first_positions = integers(sizes.images)
        self._bank = integers(sizes.bank).copy_(torch.tensor(model.bank_ids))
        # Of each question: where the next ids go, how many of its answer were read, a negative number before it begins,
        # and how many of the next ids are certain, none where it is answered.
        self._places, self._written, self._certain = integers(state), integers(state), integers(state)
        self._limit = integers(1)
        self._bar = images.hidden.new_zeros(1)  # added to the logit of a bank's first id
        self._question, self._next = integers((*state, sizes.question)), integers((*state, sizes.step))
        # By place in the answer: the ids that are given instead of the model's choice, and those that it may choose.
        self._given, self._draft = (integers(sizes.answer + sizes.question + sizes.step) for _ in range(2))
        self._last_answer: list[int] = []
        self._read_question = record(partial(self._step, self._question)).replay
        self._read_next = record(partial(self._step, self._next)).replay

    def answer(self, images: ImagePrefix, asked: Asked) -> Generated:
        """See `generation.answer_questions`."""
        self._begin(images, asked)
        self._read_question()
        while self._certain.any():
            self._read_next()
        return self._finish(images, asked)

    def forget(self) -> None:
        """Begin the next answer without a draft."""
        self._last_answer = []

    def _begin(self, images: ImagePrefix, asked: Asked) -> None:
        prefix = self._sizes.prefix
        self._cache.fill(images.cache)
        self._ids.fill_(NO_ID)
        self._ids[:, :prefix] = images.sequences.input_ids
        self._hidden[:, :prefix] = images.hidden
        self._prefix_valid.copy_(images.valid)
        self._first_positions.copy_(images.sequences.next_positions)
        draft = torch.full(self._draft.shape, NO_ID)
        draft[: len(self._last_answer)] = torch.tensor(self._last_answer)
        ids, lengths = torch.full(self._question.shape, NO_ID), torch.zeros(self._certain.shape, dtype=torch.long)
        for (row, slot), question in zip(asked.slots, asked.questions, strict=True):
            length = lengths[row, slot] = len(question)
            ids[row, slot, :length] = torch.tensor(question)
            ids[row, slot, length:] = draft[: ids.shape[2] - length]
        given = torch.full(self._given.shape, NO_ID)
        if asked.answer is not None:
            given.fill_(self._model.config.token_ids["eos"])
            known = asked.answer[: self._sizes.answer]
            given[: len(known)] = torch.tensor(known)
        for own, value in (
            (self._question, ids),
            (self._draft, draft),
            (self._given, given),
            (self._certain, lengths),
            (self._written, -lengths),
            (self._places, self._starts.expand_as(lengths)),
        ):
            own.copy_(value)
        self._limit.fill_(asked.max_new_tokens)
        self._bar.fill_(0 if asked.targets else -torch.inf)

    def _step(self, pieces: Tensor) -> None:
        """Read ids (B, M, L) behind each question, keep those that are right, and choose those of the next step."""
        offsets = torch.arange(pieces.shape[2], device=pieces.device)
        places = (self._places.unsqueeze(2) + offsets).flatten(1)
        starts = self._starts.unsqueeze(1).expand(-1, len(offsets)).flatten()
        # All columns are read; those that are not kept are read anew, for the next step begins there.
        self._cache.places = places
        states = self._model.language.hidden_states(
            self._model.language.embed_tokens(pieces.flatten(1).clamp(min=0)),
            self._first_positions.unsqueeze(1) + places - starts,
            self._visible(places, starts),
            self._cache,
        )
        of_questions = states.unflatten(1, (self._sizes.questions, -1))
        chosen = self._choose(self._model.language.logits(of_questions), pieces)
        kept = self._kept(pieces, chosen)
        ids = torch.where(offsets < kept.unsqueeze(2), pieces, NO_ID)
        self._ids.scatter_(1, places, ids.flatten(1))
        self._hidden.scatter_(1, places.unsqueeze(2).expand_as(states), states)
        self._places += kept
        self._written += kept
        self._prepare(chosen.gather(2, (kept - 1).clamp(min=0).unsqueeze(2)).squeeze(2), kept)

    def _kept(self, pieces: Tensor, chosen: Tensor) -> Tensor:
        """(B, M) how many ids at the beginning are certain, or are what is chosen after those before; up to the limit.

        What is chosen at an answer's end is never in a draft.
        """
        offsets = torch.arange(pieces.shape[2], device=pieces.device)
        right = pieces[..., 1:] == chosen[..., :-1]
        right = torch.cat([torch.zeros_like(right[..., :1]), right], dim=2) | (offsets < self._certain.unsqueeze(2))
        return right.long().cumprod(dim=2).sum(dim=2).minimum(self._limit - self._written)

    def _visible(self, places: Tensor, starts: Tensor) -> Tensor:
        """(B, M L, S) which columns each column sees: the prefix without its padding, and its question so far."""
        columns = torch.arange(self._sizes.columns, device=places.device)
        own = (columns >= starts.unsqueeze(1)) & (columns <= places.unsqueeze(2))
        prefix = self._prefix_valid.unsqueeze(1).expand(-1, places.shape[1], -1)
        return own.slice_scatter(prefix, dim=2, end=self._sizes.prefix)

    def _choose(self, logits: Tensor, pieces: Tensor) -> Tensor:
        """(B, M, L) ids that follow each of the ids read, greedily by logits (B, M, L, V), a begun bank to its end."""
        free = logits.index_fill(3, self._bank[1:], -torch.inf)
        free = free.index_add(3, self._bank[:1], self._bar.to(free.dtype).expand(*free.shape[:3], 1))
        best = free.argmax(dim=3)
        begun = pieces.unsqueeze(3) == self._bank[:-1]
        following = (begun * self._bank[1:]).sum(dim=3)
        if self._sizes.ends_itself:
            segment = self._model.bank_ids[-1]
            ends = logits[..., segment] >= logits.gather(3, following.unsqueeze(3)).squeeze(3)
            following = torch.where(ends, segment, following)
        best = torch.where(begun.any(dim=3), following, best)
        offsets = torch.arange(1, pieces.shape[2] + 1, device=pieces.device)
        given = self._given[(self._written.unsqueeze(2) + offsets).clamp(min=0, max=len(self._given) - 1)]
        return torch.where(given == NO_ID, best, given)

    def _prepare(self, first: Tensor, kept: Tensor) -> None:
        """The next step of each question: the id chosen, and behind it the rest of a bank, or the draft."""
        goes_on = (first != self._model.config.token_ids["eos"]) & (kept > 0) & (self._written < self._limit)
        self._certain.copy_(goes_on)
        offsets = torch.arange(self._sizes.step, device=first.device)
        places = (self._written.unsqueeze(2) + offsets).clamp(min=0, max=len(self._draft) - 1)
        ids = torch.where(offsets == 0, first.unsqueeze(2), self._draft[places])
        in_bank = first.unsqueeze(2) == self._bank
        at = in_bank.long().argmax(dim=2, keepdim=True) + offsets
        of_bank = in_bank.any(dim=2, keepdim=True) & (at < self._sizes.bank)
        self._next.copy_(torch.where(of_bank, self._bank[at.clamp(max=self._sizes.bank - 1)], ids))

    def _finish(self, images: ImagePrefix, asked: Asked) -> Generated:
        sizes, slots = self._sizes, asked.slots
        ids = self._ids.cpu()
        behind_prefix = ids[:, sizes.prefix : sizes.prefix + sizes.questions * sizes.stretch]
        stretches = behind_prefix.unflatten(1, (sizes.questions, sizes.stretch))
        written = []
        for (row, slot), question in zip(slots, asked.questions, strict=True):
            behind = stretches[row, slot, len(question) :]
            written.append(behind[behind != NO_ID].tolist())
        self._last_answer = written[-1]
        numbers = torch.full((sizes.images, sizes.questions), NO_ID)
        numbers[tuple(zip(*slots, strict=True))] = torch.arange(len(slots))
        owners = torch.full_like(ids, NO_ID)
        owners[:, sizes.prefix : sizes.prefix + stretches[0].numel()] = numbers.repeat_interleave(sizes.stretch, dim=1)
        return segment_written(self._model, images, asked, written, ids=ids, owners=owners, hidden=self._hidden)
