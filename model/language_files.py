"""Published weights of language backbones: what is known of a folder, and how its tensors reach a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from utils.errors import CheckpointError
from utils.loading import LoadReport, assign, match
from utils.tensor_files import TensorFiles


@dataclass(frozen=True)
class LanguageSource:
    """One folder of a language backbone.

    Attributes:
        files: its tensors.
        rename: name in it -> name in the network, or None.
        holds: whether a name of the network is to come from here.
        unused: regular expression of names that are known and not needed.
    """

    files: TensorFiles
    rename: Callable[[str], str | None]
    holds: Callable[[str], bool]
    unused: str


@dataclass(frozen=True)
class LanguageFiles:
    """A language backbone on disk: its configuration, its tokenizer's file, and the folders that hold its tensors."""

    config: Any
    tokenizer: bytes
    sources: tuple[LanguageSource, ...]


def damaged(path: Path, reason: str) -> CheckpointError:
    """What to raise for a published file that cannot be read."""
    return CheckpointError(f"{path}: {reason}; fetch it again")


def check_decoder(found: Any, expected: Any, *, folder: Path, size: str) -> None:
    """Refuse a published configuration whose decoder is of another size.

    Raises:
        CheckpointError: naming both sizes.
    """
    text, wanted = found.text_config, expected.text_config
    if (text.hidden_size, text.num_hidden_layers) != (wanted.hidden_size, wanted.num_hidden_layers):
        raise CheckpointError(
            f"--version {folder} has width {text.hidden_size} and {text.num_hidden_layers} layers, but size "
            f"{size} has {wanted.hidden_size} and {wanted.num_hidden_layers}; pass the preset of its size"
        )


def load_published(
    network: nn.Module,
    files: LanguageFiles,
    dtype: torch.dtype,
    pieces: int,
    tables: tuple[str, ...],
    *,
    adapt: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    drawn: tuple[str, ...] = (),
    unused: str = "$^",
) -> list[LoadReport]:
    """Fill a network of transformers; the vocabulary tables keep their drawn rows after the tokenizer's pieces.

    Args:
        network: to fill.
        files: opened.
        dtype: of the weights.
        pieces: tokens of the published tokenizer.
        tables: names of the vocabulary tables' weights.
        adapt: what is made of other tensors, which may have another number of rows.
        drawn: beginnings of names that keep their drawn weights.
        unused: regular expression of further names in the files that are known and not needed.

    Raises:
        CheckpointError: if a tensor is missing, unknown or of another shape.
    """
    shapes = {name: value.shape for name, value in network.state_dict().items() if not name.startswith(drawn)}
    adapted = {name: _keep_new_rows(network.get_parameter(name), pieces, name) for name in tables} | dict(adapt or {})
    pairs = [
        (
            source,
            match(
                {name: shape for name, shape in shapes.items() if source.holds(name)},
                source.files,
                source.rename,
                unused=f"{source.unused}|{unused}",
                longer=tuple(adapted),
            ),
        )
        for source in files.sources
    ]
    for source, report in pairs:
        assign(network, source.files, report, dtype, adapted)
    return [report for _, report in pairs]


def _keep_new_rows(table: Tensor, pieces: int, name: str) -> Callable[[Tensor], Tensor]:
    def adapt(published: Tensor) -> Tensor:
        if len(published) < pieces:
            raise CheckpointError(
                f"{name} has {len(published)} rows, but the tokenizer has {pieces} pieces; fetch both again"
            )
        return torch.cat([published[:pieces].to(table.dtype), table.data[pieces:]])

    return adapt
