"""What a user gives to a predictor: images and queries, checked before any work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np

from dataset.templates.wording import Kind, prompt_of_query
from utils.errors import InputError


def check_image(image: object) -> np.ndarray:
    """A copy of an image, (H, W, 3) uint8 RGB.

    Raises:
        InputError: for anything else.
    """
    if not isinstance(image, np.ndarray):
        raise InputError(
            f"an image is a numpy array (H, W, 3) of uint8 in RGB, not {_named(image)}; "
            'convert a PIL picture with numpy.asarray(picture.convert("RGB"))'
        )
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise InputError(
            f"set_image wants an RGB image (H, W, 3) of uint8 with H and W above 0, not {image.shape} of "
            f"{image.dtype}; convert it with cv2.cvtColor, and numbers of another type with astype(numpy.uint8)"
        )
    return np.array(image, order="C")


def prompts_of(queries: object, kind: Kind) -> list[str]:
    """The prompts of queries.

    Raises:
        InputError: if `queries` is no list of texts that ask for something, or `kind` is none of its values.
    """
    if isinstance(queries, str | bytes) or not isinstance(queries, Sequence):
        raise InputError(
            f"predict_batch takes a list of queries, not {_named(queries)}; write [query], or call predict(query)"
        )
    if kind not in get_args(Kind):
        raise InputError(f"the kind of a query is one of {', '.join(get_args(Kind))}, not {kind!r}")
    return [prompt_of_query(_checked_query(query), kind) for query in queries]


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


def _named(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
