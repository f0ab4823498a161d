"""Batch: the contract between data and model. Images are what is seen, conversations what is said about them.

Letters: B images, R rows, T positions, N targets, K latent tokens, P image tokens, S view side, H W original size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.filters import Box
from utils.geometry import Frame, Size
from utils.side_stream import transfer

PADDING, PREFIX = -1, 0
"""Values of `Conversations.segments` for padding and for the shared prefix; branches count from 1."""

IGNORED_LABEL = -100

T = TypeVar("T")


def converted(value: T, change: Callable[[Tensor], Tensor]) -> T:
    """A dataclass of tensors, of tuples and of dataclasses of them, with every tensor changed."""

    def inner(part: Any) -> Any:
        if isinstance(part, Tensor):
            return change(part)
        if isinstance(part, tuple):
            return tuple(map(inner, part))
        return converted(part, change) if dataclasses.is_dataclass(part) else part

    fields = {field.name: inner(getattr(value, field.name)) for field in dataclasses.fields(value)}  # type: ignore[arg-type]
    return dataclasses.replace(value, **fields)  # type: ignore[type-var]


def move(value: T, device: torch.device | str, dtype: torch.dtype) -> T:
    """A dataclass of tensors, and of tuples of them, on a device; floating-point tensors also change their dtype."""
    return converted(value, partial(transfer, device=torch.device(device), dtype=dtype))


@dataclass(frozen=True, kw_only=True)
class Images:
    """B images as the two backbones take them.

    Attributes:
        sizes: (H, W) of each.
        language_pixels: (B, 3, S, S) normalized views of the language backbone, or (B, N, X) patches of views that
            differ in size, filled up with zeros.
        language_frames: where each image lies in that view; patch_valid: (B, P) false at padding patches, and behind
            the tokens of an image that has fewer than P.
        mask_pixels: (b, 3, S, S) normalized views of the mask backbone, of the images without `mask_features`, in
            order.
        mask_frames: where each image lies in that view.
        mask_features: of each image (C, G, G) as the mask backbone's encoder gave them before, or None.
        feature_keys: of each image the key of its stored features; empty where none are stored.
    """

    sizes: tuple[Size, ...]
    language_pixels: Tensor
    language_frames: tuple[Frame, ...]
    patch_valid: Tensor
    mask_pixels: Tensor
    mask_frames: tuple[Frame, ...]
    mask_features: tuple[Tensor | None, ...]
    feature_keys: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def grids(self) -> tuple[Size, ...]:
        """(rows, columns) of each image's tokens."""
        return tuple(frame.grid for frame in self.language_frames)

    @property
    def ragged(self) -> bool:
        """Whether an image has fewer than P tokens."""
        return any(frame.num_tokens < self.patch_valid.shape[1] for frame in self.language_frames)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Images:
        """Move every tensor; pixels and features also change their dtype."""
        return move(self, device, dtype)

    def pin_memory(self) -> Images:
        """See `Batch`."""
        return converted(self, Tensor.pin_memory)


@dataclass(frozen=True, kw_only=True)
class BankPositions:
    """Where the query banks of N targets stand, in reading order: by image, by row, then by position.

    Attributes:
        rows: (N,).
        columns: (N, L) of `<REAS_1>` ... `<SEG>`, K + 1 of them in a whole bank.
        counts: targets of each image; they sum to N.
        lengths: of each bank, its last columns, where banks differ in length; empty where each has all columns.
    """

    rows: Tensor
    columns: Tensor
    counts: tuple[int, ...]
    lengths: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """Token ids about B images in R rows.

    Attributes:
        input_ids: (R, T) ids, with P placeholders from column `image_start` on.
        segments: (R, T) 0 at the image prefix, 1, 2, ... at its conversations, -1 at padding.
        positions: (R, T) rotary positions, or (R, T, A) on A axes; every conversation goes on from its prefix.
        row_images: (R,) image of each row; rows are in the order of images.
        image_start: first column of the image tokens in every row.
    """

    input_ids: Tensor
    segments: Tensor
    positions: Tensor
    row_images: Tensor
    image_start: int

    def to(self, device: torch.device | str) -> Sequences:
        """Move every tensor."""
        return move(self, device, torch.float32)

    @property
    def next_positions(self) -> Tensor:
        """(R,) the rotary position that follows the last column of each row, on every axis."""
        return self.positions[:, -1].reshape(len(self.positions), -1)[:, 0] + 1

    def prefixes(self, images: int) -> Sequences:
        """The prefix alone, a row for each of so many images."""
        (columns,) = torch.nonzero(self.segments[0] == PREFIX, as_tuple=True)
        rows = torch.searchsorted(self.row_images, torch.arange(images, device=self.row_images.device))
        # Of an image without a row nothing is asked, so that any positions will do.
        rows = rows.clamp(max=len(self.positions) - 1)
        return prefix_rows(self.input_ids[0, columns], self.positions[rows][:, columns], self.image_start)

    def widened(self, columns: int) -> Sequences:
        """The same ids with so many columns of padding behind them."""
        return Sequences(
            input_ids=F.pad(self.input_ids, (0, columns)),
            segments=F.pad(self.segments, (0, columns), value=PADDING),
            positions=F.pad(self.positions, (0, 0) * (self.positions.ndim - 2) + (0, columns)),
            row_images=self.row_images,
            image_start=self.image_start,
        )


def prefix_rows(prefix: Tensor, positions: Tensor, image_start: int) -> Sequences:
    """A prefix of ids (T,) with its image tokens from a column on, as a row for each image of positions (B, T, ...)."""
    ids = prefix.expand(len(positions), -1)
    return Sequences(
        input_ids=ids,
        segments=torch.full_like(ids, PREFIX),
        positions=positions,
        row_images=torch.arange(len(positions), device=prefix.device),
        image_start=image_start,
    )


@dataclass(frozen=True, kw_only=True)
class Conversations(Sequences):
    """Packed conversations with their answers, and the truth about their targets.

    Attributes:
        labels: (R, T), -100 where not supervised.
        supervised: rows (S,) and columns (S,) of the positions that predict a supervised token.
        targets: where the targets' query banks stand.
        slots: the same for every slot: the targets, and each `<REJ>` with the K columns before it.
        masks: of each image the masks (n, H, W) of its targets, boolean.
        ignore: of each image the pixels (n, H, W) that count neither for a target nor against it, or None.
        present: of each image which of its targets have a pixel.
        boxes: of each image the box outside which all its masks are zero.
        asked_in: of each image the number of the conversation that each target is in.
        instances: of each image the objects (m, H, W) that each target's mask unites, where the data tell them apart.
    """

    labels: Tensor
    supervised: tuple[Tensor, Tensor]
    targets: BankPositions
    slots: BankPositions
    masks: tuple[Tensor, ...]
    ignore: tuple[Tensor | None, ...]
    present: tuple[tuple[int, ...], ...]
    boxes: tuple[Box, ...]
    asked_in: tuple[tuple[int, ...], ...]
    instances: tuple[tuple[Tensor, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Images, conversations about them, and the name of each image's record."""

    records: tuple[str, ...]
    images: Images
    conversations: Conversations

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Batch:
        """Move every tensor; pixels and features also change their dtype."""
        return move(self, device, dtype)

    def pin_memory(self) -> Batch:
        """The same in memory from which a GPU copies by itself; called by a `DataLoader` that pins."""
        return converted(self, Tensor.pin_memory)
