"""What decides the adapters, declared apart from peft and torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Low-rank adaptation W + (alpha / r) B A of the named projections (arXiv 2106.09685)."""

    r: int = 8
    alpha: int = 16
    dropout: float = 0.05
    targets: tuple[str, ...] = ("q_proj", "v_proj")
