"""English text in cp1252, told apart from other encodings as far as that can be."""

from __future__ import annotations

import re

from utils.json_text import decode_text

_PUNCTUATION = rb"\x85\x91-\x94\x96\x97\xb0"
"""Quotes, dashes, the ellipsis and the degree sign, the same in every cp125x."""

_LETTERS = bytes(
    byte
    for byte in range(0xC0, 0x100)
    if len({bytes([byte]).decode(f"cp{page}", "replace") for page in (1250, 1252, 1254, 1257)}) == 1
    or byte in b"\xe1\xe2\xe7\xe8\xe0\xed\xee\xef\xf1\xf3\xf4\xfa\xfb"
)
_WORD = re.compile(rb"[A-Za-z][" + re.escape(_LETTERS) + rb"](?![\x80-\xff])|[" + _PUNCTUATION + rb"]")
_HIGH = re.compile(rb"[\x80-\xff]")
_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_LETTERS_EACH = 2
"""ASCII letters in a text for each byte above them: other alphabets have few, or none."""


def decode_western(data: bytes) -> str:
    """Text as `utils.json_text.decode_text` reads it, or JSON in cp1252, in which some published files are written.

    cp1252 gives any bytes a meaning, so text of another encoding would become other letters without a word. It is
    believed only where every text is English: mostly ASCII letters, with typographic punctuation and single accented
    letters within words.

    Raises:
        ValueError: for text that may be of another encoding.
    """
    try:
        return decode_text(data)
    except ValueError:
        if data[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in data or not _is_english(data):
            raise
    return data.decode("cp1252")


def _is_english(data: bytes) -> bool:
    texts = [text for text in _TEXT.findall(data) if _HIGH.search(text)]
    return sum(len(_HIGH.findall(text)) for text in texts) == len(_HIGH.findall(data)) and all(map(_fits, texts))


def _fits(text: bytes) -> bool:
    high = len(_HIGH.findall(text))
    return len(_WORD.findall(text)) == high and len(re.findall(rb"[A-Za-z]", text)) >= _LETTERS_EACH * high
