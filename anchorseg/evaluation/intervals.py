"""Bootstrap intervals of scores: how far a mean over these samples may lie from that over all samples of their kind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from utils.seeding import generator_for

REPEATS = 2000
"""Resamplings of an interval."""
COVERAGE = 0.95
"""Share of the resampled means that an interval holds."""


def mean_interval(values: Sequence[float], *, seed: int = 0, repeats: int = REPEATS) -> tuple[float, float, float]:
    """Mean of some values, and the percentile bootstrap interval of it.

    Args:
        values: at least one; independent samples, such as one IoU an image.
        seed: of the resampling.
        repeats: how often the values are drawn anew, with replacement.

    Returns:
        The mean, and the ends of its 95 % interval.

    Raises:
        ValueError: if there are no values.
    """
    if not len(values):
        raise ValueError("an interval needs at least one value")
    array = np.asarray(values, dtype=np.float64)
    rng = generator_for(seed, "bootstrap", len(array))
    means = np.array([array[rng.integers(len(array), size=len(array))].mean() for _ in range(repeats)])
    low, high = np.quantile(means, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(array.mean()), float(low), float(high)
