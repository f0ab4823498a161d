"""The plain way, as published code works: the reference of the benchmarks. It has this model's weights and its loss.

Every conversation is a row with an image of its own, which all of CLIP reads again; the language model is recomputed in
the backward pass; all positions get logits; SAM's encoder is segment-anything's own, once an image. Losses are their
formulas in torch's functions, over whole maps.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from anchorseg.inference.grammar import BankGrammar, Generated
from anchorseg.method import cycle
from anchorseg.method.losses import DICE_SMOOTH
from anchorseg.method.modeling import AnchorSegModel, AnchorSegOutput, visibility
from anchorseg.method.objective import LossWeights
from anchorseg.method.query_bank import locate_banks
from dataset.batch import IGNORED_LABEL, Batch
from model.fused_norms import FusedRMSNorm
from model.sam import SamBackbone
from utils import geometry


@lru_cache(maxsize=1)
def published_encoder(sam: SamBackbone) -> nn.Module:
    """segment-anything's encoder as it is installed, with the very weights of this one, frozen; made once."""
    sizes = sam.sizes
    modeling = importlib.import_module("segment_anything.modeling")  # there since model.sam was imported
    with torch.device("meta"):
        encoder = modeling.ImageEncoderViT(
            img_size=sizes.image_size,
            patch_size=sizes.patch_size,
            embed_dim=sizes.encoder_width,
            depth=sizes.encoder_depth,
            num_heads=sizes.encoder_heads,
            out_chans=sizes.prompt_width,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=sizes.window_size,
            global_attn_indexes=sizes.global_attention,
        )
    encoder.load_state_dict(sam.image_encoder.state_dict(), assign=True)
    return encoder.requires_grad_(False)


@contextmanager
def published(model: AnchorSegModel) -> Iterator[None]:
    """Within, SAM's encoder and RMSNorm are the published ones, and layers are recomputed in backward.

    The checkpoints are reentrant, the only kind in the transformers releases of the time. A checkpoint that is
    not reentrant leaves out a layer's last product, whose result backward does not need.
    """
    language_model, encoder = model.llava.language_model, model.sam.image_encoder
    model.sam.image_encoder = published_encoder(model.sam)
    fused, FusedRMSNorm.forward = FusedRMSNorm.forward, LlamaRMSNorm.forward  # type: ignore[method-assign]
    language_model.activation_checkpointing_enable({"use_reentrant": True})
    try:
        yield
    finally:
        language_model.activation_checkpointing_disable()
        model.sam.image_encoder = encoder
        FusedRMSNorm.forward = fused  # type: ignore[method-assign]


def clip_features(model: AnchorSegModel, pixels: Tensor, patch_valid: Tensor) -> Tensor:
    """`LlavaBackbone.image_features` by transformers' own way, which runs CLIP's last layer for nothing."""
    keys = torch.cat([patch_valid.new_ones(len(patch_valid), 1), patch_valid], dim=1)
    outputs = model.llava.network.model.get_image_features(pixels, attention_mask=keys[:, None, None, :])
    return torch.stack(outputs.pooler_output)


def forward(model: AnchorSegModel, batch: Batch) -> AnchorSegOutput:
    """What `AnchorSegModel.forward` gives for the same conversations, nothing shared.

    Args:
        model: of any size, within `published`.
        batch: collated with `share_prefix=False`.
    """
    images, asked = batch.images, batch.conversations
    rows = asked.row_images
    features = clip_features(model, images.language_pixels[rows], images.patch_valid[rows])
    embeddings = model.llava.embed(asked.input_ids, features, asked.image_start)
    valid = model.token_valid(asked, images.patch_valid)
    visible = visibility(asked.segments, valid, zero_padding=model.method.padding_attention == "zero")
    hidden = model.llava.hidden_states(embeddings, asked.positions, visible)
    logits = model.llava.logits(hidden)
    next_labels = asked.labels[:, 1:]
    supervised = next_labels != IGNORED_LABEL
    return AnchorSegOutput(
        logits=logits[:, :-1][supervised],
        labels=next_labels[supervised],
        segmentation=model.segment(hidden, asked.targets, model.image_context(images, asked, hidden)),
    )


