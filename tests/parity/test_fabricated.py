"""Files of the kinds that are not handed out: made by a naive route, read and passed by the tool."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.parity import fabricated
from tests.parity.checks import check_file
from tests.parity.context import Context
from tests.parity.reference import Row
from tests.parity.samples import read_members

FILES = (
    "forward_eval.npz",
    "forward_eval_eager.npz",
    "forward_eval_gres.npz",
    "forward_generate.npz",
    "forward_train_multi.npz",
    "similarity_chain.npz",
    "metrics.npz",
)


@dataclass
class Made:
    folder: Path
    context: Context

    def rows(self, file: str) -> list[Row]:
        return check_file(self.folder / file, self.context)


@pytest.fixture(scope="session")
def made(context: Context, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("fabricated")
    for path in context.folder.iterdir():
        if path.suffix != ".npz":
            (folder / path.name).write_bytes(path.read_bytes())
    fabricated.write_evaluation(folder, context)
    fabricated.write_gres(folder, context)
    fabricated.write_generation(folder, context)
    fabricated.write_training(folder, context)
    fabricated.write_similarities(folder)
    fabricated.write_scores(folder, context)
    same_models = Context(folder, context.scratch)
    same_models.__dict__.update({key: value for key, value in context.__dict__.items() if key != "folder"})
    return Made(folder, same_models)


@pytest.mark.parametrize("file", FILES)
def test_every_row_passes(made: Made, file: str) -> None:
    rows = made.rows(file)
    assert [row for row in rows if row.failed] == []
    assert sum(row.status == "pass" for row in rows) >= 4


def test_rejections_already_replaced(made: Made, tmp_path: Path) -> None:
    members = read_members(made.folder / "forward_eval_gres.npz")
    members["in.input_ids"] = members["in.input_ids_after"]
    np.savez(tmp_path / "forward_eval_gres.npz", **members)
    rows = check_file(tmp_path / "forward_eval_gres.npz", made.context)
    assert [row for row in rows if row.failed] == []
    assert any("put back" in row.note for row in rows)


def test_the_zero_rule_is_not_plain_attention(made: Made, tmp_path: Path) -> None:
    members = read_members(made.folder / "forward_eval.npz")
    np.savez(tmp_path / "forward_eval_eager.npz", **members)
    failed = {row.array for row in check_file(tmp_path / "forward_eval_eager.npz", made.context) if row.failed}
    assert {"out.similarity", "out.pred_masks.0"} <= failed
