"""The two seams of the model: a language backbone that reads images and writes, and a mask backbone that draws.

A further backbone is one file with a class of one of these protocols, and one line in its registry. Nothing else knows
which backbones there are.

Letters: B images, R rows, T positions, P image tokens, D language width, V vocabulary, N targets, C prompt width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from model.backbone_names import LANGUAGE_BACKBONES, MASK_BACKBONES
from utils.geometry import Frame, ImageView, Size
from utils.loading import LoadReport
from utils.prompt_template import PromptTemplate


class LanguageBackbone(Protocol):
    """An autoregressive model that reads image tokens; an `nn.Module`, built from a configuration of transformers.

    Attributes:
        saved_as: name of the module in saved weights.
        placeholder: id that stands for one image token; in no vocabulary.
        vocabulary_tables: names, within the module, of the layers with a row for each token.
        kept_unquantized: names, within the module, of parts that stay whole when the rest is quantized.
        width: D.
        template: what stands around images, questions and answers.
        tiny_tokenizer: file of the vocabulary of its small sizes, among the package's assets.
    """

    saved_as: str
    placeholder: int
    vocabulary_tables: tuple[str, ...]
    kept_unquantized: tuple[str, ...]
    width: int
    template: PromptTemplate
    tiny_tokenizer: str

    def __init__(self, config: Any) -> None: ...

    @staticmethod
    def read_config(values: dict[str, Any]) -> Any:
        """The configuration that a model folder holds as a dictionary."""

    @staticmethod
    def preset(size: str, vocabulary: int) -> Any:
        """The configuration of a named size.

        Raises:
            KeyError: if there is no such size.
        """

    @staticmethod
    def view(config: Any, statistics: str, *, cropped: bool = False) -> ImageView:
        """How images enter; `statistics` as `Method.clip_statistics`; cropped: only the middle of them.

        Raises:
            ValueError: if it takes none that are cropped.
        """

    @staticmethod
    def open_published(folder: Path, tower: Path | None, size: str) -> Any:
        """Published weights of a size, opened and checked, none read yet: an object with `config` and `tokenizer`.

        Raises:
            CheckpointError: if they are of another size.
        """

    def load_published(self, files: Any, dtype: torch.dtype, pieces: int) -> list[LoadReport]:
        """Fill the module from `open_published`; tables keep their drawn rows after the tokenizer's `pieces`."""

    @classmethod
    def module_name(cls, name: str) -> str:
        """The name in the model of a tensor as `save_pretrained` writes it; other tensors' names stay."""

    @property
    def adapted(self) -> nn.Module:
        """The part whose projections LoRA adapts, and whose layers are recomputed under gradient checkpointing."""

    def new_cache(self) -> Any:
        """An empty cache of keys and values."""

    def fixed_cache(self, cache: Any, capacity: int) -> Any:
        """A cache of so many positions for rows like those of a filled one; see `model.fixed_cache.FixedCache`."""

    def trained(self) -> dict[str, list[nn.Parameter]]:
        """Parameters that train beside adapters and vocabulary tables, by name of the group."""

    def draw_new(self, dtype: torch.dtype) -> None:
        """Draw the parameters that no published file holds, vocabulary tables left out."""

    def image_features(self, pixels: Tensor, patch_valid: Tensor, grids: tuple[Size, ...]) -> Tensor:
        """Image tokens (B, P, E) of views, of which `patch_valid` (B, P) says what is no padding.

        Args:
            pixels: (B, 3, S, S), or what else `view` gives.
            patch_valid: see above.
            grids: (rows, columns) of each image's tokens; they have at most P.

        Returns:
            What `embed` takes: E is D, or more where layers behind the first read image tokens too.
        """

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Embeddings (..., D) of token ids (...)."""

    def embed(self, input_ids: Tensor, features: Tensor, image_start: int) -> Tensor:
        """Embeddings (R, T, E) of ids with the features (R, P, E) of each row's image from a column on."""

    def hidden_states(self, embeddings: Tensor, positions: Tensor, visible: Tensor, cache: Any = None) -> Tensor:
        """Last-layer hidden states (R, T, D) under a mask (R, T, S) of what may be seen.

        Args:
            embeddings: (R, T, E) of `embed`, or (R, T, D) of `embed_tokens`.
            positions: (R, T) rotary positions, or (R, T, A) where image tokens have A of them.
            visible: see above.
            cache: keys and values of earlier positions, extended in place.
        """

    def logits(self, hidden: Tensor) -> Tensor:
        """Vocabulary logits (..., V)."""


