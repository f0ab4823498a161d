"""Floating-point operations of a call on the meta device, by module; no weight and no activation is allocated."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import flop_registry

from benchmarks.measure import growth_in
from dataset.batch import Batch


class _Operations(TorchDispatchMode):
    """Adds up operations by torch's own formulas.

    Ids, masks and positions keep their values on the CPU, for shapes depend on them; an operation that gets them
    together with meta tensors runs on meta.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation."""
        inputs = (args, kwargs or {})
        if {value.is_meta for value in tensors_in(inputs)} == {True, False}:
            if func is torch.ops.aten.index.Tensor:
                inputs = ((args[0], _as_integers(args[1])), inputs[1])
            inputs = tree_map_only(Tensor, lambda value: value if value.is_meta else value.to("meta"), inputs)
        formula = flop_registry.get(func.overloadpacket)
        if formula is None:
            return self._in_parts(func, inputs)
        result = func(*inputs[0], **inputs[1])
        self.total += formula(*inputs[0], **inputs[1], out_val=result)
        return result

    def _in_parts(self, func: Any, inputs: Any) -> Any:
        """Run what has no formula; without autograd, products come here as they were called and are taken apart."""
        with self:
            result = func.decompose(*inputs[0], **inputs[1])
        return func(*inputs[0], **inputs[1]) if result is NotImplemented else result


class _HostValues(TorchFunctionMode):
    """Leaves numbers that are to become a tensor on meta on the CPU, for Qwen-VL's shapes depend on their values."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call one function."""
        kwargs = dict(kwargs or {})
        if func is torch.tensor and torch.device(kwargs.get("device") or "cpu").type == "meta":
            kwargs["device"] = "cpu"
        return func(*args, **kwargs)


def tensors_in(inputs: Any) -> Iterator[Tensor]:
    """The tensors in arguments of an operation; torch's own walk through them is most of the time."""
    if isinstance(inputs, Tensor):
        yield inputs
    elif isinstance(inputs, (tuple, list, dict)):
        for value in inputs.values() if isinstance(inputs, dict) else inputs:
            yield from tensors_in(value)


def _as_integers(indices: list[Tensor | None]) -> list[Tensor | None]:
    """Boolean indices as the positions that they select, whose number meta tensors cannot know."""
    found: list[Tensor | None] = []
    for index in indices:
        found += [index] if index is None or index.dtype != torch.bool else index.nonzero().unbind(dim=1)
    return found


def on_meta(batch: Batch, dtype: torch.dtype) -> Batch:
    """The batch with its pixels on meta; all else stays, for shapes depend on it."""
    images = batch.images
    pixels = {name: getattr(images, name).to("meta", dtype) for name in ("language_pixels", "mask_pixels")}
    return dataclasses.replace(batch, images=dataclasses.replace(images, **pixels))


class Counter:
    """Operations of calls on meta: in all, and of modules in forward passes.

    A multiplication and an addition are two operations. Counted are matrix products and convolutions; attention is a
    pair of matrix products on meta, and counts over all keys, masked or not.
    """

    def __init__(self) -> None:
        self.modules: dict[str, int] = {}
        self._operations = _Operations()

    @property
    def total(self) -> int:
        """Operations so far."""
        return self._operations.total

    @contextmanager
    def watch(self, modules: Sequence[tuple[str, nn.Module]] = ()) -> Iterator[None]:
        """Count, and add what each named module does forward to `modules`; none may be within another."""
        with growth_in(modules, lambda: self.total, self.modules), _HostValues(), self._operations:
            yield
