"""The published computation written out plainly, to make files of the kinds that are not handed out.

Same weights and image encoders, another route from there: transformers' own causal mask and eager attention, one target
at a time through segment-anything's own prompt encoder and decoder, resizes spelled out.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch.func import functional_call

from anchorseg.method import cycle, losses
from utils import geometry

IMAGE, P, K = -200, 576, 7


@contextmanager
def eager_llama(model, keys, zero):
    """transformers' eager attention; under the zero rule its output at masked positions is cut before o_proj."""
    llama = model.llava.language_model
    usual = llama.config._attn_implementation
    llama.config._attn_implementation = "eager"
    handles = [
        layer.self_attn.o_proj.register_forward_pre_hook(lambda _, inputs: (inputs[0] * keys[..., None],))
        for layer in llama.layers
        if zero
    ]
    try:
        yield llama
    finally:
        llama.config._attn_implementation = usual
        for handle in handles:
            handle.remove()


@dataclass
class Pass:
    ids: torch.Tensor
    features: torch.Tensor
    patches: torch.Tensor
    keys: torch.Tensor
    embeddings: torch.Tensor
    hidden: tuple[torch.Tensor, ...]
    logits: torch.Tensor


def read(model, images, input_ids, offset, *, zero) -> Pass:
    view = geometry.PaddedView(side=336, grid=24, mean=geometry.SAM_MEAN, std=geometry.SAM_STD)
    patches = torch.stack([geometry.patch_validity(view.frame(image.shape[:2])) for image in images])
    features = model.llava.image_features(torch.stack([view.pixels(image) for image in images]), patches, ())
    owner = [image for image in range(len(images)) for _ in range(offset[image], offset[image + 1])]
    ids, embeddings, keys = [], [], []
    for row, image in zip(input_ids, owner, strict=True):
        place = row.tolist().index(IMAGE)
        before, after = torch.tensor(row[:place]), torch.tensor(row[place + 1 :])
        ids.append(torch.cat([before, torch.full((P,), IMAGE), after]))
        table = model.llava.language_model.embed_tokens
        embeddings.append(torch.cat([table(before), features[image], table(after)]))
        keys.append(torch.cat([before != 0, patches[image], after != 0]))
    keys, embeddings = torch.stack(keys), torch.stack(embeddings)
    with eager_llama(model, keys, zero) as llama:
        hidden = llama(inputs_embeds=embeddings, attention_mask=keys.long(), output_hidden_states=True).hidden_states
    logits = model.llava.network.lm_head(hidden[-1])
    return Pass(torch.stack(ids), features[owner], patches[owner], keys, embeddings, hidden, logits)


def resize(maps, size, antialias=False):
    return F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False, antialias=antialias)[:, 0]


def decode(model, features, contextual, anchor, image_states, size):
    """Everything after the language model, for one target."""
    bank, sam = model.query_bank, model.sam
    similarity = image_states @ anchor
    responses = (similarity - similarity.min()) / (similarity.max() - similarity.min())
    clip, view = geometry.longest_side_size(size, 336), geometry.longest_side_size(size, 1024)
    spread = resize(responses.view(1, 24, 24), (336, 336))[:, : clip[0], : clip[1]]
    token_map = resize(spread, size)
    small = resize(token_map, geometry.longest_side_size(size, 256), antialias=True)
    prompt = F.pad(small, (0, 256 - small.shape[2], 0, 256 - small.shape[1]))[:, None]
    latents, anchor_query = bank.contextual_projection(contextual), bank.anchor_projection(anchor)
    sparse = torch.cat([latents, anchor_query[None]])[None]
    dense = sam.prompt_encoder(points=None, boxes=None, masks=prompt)[1]
    arguments = {
        "image_embeddings": features[None],
        "image_pe": sam.prompt_encoder.get_dense_pe(),
        "sparse_prompt_embeddings": sparse + bank.positions,
        "dense_prompt_embeddings": dense,
        "multimask_output": False,
    }
    tokens = {"mask_tokens.weight": sam.mask_decoder.mask_tokens.weight + sam.mask_token_positions}
    low, iou = functional_call(sam.mask_decoder, tokens, kwargs=arguments)
    full = resize(resize(low[0], (1024, 1024))[:, : view[0], : view[1]], size)
    return {
        "out.similarity": similarity,
        "mid.seg_image_token_embeds_norm": image_states.norm(dim=1),
        "mid.seg_token_embeds": anchor,
        "mid.latent_token_embeds": contextual,
        "mid.pred_embeddings": anchor_query,
        "mid.latent_embeddings": latents,
        "out.pred_masks": full[0],
        "mid.similarity_map_256": prompt[0],
        "mid.sparse_embeddings": sparse[0],
        "mid.dense_embeddings_s4": dense[0, :, ::4, ::4],
        "mid.low_res_masks": low[0],
        "mid.iou_predictions": iou[0],
        "out.token_to_mask_map": token_map[0],
        "out.similarity_minmax": responses,
    }


