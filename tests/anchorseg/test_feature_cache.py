"""SAM's features on disk: what is found, what is made again, what is refused, and how much is stored."""

import dataclasses
import multiprocessing
import os
import pickle
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import eval_reasonseg
from anchorseg.inference.collate import make_collator
from anchorseg.inference.feature_cache import FeatureCache, open_store
from anchorseg.training.settings import TrainSettings
from anchorseg.weights.folder import save_model
from dataset.drawn.writer import write_scenes
from dataset.feature_store import DamagedEntryError, FeatureStore, image_key
from model.sam import SamBackbone
from tests.conftest import make_model, make_sample
from tests.parity.views import height_first
from utils import geometry
from utils.errors import exit_on_error

ROOT = Path(__file__).parents[2]


class Encoder:
    """A small model, whose encoder counts the images that it sees, and a cache of its own."""

    def __init__(self, root: Path, *, gigabytes: float = 1.0, dtype: torch.dtype = torch.float32) -> None:
        model, registry = make_model()
        self.model = model.eval().to(dtype)
        self.encoded = 0
        self.model.sam.image_encoder.register_forward_hook(self._count)
        self.cache = FeatureCache(self.model.sam, str(root), gigabytes)
        self.store = self.cache.store
        self.collator = make_collator(model.config, registry, max_length=2048, store=self.store)
        self.plain = make_collator(model.config, registry, max_length=2048)

    def _count(self, module, inputs, output) -> None:
        self.encoded += len(output)

    def fill(self, samples):
        return self.cache.fill(self.collator(samples).images.to("cpu", self.model.dtype))

    @torch.no_grad()
    def truth(self, sample):
        """What the encoder gives for the image alone; not counted."""
        before = self.encoded
        features = self.model.sam.image_features(self.plain([sample]).images.mask_pixels.to(self.model.dtype))[0]
        self.encoded = before
        return features

    def entry(self, sample) -> Path:
        return self.store.path(image_key(sample.image))


def entries(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("*/??/*") if not path.name.startswith("."))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_image_is_encoded_once_and_found_to_the_last_bit(tmp_path, dtype):
    encoder = Encoder(tmp_path, dtype=dtype)
    samples = [make_sample(seed, size=(60 + seed, 80)) for seed in range(3)]
    first, hits = encoder.fill(samples[:2])
    assert hits == 0 and encoder.encoded == 2
    second, hits = encoder.fill(samples)
    assert hits == pytest.approx(2 / 3) and encoder.encoded == 3
    third = encoder.collator(samples).images
    assert third.mask_pixels.shape == (0, *encoder.plain(samples).images.mask_pixels.shape[1:])
    assert encoder.cache.fill(third)[1] == 1 and encoder.encoded == 3
    for images in (first, second, third):
        for sample, features in zip(samples, images.mask_features, strict=False):
            assert features.dtype == dtype and torch.equal(features, encoder.truth(sample))


def test_the_model_answers_the_same_with_and_without_stored_features(tmp_path):
    encoder = Encoder(tmp_path)
    samples = [make_sample(0), make_sample(1, size=(90, 50))]
    encoder.fill(samples[:1])
    collated = encoder.collator(samples)
    stored = [features is not None for features in collated.images.mask_features]
    assert stored == [True, False] and len(collated.images.mask_pixels) == 1
    with torch.no_grad():
        wanted = encoder.model(encoder.plain(samples)).segmentation.masks
        filled = dataclasses.replace(collated, images=encoder.cache.fill(collated.images)[0])
        for batch in (collated, filled):
            for ours, plain in zip(encoder.model(batch).segmentation.masks, wanted, strict=True):
                assert torch.allclose(ours, plain, rtol=1e-5, atol=1e-5)


def test_a_picture_under_two_names_is_one_entry_and_its_shape_counts(tmp_path):
    encoder = Encoder(tmp_path)
    sample = make_sample(0)
    encoder.fill([sample, dataclasses.replace(sample, record="another name", image=sample.image.copy())])
    assert encoder.encoded == 1 and len(entries(tmp_path)) == 1
    turned = sample.image.reshape(80, 60, 3)
    assert image_key(turned) != image_key(sample.image) != image_key(sample.image[::-1])


