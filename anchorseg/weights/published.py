"""Published weights that models of this project are built on: where they are, what they weigh, whose terms they have.

Declared apart from torch, so that a command line is read at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

LLAMA = "LLaMA 2 community licence"
RELEASED = f"repository AnchorSeg: MIT; built on LLaVA-1.5: {LLAMA}"


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights that somebody published.

    Attributes:
        name: of the folder or file, as the source calls it.
        repository: OWNER/NAME on the hub, or None.
        url: of the file, where it is none of the hub's.
        licence: as the source states it.
        gigabytes: about, in 10^9 bytes, or None where it is not known; the hub gives exact sizes.
        sha256: of the file, where it is none of the hub's.
        size: in bytes, with `sha256`.
    """

    name: str
    licence: str
    gigabytes: float | None = None
    repository: str | None = None
    url: str | None = None
    sha256: str | None = None
    size: int | None = None

    @property
    def source(self) -> str:
        """Where it is, for a reader."""
        return f"hub: {self.repository}" if self.repository else str(self.url)


def _hub(repository: str, licence: str, gigabytes: float | None = None) -> Weights:
    name = repository.partition("/")[2]
    return Weights(name=name, repository=repository, licence=licence, gigabytes=gigabytes)


LLAVA = {
    "7b": _hub("llava-hf/llava-1.5-7b-hf", LLAMA, 14.1),
    "13b": _hub("llava-hf/llava-1.5-13b-hf", LLAMA, 26.7),
}
ORIGINAL_LLAVA = (_hub("liuhaotian/llava-v1.5-7b", LLAMA, 13.5), _hub("liuhaotian/llava-v1.5-13b", LLAMA, 26.1))
CLIP = _hub("openai/clip-vit-large-patch14-336", "MIT, licence of the CLIP repository", 1.7)
SAM = Weights(
    name="sam_vit_h_4b8939.pth",
    url="https://dl.fbaipublicfiles.com/segment_anything/sam_vit_h_4b8939.pth",
    licence="Apache-2.0",
    gigabytes=2.6,
    # The digits in its name begin its MD5.
    sha256="a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    size=2_564_550_879,
)
SAM2 = tuple(
    _hub(f"facebook/sam2.1-hiera-{size}", "Apache-2.0", gigabytes)
    for size, gigabytes in {"tiny": 0.16, "small": 0.18, "base-plus": 0.32, "large": 0.9}.items()
)
SAM3 = _hub("facebook/sam3", "SAM License", 3.4)
QWEN3 = {
    "2b": _hub("Qwen/Qwen3-VL-2B-Instruct", "Apache-2.0", 4.3),
    "4b": _hub("Qwen/Qwen3-VL-4B-Instruct", "Apache-2.0", 8.9),
    "8b": _hub("Qwen/Qwen3-VL-8B-Instruct", "Apache-2.0", 17.5),
}
QWEN2_5 = {"7b": _hub("Qwen/Qwen2.5-VL-7B-Instruct", "Apache-2.0", 16.6)}
LANGUAGE = {
    "llava-1.5": LLAVA,
    "llava-pixellm": LLAVA,
    "llava-pixellm-24": LLAVA,
    "qwen3-vl": QWEN3,
    "qwen2.5-vl": QWEN2_5,
}
"""By language backbone and size."""
PIECES = {
    **dict.fromkeys(("llava-1.5", "llava-pixellm", "llava-pixellm-24"), 32_000),
    "qwen3-vl": 151_669,
    "qwen2.5-vl": 151_665,
}
"""Ids of the published tokenizer, by language backbone."""
RELEASED_REASON_SEG = _hub("rui-qian/hf-AnchorSeg-7b_reason_seg_val_llava1.5_ema", RELEASED)
RELEASED_GREFCOCO = _hub("rui-qian/hf-AnchorSeg-7b_grefer_seg_llava1.5_ema", RELEASED)

MASKS = {
    "sam": SAM,
    **{f"sam2.1-{weights.name.removeprefix('sam2.1-hiera-')}": weights for weights in SAM2},
    "sam3": SAM3,
    "pixellm": CLIP,
    "pixellm-published": CLIP,
}
"""By mask backbone."""


def of_language(language_model: str, size: str) -> Weights | None:
    """What is published of a language backbone, of another size where that is not; None where nothing is known."""
    sizes = LANGUAGE.get(language_model, {})
    return sizes.get(size, next(iter(sizes.values()), None))


def parts_of(language_model: str, mask_model: str) -> tuple[Weights, ...]:
    """What is published of two backbones, of any size."""
    sizes = LANGUAGE.get(language_model, {})
    masks = (MASKS[mask_model],) if mask_model in MASKS else ()
    return tuple(dict.fromkeys((*sizes.values(), *((CLIP,) if sizes is LLAVA else ()), *masks)))


EVERY = (
    *LLAVA.values(), *ORIGINAL_LLAVA, *QWEN3.values(), *QWEN2_5.values(), CLIP, SAM, *SAM2, SAM3,
    RELEASED_REASON_SEG, RELEASED_GREFCOCO,
)  # fmt: skip


def named(path: str) -> Weights | None:
    """The published weights that a path or hub name ends in, or None."""
    name = Path(path).name
    return next((weights for weights in EVERY if weights.name == name), None)
