"""R-RefCOCO and FP-RefCOCO: plain words for what is not there, masks for what is."""

import numpy as np
import pytest

from dataset.families.false_premise import SETS, FalsePremise, FalsePremiseBenchmark
from dataset.readers.folder import DataFolder
from dataset.sample import Sample, TargetSlot
from dataset.templates.absence import CORRECTIONS, DENIALS
from dataset.templates.presence import PRESENCE_QUESTIONS
from tests.dataset.test_refer import annotation, box_mask, reference, write_set
from utils.errors import DataError


def sentences(*flags: dict) -> list[dict]:
    return [{"sent_id": k, "sent": f"Thing {k}", "raw": "", "tokens": [], **flag} for k, flag in enumerate(flags)]


def record(*flags: dict, **changed) -> dict:
    return {**reference(1, 1), "sentences": sentences(*flags), **changed}


def write(tmp_path, *references: dict, name: str = "R-refcoco") -> DataFolder:
    return write_set(tmp_path, list(references), name=name, file=f"refs({SETS[name].split_by}).p")


def train(data: DataFolder, name: str = "R-refcoco", *, questions: int = 9) -> Sample:
    return FalsePremise(data, name, max_questions=questions).training_sample(0, np.random.default_rng(0))


def exists(sample: Sample) -> dict[str, bool]:
    return {question.text: bool(question.targets) for question in sample.questions}


def answers(sample: Sample) -> dict[str, tuple]:
    talks = zip(sample.questions, sample.conversations, strict=True)
    return {question.text: talk.turns[0].answer for question, talk in talks}


@pytest.mark.parametrize("name", SETS)
def test_false_premises_have_no_slot_and_no_mask(tmp_path, name):
    other = reference(2, 2, "thing there")
    data = write(tmp_path, record({"exist": True}, {"exist": False}), other, name=name)
    sample = train(data, name)
    assert exists(sample) == {"Thing 0": True, "Thing 1": False, "thing there": True}
    wanted = {"Thing 0": box_mask(1), "thing there": box_mask(2)}
    assert len(sample.masks) == 2
    for question, talk in zip(sample.questions, sample.conversations, strict=True):
        assert len(talk.turns) == 1
        asked = talk.turns[0].question
        assert asked in {bank.format(text=question.text.lower()) for bank in PRESENCE_QUESTIONS}
        if question.targets:
            assert talk.targets == (TargetSlot(question.targets[0]),)
            assert np.array_equal(sample.masks[question.targets[0]], wanted[question.text])
        else:
            (answer,) = talk.turns[0].answer
            assert answer in {denial.format(text="thing 1") for denial in DENIALS}


def test_a_sample_of_false_premises_alone(tmp_path):
    sample = train(write(tmp_path, record({"exist": False}, {"exist": False})))
    assert sample.masks.shape == (0, 20, 30) and exists(sample) == {"Thing 0": False, "Thing 1": False}


def test_corrections_name_what_would_fit(tmp_path):
    flags = [
        {"is_false_premise": True, "gt_sent": "The Blue Umbrella"},
        {"is_false_premise": True, "gt_sent": " "},
        {"is_false_premise": False, "gt_sent": "unused"},
    ]
    found = answers(train(write(tmp_path, record(*flags), name="fprefcoco"), "fprefcoco"))
    corrections = {(line.format(text="thing 0", true="the blue umbrella"),) for line in CORRECTIONS}
    assert found["Thing 0"] in corrections
    assert found["Thing 1"] in {(line.format(text="thing 1"),) for line in DENIALS}
    assert TargetSlot(0) in found["Thing 2"] and "unused" not in str(found["Thing 2"])


@pytest.mark.parametrize(
    ("flag", "there"),
    [
        ({}, True),
        ({"exist": 1}, True),
        ({"exist": 0}, False),
        ({"exist": np.bool_(True)}, True),
        ({"exist": np.bool_(False)}, False),
        ({"exist": np.int64(1)}, True),
        ({"exist": np.uint8(0)}, False),
        ({"is_false_premise": 0}, True),
        ({"is_false_premise": np.bool_(True)}, False),
        ({"is_false_premise": np.int64(0), "exist": False}, True),
        ({"is_false_premise": True, "exist": True}, False),
    ],
)
def test_any_truth_value_is_a_flag(tmp_path, flag, there):
    assert exists(train(write(tmp_path, record(flag)))) == {"Thing 0": there}


