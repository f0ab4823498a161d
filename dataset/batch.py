"""Batch: the contract between data and model, and the collator that makes it.

Letters: B images, R rows, T positions, N targets, P image tokens, S view side, H W original size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dataset.feature_store import FeatureStore, image_key
from dataset.prompt import Branch, PromptEncoder
from dataset.sample import Sample
from utils import geometry

PADDING, PREFIX = -1, 0
"""Values of `Batch.segments` for padding and for the shared prefix; branches count from 1."""

IGNORED_LABEL = -100


@dataclass(frozen=True, kw_only=True)
class ImageViews:
    """How images enter the two backbones."""

    clip_side: int
    clip_mean: tuple[float, float, float]
    clip_std: tuple[float, float, float]
    token_grid: int
    sam_side: int


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Images, packed conversations and truth.

    Attributes:
        records: name of each image's record.
        clip_pixels: (B, 3, S, S) normalised CLIP views; patch_valid: (B, P) false at padding patches.
        sam_pixels: (b, 3, S, S) normalised SAM views of the images without `sam_features`, in order.
        sam_features: of each image (C, G, G) as SAM's encoder gave them before, or None.
        sam_keys: of each image the key of its features; empty where none are stored.
        clip_sizes, sam_sizes, original_sizes: (h, w) of each image's content in each view, and H, W.
        input_ids: (R, T) ids, P placeholders a row; labels: (R, T), -100 where not supervised.
        segments: (R, T) 0 at the image prefix, 1, 2, ... at its conversations, -1 at padding.
        positions: (R, T) rotary positions; every conversation goes on from its prefix.
        row_images: (R,) image of each row; rows are in the order of images.
        masks: for each image (n, H, W) boolean; ignore: the same or None, see `Sample`.
        target_images, target_masks: (N,) image, and mask of that image, of each target in reading order.
    """

    records: tuple[str, ...]
    clip_pixels: Tensor
    patch_valid: Tensor
    sam_pixels: Tensor
    sam_features: tuple[Tensor | None, ...]
    sam_keys: tuple[str, ...]
    clip_sizes: tuple[tuple[int, int], ...]
    sam_sizes: tuple[tuple[int, int], ...]
    original_sizes: tuple[tuple[int, int], ...]
    input_ids: Tensor
    labels: Tensor
    segments: Tensor
    positions: Tensor
    row_images: Tensor
    masks: tuple[Tensor, ...]
    ignore: tuple[Tensor | None, ...]
    target_images: Tensor
    target_masks: Tensor

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Batch:
        """Move every tensor; pixels and features also change their type."""

        def move(value: object) -> object:
            if isinstance(value, Tensor):
                return value.to(device, dtype if value.is_floating_point() else None, non_blocking=True)
            return tuple(map(move, value)) if isinstance(value, tuple) else value

        return Batch(**{field.name: move(getattr(self, field.name)) for field in dataclasses.fields(self)})  # type: ignore[arg-type]

    def target_truth(self, image: int) -> Tensor:
        """Masks (n, H, W) of one image's targets, in reading order."""
        return self.masks[image][self.target_masks[self.target_images == image]]

    def target_ignore(self, image: int) -> Tensor | None:
        """Pixels (n, H, W) to be left out for one image's targets, in reading order, or None."""
        ignore = self.ignore[image]
        return None if ignore is None else ignore[self.target_masks[self.target_images == image]]


@dataclass(frozen=True)
class PreparedImage:
    """An image for the two backbones: its views, or SAM's stored features instead of SAM's view.

    Attributes:
        clip: the CLIP view.
        sam_pixels: (3, S, S), or None where there are features.
        sam_features: (C, G, G), or None.
        sam_key: of the features; empty where none are stored.
        sam_size, size: (h, w) of the content in SAM's view, and H, W.
    """

    clip: geometry.View
    sam_pixels: Tensor | None
    sam_features: Tensor | None
    sam_key: str
    sam_size: tuple[int, int]
    size: tuple[int, int]


def _pad(rows: list[list[int]], value: int) -> Tensor:
    length = max(len(row) for row in rows)
    return torch.tensor([row + [value] * (length - len(row)) for row in rows], dtype=torch.long)


