"""The query analysis: shares by hand, `<SEG>`'s map as the model's prior, both ways of calling it."""

import json

import numpy as np
import pytest
import torch

from anchorseg.evaluation.queries import bank_responses, given_answer, inside_share
from anchorseg.weights.folder import load_model
from dataset.drawn.writer import make_scene, write_scenes
from scripts import queries
from utils.errors import SettingsError
from utils.pictures import save_picture


def test_shares_by_hand():
    maps = np.zeros((3, 2, 2), np.float32)
    maps[0] = [[1, 0], [0, 3]]
    maps[1] = 0.5
    mask = np.array([[True, False], [False, False]])
    assert inside_share(maps, mask).tolist() == [0.25, 0.25, 0.0]


def test_the_last_map_is_the_prior_that_the_model_draws():
    model, registry = load_model("miniature")
    scene, (query, *_) = make_scene(3, "test", 0)
    side = min(scene.image.shape[:2])
    image = scene.image[:side, :side]  # a square, so that no patch is padding
    batch = given_answer(model, registry, image, query.texts[0])
    found = bank_responses(model, batch)
    assert found.maps.shape == (1, 8, side, side) and found.masks.shape == (1, side, side)
    with torch.inference_mode():
        segmentation = model(batch).segmentation
    torch.testing.assert_close(torch.from_numpy(found.maps[:, -1]), segmentation.prior.maps[0], rtol=0, atol=1e-5)
    assert (found.masks == (segmentation.masks[0] > 0).numpy()).all()


def test_one_image_and_a_benchmark(tmp_path, capsys):
    write_scenes(tmp_path / "data", counts={"train": 1, "val": 1, "test": 4}, seed=1)
    image = tmp_path / "image.png"
    save_picture(image, make_scene(1, "test", 0)[0].image)
    queries.main([str(tmp_path / "one"), "--model", "miniature", "--image", str(image), "--query", "the largest one"])
    assert (tmp_path / "one" / "queries.png").is_file()
    benchmark = ["--dataset_dir", str(tmp_path / "data"), "--val_dataset", "ReasonSeg|test", "--pictures", "2"]
    queries.main([str(tmp_path / "all"), "--model", "miniature", *benchmark])
    content = json.loads((tmp_path / "all" / "queries.json").read_text())
    assert list(content["inside"])[-2:] == ["<SEG>", "a uniform map"] and len(content["inside"]) == 9
    assert content["inside"]["<SEG>"]["share"] > content["inside"]["a uniform map"]["share"]
    assert len(list((tmp_path / "all").glob("*.png"))) == 2 and "<REAS_1>" in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags", [[], ["--image", "a.png"], ["--image", "a.png", "--query", "b", "--val_dataset", "ReasonSeg|val"]]
)
def test_what_to_analyze_is_said_once(tmp_path, flags):
    with pytest.raises(SettingsError, match="--val_dataset"):
        queries.main([str(tmp_path), "--model", "miniature", *flags])
