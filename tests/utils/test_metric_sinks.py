"""Sinks of a run's numbers and pictures: each gets all of them, and a missing package is a sentence at the start."""

import importlib.machinery

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train_ds
from utils import metric_sinks
from utils.errors import SettingsError
from utils.run_folder import RunFolder


class Kept:
    """A sink that keeps what it gets."""

    def __init__(self, folder, config):
        self.config, self.got, self.closed = config, [], False

    def numbers(self, step, values):
        self.got.append((step, dict(values)))

    def pictures(self, step, pictures):
        self.got.append((step, {tag: picture.shape for tag, picture in pictures.items()}))

    def close(self):
        self.closed = True


def test_every_sink_gets_numbers_and_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr("utils.run_folder.WeightsAndBiases", Kept)
    picture = np.full((5, 7, 3), 200, np.uint8)
    with RunFolder(tmp_path, config={"lr": 0.1}, wandb=True) as run:
        kept = run._sinks[1]
        run.log(1, {"train/loss": 0.5, "note": "warm", "broken": float("nan")})
        run.show(1, {"val/a/0": picture})
    assert kept.config == {"lr": 0.1} and kept.closed
    assert kept.got == [(1, {"train/loss": 0.5}), (1, {"val/a/0": (5, 7, 3)})]
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Tags()["scalars"] == ["train/loss"]
    (image,) = events.Images("val/a/0")
    assert (image.step, image.height, image.width) == (1, 5, 7)


@pytest.mark.parametrize("found", [None, importlib.machinery.ModuleSpec("wandb", None)], ids=["nothing", "a folder"])
def test_training_with_wandb_stops_at_once_where_it_is_not_installed(tmp_path, monkeypatch, found):
    monkeypatch.setattr(metric_sinks, "find_spec", lambda name: found)
    flags = ["--preset", "scratch", "--dataset_dir", str(tmp_path), "--log_base_dir", str(tmp_path), "--wandb"]
    with pytest.raises(SettingsError, match="pip install wandb"):
        train_ds.main(flags)
    assert not (tmp_path / "anchorseg").exists()


def test_a_run_has_one_name_at_weights_and_biases(tmp_path):
    first = metric_sinks.WeightsAndBiases._identity(tmp_path / "wandb_id")
    assert first and metric_sinks.WeightsAndBiases._identity(tmp_path / "wandb_id") == first
