"""How long a query bank is in inference: all K latent tokens, the first N, or as many as a question needs.

A model that was trained with banks of random length (`--bank_length random`) has one set of weights for all of them: of
a bank in the prompt the first k latents and the state after the last of them, as anchor, are those of a bank of k.

Letters: R rows, T positions, N targets, K latent tokens, P image tokens, D language width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from anchorseg.method.query_bank import locate_banks, locate_begun_banks
from dataset.batch import BankPositions
from utils.errors import SettingsError

if TYPE_CHECKING:
    from anchorseg.method.head import ImageContext
    from anchorseg.method.modeling import AnchorSegModel

STEADY = 0.05
"""Mean change of the responses, which are in [0, 1], below which a prior counts as steady."""


@dataclass(frozen=True)
class BankRule:
    """Banks as they are written.

    Attributes:
        latents: how many latent tokens are written; None for K.
        chosen: whether the model itself ends a bank that it writes.
    """

    latents: int | None = None
    chosen = False

    def locate(self, input_ids: Tensor, bank_ids: tuple[int, ...]) -> BankPositions:
        """Where the banks of targets stand; see `query_bank.locate_banks`.

        Args:
            input_ids: (B, T) token ids on the host.
            bank_ids: ids of a bank as it is written, `<SEG>` last.
        """
        return locate_banks(input_ids, bank_ids)

    def shorten(
        self, model: AnchorSegModel, hidden: Tensor, targets: BankPositions, context: ImageContext
    ) -> BankPositions:
        """The targets with the part of their banks that masks are decoded from.

        Args:
            model: in evaluation mode.
            hidden: (R, T, D) last-layer hidden states.
            targets: at least one.
            context: the images.
        """
        return targets


@dataclass(frozen=True)
class ChosenByModel(BankRule):
    """A bank ends behind the first latent after which `<SEG>` is likelier than the next latent."""

    chosen = True

    def locate(self, input_ids: Tensor, bank_ids: tuple[int, ...]) -> BankPositions:
        """See `query_bank.locate_begun_banks`."""
        return locate_begun_banks(input_ids, bank_ids)

    def shorten(
        self, model: AnchorSegModel, hidden: Tensor, targets: BankPositions, context: ImageContext
    ) -> BankPositions:
        """See `BankRule`."""
        if targets.lengths or targets.columns.shape[1] < len(model.bank_ids):  # written so
            return targets
        logits = model.language.logits(_latent_states(hidden, targets))
        return truncated(targets, first_latents(ends(logits, model.bank_ids)))


@dataclass(frozen=True)
class SteadyPrior(BankRule):
    """A bank ends behind the first latent that hardly changes the spatial prior.

    Attributes:
        threshold: mean absolute change of the responses.
    """

    threshold: float = STEADY

    def shorten(
        self, model: AnchorSegModel, hidden: Tensor, targets: BankPositions, context: ImageContext
    ) -> BankPositions:
        """See `BankRule`."""
        anchors = _latent_states(hidden, targets).unbind(dim=1)
        responses = torch.stack([model.head.responses(anchor, targets, context).float() for anchor in anchors], dim=1)
        change = responses.diff(dim=1).abs().sum(dim=2) / _token_counts(targets, context)
        steady = torch.cat([torch.zeros_like(change[:, :1]), change], dim=1) < self.threshold
        steady[:, 0] = False  # nothing stands before it
        return truncated(targets, first_latents(steady))


def bank_rule(text: str, num_latents: int, *, nested: bool) -> BankRule:
    """The rule of `--bank_length`: "full", a number, "auto", "steady", or "steady:" with a threshold.

    Args:
        text: the rule.
        num_latents: K of the model.
        nested: whether it was trained with banks of random length.

    Raises:
        SettingsError: for another text, a number above K, or a model whose banks have one length only.
    """
    kind, _, number = text.partition(":")
    if text == "full":
        return BankRule()
    if num_latents == 0 or not nested:
        raise SettingsError(
            f"--bank_length {text}: all banks of this model have {num_latents} latent tokens; use full, or train with "
            "--bank_length random"
        )
    if text.isdigit() and int(text) <= num_latents:
        return BankRule(latents=int(text))
    if text == "auto":
        return ChosenByModel()
    if kind == "steady" and (not number or number.replace(".", "", 1).isdigit()):
        return SteadyPrior(threshold=float(number or STEADY))
    raise SettingsError(
        f"--bank_length is {text!r}; allowed: full, a number from 0 to {num_latents}, auto, steady, or steady: and a "
        f"threshold, such as steady:{STEADY}"
    )


def ends(logits: Tensor, bank_ids: tuple[int, ...]) -> Tensor:
    """(N, k) whether a bank ends behind each of its first k latents, by the logits (N, k, V) there.

    It does where `<SEG>` is no less likely than what follows in a whole bank, which behind the last latent is `<SEG>`.
    """
    count = logits.shape[1]
    following = logits[:, torch.arange(count), list(bank_ids[1 : count + 1])]
    return logits[:, :, bank_ids[-1]] >= following


def first_latents(stops: Tensor) -> list[int]:
    """Of each target how many latents there are up to the first stop of (N, k), or k; the host waits for them."""
    return torch.where(stops.any(dim=1), stops.long().argmax(dim=1) + 1, stops.shape[1]).tolist()


def truncated(targets: BankPositions, latents: list[int]) -> BankPositions:
    """Targets whose anchor is the state after some of their latents, wherever their `<SEG>` stands.

    Args:
        targets: with K + 1 columns.
        latents: of each target, at most K.
    """
    width = targets.columns.shape[1]
    # States are read one position before a column: the place behind latent k is that of <SEG> in a bank of k.
    chosen = torch.tensor(latents, device=targets.columns.device)
    last = targets.columns.gather(1, chosen.unsqueeze(1))
    return BankPositions(
        rows=targets.rows,
        columns=last + torch.arange(1 - width, 1, device=last.device),
        counts=targets.counts,
        lengths=tuple(count + 1 for count in latents),
    )


def _token_counts(targets: BankPositions, context: ImageContext) -> Tensor | int:
    """How many tokens the image of each target has: P, or (N, 1) where images differ."""
    valid = context.images.patch_valid
    if not context.images.ragged:
        return valid.shape[1]
    return valid.sum(dim=1)[context.row_images[targets.rows]].unsqueeze(1)


def _latent_states(hidden: Tensor, targets: BankPositions) -> Tensor:
    """(N, K, D) states after each latent."""
    return hidden[targets.rows.unsqueeze(1), targets.columns[:, :-1]]
