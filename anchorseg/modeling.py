"""The joined model: a forward pass that reads like the paper's figure 1.

Letters: B images, R rows, T positions, N targets, K latent tokens, P image tokens, D language width,
C prompt width, G feature grid, M low-resolution side, H W original size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

from anchorseg import model_folder
from anchorseg.config import AnchorSegConfig
from anchorseg.query_bank import QueryBankProjector, gather_states
from anchorseg.spatial_prior import min_max, similarity
from dataset.batch import PADDING, PREFIX, BankPositions, Batch, Images, Sequences
from model.llava import LlavaBackbone
from model.sam import SamBackbone
from utils import geometry
from utils.loading import local_folder, without_bars_in_logs


@dataclass(frozen=True, kw_only=True)
class Prior:
    """Spatial responses of N targets: similarity s (N, P), responses r in [0, 1] (N, P), and the
    token-to-mask map of each image's targets in [0, 1], (n, H, W) float32."""

    similarity: Tensor
    responses: Tensor
    maps: tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """Masks of N targets in reading order.

    Attributes:
        counts: targets of each image.
        prior: the spatial prior, or None where the method does not compute it.
        low_resolution: (N, M, M) mask logits.
        iou: (N,) SAM's own quality estimate, untrained by this method.
        masks: for each image (n, H, W) float32 mask logits; a pixel belongs to the mask where the logit is > 0.
    """

    counts: tuple[int, ...]
    prior: Prior | None
    low_resolution: Tensor
    iou: Tensor
    masks: tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class AnchorSegOutput:
    """Logits (S, V) and labels (S,) of the S supervised tokens, and the masks."""

    logits: Tensor
    labels: Tensor
    segmentation: Segmentation


