"""A static HTML page: text, tables, pictures, curves and bars, and a table that the browser filters; no server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from utils.files import write_text
from utils.page_table import Column, filtered_table

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #191c21; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .3rem .9rem; border-bottom: 1px solid #cdd0d4; text-align: left; font-variant-numeric: tabular-nums; }
figure { margin: 1.5rem 0; } figure img { max-width: 100%; border: 1px solid #cdd0d4; }
figcaption { color: #69707a; font-size: .9rem; } svg { max-width: 100%; height: auto; }
.wall { display: grid; grid-template-columns: repeat(auto-fill, minmax(26rem, 1fr)); gap: 1rem; }
.wall figure { margin: 0; }
.filters { display: flex; flex-wrap: wrap; gap: .6rem 1rem; align-items: end; margin: 1rem 0 .4rem; }
.filters label { display: flex; flex-direction: column; color: #69707a; font-size: .85rem; }
.filters input, .filters select { font: inherit; color: #191c21; padding: .15rem .3rem; border: 1px solid #cdd0d4; }
.filters input[type=number] { width: 5.5rem; }
.scroll { overflow-x: auto; } .scroll td { padding: .25rem .6rem; vertical-align: top; }
.scroll th { padding: .25rem .6rem; cursor: pointer; white-space: nowrap; }
.scroll td.number { text-align: right; }
.scroll td.text { min-width: 9rem; max-width: 28rem; overflow-wrap: anywhere; }
.count { color: #69707a; font-size: .9rem; }
dl { margin: .4rem 0; white-space: pre-wrap; } dt { font-weight: 600; } dd { margin: 0 0 0 1.2rem; }
dd b { color: #fff; padding: 0 .3rem; border-radius: .2rem; } nav { margin: 1rem 0; }
"""
_COLOURS = ("#2864b4", "#be3c32", "#328c50", "#965aa0")
_WIDTH, _HEIGHT, _LEFT, _EDGE = 720, 260, 60, 30
_WIDE = "98rem"

Curve = Sequence[tuple[float, float]]
"""Points (x, y), x ascending."""

Words = Sequence[tuple[str, str | None]]
"""Pieces of a text, each with the CSS colour that it stands on, or None."""


