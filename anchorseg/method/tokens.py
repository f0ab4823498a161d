"""Token registry: strings of the added tokens, their ids, and text to ids.

A tokenizer folder holds `added_tokens.json` (string to id) and the vocabulary (`anchorseg.method.pieces`). Text is
split at the added tokens and at the vocabulary's own special tokens, and each piece is encoded by itself.

LLaMA's lies in `tokenizer.model` (SentencePiece). Ids are those of the slow LLaMA tokenizer: blanks that touch a
special token are dropped, and each piece has SentencePiece's dummy prefix. No LLaMA tokenizer of current transformers
gives these ids, whatever its `legacy` flag, so a saved folder says the same in a `tokenizer.json` for `AutoTokenizer`.

Qwen's lies in that `tokenizer.json` itself, with the added tokens in it. These take the blanks around them; Qwen's own
special tokens do not.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from anchorseg.method.pieces import JSON_FILE, MODEL_FILE, OtherVocabularyError, Pieces, is_json, read_pieces
from utils.errors import CheckpointError, SettingsError
from utils.files import read_bytes, read_json, write_bytes, write_json, write_text
from utils.shown import shown

IMAGE_TOKEN = "<image>"
QUESTION = "{question}"
"""Where a prompt template has the question."""


@dataclass(frozen=True, kw_only=True)
class TokenStrings:
    """Strings of the tokens that AnchorSeg adds, in the order of their ids."""

    segment: str = "<SEG>"
    reject: str = "<REJ>"
    reasoning: tuple[str, ...] = ()
    image_start: str = "<im_start>"
    image_end: str = "<im_end>"
    anchors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "reasoning", tuple(self.reasoning))
        object.__setattr__(self, "anchors", tuple(self.anchors))
        if len(set(self.all)) != len(self.all):
            raise ValueError(f"added tokens must differ from each other: {', '.join(self.all)}")

    @classmethod
    def for_bank(
        cls, num_latents: int, num_anchors: int = 1, image_tokens: tuple[str, str] = ("<im_start>", "<im_end>")
    ) -> TokenStrings:
        """The paper's names: `<REAS_1>` ... `<REAS_K>`, `<SEG>`, `<REJ>`; of several anchors the last is `<SEG>`, and
        those before it are `<SEG_1>`, `<SEG_2>`, ..."""
        image_start, image_end = image_tokens
        return cls(
            image_start=image_start,
            image_end=image_end,
            reasoning=tuple(f"<REAS_{k}>" for k in range(1, num_latents + 1)),
            anchors=tuple(f"<SEG_{a}>" for a in range(1, num_anchors)),
        )

    @classmethod
    def released(cls, num_latents: int) -> TokenStrings:
        """The names of released checkpoints: `[LATENT0]` ... `[SEG]`, `[REJ]`."""
        return cls(segment="[SEG]", reject="[REJ]", reasoning=tuple(f"[LATENT{k}]" for k in range(num_latents)))

    @property
    def all(self) -> tuple[str, ...]:
        """Every added token, in the order in which ids are given."""
        return (self.segment, self.reject, *self.reasoning, self.image_start, self.image_end, *self.anchors)


class TokenRegistry:
    """Ids of the added tokens and a tokenizer that never splits them.

    Args:
        model: the bytes of `tokenizer.model` (SentencePiece) or of Qwen's `tokenizer.json`, told apart by content.
        strings: the added tokens' strings.
        added: string to id of every added token.
        pieces: of `model`, if it was parsed already.

    Raises:
        CheckpointError: if `model` is damaged or one of `strings` has no id in `added`.
    """

    def __init__(
        self, model: bytes, strings: TokenStrings, added: dict[str, int], *, pieces: Pieces | None = None
    ) -> None:
        self._pieces: Pieces = read_pieces(model) if pieces is None else pieces
        self._model = model
        self.strings = strings
        self.added = dict(added)
        absent = [token for token in strings.all if token not in self.added]
        held = ", ".join(self.added) or "none"
        if absent:
            raise CheckpointError(
                f"tokenizer: the added token(s) {', '.join(absent)} have no id; it holds {held}. "
                "Use the tokenizer saved with the model, or the token strings of that model"
            )
        control = self._pieces.control
        self._new = {token: index for token, index in self.added.items() if control.get(token) != index}
        self._names = {index: token for token, index in self._new.items()}
        taking = (*self._new, IMAGE_TOKEN, *(control if self._pieces.control_takes_blanks else ()))
        self._takes_blanks = frozenset(taking)
        self._special = {**control, **self.added}
        self._split = _splitter([*self._special, IMAGE_TOKEN])
        self._split_template = _splitter(self._special)

    @classmethod
    def create(cls, model: bytes, strings: TokenStrings) -> TokenRegistry:
        """Register `strings` right after the vocabulary, in order; a special token that it has keeps its id."""
        pieces = read_pieces(model)
        new = [token for token in strings.all if token not in pieces.control]
        ids = {**pieces.control, **{token: len(pieces) + index for index, token in enumerate(new)}}
        return cls(model, strings, {token: ids[token] for token in strings.all}, pieces=pieces)

    @classmethod
    def load(cls, folder: str | Path, strings: TokenStrings) -> TokenRegistry:
        """Read a tokenizer folder written by `save` or by a released checkpoint.

        Raises:
            CheckpointError: if a file is missing or damaged, an added token of `strings` is not in it, or ids are not
                those after the pieces.
        """
        content, added = _read_model(Path(folder)), read_added(folder)
        try:
            registry = cls(content, strings, added)
        except OtherVocabularyError as error:
            raise CheckpointError(f"{Path(folder) / MODEL_FILE} is missing, and {error}") from error
        _check_ids(registry.added, registry._pieces)
        return registry

    def renamed(self, strings: TokenStrings) -> TokenRegistry:
        """The same ids under other strings; `strings` has as many reasoning tokens."""
        pairs = zip(self.strings.all, strings.all, strict=True)
        return TokenRegistry(self._model, strings, {new: self.added[old] for old, new in pairs})

    def save(self, folder: str | Path) -> None:
        """Write the tokenizer into an existing folder: what `load` reads, and what `AutoTokenizer` reads.

        Both give the same ids; in the latter `<image>` has the first id after the added tokens, and whoever feeds
        the model puts the P image tokens there.
        """
        folder = Path(folder)
        self._save_own(folder)
        tokenizer = self._pieces.tokenizer(self.added, IMAGE_TOKEN)
        write_text(folder / JSON_FILE, tokenizer.to_str(pretty=True) + "\n")
        known = tokenizer.get_added_tokens_decoder()
        flags = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
        write_json(
            folder / "tokenizer_config.json",
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                **self._pieces.roles,
                "additional_special_tokens": [*self.strings.all, IMAGE_TOKEN],
                "added_tokens_decoder": {
                    str(index): {flag: getattr(token, flag) for flag in flags} for index, token in known.items()
                },
            },
        )

    def save_published(self, folder: str | Path) -> None:
        """Write the tokenizer as published checkpoints have it, for the slow LLaMA tokenizer of their time.

        Raises:
            SettingsError: if it is none of LLaMA's.
        """
        if self._pieces.file != MODEL_FILE:
            raise SettingsError(
                f"the tokenizer is of {self._pieces.file}, but published checkpoints have only LLaMA's {MODEL_FILE}; "
                "write a model folder of this project instead"
            )
        folder = Path(folder)
        self._save_own(folder)
        values = {"tokenizer_class": "LlamaTokenizer", "legacy": True, "add_bos_token": True, "add_eos_token": False}
        write_json(
            folder / "tokenizer_config.json",
            {**values, **self._pieces.roles, "additional_special_tokens": list(self.strings.all)},
        )

    def _save_own(self, folder: Path) -> None:
        if self._pieces.file == MODEL_FILE:
            write_bytes(folder / MODEL_FILE, self._model)
        write_json(folder / "added_tokens.json", self.added)

    def __len__(self) -> int:
        """Rows that the embedding table needs."""
        return max(len(self._pieces), *(index + 1 for index in self.added.values()))

    @property
    def vocabulary_size(self) -> int:
        """Number of ids of the vocabulary itself, before what is added."""
        return len(self._pieces)

    @property
    def new_ids(self) -> tuple[int, ...]:
        """Ids of the added tokens that are no special tokens of the vocabulary itself, in order."""
        return tuple(sorted(self._new.values()))

    @property
    def bos_id(self) -> int | None:
        """Id of `<s>`; Qwen's vocabulary has none such."""
        return self._pieces.bos_id

    @property
    def eos_id(self) -> int:
        """Id of `</s>` or `<|im_end|>`, which ends an answer."""
        return self._pieces.eos_id

    @property
    def segment_id(self) -> int:
        """Id of `<SEG>`."""
        return self.added[self.strings.segment]

    @property
    def reject_id(self) -> int:
        """Id of `<REJ>`."""
        return self.added[self.strings.reject]

    @property
    def reasoning_ids(self) -> tuple[int, ...]:
        """Ids of `<REAS_1>` ... `<REAS_K>`."""
        return tuple(self.added[token] for token in self.strings.reasoning)

    @property
    def anchor_ids(self) -> tuple[int, ...]:
        """Ids of the anchors before `<SEG>`, if a target has several."""
        return tuple(self.added[token] for token in self.strings.anchors)

    @property
    def bank_ids(self) -> tuple[int, ...]:
        """The K + A adjacent ids of one target: `<REAS_1>` ... `<REAS_K>`, further anchors, `<SEG>`."""
        return (*self.reasoning_ids, *self.anchor_ids, self.segment_id)

    @property
    def image_ids(self) -> tuple[int, int]:
        """Ids of the tokens before and behind an image, such as `<im_start>` and `<im_end>`."""
        return self.added[self.strings.image_start], self.added[self.strings.image_end]

    def encode_piece(self, text: str) -> list[int]:
        """Encode text in which no special token is recognized; SentencePiece puts its dummy prefix before it."""
        return self._pieces.encode(text)

    def encode(self, text: str, image_id: int) -> list[int]:
        """Encode text with added tokens, control symbols and `<image>` in it; no `<s>` is put in front.

        Args:
            text: any text.
            image_id: id that stands for `<image>`.
        """
        special = {**self._special, IMAGE_TOKEN: image_id}
        parts = self._split.split(text)
        ids: list[int] = []
        for index, part in enumerate(parts):
            if part in special:
                ids.append(special[part])
                continue
            part = part.lstrip() if index > 0 and parts[index - 1] in self._takes_blanks else part
            part = part.rstrip() if index < len(parts) - 1 and parts[index + 1] in self._takes_blanks else part
            ids.extend(self.encode_piece(part) if part else [])
        return ids

    def encode_prompt(self, template: str, question: str = "") -> list[int]:
        """Encode a prompt's template (`utils.prompt_template`); blanks that touch a special token are dropped.

        Args:
            template: text with special tokens by their strings, and `{question}` for the question.
            question: any text; no special token is recognized in it.
        """
        ids: list[int] = []
        for part in self._split_template.split(template):
            if part in self._special:
                ids.append(self._special[part])
                continue
            part = part.replace(QUESTION, question).strip(" ")
            ids.extend(self.encode_piece(part) if part else [])
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids, added tokens by their strings, `</s>` and other special tokens of the vocabulary left out."""
        parts: list[str] = []
        for is_added, group in groupby(ids, key=self._names.__contains__):
            run = list(group)
            parts += [self._names[index] for index in run] if is_added else [self._pieces.decode(run)]
        return self._pieces.join(parts)


def read_added(folder: str | Path) -> dict[str, int]:
    """Added tokens of a tokenizer folder, string to id.

    Raises:
        CheckpointError: if the file is missing or damaged.
    """
    path = Path(folder) / "added_tokens.json"
    try:
        added: dict[str, int] = read_json(path, fail=_damaged, kind=dict)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} is missing: the tokenizer is without the added tokens; use the tokenizer saved with the model"
        ) from None
    for token, index in added.items():
        if type(index) is not int or not token:
            raise _damaged(path, f"it gives {shown(token)} the id {shown(index)}, but must map strings to ids")
    return added


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path}: {reason}; copy it again")


def _read_model(folder: Path) -> bytes:
    """The bytes of a folder's vocabulary; LLaMA's folders hold a `tokenizer.json` too, which is not read."""
    for name, wanted in ((MODEL_FILE, False), (JSON_FILE, True)):
        try:
            content = read_bytes(folder / name, fail=_damaged)
        except FileNotFoundError:
            continue
        if is_json(content) != wanted:
            raise _damaged(folder / name, f"it is {'no' if wanted else 'a'} JSON object")
        return content
    raise CheckpointError(
        f"{folder / MODEL_FILE} is missing, and so is {JSON_FILE}; a model folder holds one of them and "
        "added_tokens.json"
    )


def _splitter(special: Collection[str]) -> re.Pattern[str]:
    """Splits text at special tokens, of which the longest counts."""
    longest_first = sorted(special, key=len, reverse=True)
    return re.compile("(" + "|".join(re.escape(token) for token in longest_first) + ")")


def _check_ids(added: dict[str, int], pieces: Pieces) -> None:
    """Refuse ids that are not those right after the pieces; a string that is itself a piece has the piece's."""
    size = len(pieces)
    behind = sorted(index for token, index in added.items() if pieces.piece_to_id(token) != index or not token)
    if behind != list(range(size, size + len(behind))):
        raise CheckpointError(
            f"added_tokens.json gives the ids {', '.join(map(str, behind[:12]))}, but the {size} pieces of "
            f"{pieces.file} are followed by {size} to {size + len(behind) - 1}; both files must be of one model"
        )