WHOLE_BATCH = (
    "out.similarity",
    "mid.seg_image_token_embeds_norm",
    "mid.seg_token_embeds",
    "mid.latent_token_embeds",
)


def segment(model, images, done: Pass, offset):
    """Arrays of all targets, gathered as the files hold them, and SAM's features."""
    view = geometry.PaddedView(side=1024, grid=64, mean=geometry.SAM_MEAN, std=geometry.SAM_STD)
    features = torch.cat([model.sam.image_encoder(view.pixels(image)[None]) for image in images])
    template = {}
    found = [[] for _ in images]
    for image, picture in enumerate(images):
        for row in range(offset[image], offset[image + 1]):
            states = done.hidden[-1][row]
            image_states = states[done.ids[row] == IMAGE]
            for place in (done.ids[row] == model.config.token_ids["segment"]).nonzero()[:, 0].tolist():
                around = (states[place - 1 - K : place - 1], states[place - 1])
                found[image].append(decode(model, features[image], *around, image_states, picture.shape[:2]))
                template = found[image][-1]
    arrays = {"mid.sam_image_embeddings_s4": features[:, :, ::4, ::4]}
    for name, example in template.items():
        if name in WHOLE_BATCH:
            arrays[name] = torch.stack([target[name] for group in found for target in group])
            continue
        for image, group in enumerate(found):
            size = images[image].shape[:2] if name in ("out.pred_masks", "out.token_to_mask_map") else example.shape
            stacked = torch.stack([target[name] for target in group]) if group else torch.zeros(0, *size)
            arrays[f"{name}.{image}"] = stacked
    return arrays


def loss_arrays(arrays, masks, cross_entropy):
    """Losses of a batch whose masks are those of its targets, in order; none of them is empty."""
    count = sum(len(group) for group in masks)
    sums = torch.zeros(6)
    out = {}
    for image, group in enumerate(masks):
        truth = torch.from_numpy(group).float()
        coarse = geometry.masks_to_tokens(truth, geometry.padded_frame(truth.shape[1:], 336, 24))
        out[f"out.mask_to_token_target.{image}"] = cycle.gaussian_target(coarse, 23)
        terms = torch.zeros(6)
        if len(truth):
            logits = arrays[f"out.pred_masks.{image}"]
            forth = cycle.token_to_mask(arrays[f"out.token_to_mask_map.{image}"], truth.bool())
            back = cycle.mask_to_token(
                arrays[f"out.similarity_minmax.{image}"], truth.bool(), geometry.padded_frame(truth.shape[1:], 336, 24)
            )
            found = losses.mask_loss(logits, truth)
            terms = torch.stack(
                [term.mean() for term in [found.bce, found.dice, forth.bce, forth.dice, back.bce, back.dice]]
            )
        sums = sums + terms * len(truth)
        out[f"out.terms.{image}"] = terms.double()
    bce, dice = 2 * sums[::2].sum() / count, 2 * sums[1::2].sum() / count
    out |= {"out.ce_loss": cross_entropy, "out.mask_bce_loss": bce, "out.mask_dice_loss": dice}
    return out | {"out.mask_loss": bce + dice, "out.loss": cross_entropy + bce + dice}


def to_file(path, arrays):
    """Write tensors, arrays and lists of names as one .npz."""
    np.savez(path, **{k: v.detach().numpy() if isinstance(v, torch.Tensor) else np.array(v) for k, v in arrays.items()})
