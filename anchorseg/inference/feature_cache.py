"""Feature cache: SAM's frozen encoder runs once for each image, and its features are kept in a `FeatureStore`.

The collator takes what is stored; here the other images are encoded and stored, one by one, so that features are a
function of the image alone. Entries are never deleted for room: images are drawn uniformly, so what is there is as
likely to be wanted as what would replace it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from dataset.batch import Images
from dataset.feature_store import DamagedEntryError, FeatureStore, Usage, measure, remove_leftovers
from model.backbones import MaskBackbone
from utils.distributed import all_gather_objects, is_main, world_size
from utils.progress import Bar

_FORMAT = 2
"""To be raised with every change of how views are normalized and padded, or of the entries, so that old ones are not
found; the pixels of a view are in the digest themselves."""

_MOST_NAMED = 10
"""Dropped entries that a rank names; more are only counted."""


def encoder_digest(masks: MaskBackbone) -> str:
    """Digest of what features depend on beside the image: the encoder's weights and sizes, and the view's pixels.

    Not of how they are computed: device, `--compile_sam` and library versions change their last bits.
    """
    described = (_FORMAT, *masks.view.described, sorted(asdict(masks.sizes).items()))
    digest = hashlib.sha256(str(described).encode())
    for name, value in masks.image_encoder.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:32]


def open_store(masks: MaskBackbone, root: Path) -> FeatureStore:
    """The store of an encoder's features, in the dtype of its weights."""
    dtype = next(masks.image_encoder.parameters()).dtype
    return FeatureStore(root / encoder_digest(masks), masks.feature_shape, dtype)


class FeatureCache:
    """Gives every image its SAM features.

    All ranks make one together, which prints what is there, and call `say` and `finish` together.

    Args:
        masks: whose encoder does not change any more.
        root: folder of all stores.
        gigabytes: size of that folder, in 10^9 bytes, from which on nothing is stored; each rank has an equal share of
            what is free at the start.
    """

    def __init__(self, masks: MaskBackbone, root: str, gigabytes: float) -> None:
        self.store = open_store(masks, Path(root))
        self._masks = masks
        self._root = Path(root)
        self._gigabytes = gigabytes
        self._counts: Counter[str] = Counter()
        self._stores = True
        self._news: list[str] = []
        self._said: set[str] = set()
        if is_main():
            remove_leftovers(self._root)
        usage = self._usage()
        self._room = (gigabytes * 1e9 - usage.total_bytes) / world_size()
        self._report(usage)

    @torch.no_grad()
    def fill(self, images: Images) -> tuple[Images, float]:
        """The images with the features of all, and the share of them that was not encoded for it.

        Args:
            images: on the encoder's device, made by a collator with this cache's store.
        """
        assert all(images.feature_keys), "the collator has no store"
        views = iter(images.mask_pixels)
        encoded = self._counts["encoded"]
        features = tuple(
            self._find_or_make(key, next(views)) if stored is None else stored
            for key, stored in zip(images.feature_keys, images.mask_features, strict=True)
        )
        self._counts["images"] += len(features)
        hits = 1 - (self._counts["encoded"] - encoded) / len(features)
        return replace(images, mask_pixels=images.mask_pixels[:0], mask_features=features), hits

    def _find_or_make(self, key: str, view: Tensor) -> Tensor:
        # A worker looked some batches ago; and what it found damaged is dropped here, where it can be said.
        try:
            stored = self.store.read(key)
        except DamagedEntryError as error:
            stored = None
            self._drop(key, str(error))
        if stored is not None:
            return stored.to(view.device)
        made = self._masks.image_features(view.unsqueeze(0))[0]
        self._counts["encoded"] += 1
        self._keep(key, made)
        return made

    def _drop(self, key: str, reason: str) -> None:
        self._counts["dropped"] += 1
        if self._counts["dropped"] <= _MOST_NAMED:
            self._news.append(f"feature cache: {self.store.path(key)} is dropped: {reason}; it is made again")
        try:
            self._room += self.store.drop(key)
        except OSError as error:
            self._close(f"{self.store.path(key)} cannot be deleted ({error.strerror}); mend its permissions")

    def _keep(self, key: str, features: Tensor) -> None:
        if self._stores and self._room < self.store.entry_bytes:
            self._close(
                f"--cache_gigabytes {self._gigabytes:g} of {self._root} are used up; give more, or delete the folders "
                f"beside {self.store.folder.name}, which hold the features of other weights"
            )
        if self._stores:
            try:
                self._room -= self.store.write(key, features)
                return
            except OSError as error:
                self._close(f"{self.store.folder} cannot be written ({error.strerror}); make room on its disk")
        self._counts["not stored"] += 1

    def _close(self, why: str) -> None:
        self._stores = False
        self._news.append(
            f"feature cache: {why}. The run goes on, but stores nothing more: other images are encoded each time"
        )

    def say(self) -> None:
        """Print what any rank has to say, each sentence once."""
        for sentence in (sentence for part in all_gather_objects(self._news) for sentence in part):
            if is_main() and sentence not in self._said:
                Bar.write(sentence)
            self._said.add(sentence)
        self._news = []

    def _report(self, usage: Usage) -> None:
        """Print what is stored and, after a run, what it was good for."""
        counts = sum(all_gather_objects(self._counts), Counter())
        text = (
            f"feature cache {self.store.folder}: {usage.images} images of {self.store.entry_bytes / 1e6:.2f} MB; "
            f"the folder holds {usage.total_bytes / 1e9:.3g} of {self._gigabytes:g} GB"
        )
        if counts["images"]:
            text += (
                f"; {1 - counts['encoded'] / counts['images']:.1%} of {counts['images']} images were found, "
                f"{counts['dropped']} entries dropped, {counts['not stored']} images not stored"
            )
        if is_main():
            Bar.write(text)

    def finish(self) -> None:
        """Print what is still to be said, and the report of the run."""
        self.say()
        self._report(self._usage())

    def _usage(self) -> Usage:
        # Once, so that all ranks agree.
        (usage, *_) = all_gather_objects(measure(self._root, self.store) if is_main() else None)
        assert usage is not None
        return usage


def open_cache(masks: MaskBackbone, root: str | None, gigabytes: float) -> FeatureCache | None:
    """The cache of `--cache_features` and `--cache_gigabytes`, or None."""
    return None if root is None else FeatureCache(masks, root, gigabytes)
