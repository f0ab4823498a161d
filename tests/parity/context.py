"""What all checks share: the fixture folder, and the models that the converter makes of its weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from anchorseg.method.modeling import AnchorSegModel
from anchorseg.method.tokens import TokenRegistry
from anchorseg.training.trainable import set_trainable
from anchorseg.weights.folder import load_model
from anchorseg.weights.official import convert
from anchorseg.weights.official_names import official_name
from model.lora import LoraSettings, add_lora
from tests.parity import released, rules
from tests.parity.reference import Fixture
from tests.parity.samples import ReferenceFileError


class Context:
    """The fixture folder and, made on first use, its models.

    Args:
        folder: with files of numbers.
        scratch: empty folder for checkpoints.
        weights: with config.json, state_dict_keys.json and the tokenizer; None: the folder itself.
    """

    def __init__(self, folder: Path, scratch: Path, weights: Path | None = None) -> None:
        self.folder = folder
        self.scratch = scratch
        self.weights = folder if weights is None else weights

    @cached_property
    def settings(self) -> dict[str, Any]:
        """config.json."""
        return released.read_json(self.weights, "config.json")

    def beside(self, name: str) -> Fixture:
        """Another file of the folder, for its inputs.

        Raises:
            ReferenceFileError: if it is not there.
        """
        path = self.folder / name
        if not path.is_file():
            raise ReferenceFileError(f"its inputs are in {name}, which is missing; put it beside")
        return Fixture(path)

    @cached_property
    def _clip_folder(self) -> Path:
        target = self.scratch / "clip"
        released.write_clip(self.weights, target)
        return target

    def _converted(self, name: str, *, merged: bool) -> tuple[AnchorSegModel, TokenRegistry]:
        source, target = self.scratch / f"released-{name}", self.scratch / name
        released.write_checkpoint(self.weights, source, merged=merged)
        convert(source, target, self._clip_folder)
        return load_model(target, dtype=torch.float32)

    @cached_property
    def _merged(self) -> tuple[AnchorSegModel, TokenRegistry]:
        return self._converted("merged", merged=True)

    @property
    def model(self) -> AnchorSegModel:
        """The released model: adapters merged, evaluation mode."""
        return self._merged[0]

    @property
    def registry(self) -> TokenRegistry:
        """Its tokenizer."""
        return self._merged[1]

    def training_model(self) -> AnchorSegModel:
        """A fresh model as training starts it: base weights, adapters beside them, the paper's parts trainable."""
        model = self._base
        model.load_state_dict(self._start)
        model.zero_grad(set_to_none=True)
        return model.train()

    @cached_property
    def _base(self) -> AnchorSegModel:
        model, _ = self._converted("base", merged=False)
        lora = self.settings["lora"]
        targets = tuple(lora["targets"].split(","))
        add_lora(
            model.llava.language_model,
            LoraSettings(r=lora["r"], alpha=lora["alpha"], dropout=lora["dropout_in_fixture"], targets=targets),
        )
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data = torch.from_numpy(rules.tensor(official_name(name), tuple(parameter.shape)))
        set_trainable(model, "paper")
        return model

    @cached_property
    def _start(self) -> dict[str, torch.Tensor]:
        return {name: value.clone() for name, value in self._base.state_dict().items()}


@contextmanager
def plain_attention(model: AnchorSegModel, enabled: bool) -> Iterator[None]:
    """Within it, padding patches get what plain attention gives them instead of zero."""
    usual = model.method
    model.method = replace(usual, padding_attention="plain") if enabled else usual
    try:
        yield
    finally:
        model.method = usual
