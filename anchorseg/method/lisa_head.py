"""LISA's head: the hidden state of one `<SEG>` is the only query, and the image features stay as they are.

Letters: N targets, D language width, C prompt width.
"""

from __future__ import annotations

from torch import Tensor, nn

from anchorseg.method.head import Head, ImageContext, Options, Segmentation, decode
from anchorseg.method.query_bank import QueryBankProjector, gather_states
from dataset.batch import BankPositions
from model.backbones import MaskBackbone


class SingleQueryHead(Head[Options]):
    """A head whose weights are those of `AnchorSegHead` without latents and prior: the projection of `<SEG>`."""

    def __init__(self, options: Options, width: int, prompt_width: int) -> None:
        super().__init__(options, width, prompt_width)
        self.query = QueryBankProjector(width, prompt_width, num_latents=0, contextual=False)
        self.modules = {"query_bank": self.query}

    def trained(self) -> dict[str, list[nn.Parameter]]:
        """See `Head`."""
        return self.query.groups()


class LisaHead(SingleQueryHead[Options]):
    """The baseline."""

    def segment(
        self, hidden: Tensor, targets: BankPositions, context: ImageContext, masks: MaskBackbone
    ) -> Segmentation:
        """See `Head`."""
        queries = self.query(*gather_states(hidden, targets)).queries
        features = masks.condition(context.mask_features[context.row_images[targets.rows]], None)
        return decode(masks, features, queries, targets, context.images)
