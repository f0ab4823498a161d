"""The digest unpacked, and the rows of every check, each made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.parity.checks import check_folder
from tests.parity.context import Context
from tests.parity.digest import fixture_folder, unpack
from tests.parity.reference import Row


@pytest.fixture(scope="session")
def digest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(tmp_path_factory.mktemp("digest"))


@pytest.fixture(scope="session")
def context(digest: Path, tmp_path_factory: pytest.TempPathFactory) -> Context:
    return Context(digest, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def rows(digest: Path) -> list[Row]:
    """Of the full fixtures where they lie beside the repository, else of the digest."""
    return check_folder(fixture_folder() or digest)
