"""Heads: the ways of turning hidden states into masks, by name.

A further head is one file with a subclass of `Head`, and one line in `HEADS`.

Letters: B images, R rows, T positions, N targets, K latent tokens, P image tokens, D language width, C prompt width,
M low-resolution side, H W original size.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from anchorseg.method.options import LisaOptions, Method, MethodOptions

if TYPE_CHECKING:
    from anchorseg.method.head import Head

HEADS: dict[str, tuple[str, type[MethodOptions]]] = {
    "anchorseg": ("anchorseg.method.anchorseg_head:AnchorSegHead", Method),
    "lisa": ("anchorseg.method.lisa_head:LisaHead", LisaOptions),
}
"""Names in a model's configuration: module and class, and the options that the head has."""


@dataclass(frozen=True)
class HeadEntry:
    """One head of `HEADS`."""

    place: str
    Options: type[MethodOptions]

    def load(self) -> type[Head]:
        """The class itself; it imports torch."""
        module, _, attribute = self.place.partition(":")
        return getattr(import_module(module), attribute)


def head_class(name: str) -> HeadEntry:
    """The entry of a name.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in HEADS:
        raise ValueError(f"head is {name!r}; allowed: {', '.join(HEADS)}")
    return HeadEntry(*HEADS[name])
