"""What every head is: query bank tokens to masks, and what it trains with besides.

Letters: B images, R rows, T positions, N targets, K latent tokens, P image tokens, D language width, C prompt width,
M low-resolution side, H W original size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from anchorseg.method.losses import MaskLoss
from anchorseg.method.options import MethodOptions
from anchorseg.method.spatial_prior import min_max, similarity
from dataset.batch import BankPositions, Images
from model.backbones import MaskBackbone
from utils.filters import Box
from utils.geometry import Size, tokens_to_map


@dataclass(frozen=True, kw_only=True)
class Prior:
    """Spatial responses of N targets.

    Attributes:
        similarity: s, (N, P).
        responses: r, (N, P) in [0, 1].
        maps: for each image the token-to-mask maps (n, H, W) of its targets, float32 in [0, 1].
        anchors: where a target has A of them, the prior of each, as of N A targets.
    """

    similarity: Tensor
    responses: Tensor
    maps: tuple[Tensor, ...]
    anchors: Prior | None = None


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """Masks of N targets in reading order.

    Attributes:
        counts: targets of each image.
        prior: the spatial prior, or None where the head computes none.
        low_resolution: (N, M, M) mask logits.
        iou: (N,) the mask backbone's own quality estimate, untrained by this method.
        masks: for each image (n, H, W) float32 mask logits; a pixel belongs to the mask where the logit is > 0.
        parts: for each image the mask logits (n, A, H, W) of each anchor, where anchors are matched with objects.
    """

    counts: tuple[int, ...]
    prior: Prior | None
    low_resolution: Tensor
    iou: Tensor
    masks: tuple[Tensor, ...]
    parts: tuple[Tensor, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ImageContext:
    """What decoding masks needs of the B images that R rows show.

    Attributes:
        images: sizes, frames and patch validity.
        row_images: (R,) image of each row.
        image_states: (R, P, D) last-layer hidden states at each row's image tokens.
        mask_features: (B, ...) features of the mask backbone.
    """

    images: Images
    row_images: Tensor
    image_states: Tensor
    mask_features: Tensor


@dataclass(frozen=True, kw_only=True)
class ImageTruth:
    """The targets of one image that have a pixel, and their truth.

    Attributes:
        image: its number.
        kept: which of the image's targets; a slice where all have a pixel.
        masks: (n, H, W) boolean.
        ignore: (n, H, W) boolean pixels to be left out, or None.
        box: outside which all masks are zero.
        asked_in: number of the conversation of each target.
        instances: the objects (m, H, W) of each target; empty where the data tell none apart.
    """

    image: int
    kept: list[int] | slice
    masks: Tensor
    ignore: Tensor | None
    box: Box
    asked_in: tuple[int, ...]
    instances: tuple[Tensor, ...]


Options = TypeVar("Options", bound=MethodOptions)


class Head(ABC, Generic[Options]):
    """From the hidden states of targets to masks.

    It is no module itself: the model registers `modules` under the names that saved weights have.

    Args:
        options: of the method, those of this head included.
        width: D.
        prompt_width: C.

    Attributes:
        modules: what has weights, by name.
    """

    modules: dict[str, nn.Module]

    @abstractmethod
    def __init__(self, options: Options, width: int, prompt_width: int) -> None:
        self.options = options
        self._widths = width, prompt_width

    @abstractmethod
    def segment(
        self, hidden: Tensor, targets: BankPositions, context: ImageContext, masks: MaskBackbone
    ) -> Segmentation:
        """Masks of at least one target.

        Args:
            hidden: (R, T, D) last-layer hidden states.
            targets: where the tokens of the N targets stand.
            context: the images.
            masks: decodes queries over features.
        """

    def nothing(self, context: ImageContext, masks: MaskBackbone) -> Segmentation:
        """What `segment` gives for no target; no layer runs, for not every CUDA kernel takes an empty batch."""
        features, side, sizes = context.mask_features, masks.low_resolution, context.images.sizes
        empty = tuple(torch.zeros(0, *size, device=features.device) for size in sizes)
        return Segmentation(
            counts=(0,) * len(sizes),
            prior=self.no_prior(context, empty),
            low_resolution=features.new_zeros(0, side, side),
            iou=features.new_zeros(0),
            masks=empty,
        )

    def no_prior(self, context: ImageContext, maps: tuple[Tensor, ...]) -> Prior | None:
        """The prior of no target."""
        return None

    def responses(self, anchors: Tensor, targets: BankPositions, context: ImageContext) -> Tensor:
        """Responses (N, P) of image tokens to anchors (N, D), which a head with a spatial prior has."""
        raise NotImplementedError

    def losses(self, segmentation: Segmentation, truth: ImageTruth, images: Images) -> dict[str, MaskLoss | Tensor]:
        """What one image's targets are trained with beside BCE and Dice of their masks, by name; a tensor (n,) is BCE
        alone."""
        return {}

    def rejected(self, count: int, size: Size, like: Tensor) -> MaskLoss | None:
        """What slots of one image that are answered by `<REJ>` add to BCE and Dice of the masks; None for nothing.

        Args:
            count: how many, at least one.
            size: of the image.
            like: on the device.
        """
        return None

    def trained(self) -> dict[str, list[nn.Parameter]]:
        """Its parameters, by name of the group."""
        return {name: list(module.parameters()) for name, module in self.modules.items()}

    def draw_new(self, dtype: torch.dtype) -> None:
        """Draw its parameters, which no published part holds."""
        width, prompt_width = self._widths
        fresh = type(self)(self.options, width, prompt_width)
        for name, module in self.modules.items():
            for own, drawn in zip(module.parameters(), fresh.modules[name].parameters(), strict=True):
                own.data = drawn.data.to(dtype)


def ground(
    anchors: Tensor, targets: BankPositions, context: ImageContext, *, valid_only: bool, float32: bool = False
) -> Prior:
    """The prior of anchors (N, D): their similarity to their images' token states (paper, Eq. 6 and 7).

    Args:
        anchors: of the N targets.
        targets: their rows, and how many each image has.
        context: the images.
        valid_only: scale responses over the patches that show the image; those of padding become 0.
        float32: compare in float32, whatever the type of the states.
    """
    scores, responses = responses_of(anchors, targets, context, valid_only=valid_only, float32=float32)
    return Prior(similarity=scores, responses=responses, maps=maps_of(responses, targets, context.images))


def maps_of(responses: Tensor, targets: BankPositions, images: Images) -> tuple[Tensor, ...]:
    """Token-to-mask maps (n, H, W) of each image's targets, of responses (N, P)."""
    return tuple(
        tokens_to_map(of_image.float(), frame, size)
        for of_image, frame, size in zip(
            responses.split(targets.counts), images.language_frames, images.sizes, strict=True
        )
    )


