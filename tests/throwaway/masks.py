"""A mask backbone of one file: a strided convolution, and queries that score its channels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from utils.geometry import PaddedView, map_to_prompt, upscale_masks


@dataclass(frozen=True, kw_only=True)
class ConvSizes:
    side: int = 64
    width: int = 24

    @property
    def view(self):
        return PaddedView(side=self.side, grid=self.side // 4, mean=(128.0,) * 3, std=(64.0,) * 3)


class ConvBackbone(nn.Module):
    saved_as = "conv"
    Sizes = ConvSizes

    def __init__(self, sizes, positions="float32"):
        super().__init__()
        self.sizes, self.view = sizes, sizes.view
        self.prompt_width, self.low_resolution = sizes.width, sizes.side // 4
        self.feature_shape = (sizes.width, self.low_resolution, self.low_resolution)
        self.image_encoder = nn.Conv2d(3, sizes.width, 4, stride=4)
        self.mix = nn.Conv2d(sizes.width, sizes.width, 3, padding=1)
        self.iou = nn.Linear(sizes.width, 1)

    @staticmethod
    def preset(size):
        return ConvSizes()

    def image_features(self, pixels):
        return self.image_encoder(pixels)

    def condition(self, features, maps):
        if maps is None:
            return features
        return features + torch.cat([map_to_prompt(of_image, self.low_resolution) for of_image in maps])

    def forward(self, features, queries):
        masks = torch.einsum("nlc,nchw->nhw", queries, F.gelu(self.mix(features)))
        return masks.unsqueeze(1), self.iou(queries.mean(dim=1))

    def to_image(self, low_resolution, frame, size):
        return upscale_masks(low_resolution, frame, size)

    def trained(self):
        return {"mask decoder": [*self.mix.parameters(), *self.iou.parameters()]}

    def draw_new(self, dtype):
        pass
