"""What a user gives to a predictor: images, questions and how to ask them, checked before any work."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, get_args

import cv2
import numpy as np
import torch

from dataset.images import read_image
from dataset.templates.wording import Kind, prompt_of_query
from utils.errors import DataError, InputError

Mode = Literal["auto", "mask", "text"]
"""What is wanted: the model decides, a mask in any case, or words alone."""


class AskOptions(TypedDict, total=False):
    """`Asking` as keywords of a call."""

    mode: Mode
    kind: Kind
    raw_prompt: bool
    max_new_tokens: int
    max_rows: int
    token_maps: bool


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How to ask.

    Attributes:
        mode: "auto" lets the model write its answer; "mask" gives it the answer of forced evaluation, a query bank, so
            that there is always a mask; "text" keeps it from writing a query bank, and sends the query as it is unless
            `kind` says otherwise.
        kind: what a query is, a phrase ("something to drink from"), a full sentence, or a whole prompt that asks for a
            segmentation itself, as LISA's documented ones do; "auto" decides by the words
            (`dataset.templates.wording`). The prompt that was sent is in the answer.
        raw_prompt: the same as `kind="prompt"`: send the query as it is.
        max_new_tokens: longest answer that the model writes.
        max_rows: most questions that are answered at once; bounds the memory.
        token_maps: give the similarity map of every token of a target's query bank (paper, Fig. 3), too.

    Raises:
        InputError: for values that are not allowed.
    """

    mode: Mode = "auto"
    kind: Kind = "auto"
    raw_prompt: bool = False
    max_new_tokens: int = 128
    max_rows: int = 16
    token_maps: bool = False

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise InputError(f"the mode is one of {', '.join(get_args(Mode))}, not {self.mode!r}")
        if self.kind not in get_args(Kind):
            raise InputError(f"the kind of a query is one of {', '.join(get_args(Kind))}, not {self.kind!r}")
        check_limits(max_new_tokens=self.max_new_tokens, max_rows=self.max_rows)

    def prompts(self, queries: object) -> list[str]:
        """The prompts of queries.

        Raises:
            InputError: if `queries` is no list of texts that ask for something.
        """
        if isinstance(queries, str | bytes) or not isinstance(queries, Sequence):
            raise InputError(
                f"several queries are a list of queries, not {_named(queries)}; write [query], or call predict(query)"
            )
        as_it_is = self.raw_prompt or (self.mode == "text" and self.kind == "auto")
        return [prompt_of_query(_checked_query(query), "prompt" if as_it_is else self.kind) for query in queries]


def as_rgb(image: Any) -> np.ndarray:
    """An image as (H, W, 3) uint8 RGB, a copy of its own.

    Args:
        image: a path, read as `dataset.images.read_image` does; a PIL image, its EXIF rotation applied; a numpy array
            (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); or a torch tensor (H, W), (1, H, W), (3, H, W) or (4, H, W).
            Arrays and tensors are uint8, grey or RGB; a fourth channel is opacity and is left out, as it is for files.
            PIL images have at most 8 bits a channel.

    Raises:
        InputError: for anything else; floating point numbers are refused, whose range cannot be known.
        DataError: for a file that cannot be read.
    """
    if isinstance(image, str | os.PathLike):
        try:
            return read_image(os.fspath(image))
        except OSError as error:
            raise DataError(os.fspath(image), f"the image file cannot be read ({error.strerror})") from error
    if isinstance(image, torch.Tensor):
        return _as_rgb_array(_channels_last(image), _described(image))
    if isinstance(image, np.ndarray):
        return _as_rgb_array(image, _described(image))
    if hasattr(image, "convert") and hasattr(image, "getexif"):
        return _as_rgb_array(_of_pil(image), f"{image.size[::-1]} of mode {image.mode}")
    raise InputError(
        "an image is a path, a PIL image, a numpy array (H, W, 3) of uint8 in RGB or a torch tensor (3, H, W) of "
        f"uint8, not {_named(image)}"
    )


def read_only(image: np.ndarray) -> np.ndarray:
    """A view of an image that answers share, which cannot be written to."""
    view = image.view()
    view.flags.writeable = False
    return view


def _of_pil(image: Any) -> np.ndarray:
    from PIL import ImageOps  # it is loaded already where there is such an image

    if image.mode.startswith(("I", "F")):
        raise InputError(
            f"a PIL image of mode {image.mode} has numbers beyond 0 to 255; bring them there and convert it to L or RGB"
        )
    if 0 in image.size:
        raise InputError(f"a PIL image of {image.size[0]} x {image.size[1]} pixels shows nothing")
    try:
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(
            f"the PIL image cannot be decoded ({error}); open its file again, or fetch it again"
        ) from error


def _channels_last(image: torch.Tensor) -> np.ndarray:
    if image.ndim == 3 and image.shape[0] not in (1, 3, 4):
        raise InputError(f"a tensor is an image (3, H, W), (1, H, W) or (4, H, W), not {_described(image)}")
    array = image.detach().cpu().numpy() if image.dtype != torch.bfloat16 else np.zeros(0, np.float32)
    return array.transpose(1, 2, 0) if array.ndim == 3 else array


def _as_rgb_array(image: np.ndarray, described: str) -> np.ndarray:
    if image.dtype != np.uint8:
        scale = "where they are 0 to 1, multiply by 255 and round; then " if image.dtype.kind == "f" else ""
        raise InputError(f"an image has numbers of uint8, 0 to 255, not {described}; {scale}convert them to uint8")
    channels = image.shape[2:] or (1,)
    if image.ndim not in (2, 3) or channels[0] not in (1, 3, 4) or 0 in image.shape:
        raise InputError(
            f"an RGB image is (H, W, 3), a grey one (H, W) or (H, W, 1), one with opacity (H, W, 4), H and W above 0; "
            f"not {described}"
        )
    if channels[0] == 1:
        return cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_GRAY2RGB)
    return np.array(image[..., :3], order="C")


def _checked_query(query: object) -> str:
    if not isinstance(query, str):
        raise InputError(f"a query is a text (str), not {_named(query)}")
    if not query.strip():
        raise InputError(f"the query {query!r} is empty; ask for something")
    if any("\ud800" <= letter <= "\udfff" for letter in query):
        raise InputError(f"the query {query!r} holds a lone surrogate, which is no character; decode it as UTF-8")
    return query


def check_limits(**limits: object) -> None:
    """Refuse limits that are not whole numbers of at least 1.

    Raises:
        InputError: naming the argument.
    """
    for name, value in limits.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise InputError(f"{name} is a whole number of at least 1, not {value!r}")


def _described(image: Any) -> str:
    return f"{tuple(image.shape)} of {image.dtype}"


def _named(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
