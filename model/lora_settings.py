"""What decides the adapters, declared apart from peft and torch."""

from __future__ import annotations

from dataclasses import dataclass

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Linear layers of a LLaMA block, which may have adapters."""


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Low-rank adaptation W + (alpha / r) B A of the named projections (arXiv 2106.09685)."""

    r: int = 8
    alpha: int = 16
    dropout: float = 0.05
    targets: tuple[str, ...] = ("q_proj", "v_proj")

    def __post_init__(self) -> None:
        unknown = [name for name in self.targets if name not in PROJECTIONS]
        if unknown or not self.targets or len(set(self.targets)) != len(self.targets):
            raise ValueError(
                f"--lora_target_modules {','.join(self.targets)[:100]}: give one or more of {', '.join(PROJECTIONS)}, "
                "each once"
            )
