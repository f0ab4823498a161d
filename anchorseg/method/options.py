"""What decides the method and its objective, declared apart from torch, so that a command line is read at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from utils.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class MethodOptions(Settings):
    """What every head has: the tokens of a target, and how images and masks are read.

    `INFERENCE` names the options that trained weights depend on; the others decide how to train only.
    """

    GROUP: ClassVar[str] = "method"
    INFERENCE: ClassVar[tuple[str, ...]] = (
        "num_latents",
        "clip_statistics",
        "padding_attention",
        "sam_position_precision",
    )

    num_latents: int = setting(0, help="K; a target writes K latent tokens and <SEG>", minimum=0, maximum=255)
    clip_statistics: Literal["clip", "sam"] = setting(
        "clip", help="normalization of the language backbone's view; published: sam"
    )
    padding_attention: Literal["zero", "plain"] = setting(
        "zero", help="attention output of padding patches: zero, as under variable-length flash attention, or plain"
    )
    void_pixels: Literal["background", "ignore"] = setting(
        "background", help="ignore pixels in training: background, or left out of every mask term"
    )
    sam_position_precision: Literal["float32", "weights"] = setting(
        "float32", help="dtype of SAM's encoding of positions; published: that of the weights"
    )

    @property
    def bank_size(self) -> int:
        """Tokens of one target, K + 1."""
        return self.num_latents + 1

    def token_counts(self) -> tuple[int, int]:
        """Latent tokens and anchors of one target."""
        return self.num_latents, self.bank_size - self.num_latents

    @property
    def left_out(self) -> tuple[str, ...]:
        """Groups of parameters, by their names in `trainable_groups`, that are zero and do not train."""
        return ()


@dataclass(frozen=True, kw_only=True)
class Method(MethodOptions):
    """What the paper switches in its ablations, and the options where releases differ from this project."""

    INFERENCE: ClassVar[tuple[str, ...]] = (
        *MethodOptions.INFERENCE,
        "contextual_queries",
        "spatial_prior",
        "inject_prior",
        "prior_range",
        "similarity_precision",
        "num_anchors",
        "anchor_priors",
        "anchor_merge",
    )

    num_latents: int = setting(
        7, help="K; the query bank has K + 1 queries (Table 4: 3, 7, 15, 31)", minimum=0, maximum=255
    )
    num_anchors: int = setting(1, help="A; anchors of a target, each with a prior of its own", minimum=1, maximum=64)
    anchor_priors: Literal["each", "fused"] = setting(
        "each", help="each: a mask for each anchor, merged by their union; fused: the priors become one (Eq. 15)"
    )
    anchor_instances: bool = setting(
        False,
        help="with anchor_priors each, match anchors with the objects of a target (a polygon each in reason_seg, an "
        "annotation each in refer_seg and COCO files, a target each in MUSE), and train the mask of each with its own",
    )
    anchor_merge: Literal["union", "nms"] = setting(
        "union", help="with anchor_priors each, a target's mask unites all anchors' masks, or those that NMS keeps"
    )
    anchor_diversity: float = setting(
        0.0, help="share of the BCE weight for the similarity of a target's priors to each other", minimum=0
    )
    bank_length: Literal["full", "random"] = setting(
        "full", help="full: every bank has K latent tokens; random: 1 to K, drawn for each conversation"
    )
    contextual_queries: bool = setting(
        True, help="give the K contextual queries to the mask decoder (Table 5, Exp. 4 when off)"
    )
    spatial_prior: bool = setting(True, help="compute the similarity of anchor and image tokens")
    inject_prior: bool = setting(True, help="add the prior to the image features (Table 5, Exp. 2 when off)")
    token_to_mask: bool = setting(True, help="train token-to-mask consistency (Table 6)")
    mask_to_token: bool = setting(True, help="train mask-to-token consistency (Table 6)")
    prior_range: Literal["all", "valid"] = setting(
        "all", help="patches over which the prior is scaled to [0, 1]: all, or those that show the image"
    )
    similarity_precision: Literal["weights", "float32"] = setting(
        "weights", help="dtype in which anchor and image tokens are compared; published: that of the weights"
    )
    token_sigma: float = setting(
        7.0, help="standard deviation of the mask-to-token target's Gaussian, in patches", above=0
    )
    token_target: Literal["nearest", "area"] = setting(
        "nearest", help="how a mask reaches the patch grid: nearest pixel, or area, which keeps small objects"
    )
    token_target_precision: Literal["float32", "bf16"] = setting(
        "float32", help="dtype that the mask-to-token target is rounded to; published: bf16"
    )
    cycle_scale: float = setting(1.0, help="cycle logits are scale * r + shift; published: 1 and 0", above=0)
    cycle_shift: float = setting(0.0, help="see --cycle_scale")

    @property
    def bank_size(self) -> int:
        """Tokens of one target, K + A."""
        return self.num_latents + self.num_anchors

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_anchors > 1 and not (self.spatial_prior and self.contextual_queries and self.num_latents):
            raise ValueError(
                f"num_anchors is {self.num_anchors}, and each has a prior of its own and shares the latent queries; "
                "leave spatial_prior and contextual_queries on and num_latents above 0, or use one anchor"
            )
        if self.anchor_instances and (self.num_anchors == 1 or self.anchor_priors == "fused"):
            raise ValueError("anchor_instances needs several anchors that decode a mask each; set num_anchors above 1")
        if self.num_anchors > 1 and self.bank_length == "random":
            raise ValueError(f"num_anchors is {self.num_anchors}, which bank_length random does not go with; use full")
        if self.bank_length == "random" and not (self.num_latents and self.contextual_queries):
            raise ValueError(
                f"bank_length random draws how many latent queries a bank has, but num_latents is {self.num_latents} "
                f"and contextual_queries is {'on' if self.contextual_queries else 'off'}; use bank_length full"
            )
        needs_prior = {
            "inject_prior": self.inject_prior,
            "token_to_mask": self.token_to_mask,
            "mask_to_token": self.mask_to_token,
        }
        if not self.spatial_prior and any(needs_prior.values()):
            names = ", ".join(name for name, on in needs_prior.items() if on)
            raise ValueError(f"spatial_prior is off, but {names} needs it; switch these off too, or the prior on")


@dataclass(frozen=True, kw_only=True)
class LisaOptions(MethodOptions):
    """The single-token baseline."""

    INFERENCE: ClassVar[tuple[str, ...]] = (*MethodOptions.INFERENCE, "position_tables", "clip_view")

    position_tables: bool = setting(
        True, help="add AnchorSeg's tables of positions to the query and to SAM's mask tokens; the originals: off"
    )
    clip_view: Literal["padded", "crop"] = setting(
        "padded", help="how the language backbone sees an image: padded, or its middle, as CLIP's own preprocessing"
    )
    unused_latents: bool = setting(
        False, help="write K latent tokens before <SEG> and use none of them, as AnchorSeg's copies of its baselines do"
    )

    @property
    def left_out(self) -> tuple[str, ...]:
        """See `MethodOptions`."""
        return () if self.position_tables else ("query positions", "mask-token table")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_latents and not self.unused_latents:
            raise ValueError(
                f"num_latents is {self.num_latents}, but this head uses no latent tokens; use 0, or unused_latents to "
                "write them all the same"
            )


@dataclass(frozen=True, kw_only=True)
class GsvaOptions(LisaOptions):
    """GSVA: several expressions in a question, each answered by `<SEG>` or by `<REJ>`."""

    rejected_masks: Literal["counted", "left_out"] = setting(
        "counted",
        help="an expression that is rejected counts in the mean of the mask terms, as a mask of zero logits (GSVA), "
        "or does not (AnchorSeg's copy of it)",
    )


@dataclass(frozen=True, kw_only=True)
class ReadOptions(LisaOptions):
    """READ: the similarity of `<SEG>` and image tokens prompts the decoder as points."""

    INFERENCE: ClassVar[tuple[str, ...]] = (
        *LisaOptions.INFERENCE,
        "points",
        "point_divisor",
        "point_positive",
        "point_negative",
        "point_places",
    )

    points: int = setting(30, help="most points of a target", minimum=1)
    point_divisor: int = setting(
        2, help="the grid of image tokens is divided by so much for choosing points", minimum=1
    )
    point_positive: float = setting(0.8, help="similarity, scaled to [0, 1], from which a cell is a positive point")
    point_negative: float = setting(0.2, help="similarity up to which a cell is a negative point")
    point_places: Literal["pixels", "grid"] = setting(
        "pixels", help="where points lie: expected pixels, as in READ's own code, or cells, as in AnchorSeg's"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.point_negative < self.point_positive <= 1:
            raise ValueError(
                f"point_negative is {self.point_negative} and point_positive {self.point_positive}; they must be in "
                "[0, 1], the first below the second"
            )


@dataclass(frozen=True, kw_only=True)
class PixelOptions(MethodOptions):
    """PixelLM: tokens of a codebook, the first half for the coarse scale and the second for the fine one."""

    INFERENCE: ClassVar[tuple[str, ...]] = (*MethodOptions.INFERENCE, "codebook_weights")

    codebook_weights: Literal["trained", "constant"] = setting(
        "trained", help="weights of a codebook's tokens; constant is PixelLM's code, in which they are not registered"
    )
    overlap_loss: bool = setting(
        False,
        help="train BCE once more where masks of a conversation overlap (in PixelLM's paper, not in its code)",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_latents % 2 == 0:
            raise ValueError(
                f"num_latents is {self.num_latents}, so a target has {self.bank_size} tokens, which two scales do not "
                "share; PixelLM has 6, num_latents 5"
            )


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the terms; the defaults are the paper's Table 10 (the published 7B ReasonSeg run used dice 2)."""

    ce: float = 1.0
    bce: float = 2.0
    dice: float = 4.0
