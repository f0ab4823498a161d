"""The paper's head: the anchor draws a spatial prior, the ordered query bank decodes the mask.

Letters: B images, R rows, T positions, N targets, K latent tokens, P image tokens, D language width, C prompt width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from anchorseg.method import cycle
from anchorseg.method.head import (
    Head,
    ImageContext,
    ImageTruth,
    Prior,
    Segmentation,
    at_image_size,
    decode,
    ground,
    prior_of_nothing,
    responses_of,
)
from anchorseg.method.losses import MaskLoss
from anchorseg.method.options import Method
from anchorseg.method.query_bank import QueryBank, QueryBankProjector, gather_states
from dataset.batch import BankPositions, Images
from model.backbones import MaskBackbone


class AnchorSegHead(Head[Method]):
    """Query bank, spatial prior, and Token-Mask Cycle Consistency, each of which can be switched off."""

    def __init__(self, options: Method, width: int, prompt_width: int) -> None:
        super().__init__(options, width, prompt_width)
        self.query_bank = QueryBankProjector(
            width, prompt_width, options.num_latents, contextual=options.contextual_queries
        )
        self.modules = {"query_bank": self.query_bank}

    def segment(
        self, hidden: Tensor, targets: BankPositions, context: ImageContext, masks: MaskBackbone
    ) -> Segmentation:
        """See `Head`."""
        contextual, anchors = gather_states(hidden, targets)
        prior = self.spatial_prior(anchors, targets, context) if self.options.spatial_prior else None
        injected = prior.maps if prior is not None and self.options.inject_prior else None
        features = masks.condition(context.mask_features[context.row_images[targets.rows]], injected)
        if not targets.lengths:
            bank: QueryBank = self.query_bank(contextual, anchors)
            return decode(masks, features, bank.queries, targets, context.images, prior)
        decoded = []
        groups = of_equal_length(targets.lengths)
        for length, chosen in groups.items():
            at = torch.tensor(chosen, device=hidden.device)
            bank = self.query_bank(contextual[at, contextual.shape[1] + 1 - length :], anchors[at])
            decoded.append(masks(features[at], bank.queries))
        order = torch.tensor([place for chosen in groups.values() for place in chosen], device=hidden.device).argsort()
        low_resolution, iou = (torch.cat(parts)[order] for parts in zip(*decoded, strict=True))
        return at_image_size(masks, low_resolution, iou, targets, context.images, prior)

    def responses(self, anchors: Tensor, targets: BankPositions, context: ImageContext) -> Tensor:
        """The responses (N, P) of `spatial_prior` alone."""
        options = self.options
        return responses_of(
            anchors,
            targets,
            context,
            valid_only=options.prior_range == "valid",
            float32=options.similarity_precision == "float32",
        )[1]

    def spatial_prior(self, anchors: Tensor, targets: BankPositions, context: ImageContext) -> Prior:
        """Ground the anchors (N, D) of targets in their images' token states (paper, Eq. 6 and 7)."""
        options = self.options
        return ground(
            anchors,
            targets,
            context,
            valid_only=options.prior_range == "valid",
            float32=options.similarity_precision == "float32",
        )

    def no_prior(self, context: ImageContext, maps: tuple[Tensor, ...]) -> Prior | None:
        """See `Head`."""
        return prior_of_nothing(context, maps) if self.options.spatial_prior else None

    def losses(self, segmentation: Segmentation, truth: ImageTruth, images: Images) -> dict[str, MaskLoss | Tensor]:
        """Token-Mask Cycle Consistency, `t2m` and `m2t` (paper, Eq. 9 to 11)."""
        options, prior = self.options, segmentation.prior
        terms: dict[str, MaskLoss | Tensor] = {}
        if prior is not None and options.token_to_mask:
            maps = prior.maps[truth.image][truth.kept]
            terms["t2m"] = cycle.token_to_mask(
                maps,
                truth.masks,
                scale=options.cycle_scale,
                shift=options.cycle_shift,
                ignore=truth.ignore,
                box=truth.box,
            )
        if prior is not None and options.mask_to_token:
            terms["m2t"] = cycle.mask_to_token(
                prior.responses.split(segmentation.counts)[truth.image][truth.kept].float(),
                truth.masks,
                images.language_frames[truth.image],
                sigma=options.token_sigma,
                target_sampling=options.token_target,
                target_precision=options.token_target_precision,
                scale=options.cycle_scale,
                shift=options.cycle_shift,
                ignore=truth.ignore,
                patch_valid=images.patch_valid[truth.image] if options.prior_range == "valid" else None,
            )
        return terms

    def trained(self) -> dict[str, list[nn.Parameter]]:
        """See `Head`."""
        return self.query_bank.groups()


def of_equal_length(lengths: Sequence[int]) -> dict[int, list[int]]:
    """Which banks have each length; SAM's decoder has no mask that would hide queries of a longer one."""
    return {length: [place for place, own in enumerate(lengths) if own == length] for length in sorted(set(lengths))}
