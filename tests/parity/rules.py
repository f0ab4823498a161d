"""Weights and inputs that follow from a rule, so that no file has to hold them."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
import torch

from anchorseg.method.spatial_prior import min_max
from utils import geometry

_EMBEDDINGS = (
    "embed_tokens.weight",
    "position_embedding.weight",
    "point_embeddings.",
    "not_a_point_embed",
    "no_mask_embed",
    "iou_token.",
    "mask_tokens.",
    "positional_embedding",
)
_TRANSPOSED = ("output_upscaling.0.weight", "output_upscaling.3.weight")


def _is_one_dimensional(suffix: str) -> Callable[[str, tuple[int, ...]], bool]:
    return lambda name, shape: len(shape) == 1 and name.endswith(suffix)


_SPREADS: tuple[
    tuple[Callable[[str, tuple[int, ...]], bool], Callable[[tuple[int, ...]], tuple[float, float]]], ...
] = (
    (lambda name, _: "ppm._layer_gate_W_similarity" in name, lambda _: (0.0, 0.0)),
    (lambda name, _: "positional_encoding_gaussian_matrix" in name, lambda _: (0.0, 1.0)),
    (_is_one_dimensional(".weight"), lambda _: (1.0, 0.1)),
    (_is_one_dimensional(".bias"), lambda _: (0.0, 0.05)),
    (lambda name, _: name.endswith("class_embedding"), lambda _: (0.0, 0.5)),
    (lambda name, _: name.endswith("pos_embed") or "rel_pos" in name, lambda _: (0.0, 0.1)),
    (lambda name, _: any(part in name for part in _EMBEDDINGS), lambda _: (0.0, 0.5)),
    (lambda name, _: name.endswith(_TRANSPOSED), lambda shape: (0.0, shape[0] ** -0.5)),
    (lambda name, _: "lora_B" in name, lambda shape: (0.0, 0.3 * shape[1] ** -0.5)),
    (lambda name, _: True, lambda shape: (0.0, float(np.prod(shape[1:])) ** -0.5)),
)
"""Mean and standard deviation of a tensor: the first line whose condition holds."""


def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Weight of the miniature checkpoint, a function of its released name and its shape alone."""
    shape = tuple(int(side) for side in shape)
    mean, std = next(spread(shape) for applies, spread in _SPREADS if applies(name, shape))
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    drawn = generator.standard_normal(shape) if std else np.zeros(shape)
    return (mean + std * drawn).astype(np.float32)


def image(height: int, width: int, seed: int) -> np.ndarray:
    """Waves, four discs and mild noise, (H, W, 3) uint8."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    picture = np.empty((height, width, 3))
    for channel in range(3):
        waves_x, waves_y, phase = (generator.uniform(*limits) for limits in ((1, 4), (1, 4), (0, 6.28)))
        angle = 2 * np.pi * (waves_x * x / width + waves_y * y / height) + phase
        picture[..., channel] = 127 + 80 * np.sin(angle)
    for _ in range(4):
        centre_y, centre_x = generator.uniform(0, height), generator.uniform(0, width)
        radius = generator.uniform(0.08, 0.25) * min(height, width)
        picture[(y - centre_y) ** 2 + (x - centre_x) ** 2 < radius**2] = generator.uniform(0, 255, 3)
    picture += generator.integers(-6, 7, picture.shape)
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)


def ellipse(height: int, width: int, centre: tuple[float, float], radii: tuple[float, float]) -> np.ndarray:
    """Filled ellipse, (H, W) uint8; centre and radii as (y, x) shares of the sides."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    distance_y = (y - centre[0] * height) / (radii[0] * height)
    distance_x = (x - centre[1] * width) / (radii[1] * width)
    return (distance_y**2 + distance_x**2 <= 1).astype(np.uint8)


def noise(height: int, width: int, seed: int) -> np.ndarray:
    """Uniform noise, (H, W, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def loss_logits(which: str) -> np.ndarray:
    """Logits of the loss cases a, b and c: three times normal, each followed by a uniform draw for its targets."""
    generator = torch.Generator().manual_seed(11)
    for case, shape in {"a": (3, 20, 30), "b": (1, 480, 640), "c": (2, 24, 24)}.items():
        logits = 3 * torch.randn(shape, generator=generator)
        torch.rand(shape, generator=generator)
        if case == which:
            return logits.numpy()
    raise KeyError(which)


def decoder_inputs() -> dict[str, np.ndarray]:
    """Image embeddings, text embeddings and mask prompt of the mask decoder's case."""
    generator = torch.Generator().manual_seed(5)
    image_embeddings = torch.randn(1, 256, 64, 64, generator=generator)
    text_embeds = 2 * torch.randn(2, 8, 256, generator=generator)
    responses = min_max(torch.randn(2, 576, generator=generator))
    maps = geometry.tokens_to_map(responses, geometry.padded_frame((480, 640), 336, 24), (480, 640))
    return {
        "image_embeddings": image_embeddings.numpy(),
        "text_embeds": text_embeds.numpy(),
        "mask_prompt": geometry.map_to_prompt(maps, 256).numpy(),
    }


def clip_views() -> np.ndarray:
    """CLIP views, under SAM's statistics, of the two images of forward_train."""
    images = (image(480, 640, 1), image(333, 500, 2))
    view = geometry.PaddedView(side=336, grid=24, mean=geometry.SAM_MEAN, std=geometry.SAM_STD)
    return np.stack([view.pixels(each).numpy() for each in images])


RULES: dict[str, Callable[[], np.ndarray]] = {
    "preprocess/0.raw": lambda: image(480, 640, 9),
    "preprocess/1.raw": lambda: noise(700, 333, 101),
    "preprocess/2.raw": lambda: noise(97, 1203, 102),
    "forward_train/in.raw_image.0": lambda: image(480, 640, 1),
    "forward_train/in.raw_image.1": lambda: image(333, 500, 2),
    "clip_tower/in.images_clip": clip_views,
    "losses/bce_dice.a.logits": lambda: loss_logits("a"),
    "losses/bce_dice.b.logits": lambda: loss_logits("b"),
    "losses/bce_dice.c.logits": lambda: loss_logits("c"),
    "decoder/in.image_embeddings": lambda: decoder_inputs()["image_embeddings"],
    "decoder/in.text_embeds": lambda: decoder_inputs()["text_embeds"],
    "decoder/in.mask_prompt": lambda: decoder_inputs()["mask_prompt"],
}
"""Arrays by "file/name" that need not be stored. The torch draws are those of its CPU generator."""
