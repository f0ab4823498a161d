"""Vocabularies: LLaMA's pieces of SentencePiece, and Qwen's byte pairs, behind one protocol.

Text that reaches a vocabulary is plain: no special token is recognized in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, Protocol

import sentencepiece
from tokenizers import AddedToken, Tokenizer, pre_tokenizers

from anchorseg.method.fast_tokenizer import fast_tokenizer, parse_model
from utils.errors import CheckpointError
from utils.json_text import parse_json
from utils.shown import shown

MODEL_FILE, JSON_FILE = "tokenizer.model", "tokenizer.json"
END, PAD = "<|im_end|>", "<|endoftext|>"
_FLAGS = ("special", "lstrip", "rstrip")
_NO_BLANK = ".,!?\n"
"""Before these no blank is put."""


class OtherVocabularyError(CheckpointError):
    """A `tokenizer.json` whose vocabulary is none of Qwen's."""


class Pieces(Protocol):
    """What a vocabulary gives.

    Attributes:
        file: name of the file that it is read from.
        eos_id: id that ends an answer.
        bos_id: id that begins a sequence, if there is one.
        control: string to id of the special tokens of its own, at which text that may hold them is split.
        control_takes_blanks: whether blanks that touch one of these vanish.
        roles: what `tokenizer_config.json` says of them, role to string.
    """

    file: str
    eos_id: int
    bos_id: int | None
    control: dict[str, int]
    control_takes_blanks: bool
    roles: dict[str, str]

    def __len__(self) -> int:
        """Number of ids, those of its own special tokens included."""

    def encode(self, text: str) -> list[int]:
        """Ids of plain text."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; special tokens are left out, and so are ids of none."""

    def join(self, parts: Iterable[str]) -> str:
        """Text of what lies between added tokens, and of these, in turn."""

    def piece_to_id(self, piece: str) -> int | None:
        """Id of a piece or special token, if it is one."""

    def tokenizer(self, added: dict[str, int], image: str) -> Tokenizer:
        """A tokenizer that gives the ids of `TokenRegistry.encode`, `image` right after the added tokens."""


def read_pieces(model: bytes) -> Pieces:
    """The vocabulary in the bytes of a `tokenizer.json` or `tokenizer.model`; a JSON text begins with a brace.

    Raises:
        CheckpointError: naming the file, if it is damaged or of another kind.
    """
    return BytePairs(model) if is_json(model) else SentencePieces(model)


def is_json(content: bytes) -> bool:
    """Whether bytes begin as a JSON object does, blanks and a byte order mark left out."""
    return content.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")


class SentencePieces:
    """LLaMA's vocabulary: each text has SentencePiece's dummy prefix. See `Pieces`.

    Args:
        model: the bytes of `tokenizer.model`.

    Raises:
        CheckpointError: if they are damaged, or encode by other rules than LLaMA's.
    """

    file = MODEL_FILE
    control_takes_blanks = True

    def __init__(self, model: bytes) -> None:
        parse_model(model)
        try:
            pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        except (RuntimeError, ValueError, OSError) as error:
            raise CheckpointError(f"{MODEL_FILE} is damaged ({error!s:.120}); copy it again") from error
        self._model, self._pieces = model, pieces
        self.bos_id: int | None = pieces.bos_id()
        self.eos_id: int = pieces.eos_id()
        ids = {"bos_token": pieces.bos_id(), "eos_token": pieces.eos_id(), "unk_token": pieces.unk_id()}
        self.roles = {role: pieces.id_to_piece(index) for role, index in ids.items()}
        # No text is encoded to `<unk>`, `<s>` and `</s>`.
        control = (index for index in range(len(self)) if pieces.is_control(index) or pieces.is_unknown(index))
        self.control = {pieces.id_to_piece(index): index for index in control}

    def __len__(self) -> int:
        return self._pieces.vocab_size()

    def encode(self, text: str) -> list[int]:
        """See `Pieces`."""
        return self._pieces.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """See `Pieces`."""
        return self._pieces.decode(list(ids))

    def join(self, parts: Iterable[str]) -> str:
        """See `Pieces`; no piece says whether a blank stood beside an added token."""
        return re.sub(r"\s+([.,!?])", r"\1", " ".join(part for part in parts if part)).strip()

    def piece_to_id(self, piece: str) -> int | None:
        """See `Pieces`; any other string has the id of `<unk>`."""
        return self._pieces.piece_to_id(piece)

    def tokenizer(self, added: dict[str, int], image: str) -> Tokenizer:
        """See `Pieces`."""
        return fast_tokenizer(self._model, added, list(self.control), image)


