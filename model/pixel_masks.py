"""PixelLM's masks: no SAM, but CLIP's features of two layers, projected and decoded at two scales.

CLIP is here a second time, frozen, so that its features may be stored as SAM's are. Letters: B images, N targets,
L scales (2), P patches, C prompt width, G side of CLIP's grid, M low-resolution side (4 G).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from model.llava_files import clip_config, load_tower
from model.pixel_decoder import SCALES, PixelDecoder, feature_neck
from model.pixel_view import MarkedView, resized_positions, states_of
from utils.errors import CheckpointError, SettingsError
from utils.geometry import SAM_MEAN, SAM_STD, Frame, Size, upscale_masks
from utils.loading import LoadReport
from utils.tensor_files import TensorFiles


@dataclass(frozen=True, kw_only=True)
class PixelSizes:
    """Sizes of the parts; the defaults are CLIP ViT-L/14 at 448 pixels beside a 7B language model.

    Attributes:
        layers: whose states are the features of each scale, as in transformers' `hidden_states`.
        projected_width: of the projected features, which is the language model's.
        projector_factor: width of the projector's inner layer over that: 2 in PixelLM's own code, 1 in AnchorSeg's.
        published: CLIP's positions, the neck and the scales' weights as in the published code.
    """

    image_size: int = 448
    patch_size: int = 14
    encoder_width: int = 1024
    encoder_depth: int = 24
    encoder_heads: int = 16
    encoder_mlp: int = 4096
    layers: tuple[int, ...] = (23, 14)
    projected_width: int = 4096
    projector_factor: int = 2
    prompt_width: int = 256
    decoder_heads: int = 8
    decoder_mlp: int = 2048
    published: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        if len(self.layers) != SCALES or any(not 0 <= layer <= self.encoder_depth for layer in self.layers):
            raise ValueError(
                f"mask_config.layers is {self.layers}; give {SCALES} numbers from 0 to {self.encoder_depth}"
            )

    @property
    def grid(self) -> int:
        """G."""
        return self.image_size // self.patch_size

    @property
    def view(self) -> MarkedView:
        """How images enter."""
        return MarkedView(side=self.image_size, grid=self.grid, mean=SAM_MEAN, std=SAM_STD)

    def clip(self) -> CLIPVisionConfig:
        """CLIP's configuration."""
        return CLIPVisionConfig(
            hidden_size=self.encoder_width,
            intermediate_size=self.encoder_mlp,
            num_hidden_layers=self.encoder_depth,
            num_attention_heads=self.encoder_heads,
            image_size=self.image_size,
            patch_size=self.patch_size,
        )


_TINY = PixelSizes(
    image_size=96,
    patch_size=12,
    encoder_width=128,
    encoder_depth=2,
    encoder_heads=4,
    encoder_mlp=256,
    layers=(2, 1),
    projected_width=128,
    prompt_width=64,
    decoder_heads=4,
    decoder_mlp=128,
)
_MINI = replace(_TINY, image_size=192, patch_size=16, encoder_depth=4, layers=(4, 2))
SIZES = {"tiny": _TINY, "mini": _MINI, "7b": PixelSizes(), "13b": PixelSizes(projected_width=5120)}


