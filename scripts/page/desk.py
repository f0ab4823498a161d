"""Where visitors are served: from what they send to what the page shows, without a word of HTML forms."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from anchorseg.inference.answer import Answer, Target
from anchorseg.inference.inputs import Mode
from anchorseg.inference.predictor import AnchorSegPredictor
from anchorseg.inference.session import ImageSession
from scripts.page.downloads import Downloads, write_downloads
from scripts.page.limits import MAP_PIXELS, Limits
from scripts.page.pictures import MapPicture, map_pictures, screen_scale, target_at
from scripts.page.visits import Shown, Visit, Visits
from scripts.page.wording import NO_TARGET, WORDS_ALONE, readable
from utils.errors import InputError

NO_ANSWER = "There is no answer yet: ask a question first."


@dataclass(frozen=True, kw_only=True)
class View:
    """What the page shows to one visitor.

    Attributes:
        notice: a sentence on the answer; empty where there is none yet.
        has_target: of the answer.
        targets: number, phrase, score and area of each target in words.
        hidden: numbers of the targets that are hidden.
        text: the answer with numbers in place of query banks.
        written: the answer as the model wrote it.
        dialogue: questions and answers so far.
        maps: of the targets that are shown.
        downloads: files of the targets that are shown.
    """

    notice: str = ""
    has_target: bool = False
    targets: tuple[str, ...] = ()
    hidden: frozenset[int] = frozenset()
    text: str = ""
    written: str = ""
    dialogue: tuple[tuple[str, str], ...] = ()
    maps: tuple[MapPicture, ...] = ()
    downloads: Downloads | None = None

    @property
    def shown(self) -> list[int]:
        """Numbers of the targets that are shown."""
        return [number for number in range(1, len(self.targets) + 1) if number not in self.hidden]


@dataclass(frozen=True, kw_only=True)
class Desk:
    """Serves the visitors of a page.

    Attributes:
        predictor: that answers.
        limits: of what they send.
        visits: the visitors.
        uploads: the folder of what they upload; no file outside it is read.
        max_new_tokens: longest answer.
    """

    predictor: AnchorSegPredictor
    limits: Limits
    visits: Visits
    uploads: Path
    max_new_tokens: int = 128
    bank: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        registry = self.predictor.registry
        object.__setattr__(self, "bank", tuple(registry.decode([index]) for index in registry.bank_ids))

    def open(self, visitor: str, upload: str | None) -> View:
        """Take an image up, or let go of it where there is none any more.

        Raises:
            InputError: see `Limits.image`.
        """
        visit = self.visits.of(visitor)
        with visit.asking:
            if upload is None:
                visit.close()
            else:
                self._take_up(visit, upload)
            return self._view(visit)

    def ask(self, visitor: str, upload: str | None, question: object, mode: Mode, *, follow: bool) -> View:
        """Answer a question about an image, which is read at its first question alone.

        Args:
            visitor: whose question it is.
            upload: the file of the image.
            question: in words.
            mode: see `anchorseg.inference.inputs.Asking`.
            follow: whether it follows the last answer in a dialogue.

        Raises:
            InputError: for what is not allowed; see `Limits`, too.
            DataError: for a dialogue that has become too long for the model.
        """
        asked = self.limits.asked(question)
        visit = self.visits.of(visitor)
        with visit.asking:
            session = self._take_up(visit, upload)
            if follow and visit.shown is None:
                raise InputError("There is no answer that a question could follow: ask a new question.")
            began = time.perf_counter()
            answer = session.predict(
                asked,
                after=visit.shown.answer if follow and visit.shown else None,
                mode=mode,
                max_new_tokens=self.max_new_tokens,
                token_maps=mode != "text" and session.image[..., 0].size <= MAP_PIXELS,
            )
            notice = self._notice(answer, mode, time.perf_counter() - began)
            visit.shown = Shown(answer=_without_maps(answer), maps=map_pictures(answer), notice=notice)
            turn = asked, readable(answer.text, self.bank)
            visit.dialogue = (*visit.dialogue, turn) if follow else (turn,)
            return self._view(visit)

    def show(self, visitor: str, numbers: Sequence[int]) -> View:
        """Show these targets of the last answer, and hide the others.

        Raises:
            InputError: if there is no answer.
        """
        visit = self.visits.of(visitor)
        with visit.asking:
            shown = _answered(visit)
            everyone = range(1, len(shown.answer.targets) + 1)
            visit.shown = replace(shown, hidden=frozenset(everyone) - frozenset(numbers))
            return self._view(visit)

    def click(self, visitor: str, x: float, y: float) -> View:
        """Hide the target whose mask holds a pixel of the page's picture, or show it again.

        Raises:
            InputError: if there is no answer.
        """
        visit = self.visits.of(visitor)
        with visit.asking:
            shown = _answered(visit)
            scale = screen_scale(shown.answer.image)
            number = target_at(shown.answer.targets, int(x / scale), int(y / scale))
            if number is not None:
                visit.shown = shown.toggled(number)
            return self._view(visit)

    def _take_up(self, visit: Visit, upload: str | None) -> ImageSession:
        if upload is not None and not Path(upload).resolve().is_relative_to(self.uploads.resolve()):
            raise InputError("The image was not uploaded here: upload it.")
        return visit.open(upload, self.limits.image, self.predictor.session)

    def _notice(self, answer: Answer, mode: Mode, seconds: float) -> str:
        count = len(answer.targets)
        found = f"{count} target{'s' if count > 1 else ''}." if count else NO_TARGET
        parts = [WORDS_ALONE if mode == "text" else found, f"Answered in {seconds:.2f} s."]
        if not answer.complete:
            parts.append(f"The answer was cut off at {self.max_new_tokens} tokens.")
        if count and answer.targets[0].token_maps is None:
            parts.append(f"Maps of single tokens are left out above {MAP_PIXELS / 1e6:g} million pixels.")
        return " ".join(parts)

    def _view(self, visit: Visit) -> View:
        shown = visit.shown
        if shown is None:
            return View()
        answer, hidden = shown.answer, shown.hidden
        return View(
            notice=shown.notice,
            has_target=answer.has_target,
            targets=tuple(_described(number, target) for number, target in enumerate(answer.targets, start=1)),
            hidden=hidden,
            text=visit.dialogue[-1][1],
            written=answer.text,
            dialogue=visit.dialogue,
            maps=tuple(item for item in shown.maps if item.target not in hidden),
            downloads=write_downloads(answer, hidden, visit.new_folder()),
        )


def _answered(visit: Visit) -> Shown:
    if visit.shown is None:
        raise InputError(NO_ANSWER)
    return visit.shown


def _without_maps(answer: Answer) -> Answer:
    slim = [replace(target, prior=None, anchor_priors=None, parts=None, token_maps=None) for target in answer.targets]
    return replace(answer, targets=tuple(slim))


def _described(number: int, target: Target) -> str:
    phrase = f" · {target.phrase}" if target.phrase else ""
    return f"{number}{phrase} · score {target.score:.2f} · {target.area:,} pixels"
