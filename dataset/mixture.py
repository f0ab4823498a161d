"""Mixture: the training stream as a pure function of (seed, global draw index).

Draw number d is the same sample whatever the number of ranks and workers, so a run is resumed by its position alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Dataset, Sampler

from dataset.collator import EncodedSample
from dataset.sample import Sample
from dataset.source import Source
from utils.errors import DataError
from utils.seeding import generator_for


@dataclass(frozen=True)
class DrawnSample:
    """One drawn sample, and the reasons for which earlier attempts at this draw were skipped."""

    encoded: EncodedSample
    skipped: tuple[str, ...]

    @property
    def sample(self) -> Sample:
        """The sample without its ids."""
        return self.encoded.sample


class WithReplacement:
    """Every draw chooses a source by its rate, then any of its records (the published mode).

    Raises:
        ValueError: if a rate is negative or all are zero.
    """

    def __init__(self, lengths: Sequence[int], rates: Sequence[float]) -> None:
        if min(rates, default=0) < 0 or sum(rates) <= 0:
            raise ValueError(f"--sample_rates {','.join(map(str, rates))}: rates must be >= 0 and not all zero")
        self._lengths = lengths
        self._chances = np.asarray(rates, dtype=np.float64) / sum(rates)

    def __call__(self, draw: int, rng: np.random.Generator) -> tuple[int, int]:
        """Source and record of a draw."""
        source = int(rng.choice(len(self._lengths), p=self._chances))
        return source, int(rng.integers(self._lengths[source]))


class EachRecordOnce:
    """Every epoch visits each record of every source once, in an order of its own.

    Args:
        lengths: records of each source.
        seed: of the orders.
    """

    def __init__(self, lengths: Sequence[int], seed: int) -> None:
        self._ends = np.cumsum(lengths)
        self._seed = seed
        self._epoch, self._order = -1, np.zeros(0, dtype=np.int64)

    def __len__(self) -> int:
        """Draws of an epoch."""
        return int(self._ends[-1])

    def __call__(self, draw: int, rng: np.random.Generator) -> tuple[int, int]:
        """Source and record of a draw."""
        epoch, position = divmod(draw, len(self))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, generator_for(self._seed, "epoch", epoch).permutation(len(self))
        record = int(self._order[position])
        source = int(np.searchsorted(self._ends, record, side="right"))
        return source, record - int(self._ends[source - 1] if source else 0)


def as_it_is(sample: Sample, rng: np.random.Generator) -> Sample:
    """A sample that is not varied."""
    return sample


class Mixture(Dataset[DrawnSample]):
    """Several sources as one stream.

    Args:
        sources: named sources.
        rates: relative rate of each source.
        seed: of the whole stream.
        each_record_once: visit every record once an epoch; rates then only choose what replaces a bad record.
        vary: changes a sample by the draw's generator.
        encode: of the collator; raises `DataError` for a sample that is too long, which then counts as a bad record.
        max_attempts: bad records in a row after which the stream stops.

    Raises:
        ValueError: if sources and rates differ in number, or a rate is negative or all are zero.
    """

    def __init__(
        self,
        sources: Sequence[tuple[str, Source]],
        rates: Sequence[float],
        *,
        seed: int,
        each_record_once: bool = False,
        vary: Callable[[Sample, np.random.Generator], Sample] = as_it_is,
        encode: Callable[[Sample], EncodedSample] = lambda sample: EncodedSample(sample, ()),
        max_attempts: int = 20,
    ) -> None:
        if len(sources) != len(rates):
            raise ValueError(
                f"--dataset names {len(sources)} dataset(s) ({', '.join(name for name, _ in sources)}), but "
                f"--sample_rates has {len(rates)} number(s); give one rate for each dataset"
            )
        lengths = [len(source) for _, source in sources]
        by_rate = WithReplacement(lengths, rates)
        self._sources = tuple(sources)
        self._choose = EachRecordOnce(lengths, seed) if each_record_once else by_rate
        # A bad record is replaced by any other.
        self._replace = by_rate
        self._seed = seed
        self._max_attempts = max_attempts
        self._vary, self._encode = vary, encode

    def __getitem__(self, draw: int) -> DrawnSample:
        """The sample of a global draw index; a bad record is replaced by another draw, and reported.

        Raises:
            DataError: if `max_attempts` records in a row are bad.
        """
        skipped: list[str] = []
        for attempt in range(self._max_attempts):
            rng = generator_for(self._seed, draw, attempt)
            place, record = (self._replace if attempt else self._choose)(draw, rng)
            name, source = self._sources[place]
            try:
                sample = self._vary(source.training_sample(record, rng), rng)
                return DrawnSample(self._encode(sample), tuple(skipped))
            except DataError as error:
                skipped.append(f"{name}: {error.reason} [{error.path}]")
        raise DataError(
            skipped[-1], f"{self._max_attempts} bad record(s) in a row at draw {draw}; mend the dataset first"
        )


class ResumableBatchSampler(Sampler[list[int]]):
    """Draw indices of one rank's micro-batches, from a micro-step on.

    Micro-step m of rank r takes the draws (m * world + r) * batch ... + batch - 1, so that W ranks see in one
    micro-step what one rank sees in W.

    Args:
        batch_size: images in a micro-batch.
        rank: this process.
        world: number of processes.
        start: first micro-step.
        stop: micro-step before which to stop.
    """

    def __init__(self, *, batch_size: int, rank: int, world: int, start: int, stop: int) -> None:
        self._batch, self._rank, self._world = batch_size, rank, world
        self._range = range(start, stop)

    def __iter__(self) -> Iterator[list[int]]:
        for micro in self._range:
            first = (micro * self._world + self._rank) * self._batch
            yield list(range(first, first + self._batch))

    def __len__(self) -> int:
        return len(self._range)


MAX_SKIPPED = 0.01
"""Share of skipped records at which a run stops."""


class SkipCounter:
    """Counts skipped records by reason."""

    def __init__(self, max_share: float = MAX_SKIPPED, grace: int = 100) -> None:
        self.reasons: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self._max_share, self._grace = max_share, grace

    def add(self, skipped: Sequence[str]) -> list[str]:
        """Count skips "name: reason [path]"; return those whose reason is new, for the log."""
        fresh = []
        for entry in skipped:
            reason = entry.rpartition(" [")[0]
            if reason not in self.reasons:
                self.examples[reason] = entry
                fresh.append(entry)
            self.reasons[reason] += 1
        return fresh

    def check(self, draws: int) -> None:
        """Stop a run whose data is bad beyond chance.

        Raises:
            DataError: if more than `max_share` of at least `grace` draws were skipped.
        """
        count = sum(self.reasons.values())
        if draws >= self._grace and count > self._max_share * draws:
            reasons = "; ".join(f"{reason} ({number})" for reason, number in self.reasons.most_common(5))
            raise DataError(
                next(iter(self.examples.values())),
                f"{count} of {draws} draws hit unreadable records, more than {self._max_share:.0%}: {reasons}",
            )