@dataclass(frozen=True, kw_only=True)
class ImageContext:
    """What decoding masks needs of the B images that R rows show.

    Attributes:
        images: sizes and patch validity.
        row_images: (R,) image of each row.
        image_states: (R, P, D) last-layer states at each row's image tokens.
        sam_features: (B, C, G, G).
    """

    images: Images
    row_images: Tensor
    image_states: Tensor
    sam_features: Tensor


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
    """AnchorSeg: LLaVA writes the query bank, its anchor draws the prior, SAM decodes the masks.

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
        self.method = config.method_settings
        self.width: int = config.llava_config.text_config.hidden_size
        self.llava = LlavaBackbone(config.llava_config)
        self.sam = SamBackbone(config.sam_sizes, self.method.sam_position_precision)
        self.query_bank = QueryBankProjector(
            self.width,
            config.sam_sizes.prompt_width,
            self.method.num_latents,
            contextual=self.method.contextual_queries,
        )
        self.post_init()

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Keep what each constructor drew; transformers initialises its own parts itself."""

    @classmethod
    def from_pretrained(cls, folder: Any, *args: Any, **kwargs: Any) -> AnchorSegModel:
        """Load a saved model, refusing any tensor that is missing, of another shape, or unknown.

        Args:
            folder: local folder or hub name.
            args: as transformers takes them.
            kwargs: as transformers takes them (`dtype`, `device_map`, ...).

        Raises:
            CheckpointError: see `anchorseg.model_folder`.
        """
        folder = local_folder(folder, "the model folder")
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

    @property
    def bank_ids(self) -> tuple[int, ...]:
        """The K + 1 token ids of one target, as the configuration holds them."""
        ids = self.config.token_ids
        return (*ids["reasoning"], ids["segment"])

    def token_valid(self, sequences: Sequences, patch_valid: Tensor) -> Tensor:
        """(R, T) false at padding and at padding patches, of which `patch_valid` is (B, P)."""
        start, valid = sequences.image_start, sequences.segments != PADDING
        patches = patch_valid[sequences.row_images]
        return valid.slice_scatter(patches, dim=1, start=start, end=start + patches.shape[1])

    def read(self, images: Images, sequences: Sequences, cache: Cache | None = None) -> Tensor:
        """Prefill images and token ids: last-layer states (R, T, D), and keys and values into an empty cache."""
        features = self.llava.image_features(images.language_pixels, images.patch_valid)
        embeddings = self.llava.embed(sequences.input_ids, features[sequences.row_images], sequences.image_start)
        valid = self.token_valid(sequences, images.patch_valid)
        visible = visibility(sequences.segments, valid, zero_padding=self.method.padding_attention == "zero")
        return self.llava.hidden_states(embeddings, sequences.positions, visible, cache)

    def sam_features(self, images: Images) -> Tensor:
        """SAM features (B, C, G, G): those that are stored, and SAM's encoder for the other images."""
        if all(features is None for features in images.mask_features):
            return self.sam.image_features(images.mask_pixels)
        encoded = iter(self.sam.image_features(images.mask_pixels) if len(images.mask_pixels) else ())
        return torch.stack([next(encoded) if stored is None else stored for stored in images.mask_features])

    def image_context(
        self, images: Images, sequences: Sequences, hidden: Tensor, sam_features: Tensor | None = None
    ) -> ImageContext:
        """What `segment` needs of images that were read to `hidden` (R, T, D)."""
        start = sequences.image_start
        return ImageContext(
            images=images,
            row_images=sequences.row_images,
            image_states=hidden[:, start : start + images.patch_valid.shape[1]],
            sam_features=self.sam_features(images) if sam_features is None else sam_features,
        )

    def spatial_prior(self, anchors: Tensor, positions: BankPositions, context: ImageContext) -> Prior:
        """Ground the anchors (N, D) of targets in their images' token states."""
        images = context.images
        scores = similarity(anchors, context.image_states[positions.rows])
        valid = images.patch_valid[context.row_images[positions.rows]] if self.method.prior_range == "valid" else None
        responses = min_max(scores, valid)
        maps = tuple(
            geometry.tokens_to_map(of_image.float(), self.config.clip_side, content, size)
            for of_image, content, size in zip(
                responses.split(positions.counts), images.language_sizes, images.sizes, strict=True
            )
        )
        return Prior(similarity=scores, responses=responses, maps=maps)

    def condition(self, features: Tensor, prior: Prior | None) -> Tensor:
        """Add the prior to SAM features (N, C, G, G) of each target's image, element-wise."""
        if prior is None or not self.method.inject_prior:
            return features + self.sam.no_prior_features(len(features))
        side = self.sam.sizes.low_resolution
        prompts = torch.cat([geometry.map_to_prompt(maps, side) for maps in prior.maps])
        return features + self.sam.prior_features(prompts.to(features.dtype))

    def segment(self, hidden: Tensor, positions: BankPositions, context: ImageContext) -> Segmentation:
        """From states to masks: the one path of training, forced evaluation and generation.

        Args:
            hidden: (R, T, D) last-layer states.
            positions: of the N targets' tokens.
            context: the images.
        """
        if len(positions) == 0:
            return self._no_targets(context)
        images = context.images
        bank = self.query_bank(*gather_states(hidden, positions))
        prior = self.spatial_prior(bank.anchors, positions, context) if self.method.spatial_prior else None
        features = context.sam_features[context.row_images[positions.rows]]
        low_resolution, iou = self.sam(self.condition(features, prior), bank.queries)
        masks = tuple(
            geometry.upscale_masks(of_image, self.sam.sizes.image_size, content, size)
            for of_image, content, size in zip(
                low_resolution[:, 0].split(positions.counts), images.mask_sizes, images.sizes, strict=True
            )
        )
        return Segmentation(
            counts=positions.counts, prior=prior, low_resolution=low_resolution[:, 0], iou=iou[:, 0], masks=masks
        )

    def _no_targets(self, context: ImageContext) -> Segmentation:
        """What `segment` gives for no target; no layer runs, for not every CUDA kernel takes an empty batch."""
        features, side, sizes = context.sam_features, self.sam.sizes.low_resolution, context.images.sizes
        maps = tuple(torch.zeros(0, *size, device=features.device) for size in sizes)
        scores = features.new_zeros(0, context.image_states.shape[1])
        return Segmentation(
            counts=(0,) * len(sizes),
            prior=Prior(similarity=scores, responses=scores, maps=maps) if self.method.spatial_prior else None,
            low_resolution=features.new_zeros(0, side, side),
            iou=features.new_zeros(0),
            masks=maps,
        )

    def _stand_in(self, batch: Batch) -> BankPositions:
        """One target without truth for a batch of text only: ranks must run the same graph to reduce gradients."""
        columns = torch.arange(1, self.method.bank_length + 1, device=batch.conversations.input_ids.device)
        return BankPositions(
            rows=torch.zeros_like(columns[:1]),
            columns=columns.unsqueeze(0),
            counts=(1, *[0] * (len(batch.images) - 1)),
        )

    def forward(self, batch: Batch) -> AnchorSegOutput:
        """Read the conversations, decode a mask for each target, give logits where text is supervised."""
        images, conversations = batch.images, batch.conversations
        hidden = self.read(images, conversations)
        targets = conversations.targets
        if len(targets) == 0 and self.training:
            targets = self._stand_in(batch)
        segmentation = self.segment(hidden, targets, self.image_context(images, conversations, hidden))
        rows, columns = conversations.supervised
        return AnchorSegOutput(
            logits=self.llava.logits(hidden[rows, columns]),
            labels=conversations.labels[rows, columns + 1],
            segmentation=segmentation,
        )
