"""What the benchmarks run on: models with random weights, and images of noise with realistic questions."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from typing import Any, Literal, cast

import numpy as np
import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

from anchorseg.inference.collate import make_collator
from anchorseg.method.config import AnchorSegConfig
from anchorseg.method.heads import PIXELLM
from anchorseg.method.modeling import AnchorSegModel
from anchorseg.method.pieces import read_pieces
from anchorseg.method.tokens import TokenRegistry, TokenStrings
from anchorseg.training.build import choose_trainable, config_of
from anchorseg.training.pretrained import uninitialized
from anchorseg.training.settings import ModelSettings
from anchorseg.weights.folder import tiny_tokenizer
from anchorseg.weights.presets import token_ids
from anchorseg.weights.published import PIECES
from dataset.batch import PREFIX, Batch
from dataset.sample import AnswerPart, Conversation, Sample, TargetSlot, Turn
from dataset.templates import reason_seg
from model.backbone_names import LANGUAGE_BACKBONES
from model.backbones import language_backbone
from model.pixel_masks import PixelSizes
from model.sam import SamSizes
from scripts.random_weights import draw_weights
from utils.seeding import generator_for, seed_torch

SMALL_PIECES = {"tiny": 500, "mini": 1000, "mid": 2000, "deep": 2000}
"""Vocabulary below the real sizes: one whose head has the same share of the work."""
LLAMA_SPECIAL = 3
"""Special tokens among SMALL_PIECES."""
WORD = re.compile(r"[A-Z]{2}|\w{1,9}|[^\w\s]|\n")
MAX_LENGTH = 4096
QUERIES = (
    "When it starts to rain while people are walking in the street, what object could they use to keep themselves dry?",
    "Which part of the vehicle would the driver look at in order to see what is going on behind it?",
    "If someone wanted to rest for a while after a long walk in the park, where could they sit down?",
)
ANSWER: tuple[AnswerPart, ...] = ("Sure, it is", TargetSlot(0), ".")
Size = Literal["tiny", "mini", "2b", "4b", "7b", "8b", "13b"]
Rows = Literal["all", "new"]


class WordRegistry(TokenRegistry):
    """One id a word or mark, for neither LLaMA's tokenizer nor Qwen's is a file of this project.

    Capitals have an id for two letters and other words one for nine, which comes close to the length that LLaMA's
    tokenizer gives to English.
    """

    words: range

    @classmethod
    def of(cls, size: str, num_latents: int, language_model: str = "llava-1.5") -> WordRegistry:
        """The vocabulary of a size, with the added tokens of a bank right after it.

        Special tokens of the vocabulary itself keep the ids that they have in the tiny one.
        """
        template = language_backbone(language_model).template
        strings = TokenStrings.for_bank(num_latents, image_tokens=template.image_tokens)
        model = tiny_tokenizer(language_model)
        own = read_pieces(model).control
        first = max(own.values()) + 1
        small = SMALL_PIECES.get(size)
        pieces = PIECES[language_model] if small is None else first + small - LLAMA_SPECIAL
        new = [token for token in strings.all if token not in own]
        added = {token: own[token] for token in strings.all if token in own}
        registry = cls(model, strings, {**added, **{token: pieces + index for index, token in enumerate(new)}})
        registry.words = range(first, pieces)
        return registry

    def encode_piece(self, text: str) -> list[int]:
        """One id, the same in every process, for each word or mark."""
        return [self.words[zlib.crc32(word.encode()) % len(self.words)] for word in WORD.findall(text)]

    def decode(self, ids: Iterable[int]) -> str:
        """The ids themselves, for no word is remembered."""
        return " ".join(map(str, ids))


def mid_config(settings: ModelSettings, registry: TokenRegistry) -> AnchorSegConfig:
    """A model in which matrix products dominate on a CPU too, with the 7B model's 24 x 24 image tokens."""
    text = _llama(registry, hidden_size=512, intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8)
    vision = _clip(hidden_size=256, intermediate_size=1024, num_hidden_layers=6, num_attention_heads=4)
    if settings.mask_model in PIXELLM:
        vision.image_size = 448
        pixels = PixelSizes(
            encoder_width=256,
            encoder_depth=6,
            encoder_heads=4,
            encoder_mlp=1024,
            layers=(5, 3),
            projected_width=512,
            published=settings.mask_model == "pixellm-published",
        )
        return _config(settings, registry, text, vision, pixels)
    sam = SamSizes(image_size=512, encoder_width=384, encoder_depth=8, encoder_heads=6, global_attention=(1, 3, 5, 7))
    return _config(settings, registry, text, vision, sam)


def deep_config(settings: ModelSettings, registry: TokenRegistry) -> AnchorSegConfig:
    """The 7B model's layers, heads of SAM's encoder and grids, with narrow layers: the same operators."""
    text = _llama(registry, hidden_size=64, intermediate_size=128, num_hidden_layers=32, num_attention_heads=2)
    vision = _clip(hidden_size=64, intermediate_size=128, num_hidden_layers=24, num_attention_heads=2)
    return _config(settings, registry, text, vision, SamSizes(encoder_width=64))


def _llama(registry: TokenRegistry, **sizes: int) -> LlamaConfig:
    return LlamaConfig(**sizes, vocab_size=len(registry), pad_token_id=None)


def _clip(**sizes: int) -> CLIPVisionConfig:
    return CLIPVisionConfig(**sizes, image_size=336, patch_size=14, projection_dim=sizes["hidden_size"])


