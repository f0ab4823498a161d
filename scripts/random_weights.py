"""AnchorSeg at a preset's real size without any file: random weights, the tiny preset's tokenizer."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from anchorseg.method.modeling import AnchorSegModel
from anchorseg.method.options import Method
from anchorseg.method.tokens import TokenRegistry
from anchorseg.training.pretrained import uninitialized
from anchorseg.training.settings import SMALL
from anchorseg.weights.folder import tiny_tokenizer
from anchorseg.weights.presets import new_registry, preset_config
from anchorseg.weights.published import PIECES
from dataset.sample import Conversation, Question, Sample, TargetSlot, Turn
from dataset.templates import evaluation
from utils.seeding import seed_torch

STD = 0.02


def random_model(
    size: str,
    dtype: torch.dtype,
    device: str = "cpu",
    *,
    language_model: str = "llava-1.5",
    mask_model: str = "sam",
) -> tuple[AnchorSegModel, TokenRegistry]:
    """A model of a preset's real size: matrices N(0, 0.02), gains 1, biases 0, drawn in place as `dtype`.

    Args:
        size: of the language backbone.
        dtype: of the weights; nothing of another type is allocated on the way.
        device: where the weights are drawn.
        language_model: name of the language backbone; `mask_model` alike.
        mask_model: see `language_model`.
    """
    vocabulary = tiny_tokenizer(language_model)
    registry = new_registry(vocabulary, language_model, Method().token_counts())
    if size not in SMALL:
        shift = PIECES.get(language_model, registry.vocabulary_size) - min(registry.new_ids)
        new = set(registry.new_ids)
        added = {token: index + shift * (index in new) for token, index in registry.added.items()}
        registry = TokenRegistry(vocabulary, registry.strings, added)
    config = preset_config(size, Method(), registry, language_model=language_model, mask_model=mask_model)
    seed_torch("real size", size)
    with uninitialized(dtype), torch.device(device):
        model = AnchorSegModel(config)
    draw_weights(model)
    return model.eval(), registry


@torch.no_grad()
def draw_weights(model: nn.Module) -> None:
    """Draw matrices from N(0, 0.02); gains become 1, biases 0."""
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(0.0, STD)
        else:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)


def question(image: np.ndarray, query: str, *, forced: bool) -> Sample:
    """The evaluation prompt for a phrase, with the answer in it or without; the truth is left empty."""
    before, after = evaluation.ANSWER
    answer = (before, TargetSlot(0), after) if forced else None
    return Sample(
        record="photo",
        image=image,
        conversations=(Conversation((Turn(evaluation.PHRASE.format(text=query), answer),)),),
        masks=np.zeros((1, *image.shape[:2]), dtype=bool),
        questions=(Question(query),),
    )
