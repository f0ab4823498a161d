"""Predictor: a folder, an image, a question; masks with their text.

A forward pass writes nothing to the model, and what belongs to an image is held by its session, so that threads may
share a model, a predictor and a session.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Thread, current_thread
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from anchorseg.inference.collate import make_collator
from anchorseg.inference.generation import answer_questions
from anchorseg.inference.grammar import Generated
from anchorseg.inference.inputs import check_image, check_limits, prompts_of
from anchorseg.inference.prefix import ImagePrefix, prefill_images
from anchorseg.method.modeling import AnchorSegModel
from anchorseg.method.tokens import TokenRegistry
from anchorseg.weights.folder import PaddingAttention, load_model
from dataset.sample import Conversation, Turn
from dataset.templates.wording import Kind
from model.quantization import Quantization
from utils.errors import NoImageError


@dataclass(frozen=True, kw_only=True)
class Target:
    """One segmented target.

    Attributes:
        mask: (H, W) boolean at the image's own size.
        score: mean probability of the mask's pixels, 0.5 to 1; 0 where the mask has none.
        prior: (H, W) float32 token-to-mask map in [0, 1], or None where the method computes none.
        phrase: the text of the answer just before the target.
        anchor_priors: (A, H, W) float32 maps of each of a target's anchors, or None where it has one.
        parts: (A, H, W) boolean mask of each anchor, or None unless anchors were matched with objects in training.
    """

    mask: np.ndarray
    score: float
    prior: np.ndarray | None
    phrase: str
    anchor_priors: np.ndarray | None = None
    parts: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The prompt that was sent, what the model wrote, and its targets in that order; none: it found no target."""

    prompt: str
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


class ImageSession:
    """One image that is asked about; it is read at the first question. Threads may ask at the same time.

    Made by `AnchorSegPredictor.session`.
    """

    def __init__(self, predictor: AnchorSegPredictor, image: np.ndarray) -> None:
        self._predictor = predictor
        self._image = image
        self._prefix: ImagePrefix | None = None
        self._prefilling = Lock()

    def predict(
        self, query: str, *, kind: Kind = "auto", raw_prompt: bool = False, max_new_tokens: int = 128
    ) -> Answer:
        """Ask one question; arguments and errors are those of `AnchorSegPredictor.predict`."""
        return self.predict_batch([query], kind=kind, raw_prompt=raw_prompt, max_new_tokens=max_new_tokens)[0]

    def predict_batch(
        self,
        queries: Sequence[str],
        *,
        kind: Kind = "auto",
        raw_prompt: bool = False,
        max_new_tokens: int = 128,
        max_rows: int = 16,
    ) -> list[Answer]:
        """Ask several questions; arguments and errors are those of `AnchorSegPredictor.predict_batch`."""
        check_limits(max_new_tokens=max_new_tokens, max_rows=max_rows)
        prompts = prompts_of(queries, "prompt" if raw_prompt else kind)
        questions = [self._predictor.question_ids(prompt) for prompt in prompts]
        answers: list[Answer] = []
        for start in range(0, len(questions), max_rows):
            part = questions[start : start + max_rows]
            made = answer_questions(
                self._predictor.model, self._prefilled(), part, [0] * len(part), max_new_tokens=max_new_tokens
            )
            answers += self._predictor.answers(made, prompts[start : start + len(part)])
        return answers

    def _prefilled(self) -> ImagePrefix:
        with self._prefilling:
            if self._prefix is None:
                self._prefix = self._predictor.prefill(self._image)
            return self._prefix


