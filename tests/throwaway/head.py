"""A head of one file: two tokens a target, the mean of both states as the query, one loss term of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from anchorseg.method.head import Head, decode
from anchorseg.method.losses import mask_loss
from anchorseg.method.options import MethodOptions
from anchorseg.method.query_bank import gather_states
from utils.settings import setting


@dataclass(frozen=True, kw_only=True)
class MeanOptions(MethodOptions):
    INFERENCE: ClassVar[tuple[str, ...]] = (*MethodOptions.INFERENCE, "temperature")
    temperature: float = setting(1.0, help="of the auxiliary masks", above=0)


class MeanHead(Head[MeanOptions]):
    def __init__(self, options, width, prompt_width):
        super().__init__(options, width, prompt_width)
        self.project = nn.Linear(width, prompt_width)
        self.modules = {"mean_query": self.project}

    def segment(self, hidden, targets, context, masks):
        contextual, anchors = gather_states(hidden, targets)
        queries = self.project((contextual.mean(dim=1) + anchors) / 2).unsqueeze(1)
        features = masks.condition(context.mask_features[context.row_images[targets.rows]], None)
        return decode(masks, features, queries, targets, context.images)

    def losses(self, segmentation, truth, images):
        logits = segmentation.masks[truth.image][truth.kept] / self.options.temperature
        return {"soft": mask_loss(logits, truth.masks)}
