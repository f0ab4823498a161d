"""The parts of the model whose shapes repeat as CUDA graphs, each launched at once: of inference, and of training.

Equal to the same parts as they are, but for columns of padding that make shapes repeat.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from threading import Lock
from typing import TYPE_CHECKING, Any

from torch import Tensor

from dataset.batch import Images, Sequences
from utils.cuda_graphs import CapturedCall, CudaRecorder, Kept, Recorder
from utils.geometry import Size
from utils.gradient_graphs import CapturedGradient

if TYPE_CHECKING:
    from anchorseg.method.modeling import AnchorSegModel

COLUMNS = 64
"""Sequences are padded to a multiple of so many columns."""


class CapturedParts:
    """What `AnchorSegModel.capture_graphs` makes; threads may share it.

    Args:
        model: in evaluation mode, on its device.
        recorder: makes a recorder. What one records never runs at the same time.

    Attributes:
        record: for what runs beside nothing but the mask backbone's encoder.
        decoders: of answers, by their sizes; one caller at a time, who holds `decoding`.
    """

    def __init__(self, model: AnchorSegModel, recorder: Callable[[], Recorder] = CudaRecorder) -> None:
        self._model = model
        self.record = recorder()
        self._prefill = CapturedCall(self._prefill_parts, self.record)
        # Of its own, for it runs on a second stream beside the language model.
        self._encode = CapturedCall(lambda pixels: (model.masks.image_features(pixels),), recorder())
        self.decoders: Kept[Hashable, Any] = Kept(4)
        self.decoding = Lock()

    def forget_answers(self) -> None:
        """Write the next answers without the last ones as drafts; they are the same, in more steps."""
        for decoder in self.decoders.values():
            decoder.forget()

    def encode(self, pixels: Tensor) -> Tensor:
        """Features of the mask backbone's views."""
        (features,) = self._encode(pixels)
        return features

    def prefill(self, images: Images, sequences: Sequences, cache: Any | None) -> Tensor:
        """See `AnchorSegModel.prefill`."""
        length = sequences.input_ids.shape[1]
        if cache is None:
            sequences = sequences.widened(-length % COLUMNS)
        hidden, *layers = self._prefill(
            images.language_pixels,
            images.patch_valid,
            sequences.input_ids,
            sequences.segments,
            sequences.positions,
            sequences.row_images,
            grids=images.grids,
            image_start=sequences.image_start,
            caches=cache is not None,
        )
        if cache is not None:
            for index, (keys, values) in enumerate(zip(layers[::2], layers[1::2], strict=True)):
                cache.update(keys, values, index)
        return hidden[:, :length]

    def _prefill_parts(
        self,
        pixels: Tensor,
        patch_valid: Tensor,
        input_ids: Tensor,
        segments: Tensor,
        positions: Tensor,
        row_images: Tensor,
        *,
        grids: tuple[Size, ...],
        image_start: int,
        caches: bool,
    ) -> tuple[Tensor, ...]:
        """Hidden states, then keys and values of each layer if they are cached."""
        sequences = Sequences(
            input_ids=input_ids,
            segments=segments,
            positions=positions,
            row_images=row_images,
            image_start=image_start,
        )
        cache = self._model.language.new_cache() if caches else None
        hidden = self._model.prefill_as_is(pixels, patch_valid, grids, sequences, cache)
        layers = () if cache is None else [part for layer in cache.layers for part in (layer.keys, layer.values)]
        return hidden, *layers


class CapturedTraining:
    """What `AnchorSegModel.capture_training` makes: frozen encoders, and the language model with its backward pass.

    Args:
        model: in training mode, on its device, with the paper's parts trainable.
        recorder: makes a recorder. What one records never runs at the same time.
    """

    def __init__(self, model: AnchorSegModel, recorder: Callable[[], Recorder] = CudaRecorder) -> None:
        self._model, language = model, model.language
        module = model.get_submodule(language.saved_as)
        tables = {id(p) for name in language.vocabulary_tables for p in module.get_submodule(name).parameters()}
        weights = [p for p in language.adapted.parameters() if p.requires_grad and id(p) not in tables]
        # The encoders run between both passes of the language model, and must not share its memory.
        of_encoders, of_language_model = recorder(), recorder()
        # As it is where its projector trains.
        self._features = None if language.trained() else CapturedCall(self._one_feature, of_encoders)
        self._encode = CapturedCall(lambda pixels: (model.masks.image_features(pixels),), of_encoders)
        self._states = CapturedGradient(language.hidden_states, language.adapted, weights, of_language_model)
        self.embed = language.embed

    def encode(self, pixels: Tensor) -> Tensor:
        """Features of the mask backbone's views."""
        (features,) = self._encode(pixels)
        return features

    def prefill(self, images: Images, sequences: Sequences, cache: Any | None) -> Tensor:
        """See `AnchorSegModel.prefill`; nothing is cached in training."""
        length = sequences.input_ids.shape[1]
        wide = sequences.widened(-length % COLUMNS)
        hidden = self._model.prefill_as_is(
            images.language_pixels, images.patch_valid, images.grids, wide, cache, language=self
        )
        return hidden[:, :length]

    def image_features(self, pixels: Tensor, patch_valid: Tensor, grids: tuple[Size, ...]) -> Tensor:
        """See `LanguageBackbone`."""
        if self._features is None:
            return self._model.language.image_features(pixels, patch_valid, grids)
        (features,) = self._features(pixels, patch_valid, grids=grids)
        return features

    def _one_feature(self, pixels: Tensor, patch_valid: Tensor, grids: tuple[Size, ...]) -> tuple[Tensor]:
        return (self._model.language.image_features(pixels, patch_valid, grids),)

    def hidden_states(self, embeddings: Tensor, positions: Tensor, visible: Tensor, cache: Any = None) -> Tensor:
        """See `LanguageBackbone`."""
        return self._states(embeddings, positions, visible)
