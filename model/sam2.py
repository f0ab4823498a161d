"""SAM 2.1 for images through transformers' `Sam2Model`: image encoder, mask-prompt convolutions, mask decoder.

Letters: B images, N targets, C prompt width (256), G side of the image embedding (64), M low-resolution side (4 G).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import Sam2Model

from model.mask_tokens import MaskTokenTable
from model.sam import encode_grid, encode_points
from model.sam2_files import PUBLISHED_SIZES, PromptedSizes, Sam2Sizes, load_published, open_published
from utils.derived import Derived
from utils.errors import SettingsError
from utils.geometry import Frame, Size, map_to_prompt, stretch_masks
from utils.loading import LoadReport
from utils.tensor_files import TensorFiles

MINIATURE = Sam2Sizes(
    image_size=192,
    encoder_width=16,
    encoder_heads=1,
    blocks=(1, 1, 2, 1),
    window_sizes=(8, 4, 6, 3),
    global_attention=(3,),
    prompt_width=64,
    decoder_heads=4,
    decoder_mlp=128,
    iou_head_width=64,
)
"""The same classes, small; of every published size."""


@dataclass(frozen=True)
class Sam2Masks:
    """What the mask decoder gives: logits (N, 4, M, M), IoU estimates (N, 4), and logits (N, 1) that there is an
    object."""

    masks: Tensor
    iou: Tensor
    object_scores: Tensor


class NoPositions(nn.Module):
    """In place of the neck's encodings of positions, which only the memory of a video reads: they are as large as
    all features."""

    def forward(self, shape: torch.Size, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Nothing."""
        return torch.empty(0, device=device, dtype=dtype)


