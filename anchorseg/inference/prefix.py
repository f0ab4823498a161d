"""Image prefix: system prompt and image, read once; questions go on from it in packed sequences.

Letters: B images, Q questions, T positions of the prefix, S of a whole sequence, P image tokens, D language width,
C prompt width, G feature grid.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from transformers import DynamicCache

from anchorseg.method.modeling import AnchorSegModel, visibility
from dataset.batch import PADDING, Images, Sequences
from utils.side_stream import OnSideStream


@dataclass(frozen=True, kw_only=True)
class ImagePrefix:
    """What all questions about B images share.

    Attributes:
        images: their views and sizes.
        sequences: (B, T) ids of system prompt and image placeholders; hidden: (B, T, D) their last-layer hidden states.
        valid: (B, T) false at padding patches.
        cache: keys and values of the T positions; 0.5 MB a position at 7B in 16 bits.
        mask_features: (B, C, G, G), on a GPU computed beside the language model's reading and writing.
    """

    images: Images
    sequences: Sequences
    hidden: Tensor
    valid: Tensor
    cache: DynamicCache
    mask_features: OnSideStream

    def branch_cache(self) -> DynamicCache:
        """A cache that begins with the prefix and may grow: layers replace their tensors and never write into them."""
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in self.cache.layers]
        return cache


@torch.inference_mode()
def prefill_images(model: AnchorSegModel, images: Images, prefixes: Sequences) -> ImagePrefix:
    """Run CLIP, the language model and the mask backbone's encoder over images and the prompt before them.

    Args:
        model: in evaluation mode.
        images: at least one.
        prefixes: of `Collator.prefixes`, the same row for each image.
    """
    mask_features = OnSideStream(partial(model.mask_features, images), prefixes.input_ids.device)
    cache = model.language.new_cache()
    return ImagePrefix(
        images=images,
        sequences=prefixes,
        hidden=model.prefill(images, prefixes, cache),
        valid=model.token_valid(prefixes, images.patch_valid),
        cache=cache,
        mask_features=mask_features,
    )


class PackedQuestions:
    """One sequence for each image, as in training: its prefix, then the columns of its questions.

    A question sees the prefix and itself, and its positions go on from the prefix, so that keys and values of the
    prefix are in memory once, not once a question. Columns of several questions stand in the order in which they
    were read.

    Args:
        model: in evaluation mode.
        images: read before.
        rows: for each of the Q questions its image.
    """

    def __init__(self, model: AnchorSegModel, images: ImagePrefix, rows: Sequence[int]) -> None:
        self._model = model
        self._rows = rows
        self._cache = images.branch_cache()
        self._ids = images.sequences.input_ids
        self._segments = images.sequences.segments
        self._valid = images.valid
        self._hidden = [images.hidden]
        self._first_positions = images.sequences.next_positions.unsqueeze(1)
        self._lengths = [0] * len(rows)
        self._last: dict[int, tuple[int, int, int]] = {}

    def extend(self, pieces: Mapping[int, Sequence[int]]) -> Tensor:
        """Read further ids of some questions: the hidden state after each, (len(pieces), D).

        Args:
            pieces: at least one id for each question that goes on.
        """
        columns: list[list[tuple[int, int, int]]] = [[] for _ in self._ids]
        self._last = {}
        for question, piece in pieces.items():
            row, start = self._rows[question], self._lengths[question]
            self._last[question] = (row, len(columns[row]), len(piece))
            columns[row] += [(index, question + 1, start + step) for step, index in enumerate(piece)]
            self._lengths[question] += len(piece)
        width = max(map(len, columns))
        padded = [row + [(0, PADDING, 0)] * (width - len(row)) for row in columns]
        ids, segments, places = torch.tensor(padded, device=self._ids.device).unbind(dim=-1)
        self._ids = torch.cat([self._ids, ids], dim=1)
        self._segments = torch.cat([self._segments, segments], dim=1)
        self._valid = torch.cat([self._valid, segments != PADDING], dim=1)
        zero_padding = self._model.method.padding_attention == "zero"
        visible = visibility(self._segments, self._valid, zero_padding=zero_padding)[:, -width:]
        embeddings = self._model.language.embed_tokens(ids)
        positions = self._first_positions + places
        self._hidden.append(self._model.language.hidden_states(embeddings, positions, visible, self._cache))
        rows, starts, lengths = zip(*self._last.values(), strict=True)
        ends = [start + length - 1 for start, length in zip(starts, lengths, strict=True)]
        return self._hidden[-1][list(rows), ends]

    def states(self, question: int) -> Tensor:
        """The hidden states after each id of a question that the last `extend` read."""
        row, start, length = self._last[question]
        return self._hidden[-1][row, start : start + length]

    def take_back(self, question: int, count: int) -> None:
        """Forget the last ids of a question that the last `extend` read: nothing sees them any more."""
        row, start, length = self._last[question]
        first = self._ids.shape[1] - self._hidden[-1].shape[1] + start + length - count
        self._segments[row, first : first + count] = PADDING
        self._valid[row, first : first + count] = False
        self._lengths[question] -= count

    def in_order(self) -> tuple[Tensor, Tensor, Tensor]:
        """Ids (B, S), states (B, S, D) and segments (B, S): the prefix, question after question, padding last.

        Question q has segment q + 1.
        """
        key = self._segments.masked_fill(self._segments == PADDING, len(self._rows) + 1)
        order = key.argsort(dim=1, stable=True)
        hidden = torch.cat(self._hidden, dim=1)
        return (
            self._ids.gather(1, order),
            hidden.gather(1, order.unsqueeze(-1).expand_as(hidden)),
            self._segments.gather(1, order),
        )
