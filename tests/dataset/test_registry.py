"""Every name that is offered works, nothing else is read, and one stream joins them all."""

import dataclasses
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from anchorseg.training.data import build_mixture, data_folder, family_options, training_batches
from anchorseg.training.settings import DataSettings
from dataset.drawn.writer import write_scenes
from dataset.mixture import ResumableBatchSampler
from dataset.readers.folder import DataFolder
from dataset.registry import datasets, open_benchmark, training_sources
from dataset.sample import Conversation, TargetSlot, Turn
from dataset.source import FamilyOptions
from tests.conftest import make_collator, make_model, make_sample
from tests.drawn.layouts import write_layouts
from utils.errors import DataError
from utils.seeding import generator_for

BENCHMARKS = [
    "ReasonSeg|val", "ReasonSeg|test_overall", "MultiReasonSeg|val", "MultiReasonSeg|test", "MultiReasonSeg|test_less",
    "MultiReasonSeg|test_many", "fpReasonSeg|val", "fpReasonSeg|test", "refzom|final|test",
    "refcocog|umd|val", "refcocog|umd|test",
    *(f"{name}|unc|{split}" for name in ("refcoco", "refcoco+", "grefcoco") for split in ("val", "testA", "testB")),
    *(f"{name}|val" for family in ("neg_refer_seg", "correct_refer_seg") for name in datasets()[family]),
]  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("all")
    families = [family for family in datasets() if family != "reason_seg"]
    write_layouts(root, families=families, images=4, seed=0)
    write_scenes(root, counts={"train": 4, "val": 2, "test": 2}, seed=0)
    return root


@pytest.fixture(scope="module")
def data(root) -> DataFolder:
    return DataFolder(root, root / "index")


def settings(root: Path, **values: object) -> DataSettings:
    return DataSettings(dataset_dir=str(root), index_dir=str(root / "index"), explanatory=-1.0, **values)


@pytest.mark.parametrize(("family", "name"), [(family, name) for family in datasets() for name in datasets()[family]])
def test_every_dataset_trains(data, family, name):
    ((label, source),) = training_sources(family, data, FamilyOptions(sets={family: name}))
    assert label == f"{family}/{name}"
    for index in range(len(source)):
        sample = source.training_sample(index, generator_for(0, index))
        again = source.training_sample(index, generator_for(0, index))
        assert sample.masks.dtype == bool and np.array_equal(sample.masks, again.masks)
        assert sample.conversations == again.conversations
        slots = [slot.mask for conversation in sample.conversations for slot in conversation.targets]
        assert set(slots) == set(range(len(sample.masks)))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_asks_the_same_twice(data, name):
    benchmark = open_benchmark(name, data)
    for protocol in benchmark.protocols:
        for index in range(len(benchmark)):
            first, second = (benchmark.evaluation_sample(index, protocol=protocol) for _ in range(2))
            assert first.conversations == second.conversations and first.questions
            assert sum(len(question.targets) for question in first.questions) <= len(first.masks)


@pytest.mark.parametrize(
    ("family", "name", "message"),
    [
        ("fp_sem_seg", "ade20k", "no such family; allowed: sem_seg, "),
        ("sem_seg", "partimagenet", "--sem_seg_data has no such dataset; allowed: ade20k, "),
        ("refer_seg", "multirefcoco", "--refer_seg_data has no such dataset"),
        ("refer_seg", "refcoco|testZ", "no split testZ"),
        ("neg_refer_seg", "fprefcoco", "--neg_refer_seg_data has no such dataset"),
        ("reason_seg", "ReasonSeg", "--reason_seg_data is ReasonSeg|SPLIT"),
        ("multi_reason_seg", "MUSE|train", "--multi_reason_seg_data is MultiReasonSeg|SPLIT"),
    ],
)
def test_unknown_datasets_are_refused(data, family, name, message):
    with pytest.raises(DataError) as error:
        training_sources(family, data, FamilyOptions(sets={family: name}))
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["multirefcoco|unc|val", "fp|val", "ReasonSeg", "refcoco", "nothing|val"])
def test_unknown_benchmarks_are_refused(data, name):
    with pytest.raises(DataError, match=r"no such benchmark; allowed: refclef\|unc\|val, "):
        open_benchmark(name, data)


