"""RMSNorm of the language model as one kernel on a GPU, where transformers launches eight."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import rms_norm
from transformers.models.llama.modeling_llama import LlamaRMSNorm


class FusedRMSNorm(LlamaRMSNorm):
    """Transformers' own on a CPU; on a GPU torch's, which rounds to 16 bits once where transformers rounds twice."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Normalize (..., D)."""
        return self.fused(hidden_states) if hidden_states.is_cuda else super().forward(hidden_states)

    def fused(self, hidden_states: Tensor) -> Tensor:
        """`forward`, for a GPU."""
        return rms_norm(hidden_states, self.weight.shape, self.weight, self.variance_epsilon)


def fuse_norms(network: nn.Module, kind: type[Any] = LlamaRMSNorm) -> None:
    """Replace every RMSNorm of a network that has just been built.

    Args:
        network: a decoder.
        kind: its own class, which computes what LLaMA's does.
    """
    for name, module in list(network.named_modules()):
        if type(module) is kind:
            network.set_submodule(name, FusedRMSNorm(module.weight.numel(), module.variance_epsilon))
