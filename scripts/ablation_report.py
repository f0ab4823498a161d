"""Rows of the ablations, and the table and plot of their results."""

from __future__ import annotations
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One row of the paper's tables, or one beside them.

    Attributes:
        name: of its folder.
        title: what it is, for the table.
        flags: of train_ds.py, beside the preset's.
        paper: gIoU and cIoU on ReasonSeg val that the paper states, in percent; None where it states none.
    """

    name: str
    title: str
    flags: tuple[str, ...] = ()
    paper: tuple[float, float] | None = None


# The paper's formulas; the grid has 9 x 9 patches in place of 24 x 24, and the Gaussian's width follows.
_PAPER = ("--cycle_scale", "1", "--cycle_shift", "0", "--token_target", "nearest", "--token_sigma", "2.625")
_NO_CYCLE = ("--no_token_to_mask", "--no_mask_to_token")

FULL = "full"
"""The row that all others are compared with."""
ROWS = (
    Row(FULL, "full: 8 queries, prior, both cycles (Exp. 5)", _PAPER, (68.3, 75.9)),
    Row("bank_4", "Table 4: 4 queries", (*_PAPER, "--num_latents", "3"), (64.8, 73.4)),
    Row("bank_16", "Table 4: 16 queries", (*_PAPER, "--num_latents", "15"), (64.1, 72.8)),
    Row("bank_32", "Table 4: 32 queries", (*_PAPER, "--num_latents", "31"), (67.4, 71.3)),
    Row(
        "exp_1", "Table 5, Exp. 1: no prior, no cycles",
        (*_PAPER, *_NO_CYCLE, "--no_inject_prior", "--no_spatial_prior"), (51.8, 61.4),
    ),
    Row("exp_2", "Table 5, Exp. 2: prior not given to SAM", (*_PAPER, "--no_inject_prior"), (58.4, 66.3)),
    Row("exp_3", "Table 5, Exp. 3: prior, no cycles", (*_PAPER, *_NO_CYCLE), (68.3, 71.6)),
    Row("exp_4", "Table 5, Exp. 4: no contextual queries", (*_PAPER, "--no_contextual_queries"), (67.5, 74.0)),
    Row("token_to_mask", "Table 6: token-to-mask alone", (*_PAPER, "--no_mask_to_token"), (67.4, 73.8)),
    Row("mask_to_token", "Table 6: mask-to-token alone", (*_PAPER, "--no_token_to_mask"), (64.4, 68.2)),
    Row("lisa", "LISA: one token, no prior", ("--head", "lisa", "--num_latents", "0")),
    Row("improved", "improved: scaled cycle logits, area target", ("--prior_range", "valid", "--void_pixels", "ignore")),
)  # fmt: skip


def write_report(root):
    return ""
