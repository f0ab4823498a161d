"""Which of torch's attention kernels may run: one that is known to be wrong is left out where it is."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.torch_version import TorchVersion

from utils.errors import SettingsError

CudnnAttention = Literal["auto", "on", "off"]
_OTHERS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
_choice: CudnnAttention = "auto"


def choose_cudnn_attention(choice: CudnnAttention) -> None:
    """Choose for this process, before training, when cuDNN's attention may run under a mask; of no effect on a CPU.

    Args:
        choice: "auto" wherever it is right; "on" always, to measure; "off" never.

    Raises:
        SettingsError: for another value.
    """
    global _choice
    if choice not in get_args(CudnnAttention):
        raise SettingsError(f"cuDNN's attention is {', '.join(get_args(CudnnAttention))}, not {choice!r}")
    _choice = choice


def cudnn_is_wrong(torch_version: str, cudnn_version: int | None, capability: tuple[int, int]) -> bool:
    """Whether cuDNN's masked attention gives NaN gradients at some lengths (pytorch#196678).

    Seen with torch 2.11 and 2.13, cuDNN 9.19 and 9.20, on H100 and H200: where the number of keys leaves 64 over 128,
    the padding of the last tile overflows for a query whose scores are all below about -88, and so for one without a
    key. Forward passes and other lengths are right. Older versions do not choose cuDNN; none that mends it is known.

    Args:
        torch_version: `torch.__version__`.
        cudnn_version: `torch.backends.cudnn.version()`, such as 91900.
        capability: of the GPU.
    """
    return TorchVersion(torch_version) >= "2.11" and (cudnn_version or 0) >= 91500 and capability[0] in (9, 10)


@lru_cache
def _wrong_here(device: torch.device) -> bool:
    return cudnn_is_wrong(torch.__version__, torch.backends.cudnn.version(), torch.cuda.get_device_capability(device))


def leaves_out_cudnn(keys: int, *, backward: bool, wrong: bool, choice: CudnnAttention = "auto") -> bool:
    """Whether attention over a number of keys must do without cuDNN.

    Args:
        keys: S.
        backward: whether gradients will be asked for.
        wrong: see `cudnn_is_wrong`.
        choice: see `choose_cudnn_attention`.
    """
    return choice == "off" or (choice == "auto" and wrong and backward and keys % 128 == 64)


def right_kernels(query: Tensor, key: Tensor) -> AbstractContextManager[None]:
    """A context in which masked attention of `query` (..., T, d) over `key` (..., S, d) takes no wrong kernel."""
    if not query.is_cuda:
        return nullcontext()
    backward = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad)
    wrong = _wrong_here(query.device)
    if leaves_out_cudnn(key.shape[-2], backward=backward, wrong=wrong, choice=_choice):
        return sdpa_kernel(_OTHERS)
    return nullcontext()
