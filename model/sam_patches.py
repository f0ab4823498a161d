"""The convolution of SAM's patch embedding: the published weights and results, in an order that suits a GPU."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import conv2d, linear


class PatchProjection(nn.Module):
    """A convolution whose patches do not overlap.

    The published code permutes what a convolution gives, so that channels come first in the memory of all blocks behind
    it, and every normalization copies its input. On a GPU one matrix product gives tokens one behind the other.

    Args:
        published: segment-anything's layer, whose weights this one takes over under the same names.
    """

    def __init__(self, published: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = published.weight, published.bias

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, S, S) to (B, C, G, G)."""
        if images.is_cuda:
            return self.multiply(images)
        return conv2d(images, self.weight, self.bias, stride=self.weight.shape[2:])

    def multiply(self, images: Tensor) -> Tensor:
        """`forward`, for a GPU."""
        height, width = self.weight.shape[2:]
        patches = images.unflatten(3, (-1, width)).unflatten(2, (-1, height)).permute(0, 2, 4, 1, 3, 5)
        return linear(patches.flatten(3), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
