"""READ's head: where `<SEG>` resembles the image, points prompt the mask decoder beside it.

The view is padded here, where READ's own code crops the centre of the image: points come from the whole image.

Letters: N targets, n targets of an image, P points, D language width, C prompt width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from anchorseg.method.head import ImageContext, Prior, Segmentation, at_image_size, ground, prior_of_nothing
from anchorseg.method.lisa_head import SingleQueryHead
from anchorseg.method.options import ReadOptions
from anchorseg.method.points import Cells, Points, cropped_cells, points_on_grid, points_on_pixels, shrink, valid_cells
from anchorseg.method.query_bank import gather_states
from anchorseg.method.spatial_prior import min_max
from dataset.batch import BankPositions
from model.backbones import MaskBackbone
from utils.geometry import Frame, Size


class ReadHead(SingleQueryHead[ReadOptions]):
    """LISA's head with points; its weights are LISA's."""

    def segment(
        self, hidden: Tensor, targets: BankPositions, context: ImageContext, masks: MaskBackbone
    ) -> Segmentation:
        """See `Head`; images are decoded one by one, for they may have different numbers of points."""
        images = context.images
        bank = self.query(*gather_states(hidden, targets))
        prior = ground(bank.anchors, targets, context, valid_only=True)
        features = masks.condition(context.mask_features[context.row_images[targets.rows]], None)
        decoded = []
        for image, (scores, maps, queries, of_image) in enumerate(
            zip(
                prior.similarity.split(targets.counts),
                prior.maps,
                bank.queries.split(targets.counts),
                features.split(targets.counts),
                strict=True,
            )
        ):
            if len(queries) == 0:
                continue
            size, frame = images.sizes[image], images.mask_frames[image]
            grid = images.language_frames[image]
            points = self.points(scores[:, : grid.num_tokens], maps, grid, size)
            in_view = points.coordinates * points.coordinates.new_tensor(
                [frame.content[1] / size[1], frame.content[0] / size[0]]
            )
            prompts = masks.point_prompts(in_view, points.labels).to(queries.dtype)
            decoded.append(masks(of_image, torch.cat([prompts, queries], dim=1)))
        low_resolution, iou = (torch.cat(parts) for parts in zip(*decoded, strict=True))
        return at_image_size(masks, low_resolution, iou, targets, images, prior)

    def points(self, scores: Tensor, maps: Tensor, frame: Frame, size: Size) -> Points:
        """Points of one image's targets.

        Args:
            scores: (n, P) similarity of image tokens.
            maps: (n, H, W) similarity of pixels in [0, 1].
            frame: of the view that the tokens come from.
            size: (H, W).
        """
        options = self.options
        grid = shrink(scores.float().unflatten(1, frame.grid), options.point_divisor)
        limits = {"positive": options.point_positive, "negative": options.point_negative}
        if options.clip_view == "crop" and options.point_places == "pixels":
            return points_on_pixels(
                Cells(_scaled(grid), *cropped_cells(grid.shape[1], size)), maps, options.points, **limits
            )
        # A view without padding shows the image in all its cells.
        rows, columns = valid_cells(size, grid.shape[1]) if frame.padded else grid.shape[1:]
        if options.point_places == "grid":
            return points_on_grid(_scaled(grid)[:, :rows, :columns], size, options.points, **limits)
        cells = Cells(_scaled(grid[:, :rows, :columns]), (0, 0), (rows, columns))
        return points_on_pixels(cells, maps, options.points, **limits)

    def no_prior(self, context: ImageContext, maps: tuple[Tensor, ...]) -> Prior | None:
        """See `Head`."""
        return prior_of_nothing(context, maps)


def _scaled(maps: Tensor) -> Tensor:
    return min_max(maps.flatten(1)).view_as(maps)
