"""Comparing two evaluations: nothing against itself, a known difference, and what cannot be compared."""

import json

import numpy as np
import pytest

from scripts.compare import main, pairs_of
from utils.errors import DataError


def rows(ious, folder="data"):
    return [
        {"record": f"{folder}/{n // 2}.json", "question": n % 2, "query": "a " * (1 + n % 12), "iou": iou}
        for n, iou in enumerate(ious)
    ]


def written(path, ious):
    content = {"benchmarks": {"ReasonSeg|val": {"forced": {"rows": rows(ious)}}}}
    path.write_text(json.dumps(content))
    return str(path)


def test_an_evaluation_does_not_differ_from_itself(tmp_path, capsys):
    ious = np.random.default_rng(0).random(80).tolist()
    main([written(tmp_path / "a.json", ious), written(tmp_path / "b.json", ious)])
    said = capsys.readouterr().out
    assert "+0.0000  [+0.0000, +0.0000]    0.0%    0.0%" in said and "differ" not in said
    assert "up to 5 words" in said and "more than 10 words" in said


def test_a_difference_beyond_chance_is_said(tmp_path, capsys):
    rng = np.random.default_rng(1)
    first = rng.uniform(0.3, 0.6, 200)
    second = first + rng.normal(0.1, 0.05, 200)
    main([written(tmp_path / "a.json", first.tolist()), written(tmp_path / "b.json", second.tolist())])
    line = capsys.readouterr().out.splitlines()[2]
    low, high = (float(number) for number in line.split("[")[1].split("]")[0].split(","))
    assert low < 0.1 < high and high - low == pytest.approx(2 * 1.96 * 0.05 / 200**0.5, rel=0.25)
    assert line.endswith("differ")


def test_other_questions_and_other_benchmarks_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"not about the same questions: 1\.json is in one alone"):
        pairs_of(rows([0.1, 0.2, 0.3]), rows([0.1, 0.2]), "ReasonSeg|val")
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"benchmarks": {"refcoco|unc|val": {}}}))
    with pytest.raises(DataError, match="shares no benchmark"):
        main([written(tmp_path / "a.json", [0.5]), str(other)])
