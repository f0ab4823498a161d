"""Every published number that is here agrees, and the digest says what the full fixtures say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.parity.checks import check_file
from tests.parity.context import Context
from tests.parity.digest import DIGEST, fixture_folder
from tests.parity.make_digest import ARRAYS, JSON_CHECKS, RULE_FILES
from tests.parity.reference import Fixture, Row
from tests.parity.samples import read_members


def test_every_row_passes(rows: list[Row]) -> None:
    assert [row for row in rows if row.failed] == []


@pytest.mark.parametrize("file", [*ARRAYS, *JSON_CHECKS])
def test_every_file_is_compared(rows: list[Row], file: str) -> None:
    assert any(row.file == file and row.status == "pass" for row in rows)


def test_views_of_tall_pictures(context: Context) -> None:
    full = fixture_folder()
    if full is None:
        pytest.skip("the full fixtures are not here")
    tall = Context(full.parent / "parity_tall", context.scratch)
    rows = check_file(tall.folder / "preprocess.npz", tall)
    assert [row for row in rows if row.failed] == []
    assert sum(row.status == "pass" for row in rows) == 42


def test_digest_agrees_with_the_fixtures(digest: Path) -> None:
    full = fixture_folder()
    if full is None:
        pytest.skip("the full fixtures are not here")
    for file in ARRAYS:
        fixture = Fixture(digest / file)
        for name, array in read_members(full / file).items():
            if name in fixture and array.dtype.kind == "U":
                assert fixture.input(name).tolist() == array.tolist()
            elif name in fixture:
                fixture.check(name, array, tolerance=0)
        assert [row for row in fixture.finish() if row.failed] == []
    for file in (*JSON_CHECKS, *RULE_FILES):
        assert (digest / file).read_bytes() == (full / file).read_bytes()


def test_digest_is_small() -> None:
    assert DIGEST.stat().st_size < 1_000_000
