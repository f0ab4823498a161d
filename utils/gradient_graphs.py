"""CUDA graphs of functions that train: a forward pass and its backward pass, each launched at once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from utils.cuda_graphs import Kept, Recorder, Recording, shapes_of


class CapturedGradient:
    """A differentiable function of tensors, recorded for each combination of shapes that comes more than once.

    What a forward pass leaves for its backward pass lies in memory that all recordings share: of two calls the first
    must have its backward pass before the second is made.

    Args:
        function: of tensors to a tensor that depends on nothing else but weights.
        module: whose parts the function reads its weights from.
        weights: those that train.
        record: makes recordings; of nothing that runs between both passes, which would write over what is kept.
        keep: most combinations of shapes that are kept; the one unused for longest goes.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        module: nn.Module,
        weights: Sequence[nn.Parameter],
        record: Recorder,
        *,
        keep: int = 8,
    ) -> None:
        self._function, self._module, self._weights, self._record = function, module, tuple(weights), record
        self._kept = Kept[Hashable, "_Recorded"](keep)
        self._seen: set[Hashable] = set()
        self._calls = 0

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The function's result.

        Raises:
            RuntimeError: in backward, if another call came between.
        """
        key = (*shapes_of(inputs), *(tensor.requires_grad for tensor in inputs))
        if key not in self._seen:  # shapes that never come again are not worth a recording
            self._seen.add(key)
            return self._function(*inputs)
        recorded = self._kept.get(key, lambda: self._recorded(inputs))
        self._calls += 1
        return _Replay.apply(self, recorded, *inputs, *self._weights)

    def _recorded(self, inputs: Sequence[Tensor]) -> _Recorded:
        return _Recorded(self._function, inputs, _Aliases(self._module, self._weights), self._record)

    @property
    def calls(self) -> int:
        """How many passes were replayed."""
        return self._calls


class _Aliases:
    """Tensors of the weights' memory with gradients of their own.

    Who has hooked a weight's gradient, as DeepSpeed does, keeps autograd's node of it, and with it the stream it was
    made on, which a capture must not wait for.

    Attributes:
        weights: themselves.
        tensors: an alias of each.
    """

    def __init__(self, module: nn.Module, weights: Sequence[nn.Parameter]) -> None:
        self.weights, self.tensors = weights, [weight.detach().requires_grad_() for weight in weights]
        alias_of = {id(weight): alias for weight, alias in zip(weights, self.tensors, strict=True)}
        self._places: list[tuple[dict[str, Any], str, Tensor]] = [
            (part._parameters, name, alias_of[id(weight)])
            for part in module.modules()
            for name, weight in part._parameters.items()
            if id(weight) in alias_of
        ]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The module's parts find them where the weights are."""
        kept = [parameters[name] for parameters, name, _ in self._places]
        for parameters, name, alias in self._places:
            parameters[name] = alias
        try:
            yield
        finally:
            for (parameters, name, _), weight in zip(self._places, kept, strict=True):
                parameters[name] = weight


class _Recorded:
    """Both passes of one combination of shapes, over tensors that stay where they are."""

    def __init__(
        self,
        function: Callable[..., Tensor],
        inputs: Sequence[Tensor],
        aliases: _Aliases,
        record: Recorder,
    ) -> None:
        self._inputs = [tensor.detach().clone().requires_grad_(tensor.requires_grad) for tensor in inputs]
        self._aliases, self._weights = aliases, aliases.weights
        self._function = function
        self._wanted = [*(tensor for tensor in self._inputs if tensor.requires_grad), *aliases.tensors]
        self._forward: Recording[Tensor] = record(self._pass_forward)
        self._gradient = torch.zeros_like(self._output)
        self._backward: Recording[tuple[Tensor, ...]] = record(self._pass_backward)
        # Gives what the passes have kept back to the memory of all recordings, in which they will keep it again.
        del self._output

    def _pass_forward(self) -> Tensor:
        with torch.enable_grad(), self._aliases.in_place():
            self._output = self._function(*self._inputs)
        return self._output.detach()

    def _pass_backward(self) -> tuple[Tensor, ...]:
        """Gradients of the inputs, then those of all weights in one tensor."""
        found = torch.autograd.grad(self._output, self._wanted, self._gradient, retain_graph=True)
        count = len(found) - len(self._weights)
        joined = torch.cat([self._gradient.new_zeros(0), *(gradient.flatten() for gradient in found[count:])])
        return *found[:count], joined

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        with torch.no_grad():
            for own, given in zip(self._inputs, inputs, strict=True):
                own.copy_(given)
        self._forward.replay()
        return self._forward.outputs.clone()

    def backward(self, gradient: Tensor) -> list[Tensor | None]:
        """Gradients of the inputs and of the weights; None where there is none."""
        self._gradient.copy_(gradient)
        self._backward.replay()
        *of_inputs, joined = (tensor.clone() for tensor in self._backward.outputs)
        found = iter(of_inputs)
        parts = joined.split([weight.numel() for weight in self._weights]) if self._weights else ()
        return [
            *(next(found) if tensor.requires_grad else None for tensor in self._inputs),
            *(part.view_as(weight).to(weight.dtype) for part, weight in zip(parts, self._weights, strict=True)),
        ]


class _Replay(torch.autograd.Function):
    """Replays recorded passes within torch's own graph of the step."""

    @staticmethod
    def forward(ctx: Any, captured: CapturedGradient, recorded: _Recorded, *tensors: Tensor) -> Tensor:
        ctx.captured, ctx.recorded, ctx.call = captured, recorded, captured.calls
        return recorded.forward(tensors[: len(tensors) - len(recorded._weights)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.call != ctx.captured.calls:
            raise RuntimeError(
                f"backward of call {ctx.call} of a captured function after call {ctx.captured.calls}, which wrote over "
                "what it needs; make the backward pass of each forward pass before the next one"
            )
        return None, None, *ctx.recorded.backward(gradient)
