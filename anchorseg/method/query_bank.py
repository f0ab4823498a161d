"""Query bank: gather the contextual states and the anchor by token id, project them, add their order.

Letters: R rows, N targets, K latent tokens, T positions, D language width, C prompt width (256).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dataset.batch import BankPositions


class QueryBank(NamedTuple):
    """Ordered queries (N, L, C) for the mask decoder, and the anchor states (N, D) for the spatial prior.

    A tuple and no dataclass, in which DeepSpeed does not find the tensors: ZeRO stage 3 would not gather the positions
    for the backward pass.
    """

    queries: Tensor
    anchors: Tensor


def locate_banks(input_ids: Tensor, bank_ids: tuple[int, ...]) -> BankPositions:
    """Find every target that the model wrote by its ids, one row for each image; the host waits for the device.

    Args:
        input_ids: (B, T) token ids.
        bank_ids: the K + 1 ids of one target, `<SEG>` last.

    Raises:
        ValueError: if a `<SEG>` is not directly preceded by the K latent ids in order.
    """
    rows, ends = (input_ids == bank_ids[-1]).nonzero(as_tuple=True)
    columns = ends.unsqueeze(1) + torch.arange(1 - len(bank_ids), 1, device=input_ids.device)
    found = input_ids[rows.unsqueeze(1), columns.clamp(min=0)]
    expected = torch.tensor(bank_ids, device=input_ids.device)
    if bool((columns < 1).any()) or bool((found != expected).any()):
        wrong = int(((found != expected) | (columns < 1)).any(dim=1).nonzero()[0])
        raise ValueError(
            f"row {int(rows[wrong])}, position {int(columns[wrong, -1])}: <SEG> (id {bank_ids[-1]}) follows ids "
            f"{found[wrong, :-1].tolist()}, but must follow the latent ids {list(bank_ids[:-1])}; "
            "check that tokenizer and model have the same number of latent tokens"
        )
    counts = tuple(torch.bincount(rows, minlength=len(input_ids)).tolist())
    return BankPositions(rows=rows, columns=columns, counts=counts)


def locate_begun_banks(input_ids: Tensor, bank_ids: tuple[int, ...]) -> BankPositions:
    """`locate_banks` for banks of any length, whose first latent ids `<SEG>` follows.

    Args:
        input_ids: (B, T) token ids on the host.
        bank_ids: the K + 1 ids of a whole bank.

    Raises:
        ValueError: if a `<SEG>` follows a latent id that does not follow those before it.
    """
    *latents, segment = bank_ids
    order = {index: place for place, index in enumerate(latents, 1)}
    places = (input_ids == segment).nonzero().tolist()
    lengths = []
    for row, end in places:
        count = order.get(int(input_ids[row, end - 1]), 0) if end else 0
        if input_ids[row, max(end - count, 0) : end].tolist() != latents[:count]:
            raise ValueError(f"row {row}, position {end}: <SEG> follows the latent {count} without those before it")
        lengths.append(count + 1)
    rows, ends = torch.tensor(places, dtype=torch.long).reshape(-1, 2).unbind(dim=1)
    return BankPositions(
        rows=rows,
        columns=ends.unsqueeze(1) + torch.arange(1 - max(lengths, default=len(bank_ids)), 1),
        counts=tuple(torch.bincount(rows, minlength=len(input_ids)).tolist()),
        lengths=tuple(lengths) if len(set(lengths)) > 1 else (),
    )


def gather_states(hidden: Tensor, positions: BankPositions) -> tuple[Tensor, Tensor]:
    """States that *predict* the bank's tokens: one position before each (released weights depend on it).

    Args:
        hidden: (R, T, D) last-layer hidden states.
        positions: of the N targets.

    Returns:
        contextual (N, K, D) and anchor (N, D).
    """
    states = hidden[positions.rows.unsqueeze(1), positions.columns - 1]
    return states[:, :-1], states[:, -1]


def projection(width: int, prompt_width: int) -> nn.Sequential:
    """LISA's projection of states (..., D) to queries (..., C)."""
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, prompt_width))


class QueryBankProjector(nn.Module):
    """Q = [g(c_1), ..., g(c_K), f(a)] + E (paper, Eq. 5, and section 3.2 on positional embeddings).

    Of a bank with k < K latents these take E's first k rows, and the anchor its last one.

    Args:
        width: D.
        prompt_width: C.
        num_latents: K.
        contextual: whether the contextual queries are part of the bank; the anchor alone takes E's first row.
        num_anchors: A, each with a row of E.
    """

    def __init__(
        self, width: int, prompt_width: int, num_latents: int, *, contextual: bool, num_anchors: int = 1
    ) -> None:
        super().__init__()
        self.anchor_projection = projection(width, prompt_width)
        self.contextual_projection = projection(width, prompt_width) if contextual and num_latents else None
        self.positions = nn.Parameter(torch.randn(num_latents + num_anchors, prompt_width) * prompt_width**-0.5)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Its parameters, by name of the group."""
        projections = [part for part in (self.anchor_projection, self.contextual_projection) if part is not None]
        return {
            "query projections": [parameter for part in projections for parameter in part.parameters()],
            "query positions": [self.positions],
        }

    def forward(self, contextual: Tensor, anchors: Tensor) -> QueryBank:
        """Project contextual (N, k, D) and anchor (N, D) states to the ordered bank."""
        queries = self.anchor_projection(anchors).unsqueeze(1)
        positions: Tensor = self.positions
        project: nn.Module | None = self.contextual_projection
        if project is None:
            return QueryBank(queries + positions[:1], anchors)
        queries = torch.cat([project(contextual), queries], dim=1)
        latents = contextual.shape[1]
        if latents < len(positions) - 1:
            positions = torch.cat([positions[:latents], positions[-1:]])
        return QueryBank(queries + positions, anchors)

    def together(self, contextual: Tensor, anchors: Tensor) -> Tensor:
        """One bank (N, K + A, C) of contextual (N, K, D) states and all anchors (N, A, D) of a target."""
        assert self.contextual_projection is not None
        queries = torch.cat([self.contextual_projection(contextual), self.anchor_projection(anchors)], dim=1)
        return queries + self.positions

    def one_each(self, contextual: Tensor, anchors: Tensor) -> Tensor:
        """A bank (N A, K + 1, C) for each anchor; those of a target share its contextual queries."""
        latents, count = contextual.shape[1], anchors.shape[1]
        queries = self.together(contextual, anchors)
        shared = queries[:, :latents].unsqueeze(1).expand(-1, count, -1, -1)
        return torch.cat([shared, queries[:, latents:].unsqueeze(2)], dim=2).flatten(0, 1)
