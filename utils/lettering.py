"""Antialiased text of any script on an image: measured, wrapped and drawn with OpenCV's own font."""

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

REGULAR, BOLD = 400, 650
LINE_SPACING = 1.35


@lru_cache(maxsize=1)
def _font() -> Any:
    """OpenCV 5's built-in font: Latin, Greek, Cyrillic, CJK and more (4.x draws "???" for most of these)."""
    return cv2.FontFace("sans")


def text_width(text: str, size: int, weight: int = REGULAR) -> int:
    """Width of one line in pixels at a letter size in pixels."""
    _, _, width, _ = cv2.getTextSize((0, 0), text, (0, 0), _font(), size, weight)
    return int(width)


def line_height(size: int) -> int:
    """Distance between two lines of text, in pixels."""
    return round(size * LINE_SPACING)


def wrap(text: str, size: int, width: int, *, weight: int = REGULAR, max_lines: int = 8) -> list[str]:
    """Break a text into lines that fit.

    Args:
        text: anything; line breaks and tabs count as spaces.
        size: letter size in pixels.
        width: room in pixels.
        weight: `REGULAR` or `BOLD`.
        max_lines: lines after which the text ends in an ellipsis.

    Returns:
        The lines; words longer than the room are broken between letters. An empty text has none.
    """
    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(joined, size, weight) <= width:
            lines[-1] = joined
        else:
            lines += _pieces(word, size, width, weight)
    if len(lines) > max_lines:
        last = lines[max_lines - 1]
        while last and text_width(f"{last}…", size, weight) > width:
            last = last[:-1]
        lines = [*lines[: max_lines - 1], f"{last.rstrip()}…"]
    return lines


def _pieces(word: str, size: int, width: int, weight: int) -> list[str]:
    pieces = [""]
    for letter in word:
        if pieces[-1] and text_width(pieces[-1] + letter, size, weight) > width:
            pieces.append("")
        pieces[-1] += letter
    return pieces


def draw_text(
    canvas: Image, text: str, top_left: tuple[int, int], size: int, colour: Colour, weight: int = REGULAR
) -> None:
    """Draw one line onto an RGB image, in place; `top_left` is the (x, y) of its line box in pixels."""
    x, y = top_left
    baseline = y + round(size * (0.5 * LINE_SPACING + 0.32))
    cv2.putText(canvas, text, (x, baseline), colour, _font(), size, weight)


def text_block(lines: list[str], size: int, width: int, colour: Colour, weight: int = REGULAR) -> Image:
    """Lines of text on white, (len(lines) * line_height, width, 3)."""
    height = line_height(size)
    block = np.full((height * len(lines), width, 3), 255, np.uint8)
    for index, line in enumerate(lines):
        draw_text(block, line, (0, index * height), size, colour, weight)
    return block