def test_the_collator_travels_to_workers(tmp_path):
    encoder = Encoder(tmp_path)
    encoder.fill([make_sample(0)])
    images = pickle.loads(pickle.dumps(encoder.collator))([make_sample(0)]).images
    assert torch.equal(images.mask_features[0], encoder.truth(make_sample(0)))


def test_entries_of_other_weights_images_and_types_are_not_found(tmp_path):
    encoder = Encoder(tmp_path)
    encoder.fill([make_sample(0)])
    key = image_key(make_sample(0).image)
    assert encoder.store.find(key) is not None and encoder.store.find(image_key(make_sample(1).image)) is None
    assert open_store(encoder.model.sam, tmp_path).find(key) is not None
    half = open_store(encoder.model.sam.to(torch.bfloat16), tmp_path)
    assert half.find(key) is None
    encoder.model.sam.float()
    with torch.no_grad():
        next(iter(encoder.model.sam.mask_decoder.parameters())).add_(1)  # trains, and has no say in the features
        assert open_store(encoder.model.sam, tmp_path).folder.name != encoder.store.folder.name  # rounded to 16 bits
    encoder = Encoder(tmp_path)
    with torch.no_grad():
        next(iter(encoder.model.sam.mask_decoder.parameters())).add_(1)
        assert open_store(encoder.model.sam, tmp_path) == encoder.store
        list(encoder.model.sam.image_encoder.parameters())[-1].view(-1)[-1].add_(1e-3)
    assert open_store(encoder.model.sam, tmp_path).find(key) is None


def test_entries_of_other_pixels_are_not_found(tmp_path, monkeypatch):
    encoder = Encoder(tmp_path)
    sample = make_sample(0, size=(190, 60))
    encoder.fill([sample])
    monkeypatch.setattr(geometry, "resize_longest_side", height_first)
    assert open_store(encoder.model.sam, tmp_path).find(image_key(sample.image)) is None
    monkeypatch.undo()
    assert open_store(encoder.model.sam, tmp_path).find(image_key(sample.image)) is not None


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def copy_another(path: Path) -> None:
    other = next(entry for entry in entries(path.parents[2]) if entry != path)
    path.write_bytes(other.read_bytes())


