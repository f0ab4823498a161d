"""Predictor: a folder, an image, a question; masks with their text.

A forward pass writes nothing to the model, and what belongs to an image is held by its session, so that threads may
share a model, a predictor and a session.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Lock, Thread, current_thread
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from typing_extensions import Unpack

from anchorseg.inference.answer import Answer
from anchorseg.inference.answering import Answerer, AskedImages
from anchorseg.inference.collate import make_collator
from anchorseg.inference.inputs import Asking, AskOptions, as_rgb, check_limits, read_only
from anchorseg.inference.prefix import ImagePrefix, prefill_images
from anchorseg.inference.session import ImageSession
from anchorseg.method.model_folder import FILES, is_large, read_config
from anchorseg.method.modeling import AnchorSegModel
from anchorseg.method.tokens import TokenRegistry
from anchorseg.weights.folder import PaddingAttention, load_model
from anchorseg.weights.hub import push_to_hub
from anchorseg.weights.shipped import shipped
from model.quantization import Quantization
from utils.errors import NoImageError
from utils.loading import local_folder
from utils.machine import chosen_device, refuse_without_gpu


class AnchorSegPredictor:
    """Answers questions about images; each image is read once, at its first question.

        predictor = AnchorSegPredictor.from_pretrained("miniature")
        predictor.set_image("photo.jpg")
        answer = predictor.predict("the object that could keep you dry")
        answer.mask, answer.overlay(), answer.to_coco()

    Threads may share a predictor: each may open sessions, or set an image of its own and ask about it. A thread that
    has set none asks about the one image that was set, if there is only one.

        session = predictor.session(image)  # for servers: an image and its answers in one object
        first = session.predict("the cup")
        second = session.predict("What is left of it?", after=first)  # a dialogue; the image is not read again

    Args:
        model: a merged model; it is put into evaluation mode here, and nothing is written to it afterwards.
        registry: its tokenizer.
        max_length: longest prompt in tokens.
    """

    def __init__(self, model: AnchorSegModel, registry: TokenRegistry, *, max_length: int = 2048) -> None:
        self.model = model.eval()
        self.registry = registry
        self.collator = make_collator(model.config, registry, max_length=max_length, latents=model.bank_rule.latents)
        self._answerer = Answerer(self.model, registry, self.collator)
        self._set_by: WeakKeyDictionary[Thread, ImageSession] = WeakKeyDictionary()
        self._lock = Lock()

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        revision: str | None = None,
        device: str = "auto",
        dtype: torch.dtype | str = "auto",
        quantization: Quantization = "none",
        quantisation: Quantization | None = None,
        padding_attention: PaddingAttention = "model",
        cuda_graphs: bool = False,
        bank_length: str = "full",
        max_length: int = 2048,
    ) -> AnchorSegPredictor:
        """Load a model folder.

        Args:
            folder: written by merge_lora_weights.py, a name on the hub, or "miniature", which comes with the project.
            revision: of a name on the hub: branch, tag or commit.
            device: where the model runs: "cuda", "cuda:1", "cpu"; "auto" is a GPU where there is one, which a large
                model must have.
            dtype: of the weights: a torch dtype or its name, "bf16", "fp16" or "fp32"; "auto" keeps that of the files.
            quantization: of the language model's linear layers, "8bit" or "4bit"; needs bitsandbytes.
            quantisation: the earlier name of `quantization`.
            padding_attention: see `load_model`; "plain" is that of the published demos.
            cuda_graphs: run the model as CUDA graphs, see `AnchorSegModel.capture_graphs`.
            bank_length: how long query banks are, see `anchorseg.method.bank_length.bank_rule`.
            max_length: longest prompt in tokens, image and dialogue included.

        Raises:
            CheckpointError: see `load_model`.
            SettingsError: for a device that is not here, a large model without a GPU and `device="cpu"`, CUDA graphs
                that cannot be used, or a bank length that the model was not trained for.
        """
        place = chosen_device(device)
        path = local_folder(shipped(folder), "the model folder", revision=revision, files=FILES)
        read_config(path)  # what is no model folder is told so first
        refuse_without_gpu(wanted=device == "auto" and is_large(path))
        model, registry = load_model(
            path, dtype=dtype, quantization=quantisation or quantization, padding_attention=padding_attention
        )
        model.set_bank_length(bank_length)
        predictor = cls(model.to(place), registry, max_length=max_length)
        if cuda_graphs:
            predictor.model.capture_graphs()
        return predictor

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload model, tokenizer and card; arguments, result and errors are those of `anchorseg.push_to_hub`."""
        return push_to_hub(self.model, self.registry, repo_id, **options)

    def session(self, image: Any) -> ImageSession:
        """Open an image to ask about, apart from all others.

        Args:
            image: a path, PIL image, numpy array or torch tensor, see `inputs.as_rgb`; it is copied.

        Raises:
            InputError: for what is no image.
            DataError: for a file that cannot be read.
        """
        pixels = as_rgb(image)
        return ImageSession(self._answerer, pixels, partial(self.prefill, [pixels]))

    def set_image(self, image: Any) -> None:
        """Choose the image of this thread's next predictions; threads that share more than one image use `session`.

        Args:
            image: see `session`; errors, too.
        """
        session = self.session(image)
        with self._lock:
            self._set_by[current_thread()] = session

    def reset_image(self) -> None:
        """Forget the image that this thread has set and what was read of it, and free its memory."""
        with self._lock:
            self._set_by.pop(current_thread(), None)

    def predict(self, query: str, *, after: Answer | None = None, **options: Unpack[AskOptions]) -> Answer:
        """Ask about the image that is set.

        Args:
            query: a phrase ("something to drink from"), a full sentence, or a whole prompt that asks for a
                segmentation itself, as LISA's documented ones do.
            after: an earlier answer about the same image, which this question follows in a dialogue.
            options: see `anchorseg.inference.inputs.Asking`: `mode`, `kind`, `max_new_tokens`, `token_maps`, ...

        Raises:
            NoImageError: if no image is set.
            InputError: for a query that is no text or is empty, and for other arguments that are not allowed.
            DataError: for a question that is too long.
        """
        return self._session().predict(query, after=after, **options)

    def predict_batch(self, queries: Sequence[str], **options: Unpack[AskOptions]) -> list[Answer]:
        """Ask several questions about the image that is set, each by itself.

        The answers are those of `predict`, but for rounding.

        Args:
            queries: phrases, sentences or prompts.
            options: as in `predict`, of all queries.

        Raises:
            NoImageError: if no image is set.
            InputError: as in `predict`, and for `queries` that are no list.
            DataError: as in `predict`.
        """
        return self._session().predict_batch(queries, **options)

    def predict_images(
        self, asked: Iterable[tuple[Any, Sequence[str]]], *, max_images: int = 4, **options: Unpack[AskOptions]
    ) -> Iterator[list[Answer]]:
        """Ask about many images, some of them read together; the answers are those of `predict`, but for rounding.

        An image that cannot be used ends it, with those that would have been read together.

        Args:
            asked: images, as `session` takes them, each with its queries; taken as they are needed.
            max_images: most images that are read together; bounds the memory.
            options: as in `predict`, of all queries.

        Returns:
            The answers about one image after the other, one for each query.

        Raises:
            InputError: see `predict_batch` and `session`.
            DataError: see `predict` and `session`.
        """
        check_limits(max_images=max_images)
        return self._in_groups(iter(asked), max_images, Asking(**options))

    def _in_groups(
        self, remaining: Iterator[tuple[Any, Sequence[str]]], max_images: int, asking: Asking
    ) -> Iterator[list[Answer]]:
        while group := list(islice(remaining, max_images)):
            pixels = [as_rgb(image) for image, _ in group]
            prepared = [self._answerer.prepare(row, queries, asking) for row, (_, queries) in enumerate(group)]
            questions = [question for of_image in prepared for question in of_image]
            answers: Iterator[Answer] = iter(())
            if questions:
                images = AskedImages(pixels=list(map(read_only, pixels)), prefix=self.prefill(pixels))
                answers = iter(self._answerer.answer(images, questions, asking))
            for of_image in prepared:
                yield list(islice(answers, len(of_image)))

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

    def prefill(self, images: Sequence[np.ndarray]) -> ImagePrefix:
        """Run CLIP, SAM's encoder and the language model's prefix over images (H, W, 3) uint8 RGB."""
        parameter = next(self.model.parameters())
        views = self.collator.images(images).to(parameter.device, parameter.dtype)
        return prefill_images(self.model, views, self.collator.prefixes(views.language_frames).to(parameter.device))
