"""LISA's and READ's heads over SAM, from hidden states to masks, beside the numbers of the public implementations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from anchorseg.method.head import Head, ImageContext, Segmentation
from anchorseg.method.heads import head_entry
from anchorseg.method.options import LisaOptions, ReadOptions
from dataset.batch import BankPositions, Images
from model.sam import SamBackbone
from model.sam_files import SamSizes
from tests.parity.rules import image, tensor
from utils.geometry import SAM_MEAN, SAM_STD, Frame, normalize_and_pad, patch_validity

SEGMENT, PLACEHOLDER, TOKENS = 640, -200, 576
PLAIN = LisaOptions(position_tables=False)
POINTS_OF_ANCHORSEG = ReadOptions(position_tables=False, points=60, point_divisor=1, point_places="grid")
CASES = {
    "lisa_eval": ("lisa", PLAIN),
    "lisa_eval_spine": ("lisa", LisaOptions()),
    "lisa_train": ("lisa", PLAIN),
    "lisa_train_spine": ("lisa", LisaOptions()),
    "sesame_train": ("lisa", PLAIN),
    "read_eval_points60_padded": ("read", POINTS_OF_ANCHORSEG),
    "read_train_points60_padded": ("read", POINTS_OF_ANCHORSEG),
    "read_train_points60_square": ("read", POINTS_OF_ANCHORSEG),
}
TABLES = "model.visual_model.mask_decoder."


def by_rule(module: torch.nn.Module, prefix: str) -> None:
    for name, parameter in [*module.named_parameters(), *module.named_buffers()]:
        parameter.data.copy_(torch.from_numpy(tensor(prefix + name, tuple(parameter.shape))))


@pytest.fixture(scope="module")
def sam() -> SamBackbone:
    sizes = SamSizes(encoder_width=32, encoder_depth=2, encoder_heads=2, global_attention=(1,))
    backbone = SamBackbone(sizes).requires_grad_(False)
    for part in ("image_encoder", "prompt_encoder", "mask_decoder"):
        by_rule(getattr(backbone, part), f"model.visual_model.{part}.")
    return backbone


class Numbers:
    """Arrays of a case; a `_spine` file holds only what differs from the file without."""

    def __init__(self, folder: Path, name: str) -> None:
        self._files = [np.load(folder / f"{name.removesuffix('_spine')}.npz"), np.load(folder / f"{name}.npz")]

    def __contains__(self, key: str) -> bool:
        return any(key in file for file in self._files)

    def __getitem__(self, key: str) -> np.ndarray:
        return next(file[key] for file in reversed(self._files) if key in file)


def make_head(name: str, options: LisaOptions, sam: SamBackbone) -> Head:
    head = head_entry(name).load()(options, 64, 256)
    projection = head.query.anchor_projection
    by_rule(projection, "model.text_hidden_fcs.0.")
    positions, mask_tokens = head.query.positions, sam.mask_token_positions
    positions.data.zero_()
    mask_tokens.data.zero_()
    if options.position_tables:  # the first row of eight is that of the only query
        positions.data.copy_(torch.from_numpy(tensor(f"{TABLES}latent_token_positional_embedding", (8, 256)))[:1])
        mask_tokens.data.copy_(torch.from_numpy(tensor(f"{TABLES}positional_embedding", (4, 256))))
    return head


def inputs(numbers: Numbers, sam: SamBackbone) -> tuple[Tensor, BankPositions, ImageContext]:
    ids, offsets = numbers["in.input_ids"], numbers["in.offset"]
    count = len(offsets) - 1
    row_images = np.repeat(np.arange(count), np.diff(offsets))
    rows, ends = np.nonzero(ids == SEGMENT)
    shapes = numbers["in.sam_mask_shape_list"].tolist()
    frames = tuple(Frame(tuple(content), (336, 336), (24, 24)) for content in numbers["in.clip_resize_list"].tolist())
    pixels = torch.stack(
        [
            normalize_and_pad(image(*content, int(seed)), 1024, SAM_MEAN, SAM_STD)
            for (content, _), seed in zip(shapes, numbers["in.image_seed"], strict=True)
        ]
    )
    assert np.abs(pixels[:, :, ::64, ::64].numpy() - numbers["check.images_s64"]).max() < 1e-5
    hidden = torch.from_numpy(numbers["mid.hidden_last"])
    (start,) = set(np.nonzero(ids == PLACEHOLDER)[1].tolist())
    images = Images(
        sizes=tuple(tuple(size) for _, size in shapes),
        language_pixels=torch.zeros(count, 3, 1, 1),
        language_frames=frames,
        patch_valid=torch.stack([patch_validity(frame) for frame in frames]),
        mask_pixels=pixels,
        mask_frames=tuple(Frame(tuple(content), (1024, 1024), (64, 64)) for content, _ in shapes),
        mask_features=(None,) * count,
        feature_keys=(),
    )
    targets = BankPositions(
        rows=torch.from_numpy(rows),
        columns=torch.from_numpy(ends + TOKENS - 1)[:, None],
        counts=tuple(int((row_images[rows] == number).sum()) for number in range(count)),
    )
    context = ImageContext(
        images=images,
        row_images=torch.from_numpy(row_images),
        image_states=hidden[:, start : start + TOKENS],
        mask_features=sam.image_features(pixels),
    )
    return hidden, targets, context


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_masks_of_public_implementations(name, shared, sam):
    folder = shared / "fixtures" / "baselines"
    if not (folder / f"{name}.npz").is_file():
        pytest.skip("the numbers of the published baselines are not here")
    numbers, (kind, options) = Numbers(folder, name), CASES[name]
    head = make_head(kind, options, sam)
    hidden, targets, context = inputs(numbers, sam)
    made: Segmentation = head.segment(hidden, targets, context, sam)
    compared = 0
    for number, (masks, low_resolution) in enumerate(
        zip(made.masks, made.low_resolution.split(made.counts), strict=True)
    ):
        for key, found in ((f"out.pred_masks.{number}", masks), (f"mid.low_res_masks_s2.{number}", low_resolution)):
            if key in numbers and len(numbers[key]):
                wanted = numbers[key].squeeze(1) if key.startswith("mid") else numbers[key]
                found = found[:, ::2, ::2] if key.startswith("mid") else found
                assert found.shape == wanted.shape
                assert np.abs(found.numpy() - wanted).max() / np.abs(wanted).max() < 1e-4, key
                compared += 1
    assert compared >= len(made.masks)