DAMAGES = {
    "first bit of the values": (lambda path: flip(path, 32), "its checksum does not fit its content"),
    "last bit of the values": (lambda path: flip(path, -1), "its checksum does not fit its content"),
    "a bit of the checksum": (lambda path: flip(path, 7), "its checksum does not fit its content"),
    "features of another image": (copy_another, "its checksum does not fit its content"),
    "cut short": (lambda path: os.truncate(path, 1000), "it has 1000 bytes instead of 65568"),
    "empty": (lambda path: os.truncate(path, 0), "it has 0 bytes instead of 65568"),
    "too long": (lambda path: os.truncate(path, 65569), "it has 65569 bytes instead of 65568"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_entry_is_dropped_named_and_made_again(tmp_path, capsys, name):
    encoder = Encoder(tmp_path)
    samples = [make_sample(0), make_sample(1)]
    encoder.fill(samples)
    path = encoder.entry(samples[0])
    whole = path.read_bytes()
    damage, reason = DAMAGES[name]
    damage(path)
    collated = encoder.collator(samples).images
    assert collated.mask_features[0] is None and path.read_bytes() != whole  # a worker looks and touches nothing
    images, hits = encoder.cache.fill(collated)
    assert hits == 0.5 and encoder.encoded == 3
    assert all(
        torch.equal(features, encoder.truth(sample))
        for sample, features in zip(samples, images.mask_features, strict=True)
    )
    assert path.read_bytes() == whole
    encoder.cache.finish()
    encoder.cache.finish()
    told = capsys.readouterr().out
    assert told.count(f"feature cache: {path} is dropped: {reason}; it is made again") == 1
    assert "25.0% of 4 images were found, 1 entries dropped, 0 images not stored" in told


def test_an_entry_that_cannot_be_read_or_deleted_does_no_harm(tmp_path, capsys):
    encoder = Encoder(tmp_path)
    encoder.entry(make_sample(0)).mkdir(parents=True)
    for _ in range(2):
        images, hits = encoder.fill([make_sample(0)])
        assert hits == 0 and torch.equal(images.mask_features[0], encoder.truth(make_sample(0)))
    encoder.cache.say()
    told = capsys.readouterr().out
    assert told.count("it is no file") == 1
    assert told.count("cannot be deleted (Is a directory)") == told.count("stores nothing more") == 1


def test_nothing_is_stored_beyond_the_bound_which_counts_the_whole_folder(tmp_path, capsys):
    (tmp_path / "other weights").mkdir()
    (tmp_path / "other weights" / "entry").write_bytes(bytes(50_000))
    encoder = Encoder(tmp_path, gigabytes=(50_000 + 3.5 * 65_568) / 1e9)
    samples = [make_sample(seed) for seed in range(5)]
    for _ in range(2):
        images, _ = encoder.fill(samples)
        assert all(
            torch.equal(features, encoder.truth(sample))
            for sample, features in zip(samples, images.mask_features, strict=True)
        )
    assert encoder.encoded == 5 + 2
    assert entries(tmp_path) == sorted(encoder.entry(sample) for sample in samples[:3])
    encoder.cache.finish()
    told = capsys.readouterr().out
    assert told.count("are used up; give more, or delete the folders beside") == 1
    assert "3 images of 0.07 MB; the folder holds 0.000247 of 0.0002" in told and "4 images not stored" in told
    # What is dropped makes room for itself.
    flip(encoder.entry(samples[1]), 100)
    again = Encoder(tmp_path, gigabytes=(50_000 + 3.5 * 65_568) / 1e9)
    again.fill(samples)
    assert again.store.find(image_key(samples[1].image)) is not None and len(entries(tmp_path)) == 3


def test_a_disk_without_room_is_said_once_and_training_goes_on(tmp_path, capsys):
    encoder = Encoder(tmp_path)
    encoder.fill([make_sample(0)])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        images, hits = encoder.fill([make_sample(seed) for seed in range(3)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert hits == pytest.approx(1 / 3) and torch.equal(images.mask_features[2], encoder.truth(make_sample(2)))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [encoder.entry(make_sample(0))]
    encoder.cache.finish()
    told = capsys.readouterr().out
    assert told.count("cannot be written (File too large); make room on its disk. The run goes on") == 1
    assert "used up" not in told and "2 images not stored" in told


def test_leftovers_of_killed_processes_are_removed_when_they_are_old(tmp_path):
    encoder = Encoder(tmp_path)
    encoder.fill([make_sample(0)])
    entry = encoder.entry(make_sample(0))
    old, young = (entry.with_name(f".{entry.name}.{name}.tmp") for name in ("old", "young"))
    foreign = tmp_path / ".mine.tmp"
    for path in (old, young, foreign):
        path.write_bytes(bytes(100))
    for path in (old, foreign):
        os.utime(path, (time.time() - 7200,) * 2)
    Encoder(tmp_path)
    assert not old.exists() and young.exists() and foreign.exists() and entry.exists()


def _write_and_read(folder: Path, key: str, rounds: int, outcome) -> None:
    store = FeatureStore(folder, (64, 64, 64), torch.float32)
    features = torch.arange(64**3, dtype=torch.float32).view(64, 64, 64)
    counts = {"damaged": 0, "found": 0}
    for _ in range(rounds):
        store.path(key).unlink(missing_ok=True)
        store.write(key, features)
        try:
            found = store.read(key)
        except DamagedEntryError:
            counts["damaged"] += 1
            continue
        if found is not None:  # else the other process has just deleted it
            counts["found"] += int(torch.equal(found, features))
            counts["damaged"] += int(not torch.equal(found, features))
    outcome.put(counts)


def test_writers_of_one_entry_at_the_same_time_never_show_half_of_it(tmp_path):
    context = multiprocessing.get_context("spawn")  # threads of OpenMP do not survive a fork
    outcome = context.SimpleQueue()
    processes = [
        context.Process(target=_write_and_read, args=(tmp_path / "store", "ab" * 32, 60, outcome)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    counts = [outcome.get() for _ in processes]
    assert all(count["damaged"] == 0 and count["found"] > 0 for count in counts), counts
    assert not list(tmp_path.rglob("*.tmp"))


RANK = """
import sys, torch.distributed as dist
from pathlib import Path
from tests.anchorseg.test_feature_cache import Encoder
from tests.conftest import make_sample
dist.init_process_group("gloo")  # behind the imports: defaults of DeepSpeed's functions would keep the group for ever
encoder = Encoder(Path(sys.argv[1]), gigabytes=5 * 65_568 / 1e9)
for seed in range(4):
    encoder.fill([make_sample(10 * dist.get_rank() + seed)])
encoder.cache.finish()
dist.destroy_process_group()
"""


def test_ranks_share_the_bound_and_say_a_thing_once(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "WORLD_SIZE": "2"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-c", RANK, str(tmp_path)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [subprocess.Popen(command, cwd=ROOT, env={**shared, "RANK": str(rank)}, **pipes) for rank in range(2)]
    said = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert len(entries(tmp_path)) == 4  # 2.5 each
    assert said[0][0].count("are used up") == 1 and said[1][0] == ""
    assert "0.0% of 8 images were found, 0 entries dropped, 4 images not stored" in said[0][0]


def test_the_evaluation_script_encodes_an_image_once_for_all_protocols_and_runs(tmp_path, monkeypatch):
    write_scenes(tmp_path / "scenes", counts={"train": 1, "val": 3, "test": 1}, seed=0)
    model, registry = make_model()
    save_model(model, registry, tmp_path / "model")
    encoded, encode = [], SamBackbone.image_features
    monkeypatch.setattr(SamBackbone, "image_features", lambda sam, x: encoded.append(len(x)) or encode(sam, x))
    results = []
    for extra in ([], ["--cache_features", str(tmp_path / "cache")], ["--cache_features", str(tmp_path / "cache")]):
        eval_reasonseg.main(
            ["--version", str(tmp_path / "model"), "--dataset_dir", str(tmp_path / "scenes"), "--max_new_tokens", "8",
             "--output_dir", str(tmp_path / "out"), *extra]
        )  # fmt: skip
        results.append((tmp_path / "out" / "results.json").read_text().split('"benchmarks"')[1])
        results.append(sum(encoded))
        encoded.clear()
    assert results[1::2] == [6, 3, 0]
    assert results[0] == results[2] == results[4]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--cache_features", "FILE"], "is a file; give a folder"),
        (["--cache_features", "FILE/cache"], "cannot be written (Not a directory); give a folder that can"),
        (["--cache_features", "cache", "--train_scope", "all"], "--train_scope all trains the encoder; use --train_sc"),
        (["--cache_gigabytes", "0"], "--cache_gigabytes is '0'; it must be a number above 0"),
    ],
)
def test_a_cache_that_cannot_be_is_refused_at_the_start(tmp_path, monkeypatch, capsys, flags, sentence):
    import train_ds  # slow

    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("")
    command = ["--preset", "scratch", "--dataset_dir", str(tmp_path), "--train_scope", "paper", *flags]
    with pytest.raises(SystemExit) as stopped, exit_on_error():
        train_ds.main(command)
    assert stopped.value.code == 2 and sentence in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_an_encoder_that_trains_has_no_cache_and_a_frozen_one_may_have_any_adapter():
    with pytest.raises(ValueError, match="--cache_features DIR keeps what SAM's frozen encoder gives"):
        TrainSettings(size="tiny", train_scope="all", cache_features="DIR")
    TrainSettings(size="tiny", train_scope="paper", cache_features="DIR", train_embeddings="new")
    assert np.isclose(TrainSettings().cache_gigabytes, 200)