def responses_of(
    anchors: Tensor, targets: BankPositions, context: ImageContext, *, valid_only: bool, float32: bool
) -> tuple[Tensor, Tensor]:
    """Similarity (N, P) of anchors to their images' token states, and responses (N, P); see `ground`."""
    states = context.image_states[targets.rows]
    if float32:
        anchors, states = anchors.float(), states.float()
    scores = similarity(anchors, states)
    images = context.images
    valid = images.patch_valid[context.row_images[targets.rows]] if valid_only or images.ragged else None
    return scores, min_max(scores, valid)


def prior_of_nothing(context: ImageContext, maps: tuple[Tensor, ...]) -> Prior:
    """What `ground` gives for no target, whose maps are empty."""
    scores = context.mask_features.new_zeros(0, context.image_states.shape[1])
    return Prior(similarity=scores, responses=scores, maps=maps)


def decode(
    masks: MaskBackbone,
    features: Tensor,
    queries: Tensor,
    targets: BankPositions,
    images: Images,
    prior: Prior | None = None,
) -> Segmentation:
    """Decode query banks over conditioned features, and bring the masks to their images' sizes (paper, Eq. 8).

    Args:
        masks: the backbone.
        features: (N, ...) of each target's image, with its prior.
        queries: (N, L, C).
        targets: of the N targets.
        images: their frames and sizes.
        prior: that the features were conditioned on, for the result.
    """
    return at_image_size(masks, *masks(features, queries), targets, images, prior)


def at_image_size(
    masks: MaskBackbone,
    low_resolution: Tensor,
    iou: Tensor,
    targets: BankPositions,
    images: Images,
    prior: Prior | None = None,
) -> Segmentation:
    """The first masks of (N, m, M, M) logits and (N, m) quality estimates, brought to their images' sizes.

    Args:
        masks: the backbone that decoded them.
        low_resolution: mask logits.
        iou: quality estimates.
        targets: of the N targets.
        images: their frames and sizes.
        prior: for the result.
    """
    at_size = tuple(
        masks.to_image(of_image, frame, size)
        for of_image, frame, size in zip(
            low_resolution[:, 0].split(targets.counts), images.mask_frames, images.sizes, strict=True
        )
    )
    return Segmentation(
        counts=targets.counts, prior=prior, low_resolution=low_resolution[:, 0], iou=iou[:, 0], masks=at_size
    )
