"""Photographs in ReasonSeg's form: the real samples, and COCO photographs converted, train and evaluate."""

import json
import pickle
import shutil

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from anchorseg.evaluation.evaluator import Evaluator
from dataset.families.reason_seg import ReasonSeg
from dataset.masks import decode_segmentation
from dataset.readers.folder import DataFolder
from dataset.registry import open_benchmark
from tests.conftest import make_collator, make_model
from tests.test_train_ds import losses, run


def convert_refer(source, folder):
    """Write referring expressions on COCO photographs as ReasonSeg annotations."""
    instances = json.loads((source / "instances.json").read_text())
    images = {image["id"]: image for image in instances["images"]}
    annotations = {annotation["id"]: annotation for annotation in instances["annotations"]}
    folder.mkdir(parents=True)
    refs = pickle.loads((source / "refs(unc).p").read_bytes())
    kept = []
    for ref in refs:
        image, annotation = images[ref["image_id"]], annotations[ref["ann_id"]]
        if not isinstance(annotation["segmentation"], list):
            continue
        name = f"{ref['ref_id']:04d}"
        shutil.copy(source / "images" / image["file_name"], folder / f"{name}.jpg")
        rings = [np.array(ring).reshape(-1, 2).tolist() for ring in annotation["segmentation"]]
        shapes = [{"label": "target", "points": ring, "shape_type": "polygon"} for ring in rings]
        text = [sentence["sent"] for sentence in ref["sentences"]]
        content = {"text": text, "is_sentence": False, "shapes": shapes}
        (folder / f"{name}.json").write_text(json.dumps(content))
        kept.append((image, annotation))
    return kept


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    from tests.conftest import SHARED

    if not SHARED.is_dir():
        pytest.skip("the folder of real test material is not here (ANCHORSEG_SHARED)")
    root = tmp_path_factory.mktemp("photographs")
    folder = root / "reason_seg" / "ReasonSeg"
    kept = convert_refer(SHARED / "data" / "derived_refer", folder / "train")
    (folder / "val").mkdir()
    for path in (SHARED / "data" / "reasonseg").glob("*_o.*"):
        shutil.copy(path, folder / "val")
    return root, kept


def test_polygons_of_photographs_agree_with_pycocotools(photographs):
    root, kept = photographs
    source = ReasonSeg(root, "train")
    assert len(source) == len(kept) >= 20
    for index, (image, annotation) in enumerate(kept):
        sample = source.evaluation_sample(index, protocol="forced")
        expected = decode_segmentation(annotation["segmentation"], image["height"], image["width"])
        truth = coco_mask.encode(np.asfortranarray(sample.truth, dtype=np.uint8))
        iou = coco_mask.iou([truth], [coco_mask.encode(np.asfortranarray(expected, dtype=np.uint8))], [0])[0, 0]
        # ReasonSeg counts a polygon's outline to its mask, COCO does not: thin masks differ most.
        assert iou > 0.75, annotation["id"]


def test_photographs_train_and_evaluate(photographs, tmp_path):
    root, kept = photographs
    run(
        ["train_ds.py", "--preset", "scratch", "--dataset_dir", str(root), "--log_base_dir", str(tmp_path),
         "--exp_name", "photographs", "--explanatory", "-1", "--epochs", "1", "--steps_per_epoch", "6",
         "--batch_size", "2", "--print_freq", "1"],
        ranks=2,
    )  # fmt: skip
    assert len(losses(tmp_path, "photographs")) == 6
    model = tmp_path / "model"
    run(["merge_lora_weights.py", "--run", str(tmp_path / "photographs"), "--save_path", str(model)])
    run(["eval_reasonseg.py", "--version", str(model), "--dataset_dir", str(root), "--val_dataset", "ReasonSeg|train",
         "--max_new_tokens", "12", "--output_dir", str(tmp_path / "eval")])  # fmt: skip
    results = json.loads((tmp_path / "eval" / "results.json").read_text())["benchmarks"]["ReasonSeg|train"]
    assert len(results["forced"]["rows"]) == len(results["generate"]["rows"]) == len(kept)
    assert all(row["answer"] is None for row in results["forced"]["rows"])


def test_real_run_lengths_decode_as_pycocotools_does(shared):
    results = json.loads((shared / "data" / "coco" / "instances_val2014_fakesegm100_results.json").read_text())
    assert len(results) == 734
    for result in results:
        mask = result["segmentation"]
        height, width = mask["size"]
        assert np.array_equal(decode_segmentation(mask, height, width), coco_mask.decode(mask).astype(bool))


def test_real_referring_expressions_are_evaluated(shared, tmp_path):
    source, root = shared / "data" / "derived_refer", tmp_path / "refer_seg"
    for name, file in (("refcoco", "refs(unc).p"), ("grefcoco", "grefs(unc).json")):
        (root / name).mkdir(parents=True)
        for part in (file, "instances.json"):
            shutil.copy(source / part, root / name / part)
    (root / "images" / "mscoco" / "images").mkdir(parents=True)
    (root / "images" / "mscoco" / "images" / "train2014").symlink_to(source / "images")
    model, registry = make_model()
    collator = make_collator(model.config, registry, max_length=2048)
    evaluator = Evaluator(model.eval(), registry, collator, max_new_tokens=12)
    data = DataFolder(tmp_path, tmp_path / "index")
    for name, count in (("refcoco|unc|val", 24), ("grefcoco|unc|val", 26)):
        benchmark = open_benchmark(name, data)
        for protocol in benchmark.protocols:
            result = evaluator.evaluate(benchmark, name=name, protocol=protocol)
            assert len(result.rows) == count and result.giou is not None
            assert sum(not row.has_target for row in result.rows) == count - 24
