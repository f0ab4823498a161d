"""SAM through the segment-anything package: image encoder, mask-prompt convolutions, mask decoder.

Letters: B images, N targets, C prompt width (256), G side of the feature grid (64), M low-resolution side (4 G).
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
import types
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from model.mask_tokens import MaskTokenTable
from model.sam_attention import SamAttention
from model.sam_files import PUBLISHED_SIZES, SamSizes, check_size, load_published
from model.sam_patches import PatchProjection
from utils.derived import Derived
from utils.geometry import Frame, Size, map_to_prompt, upscale_masks
from utils.loading import LoadReport
from utils.tensor_files import TensorFiles


def load_modeling() -> ModuleType:
    """Import `segment_anything.modeling` without the package's `__init__`, which needs torchvision."""
    if "segment_anything" in sys.modules:
        return importlib.import_module("segment_anything.modeling")
    spec = importlib.util.find_spec("segment_anything")
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError("segment-anything is not installed; run: pip install -r requirements.txt")
    parent = types.ModuleType("segment_anything")
    parent.__path__ = list(spec.submodule_search_locations)
    sys.modules["segment_anything"] = parent
    try:
        return importlib.import_module("segment_anything.modeling")
    finally:
        del sys.modules["segment_anything"]


_sam = load_modeling()


def encode_places(places: Tensor, matrix: Tensor) -> Tensor:
    """SAM's encoding (..., C) of places (..., 2), x and y in [-1, 1], by its random matrix (2, C / 2)."""
    angles = 2 * math.pi * (places @ matrix)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def encode_points(
    points: Tensor, labels: Tensor, side: int, matrix: Tensor, tables: tuple[Tensor, Tensor, Tensor]
) -> Tensor:
    """SAM's prompts (n, P + 1, C) for points; one that is no point comes last, as where no box is given.

    Args:
        points: (n, P, 2) x and y in pixels of the view.
        labels: (n, P) 1 positive, 0 negative, -1 neither.
        side: of the view.
        matrix: of `encode_places`, in the type to compute in.
        tables: embeddings (1, C) of a negative point, of a positive one, and of none, in the type of the result.
    """
    negative, positive, neither = tables
    places = encode_places(2 * (points.to(matrix.dtype) + 0.5) / side - 1, matrix).to(neither.dtype)
    is_point, is_positive = (labels >= 0).unsqueeze(2), (labels == 1).unsqueeze(2)
    prompts = torch.where(is_point, places + torch.where(is_positive, positive, negative), neither)
    return torch.cat([prompts, neither.expand(len(points), 1, -1)], dim=1)


def encode_grid(matrix: Tensor, side: int) -> Tensor:
    """SAM's encoding (1, C, S, S) of the centres of a grid's cells, in the type of its matrix."""
    centres = (torch.arange(side, device=matrix.device, dtype=matrix.dtype) + 0.5) / side
    centres = 2 * centres - 1
    columns_and_rows = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), dim=-1)
    return encode_places(columns_and_rows, matrix).permute(2, 0, 1).unsqueeze(0)


_TINY = SamSizes(
    image_size=192,
    patch_size=12,
    encoder_width=64,
    encoder_depth=2,
    encoder_heads=2,
    global_attention=(1,),
    window_size=8,
    prompt_width=64,
    mask_channels=16,
    decoder_heads=4,
    decoder_mlp=128,
    iou_head_width=64,
)
_MINI = replace(_TINY, encoder_depth=3, global_attention=(2,))
SIZES = {"tiny": _TINY, "mini": _MINI}


def _image_encoder(sizes: SamSizes) -> nn.Module:
    encoder = _sam.ImageEncoderViT(
        img_size=sizes.image_size,
        patch_size=sizes.patch_size,
        embed_dim=sizes.encoder_width,
        depth=sizes.encoder_depth,
        num_heads=sizes.encoder_heads,
        mlp_ratio=4,
        out_chans=sizes.prompt_width,
        qkv_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=sizes.window_size,
        global_attn_indexes=sizes.global_attention,
    )
    encoder.patch_embed.proj = PatchProjection(encoder.patch_embed.proj)
    for block in encoder.blocks:
        # Windows are the attention's own; for a block that has none, all attention is over the whole grid.
        block.attn, block.window_size = SamAttention(block.attn, block.window_size), 0
    return encoder


def _prompt_encoder(sizes: SamSizes) -> nn.Module:
    return _sam.PromptEncoder(
        embed_dim=sizes.prompt_width,
        image_embedding_size=(sizes.grid, sizes.grid),
        input_image_size=(sizes.image_size, sizes.image_size),
        mask_in_chans=sizes.mask_channels,
    )


def _mask_decoder(sizes: SamSizes) -> nn.Module:
    transformer = _sam.TwoWayTransformer(
        depth=sizes.decoder_depth,
        embedding_dim=sizes.prompt_width,
        mlp_dim=sizes.decoder_mlp,
        num_heads=sizes.decoder_heads,
    )
    return _sam.MaskDecoder(
        num_multimask_outputs=3,
        transformer=transformer,
        transformer_dim=sizes.prompt_width,
        iou_head_depth=3,
        iou_head_hidden_dim=sizes.iou_head_width,
    )


