"""Visitors: each has an image, a dialogue about it, and targets that are hidden; as many are kept as memory allows."""

from __future__ import annotations

import shutil
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from secrets import token_hex
from threading import Lock

import numpy as np

from anchorseg.inference.answer import Answer
from anchorseg.inference.session import ImageSession
from scripts.page.pictures import MapPicture


@dataclass(frozen=True, kw_only=True)
class Shown:
    """An answer as it stands on the page; its maps are pictures by now, for they take far more memory than masks."""

    answer: Answer
    maps: tuple[MapPicture, ...]
    notice: str
    hidden: frozenset[int] = frozenset()

    def toggled(self, number: int) -> Shown:
        """With one target shown that was hidden, or the other way round."""
        return replace(self, hidden=self.hidden ^ {number})


@dataclass(kw_only=True)
class Visit:
    """What belongs to one visitor.

    Attributes:
        folder: for files that the visitor downloads; there is none before the first.
        upload: the file of the image that is open.
        session: of that image.
        dialogue: questions with their answers in words; it starts again with a question that follows none.
        shown: the last answer.
        folders: of the last files in `folder`.
        asking: held while the visitor's request is answered, so that two of them cannot mix.
    """

    folder: Path
    upload: str | None = None
    session: ImageSession | None = None
    dialogue: tuple[tuple[str, str], ...] = ()
    shown: Shown | None = None
    folders: list[Path] = field(default_factory=list)
    asking: Lock = field(default_factory=Lock)

    def open(
        self, upload: str | None, read: Callable[[str | None], np.ndarray], start: Callable[[np.ndarray], ImageSession]
    ) -> ImageSession:
        """Take an image up, unless it is the one that is open already."""
        if self.session is None or upload != self.upload:
            self.close()
            self.session, self.upload = start(read(upload)), upload
        return self.session

    def close(self) -> None:
        """Let go of the image and all that was said about it."""
        self.upload = self.session = self.shown = None
        self.dialogue = ()

    def new_folder(self) -> Path:
        """A path for the next files; the last ones stay, for a browser may be fetching them, and earlier ones go."""
        if len(self.folders) > 1:
            shutil.rmtree(self.folders.pop(0), ignore_errors=True)
        self.folders.append(self.folder / token_hex(8))
        return self.folders[-1]


class Visits:
    """Visitors by their session; the one that was idle longest goes first.

    Args:
        folder: for their files; only they write into it.
        most: visitors that are kept.
        idle_seconds: after which one is forgotten.
        clock: seconds.
    """

    def __init__(
        self, folder: Path, *, most: int, idle_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder, self._most, self._idle, self._clock = folder, most, idle_seconds, clock
        self._visits: OrderedDict[str, tuple[Visit, float]] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._visits)

    def of(self, session: str) -> Visit:
        """The visit of a session, a new one for a session that is not known."""
        now = self._clock()
        with self._lock:
            known = self._visits.pop(session, None)
            visit = known[0] if known else Visit(folder=self._folder / token_hex(16))
            self._visits[session] = visit, now
            while len(self._visits) > self._most or next(iter(self._visits.values()))[1] < now - self._idle:
                self._remove(next(iter(self._visits)))
            return visit

    def forget(self, session: str) -> None:
        """Remove a visit with its files, if there is one."""
        with self._lock:
            if session in self._visits:
                self._remove(session)

    def _remove(self, session: str) -> None:
        visit, _ = self._visits.pop(session)
        shutil.rmtree(visit.folder, ignore_errors=True)
