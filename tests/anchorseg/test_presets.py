"""Presets at real size, on the meta device: exactly the parameters that the paper trains."""

import pytest
import torch

from anchorseg.config import Method
from anchorseg.modeling import AnchorSegModel
from anchorseg.presets import preset_config
from anchorseg.trainable import describe_trainable, set_trainable, trainable_groups
from model.lora import LoraSettings, add_lora
from tests.conftest import make_registry

LLAMA_PIECES = 32_000


class LlamaSized:
    """A registry as long as LLaMA's with the eleven added tokens."""

    def __init__(self) -> None:
        self._tiny = make_registry()

    def __len__(self) -> int:
        return LLAMA_PIECES + 11

    def __getattr__(self, name: str):
        return getattr(self._tiny, name)


def meta_model(preset: str, rank: int) -> AnchorSegModel:
    with torch.device("meta"):
        model = AnchorSegModel(preset_config(preset, Method(), LlamaSized()))
        add_lora(model.llava.language_model, LoraSettings(r=rank))
    set_trainable(model, "paper")
    return model


def test_7b_trains_exactly_what_the_paper_trains():
    model = meta_model("7b", 8)
    counts = {name: sum(p.numel() for p in group) for name, group in trainable_groups(model).items()}
    assert counts == {
        "embeddings and head": 262_234_112,
        "LoRA": 4_194_304,
        "mask decoder": 4_058_340,
        "prompt encoder": 6_220,
        "query projections": 35_660_288,
        "query positions": 2_048,
        "mask-token table": 1_024,
    }
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == 306_156_336
    # The published total also counts an unused second projector and layer gate.
    total = sum(p.numel() for p in model.parameters())
    assert total + 20_979_712 + 135_168 == pytest.approx(7.77e9, rel=1e-3)
    assert "306,156,336" in describe_trainable(model)


def test_13b_has_rank_64():
    model = meta_model("13b", 64)
    counts = {name: sum(p.numel() for p in group) for name, group in trainable_groups(model).items()}
    assert counts["LoRA"] == 40 * 2 * (5120 * 64 * 2)
    assert counts["embeddings and head"] == 2 * 32_011 * 5120
