"""Batches from a file's rawest inputs: images as they were photographed, ids as they were tokenized.

The real collator makes views, positions and padding; only the ids come from the file instead of from text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from anchorseg.method.modeling import AnchorSegModel
from dataset.batch import IGNORED_LABEL, Batch
from dataset.collator import Collator
from dataset.prompt import Branch, Slot
from dataset.sample import Conversation, Sample, TargetSlot, Turn
from model.backbones import language_backbone
from model.network_backbone import IMAGE_PLACEHOLDER
from tests.parity.reference import Fixture
from tests.parity.samples import ReferenceFileError
from utils.geometry import ImageView


@dataclass(frozen=True)
class Inputs:
    """What a forward pass starts from: images, ids and labels of conversations, and the images' masks.

    Attributes:
        images: each (H, W, 3) uint8.
        input_ids: (R, T), the image one placeholder, padded with 0; `labels` alike.
        offset: (B + 1,), rows of image i are offset[i] up to offset[i + 1].
        masks: each (n, H, W).
    """

    images: list[np.ndarray]
    input_ids: np.ndarray
    labels: np.ndarray
    offset: list[int]
    masks: list[np.ndarray]


def read_inputs(fixture: Fixture) -> Inputs:
    """The inputs of a forward_* file."""
    offset = fixture.input("in.offset").tolist()
    images = range(len(offset) - 1)
    return Inputs(
        images=[fixture.input(f"in.raw_image.{image}") for image in images],
        input_ids=fixture.input("in.input_ids"),
        labels=fixture.input("in.labels"),
        offset=offset,
        masks=[fixture.input(f"in.masks_list.{image}") for image in images],
    )


class _Rows:
    """Stands where the prompt encoder stands: conversation i of the file's ids, cut behind the image."""

    def __init__(self, inputs: Inputs, model: AnchorSegModel) -> None:
        self.inputs = inputs
        self.segment_id: int = model.config.token_ids["segment"]
        self.slot_ids = (self.segment_id, model.config.token_ids["reject"])
        places = [row.tolist().index(IMAGE_PLACEHOLDER) for row in inputs.input_ids]
        # The image is followed by <im_end>; what comes then is a conversation's own.
        prefixes = {tuple(row[: place + 2].tolist()) for row, place in zip(inputs.input_ids, places, strict=True)}
        if len(prefixes) != 1:
            raise ReferenceFileError("its conversations begin differently before the image; one prefix is expected")
        self.place, self.cut = places[0], places[0] + 2
        (prefix,) = prefixes
        self.image_start, self.bank_length = self.place, model.method.bank_size
        self._before, self._behind = prefix[: self.place], prefix[self.place + 1 :]

    def prefix(self, columns: int) -> tuple[int, ...]:
        """Ids up to the image's end, with so many columns of image tokens."""
        return (*self._before, *[IMAGE_PLACEHOLDER] * columns, *self._behind)

    def slots(self, image: int) -> list[list[TargetSlot]]:
        """Targets of each conversation of an image, with the masks that belong to them."""
        first, last = self.inputs.offset[image : image + 2]
        ids = self.inputs.input_ids[first:last]
        kinds = [index for row in ids for index in row.tolist() if index in self.slot_ids]
        wanted = [index == self.segment_id for index in kinds]
        places = iter(_mask_places(self.inputs.masks[image], wanted))
        return [[TargetSlot(next(places)) for _ in range(int((row == self.segment_id).sum()))] for row in ids]

    def sample(self, image: int) -> Sample:
        """An image with its conversations, each named by its row."""
        first = self.inputs.offset[image]
        conversations = tuple(
            Conversation((Turn(str(first + index), tuple(slots)),)) for index, slots in enumerate(self.slots(image))
        )
        return Sample(
            record=f"image {image}",
            image=self.inputs.images[image],
            conversations=conversations,
            masks=self.inputs.masks[image].astype(bool),
        )

    def branch(self, conversation: Conversation, record: str) -> Branch:
        """Ids and labels of a conversation behind the image."""
        row = int(conversation.turns[0].question)
        ids, labels = self.inputs.input_ids[row], self.inputs.labels[row]
        end = int(np.flatnonzero(ids)[-1]) + 1
        supervised = tuple((labels[self.cut : end] != IGNORED_LABEL).tolist())
        own = ids[self.cut : end].tolist()
        masks = iter(conversation.targets)
        slots = tuple(
            Slot(place, next(masks).mask if index == self.segment_id else None, self.bank_length)
            for place, index in enumerate(own)
            if index in self.slot_ids
        )
        return Branch(tuple(own), supervised, slots)


def _mask_places(masks: np.ndarray, wanted: Sequence[bool]) -> list[int]:
    """Which mask each target has, given which of the slots <SEG> and <REJ> are targets.

    Masks stand for all slots, or for the targets alone, or the surplus ones are empty and dropped.
    """
    targets = [slot for slot, is_target in enumerate(wanted) if is_target]
    if len(masks) == len(wanted):
        return targets
    if len(masks) in (0, len(targets)):
        return list(range(len(masks)))
    present = [index for index, mask in enumerate(masks) if mask.any()]
    if len(present) == len(targets):
        return present
    raise ReferenceFileError(f"{len(masks)} masks do not fit {len(targets)} targets among {len(wanted)} slots")


def image_views(model: AnchorSegModel) -> tuple[ImageView, ImageView]:
    """The views of the released models: SAM's statistics for both."""
    language = language_backbone(model.config.language_model)
    return language.view(model.config.language_config, "sam"), model.config.mask_view


def make_batch(inputs: Inputs, model: AnchorSegModel, *, share_prefix: bool) -> Batch:
    """Collate the inputs.

    Args:
        inputs: of one file.
        model: says sizes and token ids.
        share_prefix: one row for all conversations of an image instead of one for each.
    """
    rows = _Rows(inputs, model)
    collator = Collator(rows, *image_views(model), share_prefix=share_prefix)  # type: ignore[arg-type]
    return collator([rows.sample(image) for image, _ in enumerate(pairwise(inputs.offset))])


def collapse(batch: Batch, values: Tensor) -> Tensor:
    """(R, T) with the image as one position, as the files hold ids."""
    is_image = batch.conversations.input_ids == IMAGE_PLACEHOLDER
    first = is_image & ~is_image.roll(1, dims=1)
    return torch.stack([row[keep] for row, keep in zip(values, ~is_image | first, strict=True)])
