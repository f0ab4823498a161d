"""Heads: the ways of turning hidden states into masks, by name.

A further head is one file with a subclass of `Head`, and one line in `HEADS`.

Letters: B images, R rows, T positions, N targets, K latent tokens, P image tokens, D language width, C prompt width,
M low-resolution side, H W original size.
"""

from __future__ import annotations

from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from anchorseg.method.options import GsvaOptions, LisaOptions, Method, MethodOptions, PixelOptions, ReadOptions

if TYPE_CHECKING:
    from anchorseg.method.head import Head


@dataclass(frozen=True)
class HeadEntry:
    """A head: module and class, the options that it has, and the mask backbones that it needs, or None for any
    promptable one."""

    place: str
    Options: type[MethodOptions]
    masks: tuple[str, ...] | None = None

    def load(self) -> type[Head]:
        """The class itself; it imports torch."""
        return resolve_name(self.place)


PIXELLM = ("pixellm", "pixellm-published")

HEADS: dict[str, HeadEntry] = {
    "anchorseg": HeadEntry("anchorseg.method.anchorseg_head:AnchorSegHead", Method),
    "lisa": HeadEntry("anchorseg.method.lisa_head:LisaHead", LisaOptions),
    "gsva": HeadEntry("anchorseg.method.gsva_head:GsvaHead", GsvaOptions),
    "pixellm": HeadEntry("anchorseg.method.pixel_head:PixelHead", PixelOptions, PIXELLM),
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


def check_masks(head: str, mask_model: str) -> None:
    """Refuse a head over a mask backbone that it cannot prompt.

    Raises:
        ValueError: naming both.
    """
    needed = head_entry(head).masks
    if (needed is None) == (mask_model in PIXELLM) or (needed is not None and mask_model not in needed):
        fitting = "sam" if needed is None else " or ".join(needed)
        raise ValueError(f"--head {head} does not go with --mask_model {mask_model}; use --mask_model {fitting}")
