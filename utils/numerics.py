"""How a GPU computes: the same bits at every run, and in full float32."""

from __future__ import annotations

import os


def prepare_determinism(*, deterministic: bool) -> None:
    """Choose cuBLAS's workspace for `choose_numerics`, before torch is imported; one that was chosen is kept."""
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def choose_numerics(*, deterministic: bool, tf32: bool) -> None:
    """Choose kernels for this process.

    Args:
        deterministic: take none whose result depends on the order in which threads finish; torch raises a RuntimeError
            where an operation has no other.
        tf32: let float32 products and convolutions round their factors to 10 bits of mantissa, which torch by default
            does for convolutions.
    """
    import torch

    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
