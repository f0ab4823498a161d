"""Errors that are the user's to mend, and how an entry point shows them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EXIT_STATUS = 2


class UserError(Exception):
    """Something the user can mend; the message is a sentence that names the value and the remedy."""


class SettingsError(UserError, ValueError):
    """A flag, preset or settings value that is not allowed."""


class InputError(UserError, ValueError):
    """An argument of a call, such as an image or a question, that is not allowed."""


class NoImageError(UserError, RuntimeError):
    """A question before there is an image to ask about."""


class CheckpointError(UserError, ValueError):
    """A checkpoint that is incomplete or does not fit the model."""


class OutputExistsError(UserError, FileExistsError):
    """An output that is already there and would be overwritten."""


class OutputError(UserError, OSError):
    """An output that cannot be written."""

    def __str__(self) -> str:
        return str(self.args[0])


class DivergedError(UserError, FloatingPointError):
    """A training run whose loss is no longer finite."""


class DataError(UserError, ValueError):
    """A file of a data set that cannot be used.

    Args:
        path: the file.
        reason: what is wrong with it, as the end of the sentence "PATH: reason".

    Note:
        The DataLoader hands a worker's error over as one text, traceback included; the path and the reason
        are then read back from its last line, so the error stays a `DataError` with both in place.
    """

    def __init__(self, path: str | Path, reason: str = "") -> None:
        if not reason:
            last_line = str(path).strip().rsplit("\n", 1)[-1]
            path, _, reason = last_line.split("DataError: ", 1)[-1].partition(": ")
        super().__init__(str(path), reason)
        self.path = str(path)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def _sentence(error: Exception) -> str:
    if isinstance(error, FileNotFoundError) and error.filename is not None:
        return f"The file {error.filename} does not exist."
    return str(error)


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Turn errors that are the user's to mend into one sentence on stderr and exit status 2.

    Catches `UserError` and `FileNotFoundError`; any other error is a defect and keeps its traceback.
    Works as a context manager and, called, as a decorator: ``@exit_on_error()``.
    """
    try:
        yield
    except (UserError, FileNotFoundError) as error:
        sys.stderr.write(f"error: {_sentence(error)}\n")
        raise SystemExit(EXIT_STATUS) from error
