"""Heads: the ways of turning hidden states into masks, by name.

A further head is one file with a subclass of `Head`, and one line in `HEADS`.

Letters: B images, R rows, T positions, N targets, K latent tokens, P image tokens, D language width, C prompt width,
M low-resolution side, H W original size.
"""

from __future__ import annotations

from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from anchorseg.method.options import GsvaOptions, LisaOptions, Method, MethodOptions, ReadOptions

if TYPE_CHECKING:
    from anchorseg.method.head import Head


@dataclass(frozen=True)
class HeadEntry:
    """A head: module and class, and the options that it has."""

    place: str
    Options: type[MethodOptions]

    def load(self) -> type[Head]:
        """The class itself; it imports torch."""
        return resolve_name(self.place)


HEADS: dict[str, HeadEntry] = {
    "anchorseg": HeadEntry("anchorseg.method.anchorseg_head:AnchorSegHead", Method),
    "lisa": HeadEntry("anchorseg.method.lisa_head:LisaHead", LisaOptions),
    "gsva": HeadEntry("anchorseg.method.gsva_head:GsvaHead", GsvaOptions),
    "read": HeadEntry("anchorseg.method.read_head:ReadHead", ReadOptions),
}
"""By the names in a model's configuration."""


def head_entry(name: str) -> HeadEntry:
    """The entry of a name.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in HEADS:
        raise ValueError(f"head is {name!r}; allowed: {', '.join(HEADS)}")
    return HEADS[name]
