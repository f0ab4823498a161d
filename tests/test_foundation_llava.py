"""tiny-llava: what it is taught is true, and what its script writes is a LLaVA-1.5 for every reader."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlavaForConditionalGeneration

from dataset.drawn.layout import draw_scene
from model.llava import LlavaBackbone
from scripts.foundation.lessons import NUMBERS, full_name, lessons
from utils.seeding import generator_for

ROOT = Path(__file__).parents[1]
SMALL = ("--scenes", "48", "--unseen", "8", "--batch", "4", "--tower_steps", "2", "--report", "3", "--workers", "1")


@pytest.fixture(scope="module")
def taught():
    found = []
    for index in range(120):
        rng = generator_for("lessons", index)
        scene = draw_scene(rng)
        found += [(scene, lesson) for lesson in lessons(rng, scene.objects, scene.image.shape[:2])]
    return found


def test_answers_name_the_objects_that_are_meant_and_no_others(taught):
    referring = [(scene, lesson) for scene, lesson in taught if lesson.targets]
    assert len(referring) > 1000
    for scene, lesson in referring:
        answer = lesson.turns[0][1]
        named = {index for index, item in enumerate(scene.objects) if f"the {full_name(item)}" in answer}
        assert named == set(lesson.targets), lesson


def test_counts_and_comparisons_are_true(taught):
    for scene, lesson in taught:
        (question, answer), objects = lesson.turns[0], scene.objects
        if lesson.kind == "count":
            many = re.match(r"How many (.*) are there", question)[1].removesuffix(" objects")
            true = sum(many in (o.colour, o.texture, "objects") or many.startswith(o.kind) for o in objects)
            said = NUMBERS.index(re.match(r"There (?:is|are) (\w+)", answer)[1])
            assert said == true, lesson
        if lesson.kind == "exists":
            colour, kind = question.removesuffix("?").split()[-2:]
            assert (answer == "Yes.") == any((o.colour, o.kind) == (colour, kind) for o in objects)
        if lesson.kind == "caption":
            assert all(full_name(o) in answer for o in objects)


def train(folder: Path, *flags: str) -> None:
    command = [sys.executable, "-m", "scripts.foundation.llava", str(folder), *SMALL, *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("foundation") / "tiny-llava"
    train(folder, "--steps", "6")
    return folder


def test_the_folder_is_read_strictly_and_by_transformers_itself(trained):
    files = LlavaBackbone.open_published(trained, None, "mini")
    backbone = LlavaBackbone(files.config)
    for report in backbone.load_published(files, torch.float32, files.config.image_token_index):
        assert report.loaded and not report.new and not report.refused
    whole = LlavaForConditionalGeneration.from_pretrained(trained, dtype=torch.float32).eval()
    tokens = whole.config.image_seq_length
    ids = torch.tensor([[1, *[whole.config.image_token_index] * tokens, 5, 6]])
    pixels = torch.randn(1, 3, 144, 144)
    with torch.no_grad():
        theirs = whole(input_ids=ids, pixel_values=pixels).logits[0]
        valid = torch.ones(1, tokens, dtype=torch.bool)
        own = ids.masked_fill(ids == whole.config.image_token_index, backbone.placeholder)
        embeddings = backbone.embed(own, backbone.image_features(pixels, valid, ()), 1)
        causal = torch.ones(1, ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
        ours = backbone.logits(backbone.hidden_states(embeddings, torch.arange(ids.shape[1])[None], causal))[0]
    words = whole.config.image_token_index  # the row of <image> itself is drawn anew
    assert torch.allclose(ours[:, :words], theirs[:, :words], atol=1e-5 * float(theirs.abs().max()))
    assert whole.generate(input_ids=ids, pixel_values=pixels, max_new_tokens=4, do_sample=False).shape[1] > ids.shape[1]


@pytest.mark.slow
def test_an_interrupted_run_resumes_to_the_same_weights(trained, tmp_path):
    state = trained.with_name("tiny-llava.state")
    whole = torch.load(state, weights_only=True)["model"]
    folder = tmp_path / "again"
    train(folder, "--steps", "6", "--stop_after", "3")
    train(folder, "--steps", "6", "--resume")
    again = torch.load(folder.with_name("again.state"), weights_only=True)["model"]
    assert whole.keys() == again.keys()
    assert all(np.array_equal(whole[name].numpy(), again[name].numpy()) for name in whole)
