"""Collator: samples to batches. It knows where every query bank stands, so that the model need not search for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from dataset.batch import (
    IGNORED_LABEL,
    PADDING,
    PREFIX,
    BankPositions,
    Batch,
    Conversations,
    Images,
    Sequences,
    prefix_rows,
)
from dataset.feature_store import FeatureStore, image_key
from dataset.positions import prefix_positions, text_positions
from dataset.prompt import Branch, PromptEncoder, Slot
from dataset.sample import Sample
from utils import geometry
from utils.filters import content_box


@dataclass(frozen=True)
class EncodedSample:
    """A sample with the token ids of its conversations."""

    sample: Sample
    branches: tuple[Branch, ...]

    @property
    def mask_indices(self) -> np.ndarray:
        """(n,) mask of each target, in reading order."""
        places = (slot.mask for branch in self.branches for slot in branch.slots)
        return np.array([mask for mask in places if mask is not None], dtype=int)

    @property
    def asked_in(self) -> tuple[int, ...]:
        """Number of the conversation of each target, in reading order."""
        return tuple(
            number for number, branch in enumerate(self.branches) for slot in branch.slots if slot.mask is not None
        )


def _pad(rows: list[list[int]], value: int) -> Tensor:
    length = max(len(row) for row in rows)
    return torch.tensor([row + [value] * (length - len(row)) for row in rows], dtype=torch.long)


@dataclass
class _Row:
    """A sequence under construction: the prefix, then branches that each go on from it.

    `positions` has the rotary positions of the prefix, and of each branch; `slots` the column of the last id of each
    slot.
    """

    image: int
    ids: list[int]
    positions: list[Tensor]
    labels: list[int] = field(init=False)
    segments: list[int] = field(init=False)
    slots: list[tuple[int, Slot]] = field(default_factory=list)

    def __post_init__(self) -> None:
        length = len(self.ids)
        self.labels, self.segments = [IGNORED_LABEL] * length, [PREFIX] * length

    def append(self, branch: Branch) -> None:
        prefix = self.positions[0]
        self.slots += [(len(self.ids) + slot.end, slot) for slot in branch.slots]
        self.ids += branch.ids
        self.labels += [
            index if flag else IGNORED_LABEL for index, flag in zip(branch.ids, branch.supervised, strict=True)
        ]
        self.segments += [max(self.segments) + 1] * len(branch.ids)
        self.positions.append(text_positions(int(prefix[-1].max()) + 1, len(branch.ids), prefix))


class Collator:
    """Samples to a batch.

    Args:
        prompt: encoder of conversations.
        language_view: how images enter the language backbone; `mask_view` the mask backbone.
        share_prefix: put all conversations of an image in one row behind one prefix; otherwise each has a row.
            The results are the same.
        store: where features of SAM's encoder may lie already.
    """

    def __init__(
        self,
        prompt: PromptEncoder,
        language_view: geometry.ImageView,
        mask_view: geometry.ImageView,
        *,
        share_prefix: bool = True,
        store: FeatureStore | None = None,
    ) -> None:
        self.prompt = prompt
        self.language_view, self.mask_view = language_view, mask_view
        self.share_prefix = share_prefix
        self.store = store

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        """Collate samples with their views, conversations and masks.

        Raises:
            DataError: for a conversation longer than the prompt encoder allows.
        """
        return self.collate([self.encode(sample) for sample in samples])

    def encode(self, sample: Sample) -> EncodedSample:
        """Encode the sample's conversations.

        Raises:
            DataError: for a conversation longer than the prompt encoder allows.
        """
        return EncodedSample(sample, tuple(self.prompt.branch(c, sample.record) for c in sample.conversations))

    def collate(self, encoded: Sequence[EncodedSample]) -> Batch:
        """Collate samples whose conversations are encoded."""
        images = self.images([one.sample.image for one in encoded])
        return Batch(
            records=tuple(one.sample.record for one in encoded),
            images=images,
            conversations=self._conversations(encoded, images.language_frames),
        )

    def images(self, images: Sequence[np.ndarray]) -> Images:
        """The views of (H, W, 3) uint8 RGB images; the mask backbone's is not made where its features are stored."""
        sizes = [(image.shape[0], image.shape[1]) for image in images]
        keys = ["" if self.store is None else image_key(image) for image in images]
        features = [None if self.store is None else self.store.find(key) for key in keys]
        frames = [self.language_view.frame(size) for size in sizes]
        views = [self.mask_view.pixels(image) for image, stored in zip(images, features, strict=True) if stored is None]
        return Images(
            sizes=tuple(sizes),
            language_pixels=pad_sequence([self.language_view.pixels(image) for image in images], batch_first=True),
            language_frames=tuple(frames),
            patch_valid=pad_sequence([geometry.patch_validity(frame) for frame in frames], batch_first=True),
            mask_pixels=torch.stack(views) if views else torch.zeros(0, 3, *self.mask_view.frame((1, 1)).view),
            mask_frames=tuple(self.mask_view.frame(size) for size in sizes),
            mask_features=tuple(features),
            feature_keys=tuple(keys),
        )

    def prefixes(self, frames: Sequence[geometry.Frame]) -> Sequences:
        """The prompt up to the image's end, a row for each image of these frames."""
        ids, positions = self._prefixes(frames)
        return prefix_rows(torch.tensor(ids), torch.stack(positions), self.prompt.image_start)

    def _prefixes(self, frames: Sequence[geometry.Frame]) -> tuple[tuple[int, ...], list[Tensor]]:
        """Ids of the prefix, with columns for the longest image, and its rotary positions for each image."""
        columns, before = max(frame.num_tokens for frame in frames), self.prompt.image_start
        ids = self.prompt.prefix(columns)
        behind = len(ids) - before - columns
        return ids, [
            prefix_positions(self.language_view.positions(frame), before=before, columns=columns, behind=behind)
            for frame in frames
        ]

    def _rows(self, encoded: Sequence[EncodedSample], frames: Sequence[geometry.Frame]) -> list[_Row]:
        ids, positions = self._prefixes(frames)
        rows: list[_Row] = []
        for image, one in enumerate(encoded):
            groups = [one.branches] if self.share_prefix else [(branch,) for branch in one.branches]
            for group in groups:
                row = _Row(image, list(ids), [positions[image]])
                for branch in group:
                    row.append(branch)
                rows.append(row)
        return rows

    def _positions(self, rows: Sequence[_Row], images: int, *, rejections: bool) -> BankPositions:
        chosen = [
            (number, row.image, end, slot.length)
            for number, row in enumerate(rows)
            for end, slot in row.slots
            if rejections or slot.mask is not None
        ]
        ends = torch.tensor([end for _, _, end, _ in chosen], dtype=torch.long)
        lengths = tuple(length for *_, length in chosen)
        longest = max(lengths, default=self.prompt.bank_length)
        return BankPositions(
            rows=torch.tensor([number for number, *_ in chosen], dtype=torch.long),
            columns=ends.unsqueeze(1) + torch.arange(1 - longest, 1),
            counts=tuple(sum(image == other for _, other, *_ in chosen) for image in range(images)),
            lengths=lengths if len(set(lengths)) > 1 else (),
        )

    def _conversations(self, encoded: Sequence[EncodedSample], frames: Sequence[geometry.Frame]) -> Conversations:
        rows = self._rows(encoded, frames)
        labels = _pad([row.labels for row in rows], IGNORED_LABEL)
        masks = [torch.from_numpy(one.sample.masks[one.mask_indices]) for one in encoded]
        ignored = [None if one.sample.ignore is None else one.sample.ignore[one.mask_indices] for one in encoded]
        supervised_rows, next_columns = (labels[:, 1:] != IGNORED_LABEL).nonzero(as_tuple=True)
        return Conversations(
            input_ids=_pad([row.ids for row in rows], 0),
            labels=labels,
            segments=_pad([row.segments for row in rows], PADDING),
            positions=pad_sequence([torch.cat(row.positions) for row in rows], batch_first=True),
            row_images=torch.tensor([row.image for row in rows]),
            image_start=self.prompt.image_start,
            supervised=(supervised_rows, next_columns),
            targets=self._positions(rows, len(encoded), rejections=False),
            slots=self._positions(rows, len(encoded), rejections=True),
            masks=tuple(masks),
            ignore=tuple(None if each is None else torch.from_numpy(each) for each in ignored),
            present=tuple(tuple(each.flatten(1).any(dim=1).nonzero()[:, 0].tolist()) for each in masks),
            boxes=tuple(map(content_box, masks)),
            asked_in=tuple(one.asked_in for one in encoded),
            instances=tuple(
                tuple(torch.from_numpy(one.sample.instances[mask]) for mask in one.mask_indices)
                if one.sample.instances
                else ()
                for one in encoded
            ),
        )
