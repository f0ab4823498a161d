"""How images enter Qwen-VL: at their own aspect ratio, in patches of which a square makes one token.

Letters: N patches, P tokens (N = P m^2 with the side m of the square), X values of a patch, H W original size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from utils.geometry import Frame, Size, check_rgb

MAX_RATIO = 200
"""Of an image's sides, as its processor takes them; what is longer is stretched to it."""


@dataclass(frozen=True, kw_only=True)
class QwenView:
    """Both sides scaled to the nearest multiple of a token's, within limits of the area; no padding.

    Attributes:
        patch: side of a patch in pixels.
        merge: m, patches along the side of a token.
        least: fewest tokens of an image.
        most: most tokens of an image.
        mean, std: of RGB on the scale 0-255.
    """

    patch: int
    merge: int
    least: int
    most: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def num_tokens(self) -> int:
        """See `ImageView`."""
        return self.most

    @property
    def described(self) -> tuple:
        """See `ImageView`."""
        return "qwen", self.patch, self.merge, self.least, self.most, self.mean, self.std

    def frame(self, size: Size) -> Frame:
        """See `ImageView`."""
        side = self.patch * self.merge
        ratio = min(MAX_RATIO, self.most)
        height, width = (max(own, -(-other // ratio)) for own, other in zip(size, reversed(size), strict=True))
        limits = {"min_pixels": self.least * side**2, "max_pixels": self.most * side**2}
        view = smart_resize(height, width, factor=side, **limits)
        return Frame(view, view, (view[0] // side, view[1] // side), padded=False)

    def positions(self, frame: Frame) -> Tensor:
        """See `ImageView`: (P, 3) time, row and column of each token."""
        rows, columns = (torch.arange(length) for length in frame.grid)
        time = torch.zeros(1, dtype=torch.long)
        return torch.cartesian_prod(time, rows, columns)

    def pixels(self, image: np.ndarray) -> Tensor:
        """See `ImageView`: (N, X) patches, those of a token one behind the other."""
        check_rgb(image)
        height, width = self.frame((image.shape[0], image.shape[1])).view
        resized = np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
        pixels = (torch.from_numpy(resized).float() - torch.tensor(self.mean)) / torch.tensor(self.std)
        side = self.patch * self.merge
        tokens = pixels.unflatten(1, (width // side, self.merge, self.patch)).unflatten(
            0, (height // side, self.merge, self.patch)
        )
        return tokens.permute(0, 3, 1, 4, 6, 2, 5).flatten(4).flatten(0, 3)
