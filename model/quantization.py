"""Quantized loading through bitsandbytes: the language model's projections in 8 or 4 bits, the rest in full."""

from __future__ import annotations

import importlib.util
from typing import Literal

import torch
from transformers import BitsAndBytesConfig

from utils.errors import SettingsError

Quantization = Literal["none", "8bit", "4bit"]


def quantization_config(quantization: Quantization) -> BitsAndBytesConfig | None:
    """What `from_pretrained` takes as `quantization_config`, without the parts to leave out; None for "none".

    Args:
        quantization: bits of a weight; 4bit is NF4 with quantized constants, its products computed in bf16.

    Raises:
        SettingsError: if bitsandbytes is not installed.
    """
    if quantization == "none":
        return None
    if importlib.util.find_spec("bitsandbytes") is None:
        raise SettingsError(
            f"quantization {quantization} needs bitsandbytes, which is not installed; run: pip install bitsandbytes, "
            'or load with quantization "none"'
        )
    return BitsAndBytesConfig(
        load_in_8bit=quantization == "8bit",
        load_in_4bit=quantization == "4bit",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
