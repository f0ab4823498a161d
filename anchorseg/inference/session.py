"""One image, read once and asked often."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock

import numpy as np
from typing_extensions import Unpack

from anchorseg.inference.answer import Answer
from anchorseg.inference.answering import Answerer, AskedImages
from anchorseg.inference.inputs import Asking, AskOptions, read_only
from anchorseg.inference.prefix import ImagePrefix
from utils.errors import InputError


class ImageSession:
    """One image that is asked about; it is read at the first question. Threads may ask at the same time.

    Made by `AnchorSegPredictor.session`.

    Args:
        answerer: that answers.
        image: (H, W, 3) uint8 RGB.
        read: reads it.

    Attributes:
        image: the same, not to be written to.
    """

    def __init__(self, answerer: Answerer, image: np.ndarray, read: Callable[[], ImagePrefix]) -> None:
        self._answerer = answerer
        self._read = read
        self.image = read_only(image)
        self._images: AskedImages | None = None
        self._reading = Lock()

    def predict(self, query: str, *, after: Answer | None = None, **options: Unpack[AskOptions]) -> Answer:
        """Ask one question; arguments and errors are those of `AnchorSegPredictor.predict`."""
        return self._ask([query], after, Asking(**options))[0]

    def predict_batch(self, queries: Sequence[str], **options: Unpack[AskOptions]) -> list[Answer]:
        """Ask several questions; arguments and errors are those of `AnchorSegPredictor.predict_batch`."""
        return self._ask(queries, None, Asking(**options))

    def _ask(self, queries: Sequence[str], after: Answer | None, asking: Asking) -> list[Answer]:
        if after is not None and not isinstance(after, Answer):
            raise InputError(f"after= takes the answer that this question follows, not a {type(after).__name__}")
        if after is not None and after.image is not self.image:
            raise InputError("the answer that this question follows is of another session or image; ask in its own")
        questions = self._answerer.prepare(0, queries, asking, after)
        return self._answerer.answer(self._asked(), questions, asking) if questions else []

    def _asked(self) -> AskedImages:
        with self._reading:
            if self._images is None:
                self._images = AskedImages(pixels=[self.image], prefix=self._read())
            return self._images
