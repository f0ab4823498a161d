"""Every parity test runs on the digest and, where they lie beside the repository, on the full fixtures."""

from __future__ import annotations

import pytest

from tests.parity.reference import Reference, fixture_folder


@pytest.fixture(params=["digest", "fixtures"])
def reference(request: pytest.FixtureRequest) -> Reference:
    folder = None if request.param == "digest" else fixture_folder()
    if request.param == "fixtures" and folder is None:
        pytest.skip("the full fixtures are not here")
    return Reference(folder)
