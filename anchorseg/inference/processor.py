"""Processor: images and queries to the batch that the model's forward pass takes, as `AutoProcessor` gives it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anchorseg.inference.collate import make_collator
from anchorseg.inference.inputs import Asking, as_rgb
from anchorseg.method.config import AnchorSegConfig
from anchorseg.method.model_folder import FILES, check_ids, read_config
from anchorseg.method.tokens import TokenRegistry
from anchorseg.weights.presets import token_ids
from anchorseg.weights.shipped import shipped
from dataset.batch import Batch
from dataset.sample import Conversation, Sample, TargetSlot, Turn
from dataset.templates import evaluation
from utils.errors import InputError
from utils.loading import local_folder


class AnchorSegProcessor:
    """Views, prompts and tokenizer of a model.

        model = AutoModel.from_pretrained(folder)
        processor = AutoProcessor.from_pretrained(folder)
        output = model(processor("photo.jpg", "the cup"))
        mask = output.segmentation.masks[0][0] > 0  # (H, W)

    The batch has the answer of forced evaluation, so that the forward pass gives a mask for each query. For answers
    that the model writes itself there is `AnchorSegPredictor(model, processor.registry)`.

    Args:
        config: of the model.
        registry: its tokenizer.
        max_length: longest prompt in tokens.
    """

    def __init__(self, config: AnchorSegConfig, registry: TokenRegistry, *, max_length: int = 2048) -> None:
        self.config, self.registry = config, registry
        self.collator = make_collator(config, registry, max_length=max_length)

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, revision: str | None = None, **kwargs: Any) -> AnchorSegProcessor:
        """Read the processor of a model folder.

        Args:
            folder: as `load_model` takes it.
            revision: of a name on the hub.
            kwargs: `config`, if it was read already; what else transformers hands over is not needed.

        Raises:
            CheckpointError: if the folder is no model of this project.
        """
        path = local_folder(shipped(folder), "the model folder", revision=revision, files=FILES)
        config = kwargs.get("config") or read_config(path)
        registry = TokenRegistry.load(path, config.token_strings)
        check_ids(path, token_ids(registry), config)
        return cls(config, registry)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write configuration and tokenizer, which is all that `from_pretrained` reads."""
        self.config.save_pretrained(folder)
        self.registry.save(folder)

    def __call__(self, images: Any, text: str | Sequence[str] | Sequence[Sequence[str]]) -> Batch:
        """One query or several about one image, or a list of images with the queries of each.

        Args:
            images: as `AnchorSegPredictor.session` takes one, or a list of them.
            text: for one image a query or a list of queries; for a list of images a list of these.

        Returns:
            A batch on the CPU in float32; `batch.to(device, dtype)` brings it to the model.

        Raises:
            InputError: for what is no image or no query, or lists of different lengths.
            DataError: for a file that cannot be read, or a question that is too long.
        """
        if not isinstance(images, list | tuple):
            images, text = [images], [text]  # type: ignore[list-item]
        if isinstance(text, str) or len(images) != len(text):
            raise InputError(f"{len(images)} images need a list of as many queries, or lists of queries, not {text!r}")
        return self.collator([_sample(as_rgb(image), queries) for image, queries in zip(images, text, strict=True)])


def _sample(image: np.ndarray, queries: str | Sequence[str]) -> Sample:
    """Each query in a conversation of its own, with one target whose truth is not known."""
    before, after = evaluation.ANSWER
    prompts = Asking().prompts([queries] if isinstance(queries, str) else queries)
    return Sample(
        record="the image",
        image=image,
        conversations=tuple(
            Conversation((Turn(prompt, (before, TargetSlot(number), after)),)) for number, prompt in enumerate(prompts)
        ),
        masks=np.zeros((len(prompts), *image.shape[:2]), dtype=bool),
    )
