"""Strict loading: every tensor of a file goes to a known place or is named, and every place is filled or named."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers.utils import logging as transformers_logging

from utils.errors import CheckpointError
from utils.hub import fetch_snapshot, hub_errors, is_hub_name
from utils.tensor_files import TensorFiles


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What a load did.

    Attributes:
        source: file or folder.
        loaded: own name -> name in the source.
        new: own names that the source lacks by design; they start from their own distribution.
        refused: names in the source that the model has no use for, each of a known kind.
    """

    source: str
    loaded: Mapping[str, str]
    new: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()

    def __str__(self) -> str:
        return (
            f"{self.source}: {len(self.loaded)} tensors loaded, {len(self.new)} new{_grouped(self.new)}, "
            f"{len(self.refused)} refused{_grouped(self.refused)}"
        )


def _grouped(names: Collection[str]) -> str:
    groups = Counter(re.sub(r"\.\d+\.", ".*.", name) for name in names)
    shown = [f"{name} x {count}" if count > 1 else name for name, count in groups.items()]
    return f" ({', '.join(shown)})" if shown else ""


def match(
    shapes: Mapping[str, torch.Size],
    files: TensorFiles,
    rename: Callable[[str], str | None],
    *,
    unused: str = "$^",
    new: Collection[str] = (),
    longer: Collection[str] = (),
) -> LoadReport:
    """Pair the tensors of a source with the places of a model.

    Args:
        shapes: own name -> shape.
        files: the source.
        rename: name in the source -> own name, or None if it has none.
        unused: regular expression of names in the source that are known and not needed.
        new: own names that the source is not expected to hold.
        longer: own names whose tensor may have more rows than the model, or fewer (they are adapted on assignment).

    Raises:
        CheckpointError: naming every kind of tensor that is missing, unknown, or of another shape.
    """
    loaded: dict[str, str] = {}
    refused, unknown, misshapen = [], [], []
    for name in files:
        own = rename(name)
        if own is not None and own in shapes and own not in loaded:
            loaded[own] = name
            found, wanted = files.shape(name), shapes[own]
            if found[1:] != wanted[1:] or (found != wanted and own not in longer):
                misshapen.append(f"{name} {tuple(found)} instead of {tuple(wanted)}")
        elif re.search(unused, name):
            refused.append(name)
        else:
            unknown.append(name)
    missing = [name for name in shapes if name not in loaded and name not in new]
    problems = {"missing": missing, "of another shape": misshapen, "unknown": unknown}
    found_problems = [
        f"{len(names)} tensor(s) {kind}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
        for kind, names in problems.items()
        if names
    ]
    if found_problems:
        raise CheckpointError(
            f"{files.path} does not hold the weights asked for. {'; '.join(found_problems)}. "
            "Nothing was loaded; fetch it again, or give the folder or file that the flag asks for"
        )
    fresh = tuple(name for name in shapes if name not in loaded)
    return LoadReport(source=str(files.path), loaded=loaded, new=fresh, refused=tuple(refused))


def assign(
    module: nn.Module,
    files: TensorFiles,
    report: LoadReport,
    dtype: torch.dtype,
    adapt: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
) -> None:
    """Put matched tensors into a module, one at a time, as `dtype`.

    Args:
        module: its state has the names of the report.
        files: the source.
        report: of `match`.
        dtype: of the module's weights afterwards.
        adapt: own name -> change to make to the tensor on the way.
    """
    for own, name in report.loaded.items():
        tensor = files[name]
        if adapt and own in adapt:
            tensor = adapt[own](tensor)
        module.load_state_dict({own: tensor.to(dtype, copy=True)}, strict=False, assign=True)


@contextmanager
def refused_values(path: Path) -> Iterator[None]:
    """Turn what transformers raises about the values of a configuration file into a sentence that names the file.

    Raises:
        CheckpointError: for any error inside; the checks of a configuration raise many kinds.
    """
    try:
        yield
    except Exception as error:
        words = " ".join(str(error).split())[:300] or type(error).__name__
        raise CheckpointError(f"{path}: {words}; write the folder again, or copy it again") from error


@contextmanager
def without_bars_in_logs() -> Iterator[None]:
    """Leave out transformers' progress bars where stderr is no terminal; a log shows each of their states as text."""
    if sys.stderr.isatty() or not transformers_logging.is_progress_bar_enabled():
        yield
        return
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.enable_progress_bar()


def local_folder(
    name: str | Path, flag: str, *, revision: str | None = None, files: Sequence[str] | None = None
) -> Path:
    """A local folder or file, or a repository of the Hugging Face hub fetched into its cache; a local one wins.

    Args:
        name: path, or OWNER/NAME.
        flag: what the name was given as, for messages.
        revision: of the repository: branch, tag or commit.
        files: patterns of its files that are needed; None is all that this project could read.

    Raises:
        CheckpointError: if it is neither, or a revision of a local folder is asked for.
    """
    path = Path(name)
    if path.exists():
        if revision is not None:
            raise CheckpointError(
                f"revision {revision} is given, but {flag} {name} is a local folder, which has none; leave it out"
            )
        return path
    if not is_hub_name(str(name)):
        raise CheckpointError(f"{flag} {name} does not exist; give a local folder or a name on the hub (OWNER/NAME)")

    def unread(reason: str) -> CheckpointError:
        return CheckpointError(
            f"{flag} {name} is no local folder, and the hub could not be read ({reason}); "
            "fetch it where there is a network and give its folder"
        )

    with hub_errors(unread):
        return fetch_snapshot(str(name), revision=revision, files=files)
