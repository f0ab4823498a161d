"""Rotary positions of a prompt: text counts on, image tokens have what their view says.

Letters: T columns, p image tokens of one image, A axes of rotary positions.

A model whose image tokens have a row and a column has positions (T, A); the others have (T,).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad


def text_positions(first: int, count: int, like: Tensor) -> Tensor:
    """Positions of text from a first one on, on every axis: (count,), or (count, A) as `like` is."""
    positions = torch.arange(first, first + count)
    return positions if like.ndim == 1 else positions.unsqueeze(1).expand(-1, like.shape[1])


def prefix_positions(image: Tensor, *, before: int, columns: int, behind: int) -> Tensor:
    """Positions of a prefix: text, an image, text, which goes on behind the image's highest position.

    Args:
        image: (p,) or (p, A), counted from the image's first token.
        before: columns of text before the image.
        columns: of image tokens; those that the image does not fill stand at its first position.
        behind: columns of text behind the image.
    """
    unfilled = (0, columns - len(image)) if image.ndim == 1 else (0, 0, 0, columns - len(image))
    after = before + int(image.max()) + 1
    return torch.cat(
        [text_positions(0, before, image), before + pad(image, unfilled), text_positions(after, behind, image)]
    )
