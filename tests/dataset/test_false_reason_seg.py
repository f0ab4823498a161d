"""ReasonSeg with false premises: both questions of a benchmark, the share of untrue samples, what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from dataset.drawn.writer import write_scenes
from dataset.families.false_reason_seg import TRUE_SHARE, FalseReasonSeg, FalseReasonSegTraining
from tests.drawn.layouts import write_layouts
from utils.errors import DataError
from utils.seeding import generator_for


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("fp")
    write_layouts(root, families=("fp_reason_seg",), images=6, seed=0)
    return root


def first(root, split="val"):
    path = sorted((root / "reason_seg" / "fpReasonSeg" / split).glob("*.json"))[0]
    return path, json.loads(path.read_text())


def test_the_benchmark_asks_what_is_there_and_what_is_not(root):
    _, content = first(root)
    sample = FalseReasonSeg(root, "val").evaluation_sample(0, protocol="generate")
    assert [question.text for question in sample.questions] == [content["text"][0], content["false_premise_QA"][0][0]]
    assert [question.targets for question in sample.questions] == [(0,), ()]
    assert all(conversation.turns[0].answer is None for conversation in sample.conversations)
    assert sample.masks.shape[0] == 1 and sample.masks.any()
    with pytest.raises(DataError, match="it has no protocol forced; allowed: generate"):
        FalseReasonSeg(root, "val").evaluation_sample(0, protocol="forced")


def test_untrue_samples_come_with_their_own_answer_and_no_mask(root):
    source = FalseReasonSegTraining(root, "train", max_queries=3)
    samples = [source.training_sample(n % len(source), generator_for(1, n)) for n in range(400)]
    untrue = [sample for sample in samples if not len(sample.masks)]
    assert len(untrue) / len(samples) == pytest.approx(1 - TRUE_SHARE, abs=0.05)
    for sample in untrue:
        content = json.loads(Path(sample.record).read_text())
        answers = {entry[2] for entry in content["false_premise_QA"]}
        assert {turn.answer[0] for c in sample.conversations for turn in c.turns} <= answers
        assert not any(conversation.targets for conversation in sample.conversations)
    for sample in (sample for sample in samples if len(sample.masks)):
        assert [slot.mask for c in sample.conversations for slot in c.targets] == [0] * len(sample.conversations)
    again = source.training_sample(0, generator_for(1, 0))
    assert again.conversations == samples[0].conversations and np.array_equal(again.masks, samples[0].masks)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], '"false_premise_QA" is missing'),
        ("none", r'"false_premise_QA" is \'none\'; it must be a list'),
        ([["is it there?", "false", "no"]], r"holds \['is it there\?', 'false', 'no'\]; every entry"),
        ([["", False, "no"]], "every entry must be"),
        ([["is it there?", False]], "every entry must be"),
    ],
)
def test_malformed_premises_are_refused_at_the_start(root, tmp_path, value, message):
    copied = shutil.copytree(root, tmp_path / "data")
    path, content = first(copied)
    path.write_text(json.dumps({**content, "false_premise_QA": value}))
    with pytest.raises(DataError, match=message):
        FalseReasonSeg(copied, "val")


def test_reason_segs_own_files_have_none_and_may_have_them(root, tmp_path):
    write_scenes(tmp_path, counts={"train": 1, "val": 1, "test": 1}, seed=0)
    with pytest.raises(
        FileNotFoundError, match=r"fpReasonSeg does not exist, and ReasonSeg's own .* has no false_premise"
    ):
        FalseReasonSeg(tmp_path, "val")
    shutil.rmtree(tmp_path / "reason_seg")
    (tmp_path / "reason_seg").mkdir()
    shutil.copytree(root / "reason_seg" / "fpReasonSeg", tmp_path / "reason_seg" / "ReasonSeg")
    assert len(FalseReasonSeg(tmp_path, "val")) == len(FalseReasonSeg(root, "val"))
