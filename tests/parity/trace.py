"""Run the joined model once and keep what its parts gave on the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from anchorseg.method.head import Segmentation
from anchorseg.method.modeling import AnchorSegModel, AnchorSegOutput
from dataset.batch import BankPositions, Batch
from model.network_backbone import IMAGE_PLACEHOLDER


@dataclass
class Trace:
    """Intermediate values of one forward pass, detached; `output` keeps its graph."""

    seen: dict[str, Tensor] = field(default_factory=dict)
    layers: list[Tensor] = field(default_factory=list)
    output: AnchorSegOutput | None = None
    segmentation: Segmentation | None = None

    @property
    def masks(self) -> Segmentation:
        """The segmentation of a finished pass."""
        assert self.segmentation is not None
        return self.segmentation

    @property
    def hidden(self) -> Tensor:
        """(R, T, D) last-layer hidden states."""
        return self.seen["norm"]


@contextmanager
def _recording(model: AnchorSegModel) -> Iterator[Trace]:
    """Record parts of a model while it runs."""
    trace = Trace()
    network = model.llava.network.model
    parts: dict[str, nn.Module] = {
        "projector": network.multi_modal_projector,
        "norm": model.llava.language_model.norm,
        "anchor": model.query_bank.anchor_projection,
        "prior": model.sam.prompt_encoder.mask_downscaling,
        "sam": model.sam.image_encoder,
    }
    if model.query_bank.contextual_projection is not None:
        parts["contextual"] = model.query_bank.contextual_projection

    def keep(name: str) -> Any:
        return lambda module, inputs, output: trace.seen.update({name: output.detach()})

    def keep_input(module: nn.Module, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        trace.layers.append((inputs[0] if inputs else kwargs["hidden_states"]).detach())

    handles = [part.register_forward_hook(keep(name)) for name, part in parts.items()]
    handles += [
        layer.register_forward_pre_hook(keep_input, with_kwargs=True) for layer in model.llava.language_model.layers
    ]
    try:
        yield trace
    finally:
        for handle in handles:
            handle.remove()


def run(model: AnchorSegModel, batch: Batch, positions: BankPositions | None = None) -> Trace:
    """One forward pass as training and forced evaluation make it.

    Args:
        model: any mode.
        batch: conversations with their answers.
        positions: of targets that do not follow their latents; without it those of the batch.
    """
    with _recording(model) as trace:
        if positions is None:
            trace.output = model(batch)
            trace.segmentation = trace.output.segmentation
        else:
            images, conversations = batch.images, batch.conversations
            hidden = model.prefill(images, conversations)
            trace.segmentation = model.segment(hidden, positions, model.image_context(images, conversations, hidden))
    return trace


def image_states(batch: Batch, hidden: Tensor) -> Tensor:
    """(R, P, D) states at each row's image positions."""
    return hidden[batch.conversations.input_ids == IMAGE_PLACEHOLDER].view(len(hidden), -1, hidden.shape[-1])


def predicting(positions: BankPositions, shape: torch.Size) -> Tensor:
    """(R, T) true at the positions that predict <SEG>."""
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[positions.rows, positions.columns[:, -1] - 1] = True
    return mask
