"""The training stream: the same for any number of ranks and workers, bad records counted."""

import dataclasses

import numpy as np
import pytest
from torch.utils.data import DataLoader

from dataset.mixture import Mixture, ResumableBatchSampler, SkipCounter
from tests.conftest import make_sample
from utils.errors import DataError


class Source:
    """Records that are bad at given indices."""

    def __init__(self, length: int, bad: frozenset[int] = frozenset()) -> None:
        self.length, self.bad = length, bad

    def __len__(self) -> int:
        return self.length

    def training_sample(self, index: int, rng: np.random.Generator):
        if index in self.bad:
            raise DataError(f"record {index}", "it is broken")
        return make_sample(index * 1000 + int(rng.integers(1000)))


class Recorder(Source):
    """Records that tell their number."""

    def training_sample(self, index: int, rng: np.random.Generator):
        return dataclasses.replace(make_sample(index), record=f"record {index}")


def names(mixture: Mixture, draws) -> list[str]:
    return [mixture[draw].sample.record for draw in draws]


def test_a_draw_is_a_function_of_seed_and_index():
    sources = [("a", Source(7)), ("b", Source(5))]
    first, again = (Mixture(sources, [1, 2], seed=3) for _ in range(2))
    assert names(first, range(20)) == names(again, range(20))
    assert names(first, range(20)) != names(Mixture(sources, [1, 2], seed=4), range(20))
    assert names(first, [11]) == names(again, range(20))[11:12]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_the_draws_without_overlap(world):
    micro = 12 // world
    orders = [ResumableBatchSampler(batch_size=2, rank=rank, world=world, start=0, stop=micro) for rank in range(world)]
    dealt = sorted(draw for order in orders for batch in order for draw in batch)
    assert dealt == list(range(24))
    late = ResumableBatchSampler(batch_size=2, rank=0, world=world, start=2, stop=micro)
    assert list(late) == list(orders[0])[2:]


def test_rates_and_names_must_agree():
    with pytest.raises(ValueError, match="names 1 dataset"):
        Mixture([("a", Source(3))], [1, 2], seed=0)
    with pytest.raises(ValueError, match="not all zero"):
        Mixture([("a", Source(3))], [0], seed=0)


def test_bad_records_are_replaced_and_reported():
    mixture = Mixture([("a", Source(10, frozenset({3})))], [1], seed=0)
    drawn = [mixture[draw] for draw in range(60)]
    skipped = [reason for draw in drawn for reason in draw.skipped]
    assert skipped and set(skipped) == {"a: it is broken [record 3]"}
    counter = SkipCounter(max_share=0.5, grace=10)
    assert counter.add(skipped) == skipped[:1]
    assert counter.reasons == {"a: it is broken": len(skipped)}
    counter.check(60)
    with pytest.raises(DataError, match="more than 1%"):
        strict = SkipCounter()
        strict.add(skipped)
        strict.check(150)
    with pytest.raises(DataError, match=r"20 bad record\(s\) in a row"):
        Mixture([("a", Source(2, frozenset({0, 1})))], [1], seed=0)[0]


def test_an_epoch_covers_each_record_once():
    sources = [("a", Recorder(7)), ("b", Recorder(5))]
    mixture = Mixture(sources, [1, 1], seed=3, each_record_once=True)
    for epoch in range(3):
        drawn = names(mixture, range(12 * epoch, 12 * epoch + 12))
        assert sorted(drawn) == sorted([f"record {i}" for i in range(7)] + [f"record {i}" for i in range(5)])
    assert names(mixture, [17]) == names(Mixture(sources, [1, 1], seed=3, each_record_once=True), range(12, 24))[5:6]


def test_workers_and_resume_do_not_change_the_stream():
    mixture = Mixture([("a", Source(9)), ("b", Source(4))], [2, 1], seed=5)
    streams = [
        [draw.sample.record for batch in loaded for draw in batch]
        for workers in (0, 1, 3)
        for loaded in [
            DataLoader(
                mixture,
                batch_sampler=ResumableBatchSampler(batch_size=4, rank=0, world=1, start=0, stop=25),
                num_workers=workers,
                collate_fn=list,
            )
        ]
    ]
    assert streams[0] == streams[1] == streams[2] == names(mixture, range(100))
    late = ResumableBatchSampler(batch_size=1, rank=0, world=1, start=51, stop=60)
    assert names(mixture, (draw for batch in late for draw in batch)) == streams[0][51:60]
