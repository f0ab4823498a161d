"""Optimization of the foundation models: Muon for matrices, AdamW for the rest, a trapezoid rate, exact resuming."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from utils.files import write_bytes

WARM_UP = 100
"""Steps of linear warm-up."""
DECAY = 0.4
"""Last share of the steps, in which the rate falls to zero."""


def rate(step: int, steps: int) -> float:
    """Share of the peak learning rate at a step."""
    return min(1.0, (step + 1) / WARM_UP, (steps - step) / max(1.0, DECAY * steps))


class Optimizers:
    """Muon for the matrices inside layers, AdamW for tables, vectors, convolutions and everything else.

    Args:
        model: what trains.
        tables: parameters that are looked up or read out, for AdamW though they are matrices.
        matrix_rate: peak learning rate of Muon.
        other_rate: peak learning rate of AdamW.
    """

    def __init__(
        self, model: nn.Module, tables: Iterable[nn.Parameter], matrix_rate: float = 0.02, other_rate: float = 2e-3
    ) -> None:
        apart = {id(parameter) for parameter in tables}
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        matrices = [p for p in trained if p.ndim == 2 and id(p) not in apart]
        others = [p for p in trained if p.ndim != 2 or id(p) in apart]
        self._peaks = (matrix_rate, other_rate)
        self._all: tuple[Any, Any] = (
            torch.optim.Muon(matrices, lr=matrix_rate, momentum=0.95, weight_decay=0.01),
            torch.optim.AdamW(others, lr=other_rate, betas=(0.9, 0.95), weight_decay=0.01, fused=None),
        )

    def step(self, step: int, steps: int) -> None:
        """Update by the gradients, and clear them."""
        for optimizer, peak in zip(self._all, self._peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * rate(step, steps)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict[str, Any]]:
        """State of both."""
        return [optimizer.state_dict() for optimizer in self._all]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Restore `state_dict`."""
        for optimizer, state in zip(self._all, states, strict=True):
            optimizer.load_state_dict(state)


def save_state(path: Path, model: nn.Module, optimizers: Optimizers, step: int, **identity: Any) -> None:
    """Write what a run resumes from, whole or not at all."""
    state = {"model": model.state_dict(), "optimizers": optimizers.state_dict(), "step": step, "identity": identity}
    content = io.BytesIO()
    torch.save(state, content)
    write_bytes(path, content.getvalue())


def load_state(path: Path, model: nn.Module, optimizers: Optimizers, **identity: Any) -> int:
    """Restore `save_state`; the number of steps done, 0 where there is no file.

    Raises:
        SystemExit: if the file is of another run.
    """
    if not path.is_file():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["identity"] != identity:
        raise SystemExit(f"error: {path} is of a run with {state['identity']}, not {identity}; remove it, or run that")
    model.load_state_dict(state["model"])
    optimizers.load_state_dict(state["optimizers"])
    return int(state["step"])
