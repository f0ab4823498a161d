"""Every language backbone with every kind of mask backbone: gradients, answers, packing, saved folders."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from safetensors import safe_open

from anchorseg import AnchorSegPredictor
from anchorseg.inference.generation import generate
from anchorseg.method.model_folder import read_config
from anchorseg.method.modeling import AnchorSegModel
from anchorseg.method.objective import Objective
from anchorseg.method.options import LossWeights, Method
from anchorseg.training.build import build_for_training, check_weights
from anchorseg.training.settings import TrainSettings
from anchorseg.training.trainable import trainable_groups
from anchorseg.weights.folder import load_model, save_model
from anchorseg.weights.presets import preset_config
from dataset.sample import Conversation, Sample, Turn
from model import backbone_names
from tests.conftest import make_batch, make_registry, make_sample
from utils.errors import CheckpointError

LANGUAGE = {"llava-1.5": 1, "qwen3-vl": 1, "qwen2.5-vl": 0}
"""Seeds that make answers differ, see `willing`."""
MASKS = ("sam", "sam2.1-tiny")
QUESTIONS = ("What is it?", "What is the very very red thing in this image?", "red", "Where?")
SIZES = ((60, 80), (110, 40), (64, 64))


@pytest.fixture(
    scope="module", params=[(language, masks) for language in LANGUAGE for masks in MASKS], ids=" and ".join
)
def built(request):
    language, masks = request.param
    settings = TrainSettings(size="tiny", language_model=language, mask_model=masks, lora_r=0, precision="fp32")
    model, registry = build_for_training(settings)
    return model.eval(), registry


def willing(model: AnchorSegModel, registry) -> None:
    """Bend the rows of the first latent and of the answer's end, so that answers differ in where they have targets."""
    table = model.language.vocabulary_tables[-1]
    weight = model.get_parameter(f"{model.language.saved_as}.{table}.weight")
    generator = torch.Generator().manual_seed(LANGUAGE[model.config.language_model])
    with torch.no_grad():
        for index in (model.bank_ids[0], registry.eos_id):
            weight[index] += torch.randn(weight[index].shape, generator=generator)


def samples() -> list[Sample]:
    return [make_sample(seed, size) for seed, size in enumerate(SIZES)]


def asked(sample: Sample, *questions: str) -> Sample:
    return dataclasses.replace(
        sample, conversations=tuple(Conversation((Turn(question, None),)) for question in questions)
    )


def difference(found: torch.Tensor, wanted: torch.Tensor) -> float:
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max() / wanted.abs().max()) if wanted.numel() else 0.0


def test_every_group_that_trains_has_a_gradient(built):
    model, registry = built
    batch = make_batch(model, registry, samples())
    loss = Objective(LossWeights(), model.head)(model(batch), batch).total
    loss.backward()
    assert loss.isfinite()
    for name, parameters in trainable_groups(model).items():
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        assert all(gradient.isfinite().all() for gradient in gradients), name
        assert not parameters or any(gradient.any() for gradient in gradients), name
    model.zero_grad()


@torch.inference_mode()
def test_conversations_behind_one_image_are_those_in_rows_of_their_own(built):
    model, registry = built
    shared, apart = (model(make_batch(model, registry, samples(), share_prefix=share)) for share in (True, False))
    assert torch.equal(shared.labels, apart.labels)
    assert difference(shared.logits, apart.logits) < 1e-5
    for found, wanted in zip(shared.segmentation.masks, apart.segmentation.masks, strict=True):
        assert difference(found, wanted) < 1e-5


def test_images_of_other_sizes_change_no_answer(built):
    model, registry = built
    willing(model, registry)
    questions = [asked(sample, *QUESTIONS) for sample in samples()]
    together = generate(model, make_batch(model, registry, questions, share_prefix=False), max_new_tokens=24)
    counts = set()
    for number, sample in enumerate(questions):
        own = slice(number * len(QUESTIONS), (number + 1) * len(QUESTIONS))
        alone = generate(model, make_batch(model, registry, [sample], share_prefix=False), max_new_tokens=24)
        assert alone.ids == together.ids[own]
        assert difference(together.segmentation.masks[number], alone.segmentation.masks[0]) < 1e-5
        counts |= set(torch.bincount(alone.target_rows, minlength=len(QUESTIONS)).tolist())
    assert len(counts) > 1, "answers that differ"