class AnchorSegPredictor:
    """Answers questions about images; each image is read once, at its first question.

    Threads may share a predictor: each may open sessions, or set an image of its own and ask about it. A thread that
    has set none asks about the one image that was set, if there is only one.

        session = predictor.session(image)  # for servers: an image and its answers in one object
        answer = session.predict("the cup")

    Args:
        model: a merged model; it is put into evaluation mode here, and nothing is written to it afterwards.
        registry: its tokenizer.
        max_length: longest prompt in tokens.
    """

    def __init__(self, model: AnchorSegModel, registry: TokenRegistry, *, max_length: int = 2048) -> None:
        self.model = model.eval()
        self.registry = registry
        self.collator = make_collator(model.config, registry, max_length=max_length, latents=model.bank_rule.latents)
        self._set_by: WeakKeyDictionary[Thread, ImageSession] = WeakKeyDictionary()
        self._lock = Lock()

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        device: str = "cpu",
        dtype: torch.dtype | str = "auto",
        quantization: Quantization = "none",
        quantisation: Quantization | None = None,
        padding_attention: PaddingAttention = "model",
        cuda_graphs: bool = False,
        bank_length: str = "full",
    ) -> AnchorSegPredictor:
        """Load a model folder.

        Args:
            folder: written by merge_lora_weights.py.
            device: where the model runs.
            dtype: of the weights; "auto" keeps that of the files.
            quantization: of the language model's linear layers, "8bit" or "4bit"; needs bitsandbytes.
            quantisation: the earlier name of `quantization`.
            padding_attention: see `load_model`; "plain" is that of the published demos.
            cuda_graphs: run the model as CUDA graphs, see `AnchorSegModel.capture_graphs`.
            bank_length: how long query banks are, see `anchorseg.method.bank_length.bank_rule`.

        Raises:
            SettingsError: if CUDA graphs cannot be used there, or for a bank length that the model was not trained for.
        """
        model, registry = load_model(
            folder, dtype=dtype, quantization=quantisation or quantization, padding_attention=padding_attention
        )
        model.set_bank_length(bank_length)
        predictor = cls(model.to(device), registry)
        if cuda_graphs:
            predictor.model.capture_graphs()
        return predictor

    def session(self, image: np.ndarray) -> ImageSession:
        """Open an image to ask about, apart from all others.

        Args:
            image: (H, W, 3) uint8 RGB; it is copied.

        Raises:
            InputError: for another shape or type.
        """
        return ImageSession(self, check_image(image))

    def set_image(self, image: np.ndarray) -> None:
        """Choose the image of this thread's next predictions; threads that share more than one image use `session`.

        Args:
            image: (H, W, 3) uint8 RGB; it is copied.

        Raises:
            InputError: for another shape or type.
        """
        session = self.session(image)
        with self._lock:
            self._set_by[current_thread()] = session

    def reset_image(self) -> None:
        """Forget the image that this thread has set and what was read of it, and free its memory."""
        with self._lock:
            self._set_by.pop(current_thread(), None)

    def predict(
        self, query: str, *, kind: Kind = "auto", raw_prompt: bool = False, max_new_tokens: int = 128
    ) -> Answer:
        """Ask about the image that is set.

        Args:
            query: a phrase ("something to drink from"), a full sentence, or a whole prompt that asks for a
                segmentation itself, as LISA's documented ones do.
            kind: which of them it is; "auto" decides by the words (`dataset.templates.wording`). The prompt that was
                sent is in the answer.
            raw_prompt: the same as `kind="prompt"`: send the query as it is.
            max_new_tokens: longest answer.

        Raises:
            NoImageError: if no image is set.
            InputError: for a query that is no text or is empty, and for other arguments that are not allowed.
        """
        session = self._session()
        return session.predict(query, kind=kind, raw_prompt=raw_prompt, max_new_tokens=max_new_tokens)

    def predict_batch(
        self,
        queries: Sequence[str],
        *,
        kind: Kind = "auto",
        raw_prompt: bool = False,
        max_new_tokens: int = 128,
        max_rows: int = 16,
    ) -> list[Answer]:
        """Ask several questions about the image that is set, each by itself; the answers are those of `predict`.

        Args:
            queries: phrases, sentences or prompts.
            kind: as in `predict`, of all queries; `raw_prompt` and `max_new_tokens` alike.
            raw_prompt: see `predict`.
            max_new_tokens: longest answer.
            max_rows: most questions that are answered at once; bounds the memory.

        Raises:
            NoImageError: if no image is set.
            InputError: as in `predict`, and for `queries` that are no list.
        """
        return self._session().predict_batch(
            queries, kind=kind, raw_prompt=raw_prompt, max_new_tokens=max_new_tokens, max_rows=max_rows
        )

    def _session(self) -> ImageSession:
        with self._lock:
            sessions = list(self._set_by.values())
            own = self._set_by.get(current_thread())
        if own is not None or len(sessions) == 1:
            return own or sessions[0]
        if sessions:
            raise NoImageError(
                f"{len(sessions)} threads have set an image of this predictor, and this thread none; "
                "open one with .session(image) and ask that"
            )
        raise NoImageError("an image must be set with .set_image(...) before predict")

    def question_ids(self, prompt: str) -> tuple[int, ...]:
        """Ids of a prompt after the image, up to `ASSISTANT:`.

        Raises:
            DataError: if it is too long.
        """
        return self.collator.prompt.branch(Conversation((Turn(prompt, None),)), "the question").ids

    def prefill(self, image: np.ndarray) -> ImagePrefix:
        """Run CLIP, SAM's encoder and the language model's prefix over an image."""
        parameter = next(self.model.parameters())
        images = self.collator.images([image]).to(parameter.device, parameter.dtype)
        return prefill_images(self.model, images, self.collator.prefixes(1).to(parameter.device))

    def answers(self, generated: Generated, prompts: Sequence[str]) -> list[Answer]:
        """Give each of the questions about an image its masks and text."""
        (logits,), prior = generated.segmentation.masks, generated.segmentation.prior
        masks = logits > 0
        inside = masks.flatten(1).sum(dim=1)
        scores = (logits.sigmoid() * masks).flatten(1).sum(dim=1) / inside.clamp(min=1)
        none = [None] * len(masks)
        of_anchors, parts = None if prior is None else prior.anchors, generated.segmentation.parts
        targets = zip(
            generated.target_rows.tolist(),
            masks.cpu().numpy(),
            scores.tolist(),
            none if prior is None else prior.maps[0].cpu().numpy(),
            none if of_anchors is None else _of_targets(of_anchors.maps[0], len(masks)),
            none if not parts else (parts[0] > 0).cpu().numpy(),
            strict=True,
        )
        of_questions: list[list[Target]] = [[] for _ in prompts]
        phrases = [iter(self._phrases(ids)) for ids in generated.ids]
        for question, mask, score, map_of_prior, maps_of_anchors, parts_of_target in targets:
            target = Target(
                mask=mask,
                score=score,
                prior=map_of_prior,
                phrase=next(phrases[question]),
                anchor_priors=maps_of_anchors,
                parts=parts_of_target,
            )
            of_questions[question].append(target)
        return [
            Answer(prompt=prompt, text=self.registry.decode(ids), targets=tuple(found))
            for prompt, ids, found in zip(prompts, generated.ids, of_questions, strict=True)
        ]

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


def _of_targets(maps: Tensor, targets: int) -> Sequence[np.ndarray]:
    """Maps (N A, H, W) of all anchors as (A, H, W) of each of N targets."""
    return list(maps.unflatten(0, (targets, -1)).cpu().numpy()) if targets else []
