"""Train tiny-sam from nothing on drawn scenes: `python -m scripts.foundation.sam FILE.pth`.

A SAM of under half a million parameters in segment-anything's layout: points, boxes and mask prompts to masks of
objects, their parts, and groups of them. It sees no question. `--help` lists the options; `--resume` continues a run.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.sam import SamBackbone
from scripts.foundation.cutouts import (
    DETAIL,
    GROUP,
    OBJECT,
    Cutouts,
    boxes_of,
    coarse_prompts,
    draw_cutouts,
    draw_points,
    draw_targets,
)
from scripts.foundation.optimization import Optimizers, load_state, save_state
from utils.files import write_json
from utils.seeding import seed_torch

SETTINGS = ("scenes", "steps", "batch", "rate", "matrix_rate", "unseen", "seed")
"""Options that decide the weights and their figures."""
TARGETS = 4
"""Targets of an image in a step."""
GRIDS = (8, 9, 12, 16)
"""Grids of mask prompts."""
FOCAL, DICE, QUALITY = 20.0, 1.0, 1.0
"""Weights of segment-anything's losses."""
FORMS = ("point", "points", "box", "box and points", "mask", "mask and points", "mask and box")
"""Prompts of a step; one point is ambiguous and has three masks, the others have one."""


@dataclass(frozen=True)
class Prompt:
    """Prompts of N targets: points (N, k, 2) with labels (N, k) as SAM's, and mask prompts (N, 1, M, M) or None."""

    points: Tensor
    labels: Tensor
    mask: Tensor | None


def draw_prompt(form: str, masks: Tensor, side: int) -> Prompt:
    """Prompts of one form for masks (N, S, S)."""
    count, device = len(masks), masks.device
    points, labels = [masks.new_zeros(count, 0, 2, dtype=torch.float32)], [masks.new_zeros(count, 0, dtype=torch.long)]
    if "point" in form:
        inside = draw_points(masks, 1 if form == "point" else 2)
        points.append(inside)
        labels.append(torch.ones(inside.shape[:2], dtype=torch.long, device=device))
        if form != "point":
            points.append(draw_points(~masks, 1))
            labels.append(torch.zeros(count, 1, dtype=torch.long, device=device))
    if "box" in form:
        points.append(boxes_of(masks, 0.1))
        labels.append(torch.tensor([2, 3], device=device).expand(count, -1))
    elif "point" in form:  # segment-anything pads where there is no box
        points.append(masks.new_zeros(count, 1, 2, dtype=torch.float32))
        labels.append(torch.full((count, 1), -1, device=device))
    grid = GRIDS[int(torch.randint(len(GRIDS), ()))]
    prior = coarse_prompts(masks, grid, side) if "mask" in form else None
    return Prompt(torch.cat(points, dim=1), torch.cat(labels, dim=1), prior)


def embed(sam: SamBackbone, prompt: Prompt) -> tuple[Tensor, Tensor]:
    """Queries (N, k, C) and what is added to the features (N, C, G, G), as SAM's prompt encoder does."""
    encoder = sam.prompt_encoder
    side = sam.sizes.image_size
    positions = encoder.pe_layer.forward_with_coords(prompt.points, (side, side))
    table = torch.cat([encoder.not_a_point_embed.weight, *(each.weight for each in encoder.point_embeddings)])
    queries = positions * (prompt.labels >= 0)[..., None] + table[prompt.labels + 1]
    if prompt.mask is None:
        return queries, sam.no_prior_features(len(queries))
    return queries, sam.prior_features(prompt.mask)


def decode(sam: SamBackbone, features: Tensor, prompt: Prompt, *, multimask: bool) -> tuple[Tensor, Tensor]:
    """Mask logits (N, m, S, S) at the view's size, and IoU estimates (N, m), for features (N, C, G, G)."""
    queries, dense = embed(sam, prompt)
    masks, quality = sam(features + dense, queries, multimask=multimask)
    side = sam.sizes.image_size
    return F.interpolate(masks, (side, side), mode="bilinear", align_corners=False), quality


