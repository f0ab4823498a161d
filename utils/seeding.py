"""Random states that are pure functions of a key such as (seed, epoch, position)."""

import zlib

import numpy as np
import torch

_WORD = 0xFFFFFFFF


def _sequence(key: tuple[int | str, ...]) -> np.random.SeedSequence:
    """Hash a key of ints and strings; keys that differ give unrelated streams.

    Every part takes two words and the length comes first, because SeedSequence itself cannot tell (1,) from
    (1, 0).
    """
    words = [len(key)]
    for part in key:
        number = zlib.crc32(part.encode()) if isinstance(part, str) else int(part)
        if not 0 <= number < 2**64:
            raise ValueError(f"A random key holds strings and integers from 0 to 2**64 - 1, got {part!r}.")
        words += [number & _WORD, number >> 32]
    return np.random.SeedSequence(words)


def generator_for(*key: int | str) -> np.random.Generator:
    """Make the numpy generator of a key, e.g. ``generator_for(seed, "mixture", epoch, index)``.

    Args:
        key: integers from 0 to 2**64 - 1, or strings (taken by their CRC-32).

    Raises:
        ValueError: if an integer is out of range.
    """
    return np.random.default_rng(_sequence(key))


def seed_torch(*key: int | str) -> None:
    """Seed torch's CPU generator and every CUDA device's from a key (see `generator_for`).

    Called before every micro-batch with (seed, step, micro-batch, rank), it makes dropout after a resume the
    same as without the interruption.
    """
    torch.manual_seed(int(_sequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1)))