def test_the_datasets_of_a_family_share_its_rate_and_a_family_of_rate_zero_is_not_read(root, tmp_path):
    shutil.copytree(root / "refer_seg", tmp_path / "refer_seg")
    model, registry = make_model()
    collator = make_collator(model.config, registry, max_length=2048)
    values = {"dataset": "refer_seg||vqa", "refer_seg_data": "refcoco||grefcoco||refzom||refcoco|val"}
    mixture = build_mixture(settings(tmp_path, sample_rates=(2.0, 0.0), **values), collator, seed=42)
    names = [name for name, _ in mixture._sources]
    assert names == [f"refer_seg/{name}" for name in ("refcoco", "grefcoco", "refzom", "refcoco|val")]
    with pytest.raises(FileNotFoundError, match=r"llava_instruct_150k\.json"):
        build_mixture(settings(tmp_path, sample_rates=(2.0, 1.0), **values), collator, seed=42)


def test_false_premises_occur_in_the_stream(data):
    sources = dict(training_sources("correct_refer_seg", data, FamilyOptions()))
    drawn = [source.training_sample(i, generator_for(0, i)) for source in sources.values() for i in range(len(source))]
    kinds = [question.targets == () for sample in drawn for question in sample.questions]
    assert 0.2 < np.mean(kinds) < 0.8


def test_an_error_in_a_worker_is_not_hidden(root, tmp_path):
    shutil.copytree(root / "llava_dataset", tmp_path / "llava_dataset")
    shutil.copytree(root / "coco", tmp_path / "coco")
    model, registry = make_model()
    collator = make_collator(model.config, registry, max_length=2048)
    chosen = settings(tmp_path, dataset="vqa", strict_data=True)
    mixture = build_mixture(chosen, collator, seed=42)
    for image in (tmp_path / "coco" / "train2017").iterdir():
        image.write_bytes(b"")
    order = ResumableBatchSampler(batch_size=1, rank=0, world=1, start=0, stop=2)
    with pytest.raises(DataError, match=r"1 bad record\(s\) in a row"):
        list(training_batches(mixture, collator, order, 1))


def test_an_unknown_piece_is_no_padding(monkeypatch):
    model, registry = make_model()
    monkeypatch.setattr(registry, "encode_piece", lambda text: [0, 7])
    collator = make_collator(model.config, registry, max_length=500)
    turn = Turn("What?", ("\u4e2d", TargetSlot(0)))
    sample = dataclasses.replace(make_sample(0), conversations=(Conversation((turn,)),))
    asked = collator([sample, make_sample(1)]).conversations
    assert (asked.labels[0] == 0).sum() == 1 and (asked.segments[0][asked.labels[0] == 0] == 1).all()


def test_missing_folder_is_named():
    with pytest.raises(FileNotFoundError, match="--dataset_dir nowhere does not exist"):
        data_folder("nowhere", None)


def test_options_of_a_run_reach_the_families():
    options = family_options(DataSettings(num_classes_per_sample=2, num_classes_per_question=5, vqa_data="mine"))
    assert (options.max_questions, options.max_per_question, options.sets["vqa"]) == (2, 5, "mine")


def test_epochs_want_equal_rates():
    with pytest.raises(ValueError, match="rates must be equal or 0"):
        DataSettings(dataset="reason_seg||vqa", sample_rates=(1.0, 2.0), sampling="epoch")
    DataSettings(dataset="reason_seg||vqa", sample_rates=(1.0, 0.0), sampling="epoch")


def test_large_annotations_are_shared_by_workers(data):
    for family in ("sem_seg", "refer_seg", "reason_seg_plus", "multi_reason_seg"):
        for name, source in training_sources(family, data, FamilyOptions()):
            assert len(pickle.dumps(source)) < 40_000, name


def test_a_custom_folder(root, tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(root / "ade20k" / "images" / "training", folder)
    for image in sorted(folder.iterdir()):
        shape = {"label": "red_cup", "points": [[2, 2], [40, 2], [40, 30]], "shape_type": "polygon"}
        image.with_suffix(".json").write_text(json.dumps({"shapes": [shape], "imagePath": image.name}))
    data = DataFolder(tmp_path, tmp_path / "index")
    ((_, source),) = training_sources("custom", data, FamilyOptions(custom_data=str(folder)))
    assert source.training_sample(0, generator_for(0)).questions[0].text == "red cup"
    assert open_benchmark("custom", data, str(folder)).evaluation_sample(0, protocol="forced").masks.any()
    with pytest.raises(ValueError, match="--custom_data FOLDER"):
        training_sources("custom", data, FamilyOptions())