def overlap(logits: Tensor, truth: Tensor) -> Tensor:
    """IoU (N, m) of masks (N, m, S, S) with (N, S, S)."""
    drawn = logits > 0
    both = (drawn & truth[:, None]).sum((2, 3)).float()
    either = (drawn | truth[:, None]).sum((2, 3)).float()
    return both / either.clamp(min=1)


def losses_of(logits: Tensor, quality: Tensor, truth: Tensor) -> Tensor:
    """Mean over targets of focal, Dice and quality loss, of the best of the m masks by focal and Dice."""
    wanted = truth[:, None].float().expand_as(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    probability = logits.sigmoid()
    missed = torch.where(wanted > 0, 1 - probability, probability)
    weight = torch.where(wanted > 0, 0.25, 0.75)
    focal = (weight * missed.square() * entropy).mean((2, 3))
    shared = (probability * wanted).sum((2, 3))
    dice = 1 - (2 * shared + 1) / (probability.sum((2, 3)) + wanted.sum((2, 3)) + 1)
    best = (FOCAL * focal + DICE * dice).amin(1)
    return best.mean() + QUALITY * (quality - overlap(logits.detach(), truth)).square().mean()


def pixels(sam: SamBackbone, room: Cutouts, chosen: Tensor) -> Tensor:
    """(B, 3, S, S) normalized views; padding is 0."""
    device = chosen.device
    mean, std = (torch.tensor(each, device=device).view(3, 1, 1) for each in (sam.view.mean, sam.view.std))
    values = (room.views[chosen].permute(0, 3, 1, 2).float() - mean) / std
    places = torch.arange(sam.sizes.image_size, device=device)
    height, width = room.content[chosen].unbind(1)
    inside = (places < height[:, None])[:, :, None] & (places < width[:, None])[:, None, :]
    return values * inside[:, None]


@torch.no_grad()
def figures(sam: SamBackbone, room: Cutouts, batch: int = 50) -> dict[str, dict[str, float]]:
    """Mean IoU by target and prompt, of the chosen and of the best mask, and the error of the estimate."""
    sam.eval()
    found: dict[str, dict[str, float]] = {}
    cases = {"object": (OBJECT, FORMS), "detail": (DETAIL, ("points", "box", "mask")), "group": (GROUP, ("mask",))}
    with torch.random.fork_rng(devices=[room.views.device] if room.views.is_cuda else []):
        torch.manual_seed(0)
        for target, (kind, forms) in cases.items():
            for form in forms:
                sums: dict[str, float] = {}
                for chosen in torch.arange(len(room), device=room.views.device).split(batch):
                    masks = draw_targets(room, chosen, 2, kind).flatten(0, 1)
                    features = sam.image_features(pixels(sam, room, chosen)).repeat_interleave(2, dim=0)
                    logits, quality = decode(
                        sam, features, draw_prompt(form, masks, sam.low_resolution), multimask=form == "point"
                    )
                    ious = overlap(logits, masks)
                    picked = ious.gather(1, quality.argmax(1, keepdim=True))
                    values = {"iou": picked, "best": ious.amax(1), "estimate_error": (quality - ious).abs().mean(1)}
                    for name, value in values.items():
                        sums[name] = sums.get(name, 0.0) + float(value.sum())
                found[f"{target}, {form}"] = {name: value / (2 * len(room)) for name, value in sums.items()}
    sam.train()
    return found


def report(step: int, seconds: float, loss: Tensor, found: dict[str, dict[str, float]]) -> None:
    """Print one block of figures."""
    shown = "; ".join(f"{name} {values['iou']:.3f} ({values['best']:.3f})" for name, values in found.items())
    print(f"step {step} after {seconds:.0f} s: loss {loss.detach():.3f}; IoU (best of three): {shown}", flush=True)


def train(sam: SamBackbone, room: Cutouts, unseen: Cutouts, arguments: argparse.Namespace) -> float:
    """Run all steps that are not done yet; the seconds they took."""
    device = room.views.device
    tables = [p for module in sam.modules() if isinstance(module, nn.Embedding) for p in module.parameters()]
    tables += [p for name, p in sam.named_parameters() if "rel_pos" in name]
    optimizers = Optimizers(sam, tables, arguments.matrix_rate, arguments.rate)
    state = arguments.file.with_suffix(".state")
    identity = {"steps": arguments.steps, "batch": arguments.batch, "scenes": len(room), "seed": arguments.seed}
    done = load_state(state, sam, optimizers, **identity) if arguments.resume else 0
    began = time.perf_counter()
    for step in range(done, min(arguments.steps, arguments.stop_after or arguments.steps)):
        seed_torch(arguments.seed, "tiny-sam", step)
        form = FORMS[int(torch.randint(len(FORMS), ()))]
        chosen = torch.randint(len(room), (arguments.batch,)).to(device, non_blocking=True)
        masks = draw_targets(room, chosen, TARGETS).flatten(0, 1)
        features = sam.image_features(pixels(sam, room, chosen)).repeat_interleave(TARGETS, dim=0)
        prompt = draw_prompt(form, masks, sam.low_resolution)
        loss = losses_of(*decode(sam, features, prompt, multimask=form == "point"), masks)
        loss.backward()
        nn.utils.clip_grad_norm_(sam.parameters(), 1.0)
        optimizers.step(step, arguments.steps)
        if (step + 1) % arguments.report == 0 or step + 1 == arguments.steps:
            report(step + 1, time.perf_counter() - began, loss, figures(sam, unseen))
            save_state(state, sam, optimizers, step + 1, **identity)
    return time.perf_counter() - began


def new_sam() -> SamBackbone:
    """A SAM of the size mini; what is no part of segment-anything's own stays zero and does not train."""
    sam = SamBackbone(SamBackbone.preset("mini"))
    sam.mask_token_positions.requires_grad_(False).zero_()
    # The same after it was saved in 16 bits: angles are the one thing that rounding would change much.
    matrix = sam.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
    matrix.copy_(matrix.bfloat16().float())
    return sam


def save(sam: SamBackbone, file: Path) -> None:
    """Write the state as segment-anything publishes its own, in bfloat16."""
    tensors = {
        name: value.cpu().bfloat16() for name, value in sam.state_dict().items() if name != "mask_token_positions"
    }
    torch.save(tensors, file)


def main(argv: list[str] | None = None) -> None:
    """Draw, train, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="of the weights, .pth")
    parser.add_argument("--scenes", type=int, default=40_000, help="drawn to learn from")
    parser.add_argument("--steps", type=int, default=2_500, help="of the optimizer")
    parser.add_argument("--batch", type=int, default=32, help="images in a step")
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate of AdamW")
    parser.add_argument("--matrix_rate", type=float, default=0.02, help="peak learning rate of Muon")
    parser.add_argument("--unseen", type=int, default=300, help="scenes for the figures")
    parser.add_argument("--report", type=int, default=500, help="steps between figures, and between states")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that draw")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--stop_after", type=int, default=0, help="steps after which a run ends early, to be resumed")
    parser.add_argument("--resume", action="store_true", help="continue from FILE.state")
    arguments = parser.parse_args(argv)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    seed_torch(arguments.seed, "tiny-sam")
    sam = new_sam().to(arguments.device)
    drawing = {"seed": arguments.seed, "view": sam.view, "workers": arguments.workers}
    began = time.perf_counter()
    room = draw_cutouts(arguments.scenes, split="train", **drawing).to(torch.device(arguments.device))
    unseen = draw_cutouts(arguments.unseen, split="test", **drawing).to(torch.device(arguments.device))
    drawn = time.perf_counter() - began
    parameters = sum(p.numel() for p in sam.parameters() if p.requires_grad)
    print(f"{parameters / 1e6:.2f} M parameters; {len(room)} scenes drawn in {drawn:.0f} s", flush=True)
    seconds = train(sam, room, unseen, arguments)
    sam.bfloat16().float()
    found = figures(sam, unseen)
    save(sam, arguments.file)
    settings = {name: getattr(arguments, name) for name in SETTINGS}
    write_json(
        arguments.file.with_suffix(".json"),
        {"iou": found, "parameters": parameters, "seconds": seconds, "drawing_seconds": drawn, "settings": settings},
    )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