@pytest.mark.parametrize("flag", [{"exist": "False"}, {"exist": None}, {"is_false_premise": []}, {"exist": 0.5}])
def test_other_flags_are_malformed(tmp_path, flag):
    data = write(tmp_path, record(flag))
    with pytest.raises(DataError, match=r"reference 1, sentence 0: \"(exist|is_false_premise)\" is .*true or false"):
        train(data)
    with pytest.raises(DataError, match="1 of 1 records are malformed"):
        FalsePremiseBenchmark(data, "R-refcoco|train")


def test_so_many_questions_in_any_order(tmp_path):
    data = write(tmp_path, record(*[{"exist": number % 2 == 0} for number in range(8)]))
    source = FalsePremise(data, "R-refcoco", max_questions=3)
    drawn = [source.training_sample(0, np.random.default_rng(seed)) for seed in range(40)]
    assert all(len(sample.conversations) == len(exists(sample)) == 3 for sample in drawn)
    assert {text for sample in drawn for text in exists(sample)} == {f"Thing {number}" for number in range(8)}
    assert len({len(sample.masks) for sample in drawn}) > 1
    assert drawn[0].conversations == source.training_sample(0, np.random.default_rng(0)).conversations


def test_an_object_without_a_pixel(tmp_path):
    data = write_set(
        tmp_path,
        [record({"exist": True})],
        name="R-refcoco",
        file="refs(unc_exclude_unified).p",
        annotations=[annotation(1, segmentation=[])],
    )
    with pytest.raises(DataError, match=r'reference 1: no pixel belongs to "Thing 0"'):
        train(data)


@pytest.mark.parametrize("spec", ["fprefcoco|berkeley_exclude_unified|val", "fprefcoco|val"])
def test_the_benchmark(tmp_path, spec):
    flags = [{"is_false_premise": True, "gt_sent": "the blue umbrella"}, {"is_false_premise": False}]
    data = write(tmp_path, record(*flags, split="val"), record({}, ref_id=2, split="train"), name="fprefcoco")
    benchmark = FalsePremiseBenchmark(data, spec)
    assert (len(benchmark), benchmark.scoring, benchmark.protocols) == (1, "see", ("generate",))
    sample = benchmark.evaluation_sample(0, protocol="generate")
    assert [(question.text, question.targets) for question in sample.questions] == [("thing 0", ()), ("thing 1", (1,))]
    assert np.array_equal(sample.masks, np.stack([box_mask(), box_mask(1)]))
    assert [(talk.turns[0].question, talk.turns[0].answer) for talk in sample.conversations] == [
        (f"What is thing {number} in this image? Please output segmentation mask.", None) for number in range(2)
    ]
    with pytest.raises(DataError, match="it has no protocol forced; allowed: generate"):
        benchmark.evaluation_sample(0, protocol="forced")


def test_names(tmp_path):
    data = write(tmp_path, record({"exist": True}, split="test"))
    for spec, message in {
        "R-refcoco|val": r"refs\(unc_exclude_unified\)\.p: it has no split val; it has test",
        "R-refcoco|unc|test": r"R-refcoco is split by unc_exclude_unified, not unc; write R-refcoco\|unc_excl",
        "refcoco|unc|val": r"there is no set refcoco; allowed: R-refcoco, R-refcoco\+, R-refcocog, fprefcoco",
    }.items():
        with pytest.raises(DataError, match=message):
            FalsePremiseBenchmark(data, spec)
    with pytest.raises(DataError, match="it has no split train; it has test"):
        FalsePremise(data, "R-refcoco", max_questions=3)
    with pytest.raises(FileNotFoundError, match=r"fprefcoco/refs\(berkeley_exclude_unified\)\.p does not exist"):
        FalsePremiseBenchmark(data, "fprefcoco|val")