@dataclass
class _Row:
    """A sequence under construction: the prefix, then branches that each go on from it."""

    image: int
    ids: list[int]
    labels: list[int]
    segments: list[int]
    positions: list[int]

    @classmethod
    def start(cls, image: int, prefix: Sequence[int]) -> _Row:
        n = len(prefix)
        return cls(image, list(prefix), [IGNORED_LABEL] * n, [PREFIX] * n, list(range(n)))

    def append(self, branch: Branch, prefix_length: int) -> None:
        n = len(branch.ids)
        self.ids += branch.ids
        self.labels += [
            index if flag else IGNORED_LABEL for index, flag in zip(branch.ids, branch.supervised, strict=True)
        ]
        self.segments += [max(self.segments) + 1] * n
        self.positions += range(prefix_length, prefix_length + n)


class Collator:
    """Samples to a batch.

    Args:
        prompt: encoder of conversations.
        views: sizes and statistics of the two image views.
        share_prefix: put all conversations of an image in one row behind one prefix; otherwise each has a row.
            The results are the same.
        store: where features of SAM's encoder may lie already.
    """

    def __init__(
        self,
        prompt: PromptEncoder,
        views: ImageViews,
        *,
        share_prefix: bool = True,
        store: FeatureStore | None = None,
    ) -> None:
        self.prompt = prompt
        self.views = views
        self.share_prefix = share_prefix
        self.store = store

    def check(self, sample: Sample) -> None:
        """Refuse a sample that cannot be collated.

        Raises:
            DataError: for a conversation longer than the prompt encoder allows.
        """
        for conversation in sample.conversations:
            self.prompt.branch(conversation, sample.record)

    def prepare(self, sample: Sample) -> PreparedImage:
        """Make the views of the sample's image; SAM's is not needed where its features are stored."""
        views = self.views
        height, width = sample.image.shape[:2]
        key = "" if self.store is None else image_key(sample.image)
        features = None if self.store is None else self.store.find(key)
        pixels = None
        if features is None:
            pixels = geometry.make_view(sample.image, views.sam_side, geometry.SAM_MEAN, geometry.SAM_STD).pixels
        return PreparedImage(
            clip=geometry.make_view(sample.image, views.clip_side, views.clip_mean, views.clip_std),
            sam_pixels=pixels,
            sam_features=features,
            sam_key=key,
            sam_size=geometry.longest_side_size((height, width), views.sam_side),
            size=(height, width),
        )

    def _sam_pixels(self, images: Sequence[PreparedImage]) -> Tensor:
        pixels = [image.sam_pixels for image in images if image.sam_pixels is not None]
        return torch.stack(pixels) if pixels else torch.zeros(0, 3, self.views.sam_side, self.views.sam_side)

    def _rows(self, samples: Sequence[Sample], branches: list[list[Branch]]) -> list[_Row]:
        prefix = self.prompt.prefix
        rows: list[_Row] = []
        for image, _ in enumerate(samples):
            groups = [branches[image]] if self.share_prefix else [[branch] for branch in branches[image]]
            for group in groups:
                row = _Row.start(image, prefix)
                for branch in group:
                    row.append(branch, len(prefix))
                rows.append(row)
        return rows

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        """Collate samples with their views, conversations and masks.

        Raises:
            DataError: for a conversation longer than the prompt encoder allows.
        """
        images = [self.prepare(sample) for sample in samples]
        branches = [[self.prompt.branch(c, sample.record) for c in sample.conversations] for sample in samples]
        rows = self._rows(samples, branches)
        slots = [
            (image, slot.mask) for image, group in enumerate(branches) for branch in group for slot in branch.targets
        ]
        views = self.views
        return Batch(
            records=tuple(sample.record for sample in samples),
            clip_pixels=torch.stack([image.clip.pixels for image in images]),
            patch_valid=torch.stack(
                [geometry.patch_validity(image.clip.size, views.clip_side, views.token_grid) for image in images]
            ),
            sam_pixels=self._sam_pixels(images),
            sam_features=tuple(image.sam_features for image in images),
            sam_keys=tuple(image.sam_key for image in images),
            clip_sizes=tuple(image.clip.size for image in images),
            sam_sizes=tuple(image.sam_size for image in images),
            original_sizes=tuple(image.size for image in images),
            input_ids=_pad([row.ids for row in rows], 0),
            labels=_pad([row.labels for row in rows], IGNORED_LABEL),
            segments=_pad([row.segments for row in rows], PADDING),
            positions=_pad([row.positions for row in rows], 0),
            row_images=torch.tensor([row.image for row in rows]),
            masks=tuple(torch.from_numpy(sample.masks) for sample in samples),
            ignore=tuple(None if s.ignore is None else torch.from_numpy(s.ignore) for s in samples),
            target_images=torch.tensor([image for image, _ in slots], dtype=torch.long),
            target_masks=torch.tensor([mask for _, mask in slots], dtype=torch.long),
        )
