"""Predictor: a folder, an image, a question; masks with their text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from anchorseg.build import load_model
from anchorseg.data import make_collator
from anchorseg.generation import Generated, generate
from anchorseg.modeling import AnchorSegModel
from anchorseg.tokens import TokenRegistry
from dataset.sample import Conversation, Question, Sample, Turn
from dataset.templates import evaluation


@dataclass(frozen=True, kw_only=True)
class Target:
    """One segmented target.

    Attributes:
        mask: (H, W) boolean at the image's own size.
        score: mean probability of the mask's pixels, 0.5 to 1; 0 where the mask has none.
        prior: (H, W) float32 token-to-mask map in [0, 1], or None where the method computes none.
        phrase: the text of the answer just before the target.
    """

    mask: np.ndarray
    score: float
    prior: np.ndarray | None
    phrase: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the model wrote, and its targets in the order written; none means that it found no target."""

    text: str
    targets: tuple[Target, ...]

    @property
    def has_target(self) -> bool:
        """False for "no target"."""
        return bool(self.targets)

    @property
    def mask(self) -> np.ndarray | None:
        """Union (H, W) of all targets' masks, or None without a target."""
        return np.any([target.mask for target in self.targets], axis=0) if self.targets else None


def phrase_or_sentence(query: str) -> str:
    """Put a query into the prompt of the evaluation: "What is {phrase} in this image?", or the sentence itself."""
    query = query.strip()
    is_sentence = query.endswith((".", "?", "!")) or query[:1].isupper()
    return (evaluation.SENTENCE if is_sentence else evaluation.PHRASE).format(text=query)


class AnchorSegPredictor:
    """Answers questions about one image at a time.

    Args:
        model: a merged model.
        registry: its tokenizer.
        max_length: longest prompt in tokens.
    """

    def __init__(self, model: AnchorSegModel, registry: TokenRegistry, *, max_length: int = 2048) -> None:
        self.model = model.eval()
        self.registry = registry
        self.collator = make_collator(model.config, registry, max_length=max_length)
        self._image: np.ndarray | None = None

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, device: str = "cpu", dtype: torch.dtype | str = "auto"
    ) -> AnchorSegPredictor:
        """Load a model folder.

        Args:
            folder: written by merge_lora_weights.py.
            device: where the model runs.
            dtype: of the weights; "auto" keeps that of the files.
        """
        model, registry = load_model(folder, dtype=dtype)
        return cls(model.to(device), registry)

    def set_image(self, image: np.ndarray) -> None:
        """Choose the image of the next predictions.

        Args:
            image: (H, W, 3) uint8 RGB.

        Raises:
            ValueError: for another shape or type.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(
                f"set_image wants an RGB image (H, W, 3) of uint8, not {image.shape} of {image.dtype}; "
                "convert it with cv2.cvtColor"
            )
        self._image = image

    def predict(self, query: str, *, raw_prompt: bool = False, max_new_tokens: int = 128) -> Answer:
        """Ask about the image that is set.

        Args:
            query: a phrase ("something to drink from") or a full sentence.
            raw_prompt: send the query as it is, without the evaluation's wording around it.
            max_new_tokens: longest answer.

        Raises:
            RuntimeError: if no image is set.
            ValueError: for an empty query.
        """
        if self._image is None:
            raise RuntimeError("an image must be set with .set_image(...) before predict")
        if not query.strip():
            raise ValueError("the query is empty; ask for something")
        question = query if raw_prompt else phrase_or_sentence(query)
        sample = Sample(
            record="the image",
            image=self._image,
            conversations=(Conversation((Turn(question, None),)),),
            masks=np.zeros((0, *self._image.shape[:2]), dtype=bool),
            questions=(Question(query, ()),),
        )
        parameter = next(self.model.parameters())
        batch = self.collator([sample]).to(parameter.device, parameter.dtype)
        return self._answer(generate(self.model, batch, max_new_tokens=max_new_tokens))

    def _answer(self, generated: Generated) -> Answer:
        ids = generated.ids[0]
        logits = generated.segmentation.masks[0]
        prior = generated.segmentation.prior
        phrases = self._phrases(ids)
        targets = []
        for index, logit in enumerate(logits):
            mask = logit > 0
            targets.append(
                Target(
                    mask=mask.cpu().numpy(),
                    score=float(logit[mask].sigmoid().mean()) if mask.any() else 0.0,
                    prior=None if prior is None else prior.maps[0][index].cpu().numpy(),
                    phrase=phrases[index],
                )
            )
        return Answer(text=self.registry.decode(ids), targets=tuple(targets))

    def _phrases(self, ids: list[int]) -> list[str]:
        bank = set(self.registry.bank_ids)
        phrases: list[str] = []
        run: list[int] = []
        for index in ids:
            if index == self.registry.segment_id:
                phrases.append(self.registry.decode(run).strip(" ,.:"))
                run = []
            elif index not in bank:
                run.append(index)
        return phrases
