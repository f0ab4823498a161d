"""A plot with two logarithmic axes, drawn with OpenCV."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from utils.lettering import BOLD, draw_text, line_height, text_width

WIDTH, HEIGHT = 960, 560
LEFT, RIGHT, TOP, BOTTOM = 90, 40, 60, 70
INK, RULE = (30, 30, 30), (222, 222, 222)
COLOURS = ((190, 60, 50), (40, 100, 180), (50, 140, 80), (150, 90, 160))
LETTERS = 17


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten that enclose a range."""
    steps = [
        factor * 10.0**power
        for power in range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
        for factor in (1, 2, 5)
    ]
    first = max(index for index, step in enumerate(steps) if step <= low)
    last = min(index for index, step in enumerate(steps) if step >= high)
    return steps[first : last + 1]


def _place(value: float, low: float, high: float, start: int, end: int) -> int:
    share = (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
    return round(start + share * (end - start))


def draw_lines(
    path: Path, across: Sequence[float], lines: Mapping[str, Sequence[float]], *, title: str, axis: str
) -> None:
    """Draw positive values as lines into a PNG.

    Args:
        path: of the picture.
        across: at least two ascending positive numbers.
        lines: by name, as many values as `across`.
        title: above the picture.
        axis: below the horizontal axis.
    """
    canvas = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    values = [value for line in lines.values() for value in line]
    ticks = _ticks(min(values), max(values))
    draw_text(canvas, title, (LEFT, 16), LETTERS + 3, INK, BOLD)
    draw_text(canvas, axis, ((WIDTH - text_width(axis, LETTERS)) // 2, HEIGHT - 32), LETTERS, INK)
    for tick in ticks:
        y = _place(tick, ticks[0], ticks[-1], HEIGHT - BOTTOM, TOP)
        cv2.line(canvas, (LEFT, y), (WIDTH - RIGHT, y), RULE, 1)
        text = f"{tick:g}"
        draw_text(canvas, text, (LEFT - 10 - text_width(text, LETTERS), y - line_height(LETTERS) // 2), LETTERS, INK)
    columns = [_place(number, across[0], across[-1], LEFT + 30, WIDTH - RIGHT - 30) for number in across]
    for number, x in zip(across, columns, strict=True):
        text = f"{number:g}"
        draw_text(canvas, text, (x - text_width(text, LETTERS) // 2, HEIGHT - BOTTOM + 8), LETTERS, INK)
    for index, (name, line) in enumerate(lines.items()):
        colour = COLOURS[index % len(COLOURS)]
        rows = [_place(value, ticks[0], ticks[-1], HEIGHT - BOTTOM, TOP) for value in line]
        points = np.array(list(zip(columns, rows, strict=True)), np.int32)
        cv2.polylines(canvas, [points], False, colour, 2, cv2.LINE_AA)
        for x, y in points.tolist():
            cv2.circle(canvas, (x, y), 5, colour, -1, cv2.LINE_AA)
        top = TOP + 8 + index * line_height(LETTERS)
        cv2.line(canvas, (LEFT + 16, top + 12), (LEFT + 44, top + 12), colour, 3, cv2.LINE_AA)
        draw_text(canvas, name, (LEFT + 54, top), LETTERS, INK)
    cv2.imwrite(str(path), np.ascontiguousarray(canvas[..., ::-1]))