class Page:
    """Collects the parts of a page in order; every text is escaped.

    Args:
        title: of the page.
        wide: as wide as a table of many columns needs.
    """

    def __init__(self, title: str, *, wide: bool = False) -> None:
        self._title = title
        self._style = _STYLE + (f"body {{ max-width: {_WIDE}; }}\n" if wide else "")
        self._parts = [f"<h1>{escape(title)}</h1>"]

    def heading(self, text: str) -> None:
        """Begin a section."""
        self._parts.append(f"<h2>{escape(text)}</h2>")

    def subheading(self, text: str) -> None:
        """Begin a part of a section."""
        self._parts.append(f"<h3>{escape(text)}</h3>")

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self._parts.append(f"<p>{escape(text)}</p>")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Add a table."""
        lines = [_row("th", head), *(_row("td", row) for row in rows)]
        self._parts.append(f"<table>{''.join(lines)}</table>")

    def picture(self, source: str, caption: str = "") -> None:
        """Add a picture by its path, relative to the page."""
        self._parts.append(_figure(source, caption))

    def wall(self, pictures: Sequence[tuple[str, str]]) -> None:
        """Add pictures side by side, each by its path, relative to the page, with its caption."""
        figures = "".join(_figure(source, caption) for source, caption in pictures)
        self._parts.append(f'<div class="wall">{figures}</div>')

    def bars(self, counts: Sequence[int], *, across: str, title: str) -> None:
        """Add a histogram of numbers from 0 to 1 by the counts of its bins, which are equally wide."""
        self._parts.append(f"<figure>{_bars(counts, across)}<figcaption>{escape(title)}</figcaption></figure>")

    def filtered_table(self, columns: Sequence[Column], rows: Sequence[Sequence[object]]) -> None:
        """Add a table that the browser filters and sorts, see `utils.page_table`."""
        self._parts.append(filtered_table(columns, rows))

    def links(self, links: Sequence[tuple[str, str | None]]) -> None:
        """Add a line of links by their text; an address of None leaves the text alone. Addresses are relative paths."""
        parts = [
            escape(text) if address is None else f'<a href="{escape(quote(address))}">{escape(text)}</a>'
            for text, address in links
        ]
        self._parts.append(f"<nav>{' &middot; '.join(parts)}</nav>")

    def exchange(self, question: str, answer: Words) -> None:
        """Add a question and its answer."""
        words = " ".join(
            escape(text) if colour is None else f'<b style="background: {escape(colour)}">{escape(text)}</b>'
            for text, colour in answer
        )
        self._parts.append(f"<dl><dt>{escape(question)}</dt><dd>{words}</dd></dl>")

    def curves(self, curves: Mapping[str, Curve], *, across: str, title: str) -> None:
        """Add curves by name, at least one with two points; the vertical axis begins at 0 or below."""
        self._parts.append(f"<figure>{_svg(curves, across)}<figcaption>{escape(title)}</figcaption></figure>")

    def write(self, path: Path) -> None:
        """Write the page."""
        body = "\n".join(self._parts)
        write_text(
            path,
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(self._title)}</title>'
            f'<meta name="viewport" content="width=device-width"><style>{self._style}</style></head>\n'
            f"<body>\n{body}\n</body></html>\n",
        )


def _row(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"


def _figure(source: str, caption: str) -> str:
    address = escape(quote(source))
    return (
        f'<figure><a href="{address}"><img loading="lazy" src="{address}" alt="{escape(caption)}"></a>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _bars(counts: Sequence[int], across: str) -> str:
    most, wide = max([*counts, 1]), (_WIDTH - _LEFT - _EDGE) / len(counts)
    tall, bottom = _HEIGHT - 2 * _EDGE, _HEIGHT - _EDGE
    parts = [f'<polyline points="{_LEFT},{bottom} {_WIDTH - _EDGE},{bottom}" stroke="#191c21"/>']
    for number, count in enumerate(counts):
        height, left = tall * count / most, _LEFT + wide * number
        parts.append(
            f'<rect x="{left + 1:.1f}" y="{bottom - height:.1f}" width="{wide - 2:.1f}" height="{height:.1f}" '
            f'fill="{_COLOURS[0]}"/>'
        )
        parts.append(
            f'<text x="{left + wide / 2:.1f}" y="{bottom - height - 5:.1f}" text-anchor="middle">{count or ""}</text>'
        )
    for number in range(0, len(counts) + 1, max(len(counts) // 5, 1)):
        x = _LEFT + wide * number
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - 10}" text-anchor="middle">{number / len(counts):.1f}</text>')
    parts.append(f'<text x="{_WIDTH - _EDGE}" y="14" text-anchor="end">{escape(across)}</text>')
    return _drawing(parts)


def _drawing(parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" font-size="13" font-family="sans-serif" '
        f'fill="#191c21">{"".join(parts)}</svg>'
    )


def _svg(curves: Mapping[str, Curve], across: str) -> str:
    points = [point for curve in curves.values() for point in curve]
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(0.0, *(y for _, y in points)), max(y for _, y in points)
    wide, tall = (right - left) or 1.0, (high - low) or 1.0

    def place(x: float, y: float) -> str:
        return (
            f"{_LEFT + (x - left) / wide * (_WIDTH - _LEFT - _EDGE):.1f},"
            f"{_HEIGHT - _EDGE - (y - low) / tall * (_HEIGHT - 2 * _EDGE):.1f}"
        )

    parts = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = low + share * tall
        start, end = place(left, y), place(right, y)
        height = float(start.split(",")[1])
        parts.append(f'<polyline points="{start} {end}" stroke="#dedede"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{height + 4:.1f}" text-anchor="end">{y:.3g}</text>')
    for (name, curve), colour, number in zip(curves.items(), _COLOURS, range(len(_COLOURS)), strict=False):
        line = " ".join(place(x, y) for x, y in curve)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{_LEFT + 130 * number}" y="18" fill="{colour}">{escape(name)}</text>')
    parts.append(f'<text x="{_WIDTH - _EDGE}" y="{_HEIGHT - 8}" text-anchor="end">{escape(across)} {right:g}</text>')
    parts.append(f'<text x="{_LEFT}" y="{_HEIGHT - 8}">{left:g}</text>')
    return _drawing(parts)