class MaskBackbone(Protocol):
    """A promptable mask decoder over a frozen image encoder; an `nn.Module`, built from its sizes.

    Attributes:
        saved_as: name of the module in saved weights.
        Sizes: frozen dataclass of its sizes, checked by itself.
        prompt_width: C, width of a query.
        feature_shape: shape of the stored features of one image.
        low_resolution: M, side of the masks that it decodes.
        image_encoder: the part that does not train, whose features may be stored.
        view: how images enter.
    """

    saved_as: str
    Sizes: type
    sizes: Any
    prompt_width: int
    feature_shape: tuple[int, int, int]
    low_resolution: int
    image_encoder: Any
    view: ImageView

    def __init__(self, sizes: Any, positions: str = "float32") -> None: ...

    @staticmethod
    def preset(size: str) -> Any:
        """The sizes that go with a named size of the language backbone: small ones with `tiny` and `mini`."""

    @staticmethod
    def published_sizes(name: str) -> Any:
        """Published sizes by name.

        Raises:
            KeyError: if there is none of that name.
        """

    @staticmethod
    def open_published(path: Path, sizes: Any) -> Any:
        """A published file, opened and checked.

        Raises:
            CheckpointError: if it is of another size.
        """

    def load_published(self, files: Any, dtype: torch.dtype) -> LoadReport:
        """Fill the module from `open_published`."""

    def image_features(self, pixels: Tensor) -> Tensor:
        """Features (B, *feature_shape) of views (B, 3, S, S)."""

    def condition(self, features: Tensor, maps: Sequence[Tensor] | None) -> Tensor:
        """Add the spatial priors to the features (N, ...) of each target's image.

        Args:
            features: of each target's image.
            maps: for each image the token-to-mask maps (n, H, W) of its targets in [0, 1], or None for no prior.
        """

    def point_prompts(self, points: Tensor, labels: Tensor) -> Tensor:
        """Queries (n, P', C) for points (n, P, 2), x and y in pixels of the view, labelled 1, 0 or -1 for neither."""

    def __call__(self, features: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Mask logits (N, m, M, M) and IoU estimates (N, m) for query banks (N, L, C); the first of m is taken."""

    def to_image(self, low_resolution: Tensor, frame: Frame, size: Size) -> Tensor:
        """Masks (n, M, M) of one image at its own size: (n, H, W) float32 logits."""

    def trained(self) -> dict[str, list[nn.Parameter]]:
        """Parameters that the paper trains, by name of the group."""

    def draw_new(self, dtype: torch.dtype) -> None:
        """Draw the parameters that no published file holds."""


def language_backbone(name: str) -> type[LanguageBackbone]:
    """The class behind a name.

    Raises:
        ValueError: for an unknown name.
    """
    places = {known: entry.place for known, entry in LANGUAGE_BACKBONES.items()}
    return _resolve(name, places, "language_model")


def mask_backbone(name: str) -> type[MaskBackbone]:
    """The class behind a name.

    Raises:
        ValueError: for an unknown name.
    """
    return _resolve(name, MASK_BACKBONES, "mask_model")


def _resolve(name: str, known: dict[str, str], what: str) -> Any:
    if name not in known:
        raise ValueError(f"{what} is {name!r}; allowed: {', '.join(known)}")
    return resolve_name(known[name])
