"""The paper's head: the anchor draws a spatial prior, the ordered query bank decodes the mask.

Letters: B images, R rows, T positions, N targets, K latent tokens, P image tokens, D language width, C prompt width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from anchorseg.method import cycle
from anchorseg.method.anchors import AnchorFusion, kept_by_nms, likeness, matched_loss, one_each, union
from anchorseg.method.head import (
    Head,
    ImageContext,
    ImageTruth,
    Prior,
    Segmentation,
    at_image_size,
    decode,
    ground,
    maps_of,
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
            width,
            prompt_width,
            options.num_latents,
            contextual=options.contextual_queries,
            num_anchors=options.num_anchors,
        )
        self.modules = {"query_bank": self.query_bank}
        if options.num_anchors > 1 and options.anchor_priors == "fused":
            self.fusion = AnchorFusion(options.num_anchors)
            self.modules["anchor_fusion"] = self.fusion

    def segment(
        self, hidden: Tensor, targets: BankPositions, context: ImageContext, masks: MaskBackbone
    ) -> Segmentation:
        """See `Head`."""
        if self.options.num_anchors > 1:
            return self._of_several_anchors(hidden, targets, context, masks)
        contextual, anchors = gather_states(hidden, targets)
        prior = self.spatial_prior(anchors, targets, context) if self.options.spatial_prior else None
        features = self._conditioned(prior, targets, context, masks)
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

    def _of_several_anchors(
        self, hidden: Tensor, targets: BankPositions, context: ImageContext, masks: MaskBackbone
    ) -> Segmentation:
        """`segment` for A anchors a target (paper, appendix C.2)."""
        before, last = gather_states(hidden, targets)
        contextual, further = before.split([self.options.num_latents, self.options.num_anchors - 1], dim=1)
        anchors = torch.cat([further, last.unsqueeze(1)], dim=1)
        count = anchors.shape[1]
        alone = one_each(targets, count)
        each = self.spatial_prior(anchors.flatten(0, 1), alone, context)
        if self.options.anchor_priors == "fused":
            responses = self._fused(each.responses.unflatten(0, (-1, count)), targets, context.images)
            similarity = each.similarity.unflatten(0, (-1, count)).mean(dim=1)
            maps = maps_of(responses, targets, context.images)
            prior = Prior(similarity=similarity, responses=responses, maps=maps, anchors=each)
            features = self._conditioned(prior, targets, context, masks)
            return decode(
                masks, features, self.query_bank.together(contextual, anchors), targets, context.images, prior
            )
        features = self._conditioned(each, alone, context, masks)
        decoded = masks(features, self.query_bank.one_each(contextual, anchors))
        low_each, iou_each = (part[:, :1].unflatten(0, (-1, count)) for part in decoded)
        if self.options.anchor_merge == "nms":
            kept = kept_by_nms(low_each[:, :, 0], iou_each[:, :, 0])
            low_each = low_each.masked_fill(~kept[:, :, None, None, None], torch.finfo(low_each.dtype).min)
        low_resolution, iou = low_each.amax(dim=1), iou_each.amax(dim=1)
        made = at_image_size(masks, low_resolution, iou, targets, context.images, union(each, count))
        if not self.options.anchor_instances:
            return made
        of_anchors = at_image_size(masks, *decoded, alone, context.images).masks
        return replace(made, parts=tuple(part.unflatten(0, (-1, count)) for part in of_anchors))

    def _fused(self, responses: Tensor, targets: BankPositions, images: Images) -> Tensor:
        """Responses (N, P) of one prior from those of A anchors, (N, A, P); image by image where grids differ."""
        if len(set(images.grids)) == 1:
            return self.fusion(responses, images.grids[0])
        of_images = zip(responses.split(targets.counts), images.language_frames, strict=True)
        longest = responses.shape[2]
        return torch.cat(
            [
                pad(self.fusion(part[..., : frame.num_tokens], frame.grid), (0, longest - frame.num_tokens))
                for part, frame in of_images
                if len(part)
            ]
        )

    def _conditioned(
        self, prior: Prior | None, targets: BankPositions, context: ImageContext, masks: MaskBackbone
    ) -> Tensor:
        injected = prior.maps if prior is not None and self.options.inject_prior else None
        return masks.condition(context.mask_features[context.row_images[targets.rows]], injected)

    def responses(self, anchors: Tensor, targets: BankPositions, context: ImageContext) -> Tensor:
        """The responses (N, P) of `spatial_prior` alone."""
        return responses_of(anchors, targets, context, **self._comparison)[1]

    def spatial_prior(self, anchors: Tensor, targets: BankPositions, context: ImageContext) -> Prior:
        """Ground the anchors (N, D) of targets in their images' token states (paper, Eq. 6 and 7)."""
        return ground(anchors, targets, context, **self._comparison)

    @property
    def _comparison(self) -> dict[str, bool]:
        """How anchors are compared with token states; see `ground`."""
        options = self.options
        return {
            "valid_only": options.prior_range == "valid",
            "float32": options.similarity_precision == "float32",
        }

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
        if segmentation.parts and truth.instances:
            terms["instance"] = matched_loss(segmentation.parts[truth.image][truth.kept], truth.instances)
        if prior is not None and prior.anchors is not None and options.anchor_diversity:
            each = prior.anchors.responses.unflatten(0, (-1, options.num_anchors))
            of_image = each.split(segmentation.counts)[truth.image][truth.kept]
            terms["likeness"] = options.anchor_diversity * likeness(of_image)
        return terms

    def trained(self) -> dict[str, list[nn.Parameter]]:
        """See `Head`."""
        groups = self.query_bank.groups()
        if "anchor_fusion" in self.modules:
            groups["anchor fusion"] = list(self.modules["anchor_fusion"].parameters())
        return groups


def of_equal_length(lengths: Sequence[int]) -> dict[int, list[int]]:
    """Which banks have each length; SAM's decoder has no mask that would hide queries of a longer one."""
    return {length: [place for place, own in enumerate(lengths) if own == length] for length in sorted(set(lengths))}