class BytePairs:
    """Qwen's vocabulary: byte pairs, and special tokens after them that leave the blanks around them. See `Pieces`.

    Special tokens that do take blanks are those that this project adds; a saved `tokenizer.json` is read without them.

    Args:
        model: the bytes of `tokenizer.json`.

    Raises:
        CheckpointError: if they are damaged, or encode by other rules than Qwen's.
    """

    file = JSON_FILE
    control_takes_blanks = False
    bos_id: int | None = None

    def __init__(self, model: bytes) -> None:
        values = _own_values(model)
        own = values["added_tokens"]
        # Of this tokenizer the special tokens are only text.
        self._model, self._plain = model, _tokenizer({**values, "added_tokens": [], "post_processor": None})
        self.control: dict[str, int] = {token["content"]: token["id"] for token in own}
        self._written = {token["id"]: "" if token["special"] else token["content"] for token in own}
        _check(values, self._plain.get_vocab(with_added_tokens=False), self.control)
        self.eos_id: int = self.control[END]
        self.roles = {"eos_token": END, **({"pad_token": PAD} if PAD in self.control else {})}

    def __len__(self) -> int:
        return max(self._plain.get_vocab_size() - 1, *self.control.values()) + 1

    def encode(self, text: str) -> list[int]:
        """See `Pieces`."""
        return self._plain.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """See `Pieces`."""
        runs = ((is_special, list(run)) for is_special, run in groupby(ids, key=self._written.__contains__))
        return "".join(
            "".join(self._written[index] for index in run) if is_special else self._plain.decode(run)
            for is_special, run in runs
        )

    def join(self, parts: Iterable[str]) -> str:
        """See `Pieces`; text keeps the blanks within it."""
        text = ""
        for part in parts:
            part = part.strip(" ")
            joined = not text or not part or text[-1] == "\n" or part[0] in _NO_BLANK
            text += part if joined else f" {part}"
        return text.strip()

    def piece_to_id(self, piece: str) -> int | None:
        """See `Pieces`."""
        return self.control.get(piece, self._plain.token_to_id(piece))

    def tokenizer(self, added: dict[str, int], image: str) -> Tokenizer:
        """See `Pieces`."""
        tokenizer = _tokenizer(_own_values(self._model))
        new = sorted((token for token in added if token not in self.control), key=added.__getitem__)
        tokenizer.add_special_tokens(
            [AddedToken(token, lstrip=True, rstrip=True, normalized=False, special=True) for token in [*new, image]]
        )
        return tokenizer


def _check(values: dict[str, Any], vocabulary: dict[str, int], control: dict[str, int]) -> None:
    """Refuse a tokenizer of other rules than Qwen's, and ids that the tokenizers library would not keep."""
    rules = {
        "byte pair encoding": values["model"].get("type") == "BPE" and not values["model"].get("ignore_merges"),
        "a piece for each byte": vocabulary.keys() >= set(pre_tokenizers.ByteLevel.alphabet()),
        "normalization NFC": (values.get("normalizer") or {}).get("type") == "NFC",
        "a split before pairs": values.get("pre_tokenizer") is not None,
        "text of bytes": (values.get("decoder") or {}).get("type") == "ByteLevel",
        f"the special token {END}": END in control,
    }
    if not all(rules.values()):
        other = ", ".join(name for name, kept in rules.items() if not kept)
        raise OtherVocabularyError(
            f"{JSON_FILE} is none of Qwen's ({other} expected); take that of Qwen2.5-VL or Qwen3-VL"
        )
    behind = [index for token, index in control.items() if vocabulary.get(token) != index]
    size = max(vocabulary.values()) + 1
    if len(vocabulary) != size or behind != list(range(size, size + len(behind))):
        raise _damaged(
            f"its {len(vocabulary)} pieces have ids up to {size - 1}, and its added tokens {shown(behind)}, but ids "
            "must follow each other"
        )


def _own_values(model: bytes) -> dict[str, Any]:
    """What a `tokenizer.json` holds without the tokens that this project adds; what is read of it is checked."""
    try:
        values = parse_json(model)
    except ValueError as error:
        raise _damaged(str(error)) from error
    if not isinstance(values, dict) or not isinstance(values.get("model"), dict):
        raise _damaged(f"it must hold a model but holds {shown(values)}")
    tokens, kinds = values.get("added_tokens"), {"content": str, "id": int, **dict.fromkeys(_FLAGS, bool)}
    if not isinstance(tokens, list) or not all(
        isinstance(token, dict)
        and token.get("content")
        and all(type(token.get(key)) is kind for key, kind in kinds.items())
        for token in tokens
    ):
        raise _damaged(f"its added_tokens are {shown(tokens)}, but must be a list of objects with {', '.join(kinds)}")
    own = [token for token in tokens if not (token["lstrip"] and token["rstrip"])]
    return {**values, "added_tokens": own, "truncation": None, "padding": None}


def _tokenizer(values: dict[str, Any]) -> Tokenizer:
    try:
        return Tokenizer.from_str(json.dumps(values))
    except Exception as error:  # the library raises none that is narrower
        raise _damaged(f"{error!s:.120}") from error


def _damaged(reason: str) -> CheckpointError:
    return CheckpointError(f"{JSON_FILE} is damaged: {reason}; copy it again")
