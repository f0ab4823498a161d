"""ReasonSeg as the hub has it: rows of parquet files, read one at a time, and what cannot be read."""

import json
import pickle

import cv2
import numpy as np
import pytest

from dataset.readers import parquet
from dataset.readers.folder import DataFolder
from dataset.registry import open_benchmark
from dataset.run_lengths import encode_runs
from scripts import score
from utils.errors import DataError, SettingsError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
ROWS = 7


def made(number):
    rng = np.random.default_rng(number)
    height, width = 20 + number, 31
    return rng.integers(0, 256, (height, width, 3)).astype(np.uint8), rng.random((height, width)) < 0.3


def rows(numbers, **changes):
    found = []
    for number in numbers:
        image, mask = made(number)
        data = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
        found.append({
            "image": {"bytes": data, "path": None}, "text": "the cup" if number % 2 else "Which one holds tea?",
            "mask": mask.tolist(), "image_id": f"img_{number}", "ann_id": "0", "img_height": mask.shape[0],
            "img_width": mask.shape[1], **changes,
        })  # fmt: skip
    return found


def write(root, content, split="val", name="test-00000-of-00001.parquet"):
    folder = root / "reason_seg" / f"ReasonSeg_{split}" / "data"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(content), folder / name, row_group_size=3)


def opened(root, split="val"):
    return open_benchmark(f"ReasonSegHub|{split}", DataFolder(root, root / "index"))


def test_rows_are_samples_in_any_order_and_in_any_process(tmp_path):
    write(tmp_path, rows(range(4)), name="test-00000-of-00002.parquet")
    write(tmp_path, rows(range(4, ROWS)), name="test-00001-of-00002.parquet")
    benchmark = opened(tmp_path)
    assert len(benchmark) == ROWS
    for source in (benchmark, pickle.loads(pickle.dumps(benchmark))):
        for index in (0, 1, 2, 6, 3, 0, 5):
            sample = source.evaluation_sample(index, protocol="forced")
            image, mask = made(index)
            assert (sample.image == image).all() and (sample.masks[0] == mask).all() and sample.ignore is None
            assert sample.record == f"img_{index}" and sample.questions[0].targets == (0,)
            asked = sample.conversations[0].turns[0].question
            assert asked.startswith("Which one holds tea?" if index % 2 == 0 else "What is the cup in this image?")
    assert source.evaluation_sample(0, protocol="generate").conversations[0].turns[0].answer is None


def test_annotations_of_one_image_have_names_of_their_own(tmp_path):
    content = [{**row, "image_id": "a", "ann_id": str(number)} for number, row in enumerate(rows(range(3)))]
    write(tmp_path, content, split="test")
    benchmark = opened(tmp_path, "test")
    assert [benchmark.evaluation_sample(n, protocol="forced").record for n in range(3)] == ["a_0", "a_1", "a_2"]


def test_the_scorer_reads_it(tmp_path, capsys):
    write(tmp_path, rows(range(2)))
    lines = [json.dumps({"record": f"img_{n}", "segmentation": encode_runs(made(n)[1])}) for n in range(2)]
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    score.main(
        ["--benchmark", "ReasonSegHub|val", "--predictions", str(tmp_path / "p.jsonl"), "--dataset_dir",
         str(tmp_path), "--index_dir", str(tmp_path / "index"), "--workers", "1"]
    )  # fmt: skip
    assert "ReasonSegHub|val generate: giou 1.0000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask": [[True]]}, r"its mask has 1 lines of 1 pixels, but the image 20 lines of 31"),
        ({"mask": None}, r"its mask has none pixels"),
        ({"image": {"bytes": b"no picture", "path": None}}, r"img_0: the file is not an image"),
        ({"image": {"bytes": None, "path": "a.jpg"}}, r"img_0: its image has no bytes"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path, changes, message):
    write(tmp_path, [{**rows([0])[0], **changes}, *rows([1])])
    with pytest.raises(DataError, match=message):
        opened(tmp_path).evaluation_sample(0, protocol="forced")


def test_files_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="Ricky06662/ReasonSeg_val"):
        opened(tmp_path)
    with pytest.raises(DataError, match="allowed: val, test"):
        opened(tmp_path, "train")
    write(tmp_path, [{"text": "a"}])
    with pytest.raises(DataError, match="it has no column image, mask, image_id, ann_id"):
        opened(tmp_path)
    write(tmp_path, rows([0], text=" "))
    with pytest.raises(DataError, match='has no "text"'):
        opened(tmp_path)
    path = tmp_path / "reason_seg" / "ReasonSeg_val" / "data" / "test-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="cannot be read as parquet"):
        opened(tmp_path)


def test_without_pyarrow_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"ReasonSegHub\|val is in parquet files, .* pip install pyarrow"):
        opened(tmp_path)
