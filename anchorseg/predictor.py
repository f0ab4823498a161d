"""Predictor: a folder, an image, a question; masks with their text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from anchorseg.build import load_model
from anchorseg.data import make_collator
from anchorseg.generation import Generated, answer_questions
from anchorseg.modeling import AnchorSegModel
from anchorseg.prefix import ImagePrefix, read_images
from anchorseg.tokens import TokenRegistry
from dataset.sample import Conversation, Sample, Turn
from dataset.templates import evaluation
from model.quantised import Quantisation


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
    """Answers questions about one image at a time; the image is read once, at the first question.

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
        self._prefix: ImagePrefix | None = None

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        device: str = "cpu",
        dtype: torch.dtype | str = "auto",
        quantisation: Quantisation = "none",
    ) -> AnchorSegPredictor:
        """Load a model folder.

        Args:
            folder: written by merge_lora_weights.py.
            device: where the model runs.
            dtype: of the weights; "auto" keeps that of the files.
            quantisation: of the language model's linear layers, "8bit" or "4bit"; needs bitsandbytes.
        """
        model, registry = load_model(folder, dtype=dtype, quantisation=quantisation)
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
        self.reset_image()
        self._image = image

    def reset_image(self) -> None:
        """Forget the image and what was read of it, and free its memory."""
        self._image = self._prefix = None

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
        return self.predict_batch([query], raw_prompt=raw_prompt, max_new_tokens=max_new_tokens)[0]

    def predict_batch(
        self, queries: Sequence[str], *, raw_prompt: bool = False, max_new_tokens: int = 128, max_rows: int = 16
    ) -> list[Answer]:
        """Ask several questions about the image that is set, each by itself; the answers are those of `predict`.

        Args:
            queries: phrases or sentences.
            raw_prompt: as in `predict`; `max_new_tokens` alike.
            max_new_tokens: longest answer.
            max_rows: most questions that are answered at once; bounds the memory.

        Raises:
            RuntimeError: if no image is set.
            ValueError: for an empty query.
        """
        if self._image is None:
            raise RuntimeError("an image must be set with .set_image(...) before predict")
        if not all(query.strip() for query in queries):
            raise ValueError("the query is empty; ask for something")
        prompts = [query if raw_prompt else phrase_or_sentence(query) for query in queries]
        questions = [
            self.collator.prompt.branch(Conversation((Turn(prompt, None),)), "the question").ids for prompt in prompts
        ]
        images = self._read(self._image)
        answers: list[Answer] = []
        for start in range(0, len(questions), max_rows):
            part = questions[start : start + max_rows]
            made = answer_questions(self.model, images, part, [0] * len(part), max_new_tokens=max_new_tokens)
            answers += [self._answer(made, question) for question in range(len(part))]
        return answers

    def _read(self, image: np.ndarray) -> ImagePrefix:
        if self._prefix is None:
            masks = np.zeros((0, *image.shape[:2]), dtype=bool)
            sample = Sample(record="the image", image=image, conversations=(), masks=masks)
            parameter = next(self.model.parameters())
            self._prefix = read_images(self.model, self.collator([sample]).to(parameter.device, parameter.dtype))
        return self._prefix

    def _answer(self, generated: Generated, question: int) -> Answer:
        ids = generated.ids[question]
        chosen = (generated.target_rows == question).nonzero()[:, 0]
        prior = generated.segmentation.prior
        targets = []
        for index, phrase in zip(chosen.tolist(), self._phrases(ids), strict=True):
            logit = generated.segmentation.masks[0][index]
            mask = logit > 0
            targets.append(
                Target(
                    mask=mask.cpu().numpy(),
                    score=float(logit[mask].sigmoid().mean()) if mask.any() else 0.0,
                    prior=None if prior is None else prior.maps[0][index].cpu().numpy(),
                    phrase=phrase,
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