def _config(
    settings: ModelSettings,
    registry: TokenRegistry,
    text: LlamaConfig,
    vision: CLIPVisionConfig,
    masks: SamSizes | PixelSizes,
) -> AnchorSegConfig:
    llava = LlavaConfig(vision_config=vision, text_config=text, vision_feature_layer=-2, image_seq_length=24**2)
    return AnchorSegConfig(
        language_model=settings.language_model,
        language_config=llava,
        mask_model=settings.mask_model,
        mask_config=masks,
        head=settings.head,
        method=settings.method(),
        tokens=registry.strings,
        token_ids=token_ids(registry),
    )


OWN_SIZES = {"mid": mid_config, "deep": deep_config}
SIZE_NAMES = ("mid", *LANGUAGE_BACKBONES["llava-1.5"].sizes)
ALL_SIZES = tuple(dict.fromkeys(["mid", *(size for entry in LANGUAGE_BACKBONES.values() for size in entry.sizes)]))
"""With whatever language backbone."""


def settings_of(size: str, rows: Rows = "all", **options: Any) -> ModelSettings:
    """The paper's recipe without dropout, so that two passes can be compared.

    Args:
        size: of a preset, or one of OWN_SIZES, which then has a configuration of its own.
        rows: of the vocabulary tables that train, as `--train_embeddings`.
        options: further settings, such as `language_model` and `mask_model`.
    """
    return ModelSettings(size=preset_size(size), lora_dropout=0.0, train_embeddings=rows, **options)


def preset_size(size: str) -> Size:
    """What the settings of a size say: `tiny` for those of the benchmarks alone."""
    return "tiny" if size in OWN_SIZES else cast(Size, size)


def build(
    size: str,
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    rows: Rows = "all",
    trains: bool = True,
    **options: Any,
) -> tuple[AnchorSegModel, WordRegistry]:
    """A model in training mode that trains what the paper trains, LoRA included; without `trains`, as it is merged.

    Args:
        size: of the language backbone; with LLaVA-1.5 also `mid` and `deep`.
        dtype: of the weights; nothing of another type is allocated on the way.
        device: `meta` allocates nothing.
        rows: of the vocabulary tables that train, as `--train_embeddings`.
        trains: see above.
        options: see `settings_of`.
    """
    model, registry = empty(settings_of(size, rows, **options), size, dtype=dtype, device=device, trains=trains)
    seed_torch("benchmark", size)
    if device != "meta":
        draw_weights(model)
    return model.train(), registry


def empty(
    settings: ModelSettings, size: str, *, dtype: torch.dtype, device: str, trains: bool = True
) -> tuple[AnchorSegModel, WordRegistry]:
    """A model of a size whose weights are not drawn, with what the settings train or, without `trains`, as saved.

    Raises:
        ValueError: if the size is one of the benchmarks' own and the language backbone is none of LLaVA's.
    """
    if size in OWN_SIZES and not settings.language_model.startswith("llava"):
        raise ValueError(f"size {size} is one of LLaVA's, not of {settings.language_model}; take tiny or a real size")
    registry = WordRegistry.of(size, settings.num_latents, settings.language_model)
    own = OWN_SIZES.get(size)
    config = own(settings, registry) if own else config_of(settings, registry)
    with uninitialized(dtype), torch.device(device):
        model = AnchorSegModel(config)
        if trains:
            choose_trainable(model, settings, registry)
    return model.to(dtype), registry


def samples(
    images: int,
    conversations: int,
    *,
    height: int = 480,
    width: int = 640,
    answered: bool = True,
    only: int | None = None,
) -> list[Sample]:
    """Images of noise, each with its number of conversations of one question.

    Args:
        images: how many.
        conversations: of each image.
        height: of the images in pixels; `width` alike.
        width: see `height`.
        answered: without, the model is to write its answers.
        only: keep this conversation alone.
    """
    numbers = range(conversations) if only is None else [only]
    asked = [reason_seg.SENTENCE_QUESTIONS[0].format(text=QUERIES[number % len(QUERIES)]) for number in numbers]
    turns = [Turn(question, ANSWER if answered else None) for question in asked]
    return [_sample(number, turns, (height, width)) for number in range(images)]


def _sample(number: int, turns: list[Turn], size: tuple[int, int]) -> Sample:
    mask = np.zeros((1, *size), dtype=bool)
    mask[:, size[0] // 4 : size[0] // 2, size[1] // 4 : size[1] // 2] = True
    return Sample(
        record=f"noise {number}",
        image=generator_for("benchmark", number).integers(0, 256, (*size, 3)).astype(np.uint8),
        conversations=tuple(Conversation((turn,)) for turn in turns),
        masks=mask,
    )


def collate(model: AnchorSegModel, registry: TokenRegistry, chosen: list[Sample], *, share_prefix: bool) -> Batch:
    """A batch on the CPU in float32, conversations of an image in one row or each in a row of its own."""
    return make_collator(model.config, registry, max_length=MAX_LENGTH, share_prefix=share_prefix)(chosen)


def answer_ids(registry: WordRegistry) -> list[int]:
    """Ids of the answer of `samples`, without `</s>`."""
    ids: list[int] = []
    for part in ANSWER:
        ids += registry.encode_piece(part) if isinstance(part, str) else registry.bank_ids
    return ids


def questions_of(model: AnchorSegModel, registry: WordRegistry, sample: Sample) -> list[list[int]]:
    """Ids of each question of an unanswered sample behind its image."""
    asked = collate(model, registry, [sample], share_prefix=False).conversations
    return [row[own].tolist() for row, own in zip(asked.input_ids, asked.segments > PREFIX, strict=True)]
