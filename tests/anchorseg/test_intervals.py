"""Bootstrap intervals against what is known of them."""

import numpy as np
import pytest

from anchorseg.evaluation.intervals import mean_interval


def test_an_interval_of_a_large_sample_is_that_of_the_normal_distribution():
    values = np.random.default_rng(0).normal(0.6, 0.2, 4000)
    mean, low, high = mean_interval(values)
    error = 1.96 * values.std() / np.sqrt(len(values))
    assert mean == pytest.approx(values.mean())
    assert low == pytest.approx(mean - error, abs=0.1 * error) and high == pytest.approx(mean + error, abs=0.1 * error)


def test_intervals_cover_the_true_mean_as_often_as_they_say():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        _, low, high = mean_interval((rng.random(80) < 0.7).astype(float), repeats=300)
        covered += low <= 0.7 <= high
    assert 180 <= covered <= 198  # 95 % of 200


def test_equal_values_have_no_width_and_the_seed_decides():
    assert mean_interval([0.5] * 7) == (0.5, 0.5, 0.5)
    assert mean_interval([0.1, 0.9, 0.4], seed=1) == mean_interval([0.1, 0.9, 0.4], seed=1)
    with pytest.raises(ValueError, match="at least one"):
        mean_interval([])


def test_questions_about_one_image_are_resampled_together():
    rng = np.random.default_rng(2)
    of_image = rng.normal(0.5, 0.2, 300)
    values, groups = np.repeat(of_image, 5), np.repeat(np.arange(300), 5).tolist()
    _, low, high = mean_interval(values)
    _, lower, higher = mean_interval(values, groups)
    assert (higher - lower) / (high - low) == pytest.approx(5**0.5, rel=0.15)