class PixelBackbone(nn.Module):
    """CLIP, a projector, a neck, and the light decoder.

    Args:
        sizes: of the parts.
        positions: not used; the decoder's encoding of positions has the weights' type.
    """

    saved_as = "pixel_decoder"
    Sizes = PixelSizes

    def __init__(self, sizes: PixelSizes, positions: str = "float32") -> None:
        super().__init__()
        self.sizes = sizes
        self.view = sizes.view
        self.prompt_width, self.low_resolution = sizes.prompt_width, 4 * sizes.grid
        self.feature_shape = (SCALES, sizes.grid**2, sizes.encoder_width)
        config = sizes.clip()
        config._attn_implementation = "sdpa"
        self.image_encoder: Any = CLIPVisionModel(config)
        self.image_encoder.post_layernorm = nn.Identity()
        inner = sizes.projector_factor * sizes.projected_width
        self.projector = nn.Sequential(
            nn.Linear(sizes.encoder_width, inner), nn.GELU(), nn.Linear(inner, sizes.projected_width)
        )
        self.neck = feature_neck(sizes.projected_width, sizes.prompt_width)
        self.decoder = PixelDecoder(
            sizes.prompt_width,
            heads=sizes.decoder_heads,
            mlp=sizes.decoder_mlp,
            trained_weights=not sizes.published,
        )

    @staticmethod
    def preset(size: str) -> PixelSizes:
        """See `MaskBackbone`."""
        return SIZES[size]

    @staticmethod
    def published_sizes(name: str) -> PixelSizes:
        """See `MaskBackbone`; SAM's sizes have no meaning here."""
        raise SettingsError(f"--sam_model {name} is a size of SAM, which PixelLM does not have; leave the flag out")

    @staticmethod
    def open_published(path: Path, sizes: PixelSizes) -> tuple[Path, TensorFiles]:
        """A CLIP folder, or a LLaVA folder in transformers' layout for the CLIP that it holds.

        Raises:
            CheckpointError: if it holds another CLIP.
        """
        found = clip_config(path)
        if (found.hidden_size, found.num_hidden_layers, found.patch_size) != (
            sizes.encoder_width,
            sizes.encoder_depth,
            sizes.patch_size,
        ):
            raise CheckpointError(
                f"--vision_pretrained {path} holds a CLIP of width {found.hidden_size} with {found.num_hidden_layers} "
                f"layers and patches of {found.patch_size}, but PixelLM has {sizes.encoder_width}, "
                f"{sizes.encoder_depth} and {sizes.patch_size}; give openai/clip-vit-large-patch14-336"
            )
        return path, TensorFiles(path)

    def load_published(self, files: tuple[Path, TensorFiles], dtype: torch.dtype) -> LoadReport:
        """See `MaskBackbone`; positions are resized to the larger grid."""

        def resize(table: Tensor) -> Tensor:
            return resized_positions(table, self.sizes.grid, shifted=self.sizes.published)

        return load_tower(self.image_encoder, files[1], dtype, resize)

    def image_features(self, images: Tensor) -> Tensor:
        """CLIP's states (B, L, P, width) of (B, 4, S, S) marked views."""
        return torch.stack(states_of(self.image_encoder, images, self.sizes.layers), dim=1)

    def projected(self, features: Tensor) -> Tensor:
        """Features (B, L, C, G, G) for the decoder, of states as `image_features` gives them."""
        side = self.sizes.grid
        maps = self.projector(features).transpose(2, 3).unflatten(3, (side, side))
        return self.neck(maps.flatten(0, 1)).unflatten(0, maps.shape[:2])

    def condition(self, features: Tensor, maps: Sequence[Tensor] | None) -> Tensor:
        """See `MaskBackbone`; PixelLM has no prior."""
        if maps is not None:
            raise SettingsError("PixelLM's decoder takes no spatial prior; use --head pixellm with it")
        return features

    def point_prompts(self, points: Tensor, labels: Tensor) -> Tensor:
        """See `MaskBackbone`; PixelLM takes none."""
        raise SettingsError("PixelLM's decoder takes no points; use --head pixellm with it")

    def forward(self, features: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Masks (N, 1, M, M) and estimates (N, 1) of queries (N, L, C) over `projected` features (N, L, C, G, G)."""
        return self.decoder(features, queries)

    def to_image(self, low_resolution: Tensor, frame: Frame, size: Size) -> Tensor:
        """See `MaskBackbone`."""
        return upscale_masks(low_resolution, frame, size)

    def trained(self) -> dict[str, list[nn.Parameter]]:
        """See `MaskBackbone`; the published code leaves its neck as it is drawn, and the scales' weights constant."""
        constant = {id(self.decoder.scale_weights)} if self.sizes.published else set()
        groups = {
            "mask projector": list(self.projector.parameters()),
            "mask decoder": [p for p in self.decoder.parameters() if id(p) not in constant],
        }
        return groups if self.sizes.published else {**groups, "neck": list(self.neck.parameters())}

    def draw_new(self, dtype: torch.dtype) -> None:
        """Draw everything but CLIP."""
        fresh = type(self)(replace(self.sizes, encoder_depth=max(self.sizes.layers)))
        for name in ("projector", "neck", "decoder"):
            for own, drawn in zip(getattr(self, name).parameters(), getattr(fresh, name).parameters(), strict=True):
                own.data = drawn.data.to(dtype)
            for own, drawn in zip(getattr(self, name).buffers(), getattr(fresh, name).buffers(), strict=True):
                own.data = drawn.data.to(dtype)


class PublishedPixelBackbone(PixelBackbone):
    """As AnchorSeg's copy: a neck that does not train, constant weights of scales, CLIP's positions shifted."""

    @staticmethod
    def preset(size: str) -> PixelSizes:
        """See `MaskBackbone`."""
        return replace(SIZES[size], published=True, projector_factor=1)
