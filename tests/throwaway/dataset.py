"""A family of one file: squares on noise, drawn from the record's number."""

from __future__ import annotations

import numpy as np

from dataset.sample import Conversation, Question, Sample, TargetSlot, Turn
from dataset.source import Expected, Family


class Squares:
    scoring = "reason"
    protocols = ("forced", "generate")

    def __len__(self):
        return 4

    def _sample(self, index, answer):
        image = np.random.default_rng(index).integers(0, 256, (48, 64, 3)).astype(np.uint8)
        masks = np.zeros((1, 48, 64), dtype=bool)
        masks[0, 8 : 24 + index, 8 : 24 + index] = True
        turn = Turn("Where is the square?", answer)
        return Sample(
            record=f"square {index}",
            image=image,
            conversations=(Conversation((turn,)),),
            masks=masks,
            questions=(Question("the square"),),
        )

    def training_sample(self, index, rng):
        return self._sample(index, ("It is", TargetSlot(0), "."))

    def evaluation_sample(self, index, *, protocol):
        return self._sample(index, None if protocol == "generate" else ("It is", TargetSlot(0), "."))


FAMILY = Family(
    name="squares",
    sets={"plain": Expected(("anything",), "nowhere", 4)},
    chosen="plain",
    about="squares",
    source=lambda name, data, options: Squares(),
    benchmarks={"squares": ("squares|val",)},
    benchmark=lambda name, data, options: Squares(),
)
