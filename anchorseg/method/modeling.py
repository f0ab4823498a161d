"""The joined model: a forward pass that reads like the paper's figure 1.

Letters: B images, R rows, T positions, N targets, K latent tokens, P image tokens, D language width,
C prompt width, G feature grid, M low-resolution side, H W original size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

from anchorseg.method import model_folder
from anchorseg.method.bank_length import BankRule, bank_rule
from anchorseg.method.captured import CapturedParts, CapturedTraining
from anchorseg.method.config import AnchorSegConfig
from anchorseg.method.head import Head, ImageContext, Segmentation
from anchorseg.method.heads import head_entry
from anchorseg.method.options import MethodOptions
from dataset.batch import PADDING, PREFIX, BankPositions, Batch, Images, Sequences
from model.backbone_names import LANGUAGE_BACKBONES
from model.backbones import LanguageBackbone, MaskBackbone, language_backbone, mask_backbone
from utils.cuda_graphs import CudaRecorder, Recorder
from utils.errors import SettingsError
from utils.geometry import Size
from utils.loading import local_folder, without_bars_in_logs


@dataclass(frozen=True, kw_only=True)
class AnchorSegOutput:
    """Logits (S, V) and labels (S,) of the S supervised tokens, and the masks."""

    logits: Tensor
    labels: Tensor
    segmentation: Segmentation


def visibility(segments: Tensor, valid: Tensor, *, zero_padding: bool) -> Tensor:
    """Which positions may see which: causal, over valid keys, within the prefix and one's own conversation.

    Args:
        segments: (R, T) 0 prefix, 1, 2, ... conversations, -1 padding.
        valid: (R, T) false at padding patches and at padding.
        zero_padding: let padding patches see nothing, so that their attention output is zero.

    Returns:
        (R, T, T) boolean, query by key.
    """
    length = segments.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    query, key = segments.unsqueeze(2), segments.unsqueeze(1)
    visible = causal & ((key == PREFIX) | (key == query)) & valid.unsqueeze(1)
    return visible & valid.unsqueeze(2) if zero_padding else visible


class AnchorSegModel(PreTrainedModel):
    """AnchorSeg: a language model writes the query bank, its anchor draws the prior, a mask decoder the masks.

    `save_pretrained` and `from_pretrained` are transformers' own; loading is strict.
    """

    config_class = AnchorSegConfig
    base_model_prefix = "anchorseg"
    main_input_name = "batch"
    supports_gradient_checkpointing = True
    _no_split_modules = ["LlamaDecoderLayer", "CLIPEncoderLayer", "Block"]
    _supports_sdpa = True

    def __init__(self, config: AnchorSegConfig) -> None:
        super().__init__(config)
        method = config.method_settings
        language = language_backbone(config.language_model)(config.language_config)
        masks = mask_backbone(config.mask_model)(config.mask_sizes, method.sam_position_precision)
        self.width = language.width
        # Registered under the names that saved weights have.
        self._language_name, self._masks_name = language.saved_as, masks.saved_as
        self.add_module(language.saved_as, language)
        self.add_module(masks.saved_as, masks)
        self.head: Head = head_entry(config.head).load()(method, self.width, masks.prompt_width)
        for name, module in self.head.modules.items():
            self.add_module(name, module)
        self.bank_rule = BankRule()
        self.captured: CapturedParts | None = None
        self.captured_training: CapturedTraining | None = None
        self.post_init()

    @property
    def method(self) -> MethodOptions:
        """Options of the method, which the head has."""
        return self.head.options

    @method.setter
    def method(self, options: MethodOptions) -> None:
        self.head.options = options

    @property
    def language(self) -> LanguageBackbone:
        """Reads images and text, and writes."""
        return self._modules[self._language_name]

    @property
    def masks(self) -> MaskBackbone:
        """Encodes images and decodes masks."""
        return self._modules[self._masks_name]

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Keep what each constructor drew; transformers initializes its own parts itself."""

    @classmethod
    def from_pretrained(cls, folder: Any, *args: Any, **kwargs: Any) -> AnchorSegModel:
        """Load a saved model, refusing any tensor that is missing, of another shape, or unknown.

        Args:
            folder: local folder, or a name on the hub (OWNER/NAME), which is fetched into its cache after saying so.
            args: as transformers takes them.
            kwargs: as transformers takes them (`dtype`, `device_map`, ...), and `revision` of a name on the hub.

        Raises:
            CheckpointError: see `anchorseg.method.model_folder`; also if the hub cannot be read.
        """
        revision = kwargs.pop("revision", None)
        folder = local_folder(folder, "the model folder", revision=revision, files=model_folder.FILES)
        config = kwargs.pop("config", None) or model_folder.read_config(folder)
        model_folder.check_weights(folder, config, cls)
        with without_bars_in_logs():
            model, info = super().from_pretrained(
                folder, *args, config=config, output_loading_info=True, ignore_mismatched_sizes=True, **kwargs
            )
        model_folder.refuse_tensors(
            folder,
            {
                "missing": sorted(info["missing_keys"]),
                "unknown": sorted(info["unexpected_keys"]),
                "of another shape": sorted(str(item) for item in info["mismatched_keys"]),
            },
        )
        model_folder.refuse_not_finite(folder, model)
        return model

    def push_to_hub(self, *args: Any, **kwargs: Any) -> Any:
        """Refused: transformers would upload a model without its tokenizer, which nobody could load.

        Raises:
            SettingsError: naming the function that uploads a whole model folder.
        """
        raise SettingsError(
            "push_to_hub of the model alone would leave out its tokenizer; use anchorseg.push_to_hub(model, registry, "
            "'OWNER/NAME'), which uploads the whole model folder"
        )

    @property
    def kept_unquantized(self) -> tuple[str, ...]:
        """Parts whose linear layers stay as they are when the language model's projections are quantized."""
        of_language = (f"{self._language_name}.{name}" for name in self.language.kept_unquantized)
        return (self._masks_name, *self.head.modules, *of_language)

    @property
    def bank_ids(self) -> tuple[int, ...]:
        """The token ids of one target, K latent ones or fewer by `bank_rule`, and `<SEG>`."""
        ids = self.config.token_ids
        return (*ids["reasoning"][: self.bank_rule.latents], *ids["anchors"], ids["segment"])

    def set_bank_length(self, rule: str) -> None:
        """Choose how long query banks are in inference; collators take the number of latents from `bank_rule`.

        Args:
            rule: see `anchorseg.method.bank_length.bank_rule`.

        Raises:
            SettingsError: for a rule that is not known, or that this model was not trained for.
        """
        nested = getattr(self.method, "bank_length", "full") == "random"
        self.bank_rule = bank_rule(rule, self.method.num_latents, nested=nested)

    def token_valid(self, sequences: Sequences, patch_valid: Tensor) -> Tensor:
        """(R, T) false at padding and at padding patches, of which `patch_valid` is (B, P)."""
        start, valid = sequences.image_start, sequences.segments != PADDING
        patches = patch_valid[sequences.row_images]
        return valid.slice_scatter(patches, dim=1, start=start, end=start + patches.shape[1])

    def prefill(self, images: Images, sequences: Sequences, cache: Cache | None = None) -> Tensor:
        """Prefill images and token ids: last-layer hidden states (R, T, D), and keys and values into an empty cache."""
        captured = self._captured_now()
        if captured is not None:
            return captured.prefill(images, sequences, cache)
        return self.prefill_as_is(images.language_pixels, images.patch_valid, images.grids, sequences, cache)

    def prefill_as_is(
        self,
        language_pixels: Tensor,
        patch_valid: Tensor,
        grids: tuple[Size, ...],
        sequences: Sequences,
        cache: Cache | None,
        *,
        language: LanguageBackbone | CapturedTraining | None = None,
    ) -> Tensor:
        """What `prefill` captures: the same of views (B, 3, S, S) and their patches (B, P).

        Args:
            language_pixels: (B, 3, S, S).
            patch_valid: (B, P).
            grids: (rows, columns) of each image's tokens.
            sequences: of R rows.
            cache: see `prefill`.
            language: with captured parts, instead of the language backbone itself.
        """
        language = language or self.language
        features = language.image_features(language_pixels, patch_valid, grids)
        embeddings = language.embed(sequences.input_ids, features[sequences.row_images], sequences.image_start)
        valid = self.token_valid(sequences, patch_valid)
        visible = visibility(sequences.segments, valid, zero_padding=self.method.padding_attention == "zero")
        return language.hidden_states(embeddings, sequences.positions, visible, cache)

    def capture_graphs(self, recorder: Callable[[], Recorder] = CudaRecorder) -> None:
        """Run prefill, answers and the mask backbone's encoder as CUDA graphs, in inference mode.

        Call it when the model is in evaluation mode on its device, and its weights are what they shall be: a graph
        reads them where they are. It cannot be copied or pickled afterwards.

        Args:
            recorder: makes a recorder; tests give another than CUDA's.

        Raises:
            SettingsError: if the model is not on a GPU, or is quantized.
        """
        self._check_capture(recorder)
        self.captured = CapturedParts(self, recorder)

    def capture_training(self, recorder: Callable[[], Recorder] = CudaRecorder) -> None:
        """Run the frozen encoders, and the language model with its backward pass, as CUDA graphs in training mode.

        Each forward pass must have its backward pass before the next one. Call it when the weights lie where they will
        lie in training, and only those of the paper's recipe train; layers must not be recomputed.

        Args:
            recorder: makes a recorder; tests give another than CUDA's.

        Raises:
            SettingsError: as `capture_graphs`.
        """
        self._check_capture(recorder)
        self.captured_training = CapturedTraining(self, recorder)

    def _check_capture(self, recorder: Callable[[], Recorder]) -> None:
        if not LANGUAGE_BACKBONES[self.config.language_model].recordable:
            raise SettingsError(
                f"CUDA graphs do not go with {self.config.language_model}, whose image encoder waits for the sizes of "
                "images; leave them out"
            )
        if recorder is CudaRecorder and self.device.type != "cuda":
            raise SettingsError(f"CUDA graphs need the model on a GPU, and it is on {self.device}; leave them out here")
        if getattr(self, "is_quantized", False):
            raise SettingsError("CUDA graphs do not go with quantized weights, whose kernels wait for the host")

    def _captured_now(self) -> CapturedParts | CapturedTraining | None:
        if self.training:
            return self.captured_training if torch.is_grad_enabled() else None
        return self.captured if torch.is_inference_mode_enabled() else None

    def _encode_masks(self, pixels: Tensor) -> Tensor:
        captured = self._captured_now()
        return self.masks.image_features(pixels) if captured is None else captured.encode(pixels)

    def mask_features(self, images: Images) -> Tensor:
        """Features (B, ...) for the mask decoder: those that are stored, and the encoder for the other images."""
        if all(features is None for features in images.mask_features):
            return self._encode_masks(images.mask_pixels)
        encoded = iter(self._encode_masks(images.mask_pixels) if len(images.mask_pixels) else ())
        return torch.stack([next(encoded) if stored is None else stored for stored in images.mask_features])

    def image_context(
        self, images: Images, sequences: Sequences, hidden: Tensor, mask_features: Tensor | None = None
    ) -> ImageContext:
        """What `segment` needs of images that were read to `hidden` (R, T, D)."""
        start = sequences.image_start
        return ImageContext(
            images=images,
            row_images=sequences.row_images,
            image_states=hidden[:, start : start + images.patch_valid.shape[1]],
            mask_features=self.mask_features(images) if mask_features is None else mask_features,
        )

    def segment(self, hidden: Tensor, targets: BankPositions, context: ImageContext) -> Segmentation:
        """From hidden states to masks: the one path of training, forced evaluation and generation.

        Args:
            hidden: (R, T, D) last-layer hidden states.
            targets: where the N targets' tokens stand.
            context: the images.
        """
        if len(targets) == 0:
            return self.head.nothing(context, self.masks)
        return self.head.segment(hidden, self.bank_rule.shorten(self, hidden, targets, context), context, self.masks)

    def _stand_in(self, batch: Batch) -> BankPositions:
        """One target without truth for a batch of text only: ranks must run the same graph to reduce gradients."""
        columns = torch.arange(1, self.method.bank_size + 1, device=batch.conversations.input_ids.device)
        return BankPositions(
            rows=torch.zeros_like(columns[:1]),
            columns=columns.unsqueeze(0),
            counts=(1, *[0] * (len(batch.images) - 1)),
        )

    def forward(self, batch: Batch) -> AnchorSegOutput:
        """Read the conversations, decode a mask for each target, give logits where text is supervised."""
        images, conversations = batch.images, batch.conversations
        hidden = self.prefill(images, conversations)
        targets = conversations.targets
        if len(targets) == 0 and self.training:
            targets = self._stand_in(batch)
        segmentation = self.segment(hidden, targets, self.image_context(images, conversations, hidden))
        rows, columns = conversations.supervised
        return AnchorSegOutput(
            logits=self.language.logits(hidden[rows, columns]),
            labels=conversations.labels[rows, columns + 1],
            segmentation=segmentation,
        )