class Sam2ImageEncoder(nn.Module):
    """All that does not train and depends on the image alone, up to what the mask decoder reads.

    The 1 x 1 convolutions of both high-resolution levels are published within the mask decoder. They are here, and do
    not train, so that stored features have their 32 and 64 channels instead of the neck's 256.

    Args:
        whole: whose parts it takes.
    """

    def __init__(self, whole: Any) -> None:
        super().__init__()
        self.vision: Any = whole.vision_encoder
        self.vision.neck.position_encoding = NoPositions()
        self.conv_s0, self.conv_s1 = whole.mask_decoder.conv_s0, whole.mask_decoder.conv_s1
        del whole.mask_decoder.conv_s0, whole.mask_decoder.conv_s1
        self.no_memory_embedding = whole.no_memory_embedding

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, 4 C, G, G) of views (B, 3, S, S), see `Sam2Backbone.levels`."""
        fine, middle, coarse = self.vision(images).fpn_hidden_states
        embedding = coarse + self.no_memory_embedding.reshape(1, -1, 1, 1)
        side = embedding.shape[2:]
        levels = (embedding, self.conv_s1(middle), self.conv_s0(fine))
        return torch.cat([level.flatten(1).unflatten(1, (-1, *side)) for level in levels], dim=1)


class Sam2Backbone(MaskTokenTable, nn.Module):
    """SAM 2.1's parts, called so that one set of features serves all targets of its image, batched over images.

    SAM 3's parts are called in the same way: `model/sam3.py`.

    Args:
        sizes: of the parts.
        positions: type in which the encoding of positions is computed, float32 or that of the weights.
    """

    PUBLISHED: ClassVar[str] = "large"
    saved_as = "sam2"
    Sizes: type = Sam2Sizes
    Whole: ClassVar[Any] = Sam2Model
    # transformers collects these from a model's parts, to put each on one device.
    _no_split_modules = ["Sam2MultiScaleBlock"]

    def __init__(self, sizes: Any, positions: str = "float32") -> None:
        super().__init__()
        self.sizes = sizes
        self.view = sizes.view
        self.prompt_width, self.low_resolution = sizes.prompt_width, sizes.low_resolution
        self.feature_shape = (4 * sizes.prompt_width, sizes.grid, sizes.grid)
        self.positions = positions
        self._grid_encoding = Derived()
        whole = self.Whole(sizes.config())
        self.image_encoder: Any = Sam2ImageEncoder(whole)
        self.prompt_encoder: Any = whole.prompt_encoder
        self.mask_decoder: Any = whole.mask_decoder
        # Added to the four mask tokens, as in `SamBackbone`.
        self.mask_token_positions = nn.Parameter(self._drawn_positions())

    @classmethod
    def preset(cls, size: str) -> PromptedSizes:
        """The published size with every published size, and a small one of the same classes."""
        return MINIATURE if size in ("tiny", "mini") else PUBLISHED_SIZES[cls.PUBLISHED]

    @staticmethod
    def published_sizes(name: str) -> PromptedSizes:
        """See `MaskBackbone`; SAM's sizes have no meaning here."""
        raise SettingsError(
            f"--sam_model {name} is a size of SAM, which SAM 2.1 does not have; use --sam_model preset, and choose the "
            f"size by --mask_model sam2.1-NAME: {', '.join(PUBLISHED_SIZES)}"
        )

    @staticmethod
    def open_published(path: Path, sizes: Any) -> TensorFiles:
        """See `MaskBackbone`."""
        return open_published(path, sizes)

    def load_published(self, files: TensorFiles, dtype: torch.dtype) -> LoadReport:
        """See `MaskBackbone`."""
        return load_published(self, files, dtype)

    def image_features(self, images: Tensor) -> Tensor:
        """Encode (B, 3, S, S) normalized SAM 2 views to (B, 4 C, G, G), all levels of an image as one tensor."""
        return self.image_encoder(images)

    def levels(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Views of features (N, 4 C, G, G): embedding (N, C, G, G), then (N, C / 4, 2 G, 2 G), (N, C / 8, 4 G, 4 G).

        The first C channels are the embedding, the next C hold the second level, the last 2 C the third.
        """
        width, side = self.prompt_width, self.sizes.grid
        embedding, middle, fine = features.split([width, width, 2 * width], dim=1)
        count = len(features)
        return (
            embedding,
            middle.view(count, width // 4, 2 * side, 2 * side),
            fine.view(count, width // 8, 4 * side, 4 * side),
        )

    def condition(self, features: Tensor, maps: Sequence[Tensor] | None) -> Tensor:
        """Add the priors to the embedding of features (N, 4 C, G, G), element-wise, as SAM 2 adds its mask prompts."""
        if maps is None:
            prior = self._no_prior_features()
        else:
            side = self.low_resolution
            prompts = torch.cat([map_to_prompt(of_image, side, padded=False) for of_image in maps])
            prior = self.prompt_encoder.mask_embed(prompts.to(features.dtype))
        embedding, high = features.split([self.prompt_width, 3 * self.prompt_width], dim=1)
        return torch.cat([embedding + prior, high], dim=1)

    def _no_prior_features(self) -> Tensor:
        """SAM 2's own embedding for "no mask prompt", (1, C, 1, 1)."""
        # Called and not read, as in `SamBackbone.no_prior_features`.
        index = self._matrix().new_zeros(1, dtype=torch.long)
        return self.prompt_encoder.no_mask_embed(index).reshape(1, -1, 1, 1)

    def _matrix(self) -> Tensor:
        return self.prompt_encoder.shared_embedding.positional_embedding

    def _precise(self, matrix: Tensor) -> Tensor:
        return matrix.float() if self.positions == "float32" else matrix

    def point_prompts(self, points: Tensor, labels: Tensor) -> Tensor:
        """SAM 2's prompts (n, P + 1, C) for points (n, P, 2); as without a box, one that is no point comes last."""
        encoder, matrix = self.prompt_encoder, self._matrix()
        # Called and not read, as in `SamBackbone.no_prior_features`.
        negative, positive = encoder.point_embed(torch.arange(2, device=labels.device)).split(1)
        neither = encoder.not_a_point_embed(labels.new_zeros(1))
        return encode_points(
            points, labels, self.sizes.image_size, self._precise(matrix), (negative, positive, neither)
        )

    def position_encoding(self) -> Tensor:
        """SAM 2's encoding of the embedding's positions, (1, C, G, G), in the type that was chosen."""
        return self._grid_encoding.get(
            lambda matrix: encode_grid(self._precise(matrix), self.sizes.grid), self._matrix()
        )

    def forward(self, features: Tensor, queries: Tensor, *, multimask: bool = False) -> tuple[Tensor, Tensor]:
        """Decode masks from conditioned features and the query bank (paper, Eq. 8).

        Without `multimask` it is always mask token 0, in training and afterwards: the other tokens, which `Sam2Model`
        falls back to where a mask is not stable, do not train here.

        Args:
            features: (N, 4 C, G, G) features of each target's image, with its prior.
            queries: (N, L, C) ordered query bank.
            multimask: give SAM 2's three alternative masks instead of mask token 0.

        Returns:
            (N, m, M, M) mask logits and (N, m) IoU estimates; m is 1, or 3 with `multimask`.
        """
        chosen = slice(1, None) if multimask else slice(0, 1)
        decoded = self.decode(features, queries)
        return decoded.masks[:, chosen], decoded.iou[:, chosen]

    def decode(self, features: Tensor, queries: Tensor) -> Sam2Masks:
        """Masks of all four mask tokens, and the object's score; see `forward`.

        `Sam2MaskDecoder` has no place for `mask_token_positions`; its layers are called here instead. Nothing is
        written to them, so that threads may share them.
        """
        count, side = len(queries), self.low_resolution
        if count == 0:
            shapes = ((0, self.NUM_MASK_TOKENS, side, side), (0, self.NUM_MASK_TOKENS), (0, 1))
            return Sam2Masks(*(queries.new_zeros(shape) for shape in shapes))
        decoder = self.mask_decoder
        embedding, middle, fine = self.levels(features)
        mask_tokens = decoder.mask_tokens.weight + self.mask_token_positions
        own = torch.cat([decoder.obj_score_token.weight, decoder.iou_token.weight, mask_tokens])
        # transformers counts the targets of an image in a second dimension; here each target has its own features.
        tokens = torch.cat([own.expand(count, -1, -1), queries], dim=1).unsqueeze(1)
        states, image = decoder.transformer(tokens, embedding, self.position_encoding().to(features.dtype), None)
        states, image = states.squeeze(1), image.squeeze(1).mT.unflatten(2, embedding.shape[2:])
        upscaled = decoder.activation(decoder.upscale_layer_norm(decoder.upscale_conv1(image) + middle))
        upscaled = decoder.activation(decoder.upscale_conv2(upscaled) + fine)
        # Before the mask tokens stand those of the object's score and of the IoU.
        of_masks = states[:, 2 : 2 + self.NUM_MASK_TOKENS].unbind(dim=1)
        networks = zip(decoder.output_hypernetworks_mlps, of_masks, strict=True)
        weights = torch.stack([network(state) for network, state in networks], dim=1)
        return Sam2Masks(
            masks=(weights @ upscaled.flatten(2)).unflatten(2, (side, side)),
            iou=decoder.iou_prediction_head(states[:, 1]),
            object_scores=decoder.pred_obj_score_head(states[:, 0]),
        )

    def to_image(self, low_resolution: Tensor, frame: Frame, size: Size) -> Tensor:
        """See `MaskBackbone`."""
        return stretch_masks(low_resolution, size)


class Sam2BasePlus(Sam2Backbone):
    """Hiera-B+."""

    PUBLISHED = "base-plus"


class Sam2Small(Sam2Backbone):
    """Hiera-S."""

    PUBLISHED = "small"


class Sam2Tiny(Sam2Backbone):
    """Hiera-T."""

    PUBLISHED = "tiny"
