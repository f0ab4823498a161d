"""Random states depend on the key and on nothing else."""

import itertools

import numpy as np
import pytest
import torch

from utils.seeding import generator_for, seed_torch


def test_same_key_same_stream() -> None:
    assert np.array_equal(generator_for(1, "mix", 5).random(8), generator_for(1, "mix", 5).random(8))


def test_different_keys_differ() -> None:
    keys: list[tuple[int | str, ...]] = [
        (),
        (0,),
        (1,),
        (1, 0),
        (0, 1),
        (2**32,),
        (2**63, 1),
        ("a",),
        ("b",),
        (1, "a"),
    ]
    draws = [generator_for(*key).integers(2**62) for key in keys]
    assert all(first != second for first, second in itertools.combinations(draws, 2))


@pytest.mark.parametrize("part", [-1, 2**64])
def test_out_of_range_is_refused(part: int) -> None:
    with pytest.raises(ValueError, match=str(part)):
        generator_for(0, part)


def test_seed_torch_is_a_function_of_the_key() -> None:
    seed_torch(3, 7)
    first = torch.rand(4)
    torch.rand(100)
    seed_torch(3, 7)
    assert torch.equal(first, torch.rand(4))
    seed_torch(3, 8)
    assert not torch.equal(first, torch.rand(4))
