"""LISA, GSVA, SESAME and READ, from hidden states to masks and losses, beside numbers of public implementations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from anchorseg.evaluation.rejection import as_targets, refuses
from anchorseg.method.head import Head, ImageContext, Segmentation
from anchorseg.method.heads import head_entry
from anchorseg.method.modeling import AnchorSegOutput
from anchorseg.method.objective import Objective
from anchorseg.method.options import GsvaOptions, LisaOptions, LossWeights, ReadOptions
from anchorseg.method.read_head import ReadHead
from dataset.batch import BankPositions, Batch, Conversations, Images
from model.sam import SamBackbone
from model.sam_files import SamSizes
from tests.parity.rules import image, tensor
from utils.filters import content_box
from utils.geometry import SAM_MEAN, SAM_STD, Frame, normalize_and_pad, patch_validity, uncropped_size

SEGMENT, REJECT, PLACEHOLDER, TOKENS = 640, 641, -200, 576
PLAIN = LisaOptions(position_tables=False)
POINTS_OF_ANCHORSEG = ReadOptions(position_tables=False, points=60, point_divisor=1, point_places="grid")
CROPPED = ReadOptions(position_tables=False, clip_view="crop")
CASES = {
    "lisa_eval": ("lisa", PLAIN),
    "lisa_eval_spine": ("lisa", LisaOptions()),
    "lisa_train": ("lisa", PLAIN),
    "lisa_train_spine": ("lisa", LisaOptions()),
    "sesame_train": ("lisa", PLAIN),
    "gsva_train_nonempty": ("gsva", GsvaOptions(position_tables=False, rejected_masks="left_out")),
    "gsva_train_nonempty_spine": ("gsva", GsvaOptions(rejected_masks="left_out")),
    "gsva_train_original": ("gsva", GsvaOptions(position_tables=False)),
    "gsva_eval_f1_single": ("gsva", GsvaOptions(position_tables=False)),
    "gsva_eval_f1_reeval": ("gsva", GsvaOptions(position_tables=False)),
    "read_eval_points60_padded": ("read", POINTS_OF_ANCHORSEG),
    "read_train_points60_padded": ("read", POINTS_OF_ANCHORSEG),
    "read_train_points60_square": ("read", POINTS_OF_ANCHORSEG),
    "read_eval_original": ("read", CROPPED),
    "read_train_original": ("read", CROPPED),
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
    """Arrays of a case; some files hold only what differs from another."""

    def __init__(self, folder: Path, name: str) -> None:
        base = "gsva_train_nonempty" if name == "gsva_train_original" else name.removesuffix("_spine")
        self._files = [np.load(folder / f"{base}.npz"), np.load(folder / f"{name}.npz")]
        self.name = name

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


def positions(numbers: Numbers, tokens: tuple[int, ...]) -> BankPositions:
    """Where any of some tokens stands, behind the expanded image."""
    images = images_of_rows(numbers)
    rows, ends = np.nonzero(np.isin(numbers["in.input_ids"], tokens))
    return BankPositions(
        rows=torch.from_numpy(rows),
        columns=torch.from_numpy(ends + TOKENS - 1)[:, None],
        counts=tuple(int((images[rows] == number).sum()) for number in range(images[-1] + 1)),
    )


def images_of_rows(numbers: Numbers) -> np.ndarray:
    return np.repeat(np.arange(len(numbers["in.offset"]) - 1), np.diff(numbers["in.offset"]))


def inputs(numbers: Numbers, sam: SamBackbone) -> tuple[Tensor, BankPositions, ImageContext]:
    ids, count = numbers["in.input_ids"], len(numbers["in.offset"]) - 1
    shapes = numbers["in.sam_mask_shape_list"].tolist()
    contents = numbers["in.clip_resize_list"].tolist()
    if CASES[numbers.name][1] == CROPPED:
        contents = [uncropped_size(tuple(size), 336) for _, size in shapes]
    frames = tuple(Frame(tuple(content), (336, 336), (24, 24)) for content in contents)
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
    # The second pass of an evaluation has <SEG> in every slot.
    targets = positions(numbers, (SEGMENT, REJECT) if numbers.name.endswith("_reeval") else (SEGMENT,))
    context = ImageContext(
        images=images,
        row_images=torch.from_numpy(images_of_rows(numbers)),
        image_states=hidden[:, start : start + TOKENS],
        mask_features=sam.image_features(pixels),
    )
    return hidden, targets, context


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_masks_of_public_implementations(name, baselines, sam):
    numbers, (kind, options) = Numbers(baselines, name), CASES[name]
    head = make_head(kind, options, sam)
    hidden, targets, context = inputs(numbers, sam)
    made: Segmentation = head.segment(hidden, targets, context, sam)
    if "train" in name:
        check_losses(numbers, head, made, targets, context)
    compared = 0
    if isinstance(head, ReadHead) and "out.points" in numbers:
        compare_points(numbers, head, made, targets, context)
    for number, (masks, low_resolution) in enumerate(
        zip(made.masks, made.low_resolution.split(made.counts), strict=True)
    ):
        for key, found in ((f"out.pred_masks.{number}", masks), (f"mid.low_res_masks_s2.{number}", low_resolution)):
            if key in numbers and len(numbers[key]):
                wanted = numbers[key].squeeze(1) if key.startswith("mid") else numbers[key]
                wanted = wanted[np.abs(wanted).max(axis=(1, 2)) > 0]  # GSVA's own code has zeros for rejected slots
                found = found[:, ::2, ::2] if key.startswith("mid") else found
                assert found.shape == wanted.shape
                assert np.abs(found.numpy() - wanted).max() / np.abs(wanted).max() < 1e-4, key
                compared += 1
    assert compared >= len(made.masks)


def compare_points(
    numbers: Numbers, head: ReadHead, made: Segmentation, targets: BankPositions, context: ImageContext
) -> None:
    assert made.prior is not None
    found = [
        head.points(scores, maps, frame, size)
        for scores, maps, frame, size in zip(
            made.prior.similarity.split(targets.counts),
            made.prior.maps,
            context.images.language_frames,
            context.images.sizes,
            strict=True,
        )
        if len(scores)
    ]
    labels, places = torch.cat([one.labels for one in found]), torch.cat([one.coordinates for one in found])
    if labels.shape == numbers["out.point_labels"].shape:
        assert np.array_equal(labels.numpy(), numbers["out.point_labels"])
        wanted = numbers["out.points"]
        order = [np.lexsort(points.round(2).T) for points in (places[0].numpy(), wanted[0])]
        assert np.abs(places[0].numpy()[order[0]] - wanted[0][order[1]]).max() < 1e-4 * np.abs(wanted).max()


def check_losses(
    numbers: Numbers, head: Head, made: Segmentation, targets: BankPositions, context: ImageContext
) -> None:
    """The mask terms of a batch, rejected slots included."""
    truth = tuple(torch.from_numpy(numbers[f"in.masks_list.{number}"]).bool() for number in range(len(context.images)))
    masks = tuple(of_image[of_image.flatten(1).any(dim=1)] for of_image in truth)
    rows, columns = torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long)
    ids = torch.from_numpy(numbers["in.input_ids"])
    conversations = Conversations(
        input_ids=ids,
        segments=ids,
        positions=ids,
        row_images=context.row_images,
        image_start=0,
        labels=ids,
        supervised=(rows, columns),
        targets=targets,
        slots=positions(numbers, (SEGMENT, REJECT)),
        masks=masks,
        ignore=(None,) * len(masks),
        present=tuple(tuple(range(len(each))) for each in masks),
        boxes=tuple(content_box(each) for each in masks),
        asked_in=tuple(tuple(range(len(each))) for each in masks),
        instances=((),) * len(masks),
    )
    output = AnchorSegOutput(logits=torch.zeros(0, 2), labels=rows, segmentation=made)
    batch = Batch(records=("",) * len(masks), images=context.images, conversations=conversations)
    terms = Objective(LossWeights(), head)(output, batch).terms
    dice_weight = float(numbers["out.mask_dice_loss"] / terms["mask_dice"])
    assert abs(float(2 * terms["mask_bce"] / numbers["out.mask_bce_loss"]) - 1) < 1e-4
    assert min(abs(dice_weight / known - 1) for known in (0.5, 4)) < 1e-4


def test_gsva_decisions(baselines):
    file = np.load(baselines / "gsva_decision.npz")
    cases = sorted({key.partition(".")[0] for key in file.files})
    for case in cases:
        arrays = {key: torch.from_numpy(file[f"{case}.{key}"]) for key in ("truth", "argmax", "decision", "input_ids")}
        refused = refuses(arrays["truth"], arrays["argmax"], SEGMENT, REJECT)
        assert torch.where(refused, REJECT, SEGMENT).tolist() == arrays["decision"].tolist()
        second = as_targets(arrays["input_ids"], SEGMENT, REJECT)
        assert np.array_equal(second.numpy(), file[f"{case}.reeval_input_ids"])
        assert int((second == SEGMENT).sum()) == file[f"{case}.number_of_masks"].sum()
    assert cases
