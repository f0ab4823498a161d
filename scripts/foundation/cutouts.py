"""Drawn scenes as arrays for tiny-sam, and targets and prompts drawn from them on the device.

Letters: N scenes, O objects of a scene at most, S side of the view, B images and T targets of each in a step.
"""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass, fields
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dataset.drawn.layout import MOST, draw_scene
from dataset.drawn.objects import COLOURS, KINDS, TEXTURES, detail_masks
from dataset.masks import fill_polygon
from utils.geometry import PaddedView
from utils.progress import Bar
from utils.seeding import generator_for

DETAILS = 3
"""Details of an object at most."""
NOTHING = MOST
"""Object of a pixel that shows none."""
SMALLEST = 12
"""Least pixels of a target; a smaller detail gives way to its object."""
OBJECT, DETAIL, GROUP = 0, 1, 2
"""Kinds of targets: an object, a part of one, all objects of a kind, a colour or a texture."""


@dataclass(frozen=True)
class Cutouts:
    """N scenes.

    Attributes:
        views: (N, S, S, 3) uint8 at the top left.
        content: (N, 2) height and width of the content.
        objects: (N, S, S) uint8 object of each pixel, or `NOTHING`.
        details: (N, S, S) uint8 number of the detail, from 1 on; 0 for none.
        attributes: (N, O, 3) kind, colour and texture.
        counts: (N,) objects.
    """

    views: Tensor
    content: Tensor
    objects: Tensor
    details: Tensor
    attributes: Tensor
    counts: Tensor

    def __len__(self) -> int:
        return len(self.views)

    def to(self, device: torch.device) -> Cutouts:
        """Move every tensor."""
        return Cutouts(*(getattr(self, field.name).to(device) for field in fields(self)))


def _one(index: int, *, seed: int, split: str, side: int) -> tuple[np.ndarray, ...]:
    scene = draw_scene(generator_for(seed, "cutouts", split, index))
    height, width = scene.image.shape[:2]
    assert max(height, width) <= side, "scenes enter without being resized"
    view, owner = np.zeros((side, side, 3), np.uint8), np.full((side, side), NOTHING, np.uint8)
    detail = np.zeros((side, side), np.uint8)
    view[:height, :width] = scene.image
    attributes = np.zeros((MOST, 3), np.int64)
    for number, (item, pose) in enumerate(zip(scene.objects, scene.poses, strict=True)):
        mask = fill_polygon(item.polygon, height, width)
        owner[:height, :width][mask] = number
        for place, part in enumerate(detail_masks(item, pose, mask), start=1):
            detail[:height, :width][part] = place
        names = list(KINDS).index(item.kind), list(COLOURS).index(item.colour), TEXTURES.index(item.texture)
        attributes[number] = names
    return view, np.array([height, width]), owner, detail, attributes, np.array(len(scene.objects))


def draw_cutouts(count: int, *, seed: int, split: str, view: PaddedView, workers: int) -> Cutouts:
    """Draw `count` scenes of a split in parallel processes, each at its own size in a view of `view.side` pixels."""
    draw = partial(_one, seed=seed, split=split, side=view.side)
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        scenes = pool.imap(draw, range(count), chunksize=64)
        columns = zip(*Bar(scenes, total=count, desc=f"{split} scenes", unit="scene"), strict=True)
        return Cutouts(*(torch.from_numpy(np.stack(column)) for column in columns))


def draw_targets(room: Cutouts, chosen: Tensor, targets: int, kind: int | None = None) -> Tensor:
    """(B, T, S, S) boolean masks of random objects, details and groups of some scenes; `kind` asks for one alone."""
    device, count = chosen.device, len(chosen)
    number = (torch.rand(count, targets, device=device) * room.counts[chosen, None]).long()
    draw = torch.rand(count, targets, device=device)
    kinds = torch.full_like(number, kind) if kind is not None else (draw > 0.55).long() + (draw > 0.75).long()
    attributes = room.attributes[chosen]
    own = attributes.gather(1, number[..., None].expand(-1, -1, 3))
    which = torch.randint(3, (count, targets, 1, 1), device=device).expand(-1, -1, MOST, 1)
    alike = (attributes[:, None] == own[:, :, None]).gather(3, which)[..., 0]
    alike &= torch.arange(MOST, device=device) < room.counts[chosen, None, None]
    alone = F.one_hot(number, MOST).bool()
    members = torch.where((kinds == GROUP)[..., None], alike, alone)
    members = F.pad(members, (0, 1))  # of NOTHING
    owner = room.objects[chosen].long().flatten(1)[:, None].expand(-1, targets, -1)
    masks = members.gather(2, owner).unflatten(2, room.objects.shape[1:])
    wanted = torch.randint(1, DETAILS + 1, (count, targets, 1, 1), device=device)
    parts = masks & (room.details[chosen][:, None] == wanted)
    large = parts.sum((2, 3), keepdim=True) >= SMALLEST
    return torch.where((kinds == DETAIL)[..., None, None] & large, parts, masks)


def draw_points(masks: Tensor, number: int) -> Tensor:
    """(N, number, 2) random pixels (x, y) of masks (N, S, S); where there is none, any pixel."""
    scores = torch.rand(masks.shape, device=masks.device).flatten(1) + masks.flatten(1)
    places = scores.topk(number).indices
    return torch.stack([places % masks.shape[2], places // masks.shape[2]], dim=-1).float() + 0.5


def boxes_of(masks: Tensor, jitter: float) -> Tensor:
    """(N, 2, 2) corners (x, y) of masks (N, S, S), moved by up to `jitter` of the box's size."""
    side = masks.shape[-1]
    places = torch.arange(side, device=masks.device, dtype=torch.float32)
    found = []
    for axis in (1, 2):  # over rows for x, over columns for y
        there = masks.any(dim=axis)
        low = torch.where(there, places, float(side)).amin(1)
        high = torch.where(there, places + 1, 0.0).amax(1)
        found.append(torch.stack([low, high], dim=-1))
    corners = torch.stack(found, dim=-1)
    size = (corners[:, 1:] - corners[:, :1]).abs()
    return corners + jitter * size * (2 * torch.rand(corners.shape, device=masks.device) - 1)


def coarse_prompts(masks: Tensor, grid: int, side: int) -> Tensor:
    """Mask prompts (N, 1, side, side) as a spatial prior gives them: masks (N, S, S) on a grid, blurred and noisy.

    Half of them are responses in [0, 1], as min-max makes them; the others are logits of different strength.
    """
    count, device = len(masks), masks.device
    coarse = F.adaptive_avg_pool2d(masks[:, None].float(), grid)
    coarse = coarse / coarse.amax((2, 3), keepdim=True).clamp(min=1e-3)
    shift = 0.35 * torch.rand(count, 1, 1, 1, device=device)
    coarse = (coarse + shift * torch.rand(coarse.shape, device=device)) / (1 + shift)
    response = F.interpolate(coarse, (side, side), mode="bilinear", align_corners=False)
    strength = 2 + 10 * torch.rand(count, 1, 1, 1, device=device)
    logits = strength * (2 * response - 1)
    return torch.where(torch.rand(count, 1, 1, 1, device=device) < 0.5, response, logits)
