"""PixelLM's light decoder: CLIP's features of two layers, decoded at two scales.

Letters: B images, N targets, L scales (2), C prompt width, G side of the feature grid, W width of the language model.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.sam import encode_grid, load_modeling

SCALES = 2
MASK_TOKENS = 4
"""As SAM's decoder has; the first of its masks is taken."""


def feature_neck(width: int, prompt_width: int) -> nn.Sequential:
    """Projected features of one layer (B, W, G, G) to (B, C, G, G)."""
    norm = load_modeling().image_encoder.LayerNorm2d
    return nn.Sequential(
        nn.Conv2d(width, prompt_width, kernel_size=1, bias=False),
        norm(prompt_width),
        nn.Conv2d(prompt_width, prompt_width, kernel_size=3, padding=1, bias=False),
        norm(prompt_width),
    )


class PixelDecoder(nn.Module):
    """For each scale a two-way transformer as SAM's; the mask of the first scale weighs the features of the second.

    Args:
        prompt_width: C.
        heads: of the transformers.
        mlp: width of their MLP.
        trained_weights: let the weights of the scales train; otherwise each is 1 / L, as in the published code.
    """

    def __init__(self, prompt_width: int, *, heads: int, mlp: int, trained_weights: bool) -> None:
        super().__init__()
        sam = load_modeling()
        self.transformer = nn.ModuleList(
            sam.TwoWayTransformer(depth=2, embedding_dim=prompt_width, mlp_dim=mlp, num_heads=heads)
            for _ in range(SCALES)
        )
        self.level_embed = nn.Embedding(SCALES, prompt_width)
        self.iou_token = nn.Embedding(1, prompt_width)
        self.mask_tokens = nn.Embedding(MASK_TOKENS, prompt_width)
        self.no_mask_embed = nn.Embedding(1, prompt_width)
        places = sam.prompt_encoder.PositionEmbeddingRandom
        self.positions: Any = nn.ModuleList(places(prompt_width // 2) for _ in range(SCALES))
        norm, narrow = sam.image_encoder.LayerNorm2d, prompt_width // 8
        self.upsample_2x = nn.Sequential(
            nn.ConvTranspose2d(prompt_width, prompt_width, kernel_size=2, stride=2), norm(prompt_width), nn.GELU()
        )
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(prompt_width, narrow, kernel_size=2, stride=2), norm(narrow), nn.GELU()
        )
        mlp_of = sam.mask_decoder.MLP
        self.output_hypernetworks_mlps = nn.ModuleList(
            mlp_of(prompt_width, prompt_width, narrow, 3) for _ in range(MASK_TOKENS)
        )
        self.iou_prediction_head = mlp_of(prompt_width, prompt_width, MASK_TOKENS, 3)
        weights = torch.full((SCALES,), 1 / SCALES)
        self.scale_weights = nn.Parameter(weights, requires_grad=trained_weights)

    def forward(self, features: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Decode the masks of N targets.

        Args:
            features: (N, L, C, G, G) of each target's image.
            queries: (N, L, C), one for each scale.

        Returns:
            (N, 1, 4 G, 4 G) mask logits and (N, 1) IoU estimates of the last scale.
        """
        low, _ = self.scale(0, features[:, 0], queries[:, :1])
        doubled = self.upsample_2x(features[:, 1]) * (low.sigmoid() + 1)
        high, iou = self.scale(1, doubled, queries[:, 1:])
        wide = F.interpolate(low.float(), high.shape[2:], mode="bilinear", align_corners=False).to(low.dtype)
        return self.scale_weights[0] * wide + self.scale_weights[1] * high, iou

    def scale(self, level: int, features: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """One scale: features (N, C, S, S) and queries (N, 1, C) to logits (N, 1, 2 S, 2 S) and estimates (N, 1)."""
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([own.expand(len(query), -1, -1), query], dim=1) + self.level_embed.weight[level]
        image = features + self.no_mask_embed.weight.reshape(1, -1, 1, 1)
        matrix = self.positions[level].positional_encoding_gaussian_matrix
        positions = encode_grid(matrix.float(), image.shape[2]).to(image.dtype)
        states, source = self.transformer[level](image, positions.expand_as(image), tokens)
        upscaled = self.output_upscaling(source.mT.unflatten(2, image.shape[2:]))
        weights = self.output_hypernetworks_mlps[0](states[:, 1:2])
        masks = (weights @ upscaled.flatten(2)).unflatten(2, upscaled.shape[2:])
        return masks, self.iou_prediction_head(states[:, 0])[:, :1]