@torch.inference_mode()
def one_by_one(
    model: AnchorSegModel, batch: Batch, *, max_new_tokens: int = 128, answer: list[int] | None = None
) -> Generated:
    """The plain way, as reference: one question in its whole prompt, every id a step of its own.

    Args:
        model: in evaluation mode.
        batch: one image with one question.
        max_new_tokens: most ids the answer may have.
        answer: ids instead of the model's choice.
    """
    eos, llava = model.config.token_ids["eos"], model.llava
    following = dict(itertools.pairwise(model.bank_ids))
    images, asked = batch.images, batch.conversations
    valid = model.token_valid(asked, images.patch_valid)
    visible = visibility(asked.segments, valid, zero_padding=model.method.padding_attention == "zero")
    cache = DynamicCache(config=llava.language_model.config)
    features = clip_features(model, images.language_pixels, images.patch_valid)
    embeddings = llava.embed(asked.input_ids, features, asked.image_start)
    states = [llava.hidden_states(embeddings, asked.positions, visible, cache)]
    ids: list[int] = []
    for step in range(max_new_tokens):
        if answer is not None:
            chosen = answer[step] if step < len(answer) else eos
        elif ids and ids[-1] in following:
            chosen = following[ids[-1]]
        else:
            (piece,) = BankGrammar(model.bank_ids).choose(llava.logits(states[-1][:, -1]))
            chosen = piece[0]
        if chosen == eos:
            break
        ids.append(chosen)
        token = torch.tensor([[chosen]], device=valid.device)
        valid = torch.cat([valid, torch.ones_like(valid[:, :1])], dim=1)
        position = asked.positions[:, -1:] + len(ids)
        states.append(
            llava.hidden_states(llava.language_model.embed_tokens(token), position, valid.unsqueeze(1), cache)
        )
    sequence = torch.cat([asked.input_ids, asked.input_ids.new_tensor([ids])], dim=1)
    positions = locate_banks(sequence, model.bank_ids)
    context = model.image_context(images, asked, states[0])
    segmentation = model.segment(torch.cat(states, dim=1), positions, context)
    return Generated(ids=[ids], segmentation=segmentation, target_rows=positions.rows)


def _soft(masks: Tensor, kernel: int) -> Tensor:
    """Gaussian targets (n, h, w) of masks with a pixel, by a convolution with the two-dimensional kernel."""
    steps = torch.arange(kernel, device=masks.device) - kernel // 2
    line = torch.exp(-((steps / cycle.SIGMA) ** 2) / 2)
    filters = (line[:, None] * line / line.sum() ** 2).to(masks.dtype).expand(len(masks), 1, kernel, kernel)
    padded = F.pad(masks[None], (kernel // 2,) * 4, mode="reflect")
    blurred = F.conv2d(padded, filters, groups=len(masks))[0]
    return blurred / blurred.amax(dim=(1, 2), keepdim=True)


def _mask_loss(
    logits: Tensor,
    targets: Tensor,
    weights: LossWeights,
    *,
    positive: Tensor | float = 1.0,
    smooth: float = DICE_SMOOTH,
) -> Tensor:
    """Sum over targets of the weighted cross entropy and Dice."""
    positive = torch.as_tensor(positive, device=logits.device)
    bce = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=positive, reduction="none").mean(dim=(1, 2))
    given, wanted = logits.sigmoid(), positive * targets
    sums = given.sum(dim=(1, 2)) + wanted.sum(dim=(1, 2))
    dice = 1 - (2 * (given * wanted).sum(dim=(1, 2)) + smooth) / (sums + smooth)
    return (weights.bce * bce + weights.dice * dice).sum()


def loss(output: AnchorSegOutput, batch: Batch, weights: LossWeights) -> Tensor:
    """What `Objective` gives for the published method, where every target has a pixel.

    Args:
        output: of `forward`.
        batch: that it read.
        weights: of the terms.
    """
    segmentation = output.segmentation
    assert segmentation.prior is not None
    terms = []
    for image, logits in enumerate(segmentation.masks):
        truth = batch.conversations.masks[image].float()
        soft = _soft(truth, cycle.TOKEN_TO_MASK_KERNEL)
        positive = (1 - soft).sum() / (soft.sum() + 1e-6)
        responses = segmentation.prior.responses.split(segmentation.counts)[image].float()
        frame = batch.images.language_frames[image]
        coarse = geometry.masks_to_tokens(truth, frame)
        side = min(frame.grid)
        kernel = min(cycle.MASK_TO_TOKEN_KERNEL, side - 1 + side % 2)
        terms += [
            _mask_loss(logits, truth, weights),
            _mask_loss(
                segmentation.prior.maps[image], soft, weights, positive=positive, smooth=cycle.TOKEN_TO_MASK_SMOOTH
            ),
            _mask_loss(responses.unflatten(1, frame.grid), _soft(coarse, kernel), weights),
        ]
    text = F.cross_entropy(output.logits.float(), output.labels)
    return weights.ce * text + torch.stack(terms).sum() / sum(segmentation.counts)
