"""The model card: what is known of a folder and its run, nothing else, and the same every time."""

import json
import re
import stat

import pytest
from huggingface_hub import ModelCard

from anchorseg.evaluation.results import identify
from anchorseg.method.options import Method
from anchorseg.training.build import build_for_training
from anchorseg.training.merging import training_record
from anchorseg.training.settings import TrainSettings
from anchorseg.weights.card import TrainingRecord, plain, write_card
from anchorseg.weights.folder import load_model, save_model
from anchorseg.weights.published import LLAMA
from tests.conftest import make_model
from utils.errors import CheckpointError
from utils.files import write_json
from utils.settings import parse, to_dict
from utils.version import __version__


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    save_model(*make_model(Method(num_latents=3, cycle_scale=10.0)), folder)
    return folder


@pytest.fixture
def run(tmp_path):
    """A run folder as far as a card reads it."""
    flags = ["--preset", "paper-7b", "--version", "/home/somebody/llava-1.5-7b-hf", "--seed", "7",
             "--vision_pretrained", "/data/sam_vit_h_4b8939.pth", "--dataset_dir", "/home/somebody/data"]  # fmt: skip
    write_json(tmp_path / "config.json", to_dict(parse(TrainSettings, flags, preset_dir="configs")))
    write_json(tmp_path / "environment.json", {"git": {"commit": "c0ffee", "dirty": False}})
    lines = [
        {"step": 100, "val/ReasonSeg|val/giou": 0.5},
        {"step": 200, "val/ReasonSeg|val/giou": 0.6125, "val/ReasonSeg|val/ciou": 0.7},
        {"step": 200, "train/loss": 1.0},
        {"step": 300, "train/loss": 0.9},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/best").write_text("step_00000200\n")
    (tmp_path / "checkpoints/latest").write_text("step_00000300\n")
    return tmp_path


def card(folder):
    text = (folder / "README.md").read_text()
    return text, ModelCard(text).data


def test_a_saved_model_says_what_it_is_and_that_nothing_more_is_known(folder):
    text, data = card(folder)
    assert (data.library_name, data.pipeline_tag, data.license) == ("anchorseg", "image-segmentation", "other")
    assert "reasoning-segmentation" in data.tags and data.base_model is None
    assert "| `cycle_scale` | 10.0 | 1.0 |" in text and "| `num_latents` | 3 | 7 |" in text
    total = sum(value.numel() for value in load_model(folder)[0].state_dict().values())
    assert f"| all | {total:,} |" in text
    assert "does not say what it was trained on" in text and "without scores" in text and "not recorded" in text
    assert f"anchorseg {__version__}" in text and "AnchorSegPredictor.from_pretrained" in text


def test_the_parts_and_possible_terms_are_those_of_the_backbones(tmp_path):
    settings = TrainSettings(size="tiny", language_model="qwen3-vl", mask_model="sam2.1-tiny", lora_r=0)
    model, registry = build_for_training(settings)
    save_model(model, registry, tmp_path)
    text, _ = card(tmp_path)
    head = sum(value.numel() for name, value in model.state_dict().items() if not name.startswith(("qwen.", "sam2.")))
    language = sum(p.numel() for p in model.language.language_model.parameters())
    assert f"| head | {head:,} |" in text and f"| language model | {language:,} |" in text
    assert "Qwen3-VL-8B-Instruct: Apache-2.0" in text and "hiera-tiny" in text
    assert "llava" not in text.lower() and "CLIP" not in text and "LLaMA" not in text


def test_a_run_tells_mixture_recipe_and_its_own_scores(folder, run):
    write_card(folder, record=training_record(run, "best"))
    text, data = card(folder)
    assert data.license == "llama2" and data.base_model == ["llava-hf/llava-1.5-7b-hf"]
    assert r"| reason\_seg | ReasonSeg\|train | 1 |" in text and "refclef, refcoco, refcoco+" in text
    assert "| `preset` | paper-7b |" in text and "| `seed` | 7 |" in text and "| `lr` | 0.0003 |" in text
    assert r"| ReasonSeg\|val | giou | 0.6125 |" in text and r"| ReasonSeg\|val | ciou | 0.7000 |" in text
    assert "Step 200 of a run" in text and "Protocol `forced`" in text and "trained at commit c0ffee" in text
    assert LLAMA in text and "Apache-2.0" in text and "heck the terms" in text
    assert "somebody" not in text and "/data/" not in text
    assert "forbid commercial use" in text


def test_scores_of_other_weights_are_not_given(folder, run):
    write_card(folder, record=training_record(run, "latest"))
    text, _ = card(folder)
    assert "Step 300 of a run" in text and "without scores" in text and "0.6125" not in text
    (run / "environment.json").unlink()
    (run / "metrics.jsonl").unlink()
    record = training_record(run, "best")
    assert record.commit is None and not record.scores
    (run / "environment.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"environment.json: it must hold an object"):
        training_record(run, "best")


def test_the_same_folder_gives_the_same_card_which_is_no_part_of_the_model(folder, run):
    write_card(folder)
    first, digest = (folder / "README.md").read_bytes(), identify(folder).digest
    write_card(folder, record=training_record(run, "best"))
    assert (folder / "README.md").read_bytes() != first and identify(folder).digest == digest
    write_card(folder)
    assert (folder / "README.md").read_bytes() == first
    (folder / "README.md").unlink()
    assert identify(folder).digest == digest and load_model(folder)
    write_card(folder)


def test_others_may_read_the_card(tmp_path):
    save_model(*make_model(), tmp_path)
    assert stat.S_IMODE((tmp_path / "README.md").stat().st_mode) == stat.S_IMODE(
        (tmp_path / "tokenizer.model").stat().st_mode
    )


@pytest.mark.parametrize(
    ("version", "licence", "source"),
    [
        ("tiny-llava", "apache-2.0", "tiny-llava, which comes with AnchorSeg"),
        (None, "other", "trained from nothing"),
        ("someone/other", "other", "| language model | other | not known here |"),
    ],
)
def test_the_terms_are_those_of_what_the_run_started_from(folder, version, licence, source):
    values = to_dict(parse(TrainSettings, ["--preset", "tiny"], preset_dir="configs")) | {"version": version}
    write_card(folder, record=TrainingRecord(settings=values, commit=None, step=1, scores={}))
    text, data = card(folder)
    assert data.license == licence and source in text


def test_a_converted_release_names_it(folder):
    write_card(folder, converted_from="/somewhere/hf-AnchorSeg-7b_reason_seg_val_llava1.5_ema")
    text, data = card(folder)
    assert data.license == "llama2" and "somewhere" not in text
    assert data.base_model == [
        "openai/clip-vit-large-patch14-336", "rui-qian/hf-AnchorSeg-7b_reason_seg_val_llava1.5_ema"
    ]  # fmt: skip
    assert "MIT" in text and "Converted from" in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a|b", r"a\|b"),
        ("<script>\nx", r"\<script\> x"),
        ("`[x](y)`", r"\`\[x\]\(y\)\`"),
        ("---", "---"),
        ("x" * 300, "x" * 197 + "..."),
    ],
)
def test_values_are_shown_as_they_are(value, shown):
    assert plain(value) == shown


def test_values_cannot_break_a_table(folder):
    values = to_dict(parse(TrainSettings, ["--preset", "tiny"], preset_dir="configs"))
    values |= {"preset": "a | b\n| c", "version": "x/<img src=y>|z", "reason_seg_data": "A|train\n---\n# B"}
    write_card(folder, record=TrainingRecord(settings=values, commit="`x`", step=1, scores={"a|b\nc/giou": 1.0}))
    text, _ = card(folder)
    assert r"| `preset` | a \| b \| c |" in text and "\n# B" not in text and not re.search(r"(?<!\\)<img", text)
    assert text.count("---\n") == 2  # the front matter alone
