"""Data folder: the tree that holds every dataset, the index of its large files, and where images are looked for."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from utils.errors import DataError

_CHECKED, _SHOWN = 200, 20


@dataclass(frozen=True)
class DataFolder:
    """`root` holds the datasets (docs/data.md); `index` keeps what was made of large annotation files."""

    root: Path
    index: Path

    def find(self, *relative: str) -> Path:
        """The first of some files or folders below the root that exists.

        Raises:
            FileNotFoundError: naming all of them.
        """
        for name in relative:
            if (self.root / name).exists():
                return self.root / name
        names = " or ".join(str(self.root / name) for name in relative)
        raise FileNotFoundError(f"{names} does not exist; docs/data.md says where it comes from and where it belongs")


def _is_file(path: Path) -> bool:
    """Whether there is such a file; a name that the system cannot have is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


class ImageRoots:
    """Folders in which the images of a family are looked for, in order.

    Args:
        data: the data folder.
        relative: folders below its root, of which at least one must exist.

    Raises:
        FileNotFoundError: if none of them exists.
    """

    def __init__(self, data: DataFolder, *relative: str) -> None:
        data.find(*relative)
        self._folders = [data.root / name for name in relative if (data.root / name).is_dir()]

    def find(self, name: str, record: str) -> Path:
        """Path of the image that a record names.

        Raises:
            DataError: if the name leads out of the folders, or there is no such file.
        """
        path = self._locate(name, record)
        if path is None:
            folders = ", ".join(map(str, self._folders))
            raise DataError(record, f"its image {name} is not in {folders}; fetch it, or link the folder that holds it")
        return path

    def _locate(self, name: str, record: str) -> Path | None:
        """The first file with the name itself, with "/" for the "\\" of Windows, or with its letters (de)composed."""
        spellings = dict.fromkeys(
            unicodedata.normalize(form, path) for path in (name, name.replace("\\", "/")) for form in ("NFC", "NFD")
        )
        for path in (name, *spellings):
            self._refuse_way_out(path, name, record)
        found = (folder / path for folder in self._folders for path in (name, *spellings))
        return next((path for path in found if _is_file(path)), None)

    def _refuse_way_out(self, path: str, name: str, record: str) -> None:
        relative = PurePosixPath(path)
        if not path or "\0" in path:
            raise DataError(record, f"its image name {name!r:.80} is no file name")
        if relative.is_absolute() or ".." in relative.parts or PureWindowsPath(path).drive:
            raise DataError(
                record, f"its image name {name!r:.80} leads out of the image folder; names must be relative"
            )

    def check(self, count: int, name_of: Callable[[int], str], record: str, *, every: bool = False) -> None:
        """See at the start whether images are there: some, evenly spread, or every one.

        Args:
            count: number of images.
            name_of: file name by number; what it raises for a malformed record is passed over unless `every`.
            record: who asks, for messages.
            every: look for all.

        Raises:
            FileNotFoundError: naming the first that are missing.
            DataError: with `every`, if a name leads out of the folders, or as `name_of`.
        """
        numbers = range(count) if every or count <= _CHECKED else np.linspace(0, count - 1, _CHECKED).astype(int)
        missing = []
        for number in numbers:
            try:
                name = name_of(int(number))
                if self._locate(name, record) is None:
                    missing.append(name)
            except DataError:
                if every:
                    raise
        if missing:
            raise FileNotFoundError(
                f"{record}: {len(missing)} of {len(numbers)} images looked for are not in "
                f"{', '.join(map(str, self._folders))}: {', '.join(missing[:_SHOWN])}; see docs/data.md"
            )
