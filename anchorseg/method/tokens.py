"""Token registry: strings of the added tokens, their ids, and text to ids as the slow LLaMA tokenizer gives them.

A tokenizer folder holds `tokenizer.model` (SentencePiece) and `added_tokens.json` (string to id). Text is split at
the added tokens and at SentencePiece's control symbols, blanks that touch one are dropped, and each piece is encoded
by itself with SentencePiece's dummy prefix. No LLaMA tokenizer of current transformers gives these ids, whatever its
`legacy` flag, so a saved folder says the same in a `tokenizer.json` for `AutoTokenizer`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import sentencepiece

from anchorseg.method.fast_tokenizer import fast_tokenizer, parse_model
from utils.errors import CheckpointError
from utils.files import read_bytes, read_json, write_bytes, write_json, write_text
from utils.shown import shown

IMAGE_TOKEN = "<image>"


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
    def for_bank(cls, num_latents: int, num_anchors: int = 1) -> TokenStrings:
        """The paper's names: `<REAS_1>` ... `<REAS_K>`, `<SEG>`, `<REJ>`; of several anchors the last is `<SEG>`, and
        those before it are `<SEG_1>`, `<SEG_2>`, ..."""
        return cls(
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
        model: serialised SentencePiece model (the bytes of `tokenizer.model`).
        strings: the added tokens' strings.
        added: string to id of every added token.

    Raises:
        CheckpointError: if `model` is damaged or one of `strings` has no id in `added`.
    """

    def __init__(self, model: bytes, strings: TokenStrings, added: dict[str, int]) -> None:
        self._pieces = _pieces(model)
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
        self._names = {index: token for token, index in self.added.items()}
        self._control = _control_symbols(self._pieces)
        special = sorted([*self.added, IMAGE_TOKEN, *self._control], key=len, reverse=True)
        self._split = re.compile("(" + "|".join(re.escape(token) for token in special) + ")")

    @classmethod
    def create(cls, model: bytes, strings: TokenStrings) -> TokenRegistry:
        """Register `strings` right after the SentencePiece vocabulary, in order."""
        base = _pieces(model).vocab_size()
        return cls(model, strings, {token: base + index for index, token in enumerate(strings.all)})

    @classmethod
    def load(cls, folder: str | Path, strings: TokenStrings) -> TokenRegistry:
        """Read a tokenizer folder written by `save` or by a released checkpoint.

        Raises:
            CheckpointError: if a file is missing or damaged, an added token of `strings` is not in it, or ids are not
                those after the pieces.
        """
        model = Path(folder) / "tokenizer.model"
        try:
            content = read_bytes(model, fail=_damaged)
        except FileNotFoundError:
            raise CheckpointError(
                f"{model} is missing; a model folder holds tokenizer.model and added_tokens.json"
            ) from None
        registry = cls(content, strings, read_added(folder))
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
        control = list(self._control)
        tokenizer = fast_tokenizer(self._model, self.added, control, IMAGE_TOKEN)
        write_text(folder / "tokenizer.json", tokenizer.to_str(pretty=True) + "\n")
        known = tokenizer.get_added_tokens_decoder()
        flags = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
        write_json(
            folder / "tokenizer_config.json",
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                **self._roles(),
                "additional_special_tokens": [*self.strings.all, IMAGE_TOKEN],
                "added_tokens_decoder": {
                    str(index): {flag: getattr(token, flag) for flag in flags} for index, token in known.items()
                },
            },
        )

    def save_published(self, folder: str | Path) -> None:
        """Write the tokenizer as published checkpoints have it, for the slow LLaMA tokenizer of their time."""
        folder = Path(folder)
        self._save_own(folder)
        values = {"tokenizer_class": "LlamaTokenizer", "legacy": True, "add_bos_token": True, "add_eos_token": False}
        write_json(
            folder / "tokenizer_config.json",
            {**values, **self._roles(), "additional_special_tokens": list(self.strings.all)},
        )

    def _save_own(self, folder: Path) -> None:
        write_bytes(folder / "tokenizer.model", self._model)
        write_json(folder / "added_tokens.json", self.added)

    def _roles(self) -> dict[str, str]:
        pieces = self._pieces
        ids = {"bos_token": pieces.bos_id(), "eos_token": pieces.eos_id(), "unk_token": pieces.unk_id()}
        return {role: pieces.id_to_piece(index) for role, index in ids.items()}

    def __len__(self) -> int:
        """Rows that the embedding table needs."""
        return max(self._pieces.vocab_size(), *(index + 1 for index in self.added.values()))

    @property
    def bos_id(self) -> int:
        """Id of `<s>`."""
        return self._pieces.bos_id()

    @property
    def eos_id(self) -> int:
        """Id of `</s>`."""
        return self._pieces.eos_id()

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
        """Ids of `<im_start>` and `<im_end>`."""
        return self.added[self.strings.image_start], self.added[self.strings.image_end]

    def encode_piece(self, text: str) -> list[int]:
        """Encode text that holds no added token, with SentencePiece's dummy prefix."""
        return self._pieces.encode(text)

    def encode(self, text: str, image_id: int) -> list[int]:
        """Encode text with added tokens, control symbols and `<image>` in it; no `<s>` is put in front.

        Args:
            text: any text.
            image_id: id that stands for `<image>`.
        """
        special = {**self._control, **self.added, IMAGE_TOKEN: image_id}
        parts = self._split.split(text)
        ids: list[int] = []
        for index, part in enumerate(parts):
            if part in special:
                ids.append(special[part])
                continue
            part = part.lstrip() if index > 0 else part
            part = part.rstrip() if index < len(parts) - 1 else part
            ids.extend(self.encode_piece(part) if part else [])
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids, added tokens by their strings, `</s>` left out."""
        words: list[str] = []
        run: list[int] = []
        for index in [*ids, None]:
            if index is not None and index not in self._names:
                run.append(index)
                continue
            words.append(self._pieces.decode(run))
            run = []
            if index is not None:
                words.append(self._names[index])
        return re.sub(r"\s+([.,!?])", r"\1", " ".join(word for word in words if word)).strip()


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


def _pieces(model: bytes) -> sentencepiece.SentencePieceProcessor:
    parse_model(model)
    try:
        return sentencepiece.SentencePieceProcessor(model_proto=model)
    except (RuntimeError, ValueError, OSError) as error:
        raise CheckpointError(f"tokenizer.model is damaged ({error!s:.120}); copy it again") from error


def _control_symbols(pieces: sentencepiece.SentencePieceProcessor) -> dict[str, int]:
    """`<unk>`, `<s>` and `</s>`: pieces that no text is encoded to."""
    ids = (index for index in range(pieces.vocab_size()) if pieces.is_control(index) or pieces.is_unknown(index))
    return {pieces.id_to_piece(index): index for index in ids}


def _check_ids(added: dict[str, int], pieces: sentencepiece.SentencePieceProcessor) -> None:
    """Refuse ids that are not those right after the pieces; a string that is itself a piece has the piece's."""
    size = pieces.vocab_size()
    behind = sorted(index for token, index in added.items() if pieces.piece_to_id(token) != index or not token)
    if behind != list(range(size, size + len(behind))):
        raise CheckpointError(
            f"added_tokens.json gives the ids {', '.join(map(str, behind[:12]))}, but the {size} pieces of "
            f"tokenizer.model are followed by {size} to {size + len(behind) - 1}; both files must be of one model"
        )
