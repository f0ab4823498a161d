"""How threads of OpenMP wait for each other, chosen before torch is imported, which reads it once."""

from __future__ import annotations

import os


def wait_without_spinning() -> None:
    """Let waiting threads sleep almost at once, unless the environment says how they should wait.

    By default each spins on its core for milliseconds. Alone that saves a little; beside another process with work for
    the cores training runs 6 to 50 times slower. benchmarks/waiting.py measures both.
    """
    if "OMP_WAIT_POLICY" not in os.environ and "GOMP_SPINCOUNT" not in os.environ:
        os.environ["GOMP_SPINCOUNT"] = SPINS
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


SPINS = "1000"
"""Rounds of a few nanoseconds."""
