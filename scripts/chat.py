"""Talk about images: `anchorseg chat photo.jpg --model FOLDER` asks for a question, answers, and asks again.

Each further question follows those before it. /image FILE takes another image, /new begins anew with the same one,
/auto, /mask and /text choose what is wanted, /quit ends. The picture of each answer goes into --out.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from dataset.readers.asked import IMAGE_SUFFIXES
from dataset.templates.wording import Kind
from scripts.predict import load, model_flags
from utils.errors import UserError, exit_on_error
from utils.files import make_folder
from utils.waiting import wait_without_spinning

if TYPE_CHECKING:
    from anchorseg.inference.answer import Answer
    from anchorseg.inference.predictor import AnchorSegPredictor
    from anchorseg.inference.session import ImageSession

HELP = "commands: /image FILE, /new, /auto, /mask, /text, /quit; anything else is a question"
_MODES = ("auto", "mask", "text")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("image", nargs="?", help="image file; none: asked for")
    made.add_argument("--out", type=Path, default=Path("chat"), help="folder for the pictures")
    made.add_argument("--kind", choices=get_args(Kind), default="auto", help="what a query is; auto: by its words")
    made.add_argument("--max_new_tokens", type=int, default=128, help="longest answer")
    model_flags(made)
    return made


class Chat:
    """One user's dialogue about an image.

    Args:
        predictor: that answers.
        arguments: of the command line.
    """

    def __init__(self, predictor: AnchorSegPredictor, arguments: argparse.Namespace) -> None:
        self._predictor, self._arguments = predictor, arguments
        self._session: ImageSession | None = None
        self._last: Answer | None = None
        self._mode = "auto"
        self._pictures = max((int(p.name[:3]) for p in arguments.out.glob("[0-9][0-9][0-9].overlay.png")), default=0)

    @property
    def wants(self) -> str:
        """What is asked for next."""
        return "image" if self._session is None else "question"

    def take(self, line: str) -> str:
        """Do what a line says; what is to be printed.

        Raises:
            UserError: for an image or a question that cannot be used; the dialogue goes on.
        """
        if not line:
            return HELP
        name, _, rest = line[1:].partition(" ")
        if line.startswith("/image ") and rest.strip():
            return self._open(rest.strip())
        if line.startswith("/") and Path(line).suffix.lower() in IMAGE_SUFFIXES:
            return self._open(line)
        if not line.startswith("/"):
            return self._open(line) if self._session is None else self._ask(line)
        if name == "new":
            self._last = None
            return "a new dialogue about the same image"
        if name in _MODES:
            self._mode = name
            return f"mode {name}"
        return HELP

    def _open(self, path: str) -> str:
        session = self._predictor.session(path)
        self._session, self._last = session, None
        height, width = session.image.shape[:2]
        return f"{path}: {width} x {height}"

    def _ask(self, query: str) -> str:
        assert self._session is not None
        answer = self._session.predict(
            query,
            after=self._last,
            mode=self._mode,  # type: ignore[arg-type]
            kind=self._arguments.kind,
            max_new_tokens=self._arguments.max_new_tokens,
        )
        self._last = answer
        self._pictures += 1
        picture, *_ = answer.save(self._arguments.out, f"{self._pictures:03d}")
        targets = [f"  target: {t.area} pixels, score {t.score:.3f}, phrase {t.phrase!r}" for t in answer.targets]
        return "\n".join([answer.text, *(targets or ["  no target"]), f"  picture: {picture}"])


def main(argv: Sequence[str] | None = None) -> None:
    """Load, and talk until the input ends."""
    arguments = parser().parse_args(argv)
    make_folder(arguments.out, "--out")
    wait_without_spinning()
    chat = Chat(load(arguments), arguments)
    print(HELP)
    if arguments.image is not None:
        print(chat.take(f"/image {arguments.image}"))
    while (line := _read(f"{chat.wants}> ")) not in (None, "/quit"):
        try:
            print(chat.take(str(line)), flush=True)
        except UserError as error:
            print(f"error: {error}", flush=True)


def _read(prompt: str) -> str | None:
    """A line of the input, or None at its end."""
    try:
        return input(prompt).strip()
    except (EOFError, KeyboardInterrupt):
        print()
        return None


if __name__ == "__main__":
    with exit_on_error():
        main()
