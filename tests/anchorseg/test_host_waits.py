"""The forward pass never waits for the device: the collator knows where everything stands."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from anchorseg.evaluation.rejection import two_passes
from anchorseg.method.objective import Objective
from anchorseg.method.options import LossWeights, Method
from benchmarks.launches import is_read
from tests.conftest import make_batch, make_model, make_sample


class HostWaits(TorchDispatchMode):
    """Counts the operators for which a GPU's host would wait, boolean indexing included."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if is_read(func, args):
            self.counts[func.name()] += 1
        return func(*args, **(kwargs or {}))


def test_training_and_forced_evaluation_do_not_wait() -> None:
    model, registry = make_model(Method(prior_range="valid", void_pixels="ignore"))
    samples = [make_sample(0), make_sample(1, (50, 30), conversations=2), make_sample(2, conversations=1)]
    batch = make_batch(model, registry, samples)
    objective = Objective(LossWeights(), model.head)
    with HostWaits() as training:
        output = model.train()(batch)
    assert not training.counts
    with HostWaits() as losses:
        objective(output, batch).total.backward()
    assert not losses.counts
    with HostWaits() as evaluation, torch.no_grad():
        model.eval()(batch)
        two_passes(model, batch)
    assert not evaluation.counts


def test_what_is_counted() -> None:
    values = torch.arange(4.0)
    with HostWaits() as waits:
        float(values[0])
        values[values > 1]
        (values > 1).nonzero()
        values[torch.tensor([0, 1])]
    assert sum(waits.counts.values()) == 3
