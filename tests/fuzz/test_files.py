"""Damaged images, JSON texts, weight files and results: a sentence, or a value; no crash, no hang."""

import json

import cv2
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from anchorseg.evaluation.given import read_predictions
from anchorseg.evaluation.results import FILE, SCORED, Model, ResultsFile, table
from dataset.images import decode_mask, image_size, read_image, read_label_map, read_mask
from dataset.masks import decode_segmentation, shape_points
from dataset.run_lengths import encode_runs
from eval_reasonseg import EvalSettings
from tests.fuzz.mutations import damaged_bytes, damaged_file, damaged_value, replaced
from tests.fuzz.running import fuzz
from utils.files import read_json
from utils.settings import to_dict
from utils.tensor_files import TensorFiles


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    picture = np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8)
    for suffix in ("jpg", "png", "bmp", "webp", "tiff"):
        cv2.imwrite(str(folder / f"a.{suffix}"), picture)
    grey = Image.fromarray(picture[..., 0] // 64)
    grey.save(folder / "grey.png")
    grey.convert("1").save(folder / "bits.png")
    grey.convert("P").save(folder / "palette.png", transparency=0)
    turned = Image.fromarray(picture)
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(folder / "turned.jpg", exif=exif)
    return sorted(folder.iterdir())


@fuzz(120)
def test_images(data, images):
    path = data.draw(st.sampled_from(images))
    read = data.draw(st.sampled_from([read_image, image_size, read_label_map, read_mask]))
    with replaced(path, data.draw(damaged_file(path))):
        value = read(path)
        assert value if read is image_size else value.size


@fuzz(60)
def test_masks_in_annotations(data, images):
    decode_mask(data.draw(damaged_bytes(images[0].read_bytes())), "record")


@fuzz(100)
def test_json_texts(data, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "a.json"
    text = json.dumps({"a": [1, 2.5, "\u00e9\u4f60", None, True], "b": {"c": [[1, 2], [3]]}}, ensure_ascii=False)
    encoding = data.draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32", "gbk"]))
    path.write_bytes(data.draw(damaged_bytes(text.encode(encoding, "replace"))))
    json.dumps(read_json(path, kind=data.draw(st.sampled_from([None, dict, list]))))


@fuzz(100)
def test_predictions(data, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "predictions"
    mask = encode_runs(np.eye(5, 4, dtype=bool))
    lines = [
        {"record": "a.jpg", "question": 0, "masks": [mask], "found": True},
        {"record": "b", "question": "the cup", "masks": None},
    ]
    listed = [
        {"image_id": "a", "segmentation": mask},
        {"image_id": 3, "question": 1, "segmentation": [[0, 0, 3, 0, 3, 3]]},
    ]
    value = data.draw(damaged_value(data.draw(st.sampled_from([lines, listed]))))
    text = json.dumps(value)
    if isinstance(value, list) and data.draw(st.booleans()):
        text = "\n".join(map(json.dumps, value))
    path.write_bytes(data.draw(damaged_bytes(text.encode())) if data.draw(st.booleans()) else text.encode())
    for given in read_predictions(path).all:
        assert given.reply((5, 4)).masks.shape[1:] == (5, 4)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    tensors = {"a": torch.randn(3, 4), "b": torch.arange(5), "c": torch.randn(2).to(torch.bfloat16)}
    save_file(tensors, folder / "a.safetensors")
    torch.save(tensors, folder / "zip.pth")
    torch.save(tensors, folder / "legacy.bin", _use_new_zipfile_serialization=False)
    return sorted(folder.iterdir())


@fuzz(100)
def test_weight_files(data, weights):
    path = data.draw(st.sampled_from(weights))
    with replaced(path, data.draw(damaged_file(path))):
        files = TensorFiles(path)
        for name in files:
            assert files[name].shape == files.shape(name)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    settings = to_dict(EvalSettings(version="m"))
    entry = {"giou": 0.5, "ciou": None, "num_samples": 1, "num_questions": 1, "leaks": False, "rows": [{"index": 0}]}
    asked = {name: settings[name] for name in SCORED}
    content = {
        "model": {"folder": "m", "digest": "0"}, "scored_with": asked,
        "runs": [{"settings": settings, "environment": {}, "scored": [["a", "forced"]]}],
        "benchmarks": {"a": {"forced": entry}},
    }  # fmt: skip
    (folder / FILE).write_text(json.dumps(content))
    return folder, settings


@fuzz(60)
def test_results(data, results):
    folder, settings = results
    with replaced(folder / FILE, data.draw(damaged_file(folder / FILE))):
        file = ResultsFile(folder, Model("m", "0"), settings)
        file.has("a", "forced")
        table(file.entries())


@fuzz(60)
def test_segmentations(data):
    whole = data.draw(
        st.sampled_from(
            [{"size": [4, 5], "counts": [3, 7, 10]}, {"size": [4, 5], "counts": "37:"}, [[0, 0, 3, 0, 3, 3]]]
        )
    )
    mask = decode_segmentation(data.draw(damaged_value(whole)), 4, 5, path="record")
    assert mask.shape == (4, 5) and mask.dtype == bool


@fuzz(60)
def test_points(data):
    shape = data.draw(damaged_value({"points": [[1, 2], [3, 4], [5, 6]], "x": 1}))
    if isinstance(shape, dict):
        shape_points(shape, "s", "p")