def test_a_saved_folder_gives_the_same_and_holds_each_tensor_once(built, tmp_path):
    model, registry = built
    save_model(model, registry, tmp_path)
    again, tokens = load_model(tmp_path)
    batch = make_batch(again, tokens, samples())
    with torch.inference_mode():
        for found, wanted in zip(again(batch).segmentation.masks, model(batch).segmentation.masks, strict=True):
            assert torch.equal(found, wanted)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert sum(value.numel() for value in held.values()) == sum(p.numel() for p in model.state_dict().values())
    tables = {np.asarray(value).tobytes() for value in held.values() if value.ndim == 2 and len(value) == len(registry)}
    assert len(tables) == len(model.language.vocabulary_tables)


def test_a_predictor_answers_alike_alone_in_a_batch_and_among_images(built):
    model, registry = built
    predictor = AnchorSegPredictor(model, registry)
    images = [sample.image for sample in samples()]
    sessions = [predictor.session(image) for image in images]
    together = list(predictor.predict_images([(image, QUESTIONS) for image in images], max_new_tokens=16))
    for session, among in zip(sessions, together, strict=True):
        packed = session.predict_batch(QUESTIONS, max_new_tokens=16, token_maps=True)
        for question, first, second in zip(QUESTIONS, among, packed, strict=True):
            single = session.predict(question, max_new_tokens=16)
            assert single.dialogue == first.dialogue == second.dialogue
            for target, other, third in zip(single.targets, first.targets, second.targets, strict=True):
                assert abs(target.score - other.score) < 1e-5 and abs(target.score - third.score) < 1e-5
                assert list(third.token_maps) == [registry.decode([index]) for index in model.bank_ids]
                assert all(value.shape == session.image.shape[:2] for value in third.token_maps.values())
        forced = session.predict(QUESTIONS[0], mode="mask")
        assert forced.mask is not None and not session.predict(QUESTIONS[0], mode="text", max_new_tokens=16).targets
        follow_up = session.predict("red", after=forced, max_new_tokens=16)
        assert follow_up.dialogue[: len(forced.dialogue)] == forced.dialogue


def test_a_frequency_base_may_be_a_large_whole_number(built, tmp_path):
    """As Qwen3-VL's is published."""
    model, _ = built
    config = copy.deepcopy(model.config)
    config.language_config.text_config.rope_parameters["rope_theta"] = 5_000_000
    config.save_pretrained(tmp_path)
    assert read_config(tmp_path).language_config.text_config.rope_parameters["rope_theta"] == 5_000_000


@pytest.mark.parametrize("language", [name for name in LANGUAGE if name.startswith("qwen")])
def test_graphs_of_what_cannot_be_recorded_are_refused_before_anything_is_built(language):
    with pytest.raises(ValueError, match=f"--cuda_graphs: the image encoder of --language_model {language} waits"):
        TrainSettings(size="tiny", language_model=language, cuda_graphs=True)


@pytest.mark.parametrize(
    ("language", "size", "masks", "missing"),
    [
        ("qwen3-vl", "8b", "sam", "--version is needed for this preset: give a folder such as Qwen/Qwen3-VL-8B"),
        ("llava-1.5", "13b", "sam", "--version is needed .* llava-hf/llava-1.5-13b-hf"),
    ],
)
def test_weights_that_are_missing_are_those_of_the_backbone(language, size, masks, missing):
    with pytest.raises(CheckpointError, match=missing):
        check_weights(TrainSettings(size=size, language_model=language, mask_model=masks))


@pytest.mark.parametrize("language", [name for name in LANGUAGE if name.startswith("qwen")])
def test_the_remedy_of_a_refused_view_is_taken(language):
    flags = {"size": "tiny", "language_model": language, "head": "lisa", "num_latents": 0}
    with pytest.raises(ValueError, match=r"--clip_view crop: .* pass --clip_view padded"):
        TrainSettings(**flags, clip_view="crop")
    TrainSettings(**flags, clip_view="padded")


def test_a_backbone_that_nobody_published_is_saved_with_a_card(tmp_path, monkeypatch):
    monkeypatch.setitem(backbone_names.MASK_BACKBONES, "conv", "tests.throwaway.masks:ConvBackbone")
    registry = make_registry()
    model = AnchorSegModel(preset_config("tiny", Method(), registry, mask_model="conv"))
    save_model(model, registry, tmp_path)
    assert "conv" in (tmp_path / "README.md").read_text()
