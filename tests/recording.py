"""CUDA graphs on a CPU: operators are recorded once with the tensors they touch, and played again without the code."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_flatten, tree_unflatten

from utils.cuda_graphs import Recording

T = TypeVar("T")


class OperatorRecorder:
    """Records as a CUDA graph does: what the host decided stays decided, and a value read on the host is an error.

    Attributes:
        recordings: how many were made.
        replays: how often any was played.
    """

    def __init__(self) -> None:
        self.recordings = self.replays = 0

    def __call__(self, function: Callable[[], T]) -> Recording[T]:
        structure = []

        def flat() -> list[torch.Tensor]:
            leaves, spec = tree_flatten(function())
            structure.append(spec)
            return leaves

        function()  # as CUDA's recorder does, so that constants are made outside
        graph = make_fx(flat)()
        self.recordings += 1
        outputs = [torch.zeros_like(value) if isinstance(value, torch.Tensor) else value for value in graph()]

        def replay() -> None:
            self.replays += 1
            for own, value in zip(outputs, graph(), strict=True):
                if isinstance(own, torch.Tensor):
                    own.copy_(value)

        return Recording(replay, tree_unflatten(outputs, structure[0]))
