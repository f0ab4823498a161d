"""What both of PixelLM's backbones share: a view that tells what is padding, and CLIP for more pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import functional
from transformers import CLIPVisionModel

from utils.geometry import PaddedView


@dataclass(frozen=True, kw_only=True)
class MarkedView(PaddedView):
    """A padded view whose fourth channel is 1 where it shows the image: CLIP's patches are finer than the tokens."""

    def pixels(self, image: np.ndarray) -> Tensor:
        """The view (4, S, S)."""
        height, width = self.frame(image.shape[:2]).content
        shown = torch.zeros(1, self.side, self.side)
        shown[:, :height, :width] = 1
        return torch.cat([super().pixels(image), shown])


def states_of(tower: CLIPVisionModel, pixels: Tensor, layers: tuple[int, ...]) -> list[Tensor]:
    """Hidden states (B, P, C) of CLIP's patches after some of its layers; padding patches are masked as keys.

    Args:
        tower: CLIP.
        pixels: (B, 4, S, S) marked views.
        layers: after how many layers, as in transformers' `hidden_states`; in any order.
    """
    patch = tower.config.patch_size
    shown = pixels[:, 3, ::patch, ::patch].flatten(1) > 0
    keys = functional.pad(shown, (1, 0), value=True)[:, None, None, :]
    states = tower.pre_layrnorm(tower.embeddings(pixels[:, :3]))
    after = {0: states}
    for number, layer in enumerate(tower.encoder.layers[: max(layers)], start=1):
        after[number] = states = layer(states, keys)
    return [after[number][:, 1:] for number in layers]


def resized_positions(table: Tensor, side: int, *, shifted: bool) -> Tensor:
    """CLIP's table of positions (1 + g^2, C) for a grid of another side: (1 + side^2, C), bilinear.

    Args:
        table: the row of the class token, then those of the patches.
        side: of the grid that is wanted.
        shifted: as PixelLM's code does it, which takes the first g^2 rows for the grid and appends the last one.
    """
    old = round((len(table) - 1) ** 0.5)
    grid = table[:-1] if shifted else table[1:]
    maps = grid.float().t().unflatten(1, (old, old)).unsqueeze(0)
    wide = F.interpolate(maps, (side, side), mode="bilinear", align_corners=False)[0].flatten(1).t().to(table.dtype)
    return torch.cat([wide, table[-1:]] if shifted else [table[:1], wide])