class SamBackbone(MaskTokenTable, nn.Module):
    """SAM's parts, called so that one feature map serves all targets of its image, batched over images.

    Args:
        sizes: of the parts.
        positions: type in which the encoding of positions is computed, float32 or that of the weights.
    """

    saved_as = "sam"
    Sizes = SamSizes

    def __init__(self, sizes: SamSizes, positions: str = "float32") -> None:
        super().__init__()
        self.sizes = sizes
        self.view = sizes.view
        self.prompt_width, self.low_resolution = sizes.prompt_width, sizes.low_resolution
        self.feature_shape = (sizes.prompt_width, sizes.grid, sizes.grid)
        self.positions = positions
        self._grid_encoding = Derived()
        self.image_encoder: Any = _image_encoder(sizes)
        self.prompt_encoder: Any = _prompt_encoder(sizes)
        self.mask_decoder: Any = _mask_decoder(sizes)
        # Added to the four mask tokens, not to the IoU token (method: released `positional_embedding`).
        self.mask_token_positions = nn.Parameter(self._drawn_positions())

    @staticmethod
    def preset(size: str) -> SamSizes:
        """ViT-H with every published size, and two small ones of the same classes."""
        return SIZES.get(size, SamSizes())

    @staticmethod
    def published_sizes(name: str) -> SamSizes:
        """See `MaskBackbone`."""
        return PUBLISHED_SIZES[name]

    @staticmethod
    def open_published(path: Path, sizes: SamSizes) -> TensorFiles:
        """See `MaskBackbone`."""
        files = TensorFiles(path)
        check_size(files, sizes)
        return files

    def load_published(self, files: TensorFiles, dtype: torch.dtype) -> LoadReport:
        """See `MaskBackbone`."""
        return load_published(self, files, dtype)

    def condition(self, features: Tensor, maps: Sequence[Tensor] | None) -> Tensor:
        """Add the priors to features (N, C, G, G), element-wise, as SAM adds its mask prompts."""
        if maps is None:
            return features + self.no_prior_features(len(features))
        prompts = torch.cat([map_to_prompt(of_image, self.low_resolution) for of_image in maps])
        return features + self.prior_features(prompts.to(features.dtype))

    def to_image(self, low_resolution: Tensor, frame: Frame, size: Size) -> Tensor:
        """See `MaskBackbone`."""
        return upscale_masks(low_resolution, frame, size)

    def image_features(self, images: Tensor) -> Tensor:
        """Encode (B, 3, S, S) normalized and padded SAM views to (B, C, G, G)."""
        return self.image_encoder(images)

    def prior_features(self, prompts: Tensor) -> Tensor:
        """Map (N, 1, M, M) token-to-mask maps in [0, 1] to (N, C, G, G) by the mask-prompt convolutions."""
        return self.prompt_encoder.mask_downscaling(prompts)

    def no_prior_features(self, count: int) -> Tensor:
        """SAM's own embedding for "no mask prompt", (count, C, G, G)."""
        # Called and not read, for ZeRO stage 3 gathers a layer's weight for its call.
        index = self.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.new_zeros(1, dtype=torch.long)
        embedding = self.prompt_encoder.no_mask_embed(index).reshape(1, -1, 1, 1)
        return embedding.expand(count, -1, self.sizes.grid, self.sizes.grid)

    def point_prompts(self, points: Tensor, labels: Tensor) -> Tensor:
        """SAM's prompts (n, P + 1, C) for points (n, P, 2); as without a box, one that is no point comes last."""
        encoder = self.prompt_encoder
        weight = encoder.pe_layer.positional_encoding_gaussian_matrix
        matrix = weight.float() if self.positions == "float32" else weight
        # Called and not read, as in `no_prior_features`.
        index = labels.new_zeros(1)
        negative, positive = (table(index) for table in encoder.point_embeddings[:2])
        neither = encoder.not_a_point_embed(index)
        return encode_points(points, labels, self.sizes.image_size, matrix, (negative, positive, neither))

    def position_encoding(self) -> Tensor:
        """SAM's encoding of the grid's positions, (1, C, G, G), in the type that was chosen."""
        return self._grid_encoding.get(
            self._encode_grid, self.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
        )

    def _encode_grid(self, matrix: Tensor) -> Tensor:
        return encode_grid(matrix.float() if self.positions == "float32" else matrix, self.sizes.grid)

    def forward(self, features: Tensor, queries: Tensor, *, multimask: bool = False) -> tuple[Tensor, Tensor]:
        """Decode masks from conditioned features and the query bank (paper, Eq. 8).

        SAM's own decoder repeats one image for all prompts, and has no place for `mask_token_positions`; its layers are
        called here instead, with the features of each target. Nothing is written to them, so that threads may share
        them. This is the module's call, for ZeRO stage 3 gathers what is read here, for a call and for its backward
        pass.

        Args:
            features: (N, C, G, G) image features of each target's image plus its prior.
            queries: (N, L, C) ordered query bank.
            multimask: give SAM's three alternative masks instead of mask token 0.

        Returns:
            (N, m, M, M) mask logits and (N, m) IoU estimates; m is 1, or 3 with `multimask`.
        """
        if len(queries) == 0:
            side = self.sizes.low_resolution
            count = 3 if multimask else 1
            return queries.new_zeros(0, count, side, side), queries.new_zeros(0, count)
        decoder = self.mask_decoder
        own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight + self.mask_token_positions])
        tokens = torch.cat([own.expand(len(queries), -1, -1), queries], dim=1)
        positions = self.position_encoding().to(features.dtype).expand_as(features)
        states, image = decoder.transformer(features, positions, tokens)
        upscaled = decoder.output_upscaling(image.mT.unflatten(2, features.shape[2:]))
        # The IoU token stands before the mask tokens.
        of_masks = states[:, 1 : 1 + self.NUM_MASK_TOKENS].unbind(dim=1)
        networks = zip(decoder.output_hypernetworks_mlps, of_masks, strict=True)
        weights = torch.stack([network(state) for network, state in networks], dim=1)
        masks = (weights @ upscaled.flatten(2)).unflatten(2, upscaled.shape[2:])
        chosen = slice(1, None) if multimask else slice(0, 1)
        return masks[:, chosen], decoder.iou_prediction_head(states[:, 0])[:, chosen]
