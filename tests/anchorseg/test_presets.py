"""Presets at real size, on the meta device: exactly the parameters that the paper trains."""

import json

import pytest

from anchorseg.method.options import LisaOptions
from anchorseg.training.settings import ModelSettings, TrainSettings
from anchorseg.training.trainable import describe_trainable, trainable_groups
from scripts.parameters import CONFIGS, meta_model, table
from utils.settings import parse, render


def test_7b_trains_exactly_what_the_paper_trains():
    model = meta_model(ModelSettings(size="7b"))
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
    model = meta_model(ModelSettings(size="13b", lora_r=64))
    counts = {name: sum(p.numel() for p in group) for name, group in trainable_groups(model).items()}
    assert counts["LoRA"] == 40 * 2 * (5120 * 64 * 2)
    assert counts["embeddings and head"] == 2 * 32_011 * 5120


def test_the_table_stands_beside_the_papers():
    text = table(ModelSettings(size="7b"))
    assert "306.16 M of 7.744 B (3.95%)" in text and "306.29 M of 7.765 B (3.94%)" in text
    assert "439.56 M of 14.131 B (3.11%)" in table(ModelSettings(size="13b", lora_r=64))


@pytest.mark.parametrize(("head", "millions"), [("lisa", "288.25"), ("gsva", "288.26")])
def test_a_baselines_parameters_are_those_of_the_papers_table(head, millions):
    settings = parse(TrainSettings, ["--preset", head, "--no_position_tables"], preset_dir=CONFIGS)
    model = meta_model(settings)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == pytest.approx(float(millions) * 1e6, rel=1e-3)
    assert model.config.head == head and f"{millions} M" in table(settings)


def test_pixellms_parameters_are_those_of_the_papers_table():
    settings = parse(TrainSettings, ["--preset", "pixellm"], preset_dir=CONFIGS)
    lines = [line for line in table(settings).splitlines() if " M" in line]
    assert "377.36 M" in lines[0] and "without the neck" in lines[1] and "375.73 M" in lines[1]
    assert "375.72 M" in lines[2]


@pytest.mark.parametrize(
    ("preset", "rows", "width", "billions"),
    [("qwen3-vl-8b", 151_669, 4096, "9.446 B"), ("qwen2.5-vl-7b", 151_665, 3584, "8.961 B")],
)
def test_another_backbones_tables_have_the_rows_of_its_own_vocabulary(preset, rows, width, billions):
    settings = parse(TrainSettings, ["--preset", preset], preset_dir=CONFIGS)
    model = meta_model(settings)
    added = 9  # what stands around an image is in the vocabulary
    assert model.config.language_config.text_config.vocab_size == rows + added
    text = table(settings)
    assert billions in text and "paper" not in text and f"{2 * added * width:,}" in text


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.json")), ids=lambda path: path.stem)
def test_every_recipe_is_read_and_printed_in_full(path):
    settings = parse(TrainSettings, ["--preset", path.stem], preset_dir=CONFIGS)
    shown = render(settings)
    for name, value in json.loads(path.read_text()).items():
        found = getattr(settings, name)
        assert (list(found) if isinstance(found, tuple) else found) == value
        assert f"{name} " in shown


def test_recipes_say_what_their_names_promise():
    read = {
        path.stem: parse(TrainSettings, ["--preset", path.stem], preset_dir=CONFIGS) for path in CONFIGS.glob("*.json")
    }
    paper, published, lisa, improved = (
        read[name] for name in ("paper-7b", "published-7b-reasonseg", "lisa", "improved")
    )
    assert (paper.total_steps, paper.lora_r, paper.dice_loss_weight) == (1_200_000, 8, 4.0)
    assert (read["paper-13b"].size, read["paper-13b"].lora_r, read["paper-13b"].total_steps) == ("13b", 64, 300_000)
    assert (published.dataset, published.dice_loss_weight, published.total_steps) == ("reason_seg", 2.0, 60_000)
    assert lisa.head == "lisa" and type(lisa.method()) is LisaOptions
    assert (improved.prior_range, improved.void_pixels, improved.token_target) == ("valid", "ignore", "area")
    assert improved.cycle_scale == 10.0 and paper.method() != improved.method()
