"""Bootstrap intervals of scores: how far a mean over these samples may lie from that over all samples of their kind."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from utils.seeding import generator_for

REPEATS = 2000
"""Resamplings of an interval."""
COVERAGE = 0.95
"""Share of the resampled means that an interval holds."""


def mean_interval(
    values: Sequence[float], groups: Sequence[Hashable] | None = None, *, seed: int = 0, repeats: int = REPEATS
) -> tuple[float, float, float]:
    """Mean of some values, and the percentile bootstrap interval of it.

    Args:
        values: at least one, such as one IoU a question.
        groups: of each value, what was drawn independently, such as its image; groups are resampled as a whole. None
            takes every value as a group.
        seed: of the resampling.
        repeats: how often the groups are drawn anew, with replacement.

    Returns:
        The mean, and the ends of its 95 % interval.

    Raises:
        ValueError: if there are no values.
    """
    if not len(values):
        raise ValueError("an interval needs at least one value")
    array = np.asarray(values, dtype=np.float64)
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups or range(len(array))))}
    place = np.array([numbers[group] for group in groups or range(len(array))])
    sums, counts = np.bincount(place, weights=array), np.bincount(place)
    rng = generator_for(seed, "bootstrap", len(sums))
    drawn = (rng.integers(len(sums), size=len(sums)) for _ in range(repeats))
    means = np.array([sums[chosen].sum() / counts[chosen].sum() for chosen in drawn])
    low, high = np.quantile(means, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(array.mean()), float(low), float(high)
