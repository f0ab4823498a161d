"""Similarity as points: known answers, gradients, and the numbers of READ's two published codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from anchorseg.method.points import Cells, choose, cropped_cells, points_on_grid, points_on_pixels, shrink, valid_cells
from anchorseg.method.spatial_prior import min_max
from utils.geometry import Size

CASES = range(5)


def fixture(baselines: Path, name: str) -> np.lib.npyio.NpzFile:
    return np.load(baselines / f"{name}.npz")


def relative(found: Tensor, wanted: np.ndarray) -> float:
    assert tuple(found.shape) == wanted.shape
    return float(np.abs(found.detach().double().numpy() - wanted).max() / np.abs(wanted).max())


def scaled(maps: Tensor) -> Tensor:
    return min_max(maps.flatten(1)).view_as(maps)


def similarity_of_pixels(similarity: Tensor, size: Size, side: int = 336) -> Tensor:
    """READ's own way from a centre crop's map to the image: zeros where the crop has cut."""
    first, _ = cropped_cells(side, size)
    view = F.interpolate(scaled(similarity)[:, None], (side, side), mode="bilinear", align_corners=False)
    padded = F.pad(view, (first[1], first[1], first[0], first[0]))
    return F.interpolate(padded, size, mode="bilinear", align_corners=False)[:, 0]


def original(similarity: Tensor, size: Size, divisor: int, count: int, positive: float):
    small = scaled(shrink(similarity, divisor))
    first, grid = cropped_cells(small.shape[1], size)
    cells = Cells(small, first, grid)
    maps = similarity_of_pixels(similarity, size).to(similarity.dtype)
    return cells, points_on_pixels(cells, maps, count, positive=positive)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("setting", "divisor", "count", "positive"), [("7b", 2, 30, 0.8), ("13b", 1, 60, 0.6)])
def test_points_of_the_original(baselines, setting, divisor, count, positive, case):
    data = fixture(baselines, "read_points_original")
    key = f"{setting}.{case}"
    similarity = torch.from_numpy(data[f"{key}.similarity"]).view(1, 24, 24).requires_grad_()
    cells, points = original(similarity, tuple(data[f"{key}.size"].tolist()), divisor, count, positive)
    assert cells.grid == data[f"{key}.grid"].shape
    assert np.array_equal(points.labels[0], data[f"{key}.labels"])
    chosen, _ = choose(cells.values, count, positive=positive, negative=0.2)
    width = cells.values.shape[2]
    within = (chosen[0] // width + cells.first[0]) * cells.grid[1] + chosen[0] % width + cells.first[1]
    assert np.array_equal(within, data[f"{key}.selected"])
    assert relative(points.coordinates[0], data[f"{key}.points"]) < 1e-6
    (points.coordinates[0] * torch.from_numpy(data[f"{key}.weight_for_grad"])).sum().backward()
    # The published gradient sums places and not offsets, and is right to 2.3e-4 (seen in float64); ours is nearer.
    assert relative(similarity.grad.flatten(), data[f"{key}.grad_similarity"]) < 4e-4


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("setting", "divisor", "count"), [("d1n60", 1, 60), ("d2n30", 2, 30)])
def test_points_of_the_anchorseg_repository(baselines, setting, divisor, count, case):
    data = fixture(baselines, "read_points_spine")
    key = f"{setting}.{case}"
    size = tuple(data[f"{key}.size"].tolist())
    similarity = torch.from_numpy(data[f"{key}.similarity"]).view(2, 24, 24).requires_grad_()
    small = scaled(shrink(similarity, divisor))
    rows, columns = valid_cells(size, small.shape[1])
    values = small[:, :rows, :columns]
    assert relative(values, data[f"{key}.grid"]) < 1e-5  # which adds 1e-6 to the range
    points = points_on_grid(values, size, count)
    assert np.array_equal(points.labels, data[f"{key}.labels"])
    assert relative(points.coordinates, data[f"{key}.points"]) < 1e-5
    (points.coordinates * torch.from_numpy(data[f"{key}.weight_for_grad"])).sum().backward()
    assert relative(similarity.grad.flatten(1), data[f"{key}.grad_similarity"]) < 1e-4


def test_the_order_of_a_small_map():
    values = torch.tensor([[[0.9, 0.5, 0.1], [0.0, 1.0, 0.2], [0.8, 0.3, 0.79]]])
    chosen, labels = choose(values, 20, positive=0.8, negative=0.2)
    assert chosen.tolist() == [[4, 0, 6, 3, 2, 5, 1, 7, 8]]
    assert labels.tolist() == [[1, 1, 1, 0, 0, 0, -1, -1, -1]]
    assert choose(values, 4, positive=0.8, negative=0.2)[0].tolist() == [[4, 0, 6, 3]]


def test_a_flat_map_leaves_points_where_their_cells_are():
    cells = Cells(torch.zeros(1, 2, 2), (0, 0), (2, 2))
    points = points_on_pixels(cells, torch.zeros(1, 40, 80), 4)
    assert points.labels.tolist() == [[0, 0, 0, 0]]
    assert points.coordinates[0].tolist() == [[20.0, 10.0], [60.0, 10.0], [20.0, 30.0], [60.0, 30.0]]


def test_a_slope_draws_a_point_uphill_by_half_of_it():
    """Under exp(s x - x^2) the mean is s / 2, up to what the sum over whole pixels differs from the integral."""
    maps = (torch.arange(80.0) * 0.01).expand(1, 40, 80)
    cells = Cells(torch.ones(1, 1, 1), (0, 0), (1, 1))
    (point,) = points_on_pixels(cells, maps, 1).coordinates[0]
    assert point.tolist() == pytest.approx([40.005, 20.0], abs=5e-5)


def test_points_at_the_border_stay_in_the_image():
    cells = Cells(torch.rand(1, 9, 9), (0, 0), (9, 9))
    points = points_on_pixels(cells, torch.rand(1, 5, 7, requires_grad=True), 81)
    assert (points.coordinates >= 0).all() and (points.coordinates < torch.tensor([7.0, 5.0])).all()
    points.coordinates.sum().backward()


def test_the_same_as_a_sum_over_the_whole_image():
    torch.manual_seed(0)
    maps, cells = torch.rand(2, 30, 20, dtype=torch.float64), Cells(torch.rand(2, 6, 4), (0, 0), (6, 4))
    points = points_on_pixels(cells, maps, 10)
    y, x = torch.meshgrid(torch.arange(30), torch.arange(20), indexing="ij")
    chosen, _ = choose(cells.values, 10, positive=0.8, negative=0.2)
    for target in range(2):
        for place, found in zip(chosen[target].tolist(), points.coordinates[target], strict=True):
            column, row = int((place % 4 + 0.5) * 5), int((place // 4 + 0.5) * 5)
            weights = maps[target].flatten().softmax(0).view(30, 20) * (-((x - column) ** 2 + (y - row) ** 2)).exp()
            weights = weights / weights.sum()
            assert found.tolist() == pytest.approx([float((weights * x).sum()), float((weights * y).sum())], abs=1e-5)


@pytest.mark.parametrize(("size", "cells"), [((120, 160), (18, 24)), ((64, 200), (8, 24)), ((1, 400), (1, 24))])
def test_cells_that_show_the_image(size, cells):
    assert valid_cells(size, 24) == cells
