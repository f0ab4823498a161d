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
    terms = np.stack([array, np.ones_like(array)], axis=1)[:, np.newaxis]
    ((low, high),) = ratio_intervals(terms, groups or range(len(array)), seed=seed, repeats=repeats)
    return float(array.mean()), float(low), float(high)


def ratio_intervals(
    terms: np.ndarray, groups: Sequence[Hashable], *, seed: int = 0, repeats: int = REPEATS
) -> np.ndarray:
    """Percentile bootstrap intervals of ratios of sums, such as cIoU or a precision.

    Args:
        terms: (n, S, 2) what each of n rows adds to numerator and denominator of S ratios.
        groups: of each row, as in `mean_interval`.
        seed: of the resampling, which all ratios share.
        repeats: how often.

    Returns:
        (S, 2) ends of the 95 % intervals; NaN for a ratio whose denominator was 0 in every resampling.
    """
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    sums = np.zeros((len(numbers), *terms.shape[1:]))
    np.add.at(sums, [numbers[group] for group in groups], terms)
    rng = generator_for(seed, "bootstrap", len(sums))
    drawn = np.stack([sums[rng.integers(len(sums), size=len(sums))].sum(axis=0) for _ in range(repeats)])
    top, bottom = drawn[..., 0], drawn[..., 1]
    ratios = np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom != 0)
    ends = [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2]
    found = [np.quantile(column[~np.isnan(column)], ends) for column in ratios.T if not np.isnan(column).all()]
    intervals = np.full((terms.shape[1], 2), np.nan)
    intervals[~np.isnan(ratios).all(axis=0)] = np.reshape(found, (-1, 2))
    return intervals
