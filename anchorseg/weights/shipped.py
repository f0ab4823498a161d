"""Models that come with the project, by name; `assets/README.md` says what they are."""

from __future__ import annotations

from pathlib import Path

ASSETS = Path(__file__).parent / "assets"
SHIPPED = {"tiny-llava": ASSETS / "tiny-llava", "tiny-sam": ASSETS / "tiny_sam.pth", "miniature": ASSETS / "miniature"}


def shipped(name: str | Path) -> str:
    """The path of a model that comes with the project; any other name, and one that is a path, as it is."""
    name = str(name)
    return str(SHIPPED[name]) if name in SHIPPED and not Path(name).exists() else name
