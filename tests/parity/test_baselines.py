"""LISA, GSVA, SESAME and READ from images and ids to logits, losses and gradients, beside public implementations."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

from anchorseg.inference.generation import answer_questions
from anchorseg.inference.prefix import prefill_images
from anchorseg.method.config import AnchorSegConfig, TokenIds
from anchorseg.method.modeling import AnchorSegModel
from anchorseg.method.objective import Objective
from anchorseg.method.options import LisaOptions, LossWeights
from anchorseg.method.tokens import TokenStrings
from anchorseg.training.trainable import set_trainable
from anchorseg.weights.official_names import POSITIONS, official_name
from dataset.batch import IGNORED_LABEL, PADDING, Batch, Conversations, Images
from model.lora import add_lora
from model.lora_settings import LoraSettings
from model.sam_files import SamSizes
from tests.parity.rules import image, tensor
from tests.parity.test_heads import CASES, PLACEHOLDER, REJECT, SEGMENT, TOKENS, Numbers, images_of_rows, positions
from utils.filters import content_box
from utils.geometry import (
    CLIP_MEAN,
    CLIP_STD,
    SAM_MEAN,
    SAM_STD,
    Frame,
    normalize_and_pad,
    patch_validity,
    uncropped_size,
)

SAM = SamSizes(encoder_width=32, encoder_depth=2, encoder_heads=2, global_attention=(1,))
PLAIN_ATTENTION = {"gsva_train_original"}
SEVERAL = "read_train_points60_several"
OFTEN = {"lisa_train", "gsva_train_original", "read_train_original"}
WHOLE = [
    pytest.param(name, marks=() if name in OFTEN else pytest.mark.slow)
    for name in [*CASES, SEVERAL]
    if name != "gsva_eval_f1_reeval"  # its first pass is that of `_single`, its second is in test_heads
]


def make_model(name: str) -> AnchorSegModel:
    head, options = CASES["read_train_points60_padded" if name == SEVERAL else name]
    attention = "plain" if name in PLAIN_ATTENTION else "zero"
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=10, num_attention_heads=2, image_size=336,
        patch_size=14, projection_dim=32,
    )  # fmt: skip
    text = LlamaConfig(
        hidden_size=64, intermediate_size=176, num_hidden_layers=3, num_attention_heads=4, rms_norm_eps=1e-5,
        vocab_size=644, pad_token_id=None,
    )  # fmt: skip
    ids = TokenIds(segment=SEGMENT, reject=REJECT, reasoning=(), bos=1, eos=2)
    config = AnchorSegConfig(
        language_config=LlavaConfig(
            vision_config=vision, text_config=text, vision_feature_layer=-2, image_seq_length=TOKENS
        ),
        mask_config=SAM,
        head=head,
        method=dataclasses.replace(options, padding_attention=attention),
        tokens=TokenStrings(),
        token_ids=dataclasses.asdict(ids),
    )
    model = AnchorSegModel(config)
    if "train" in name:
        add_lora(model.language.adapted, LoraSettings(r=8, alpha=16, dropout=0.0, targets=("q_proj", "v_proj")))
    for own, value in [*model.named_parameters(), *model.named_buffers()]:
        if own.endswith(("position_ids", "inv_freq")):
            continue
        value.data.copy_(torch.from_numpy(rule(official_name(own), tuple(value.shape), options)))
        if "train" not in name and own.endswith(("q_proj.weight", "v_proj.weight")) and "language_model" in own:
            base = official_name(own).removesuffix(".weight")
            down, up = (
                torch.from_numpy(tensor(f"{base}.lora_{part}.weight", shape))
                for part, shape in (("A", (8, 64)), ("B", (64, 8)))
            )
            value.data += 2 * up @ down
    set_trainable(model, "paper")
    return model


def rule(name: str, shape: tuple[int, ...], options: LisaOptions) -> np.ndarray:
    if name in (POSITIONS, "model.visual_model.mask_decoder.positional_embedding"):
        if not options.position_tables:
            return np.zeros(shape, np.float32)
        return tensor(name, (8, 256))[:1] if name == POSITIONS else tensor(name, shape)
    return tensor(name, shape)


def make_batch(numbers: Numbers) -> Batch:
    ids, labels = (torch.from_numpy(numbers[f"in.{part}"]) for part in ("input_ids", "labels"))
    (start,) = set((ids == PLACEHOLDER).nonzero()[:, 1].tolist())

    def expanded(rows: torch.Tensor, value: int) -> torch.Tensor:
        middle = torch.full((len(rows), TOKENS), value)
        return torch.cat([rows[:, :start], middle, rows[:, start + 1 :]], dim=1)

    valid = expanded((ids != 0).long(), 1).bool()
    labels = expanded(labels, IGNORED_LABEL)
    shapes = numbers["in.sam_mask_shape_list"].tolist()
    contents = [tuple(content) for content in numbers["in.clip_resize_list"].tolist()]
    square = numbers.name.endswith(("_square", "_original")) or not numbers.name.startswith("read")
    seeds = [int(seed) for seed in numbers["in.image_seed"]]
    pixels = [
        normalize_and_pad(image(336, 336, seed + 50), 336, CLIP_MEAN, CLIP_STD)
        if square
        else normalize_and_pad(image(*content, seed + 50), 336, SAM_MEAN, SAM_STD)
        for content, seed in zip(contents, seeds, strict=True)
    ]
    if getattr(CASES.get(numbers.name, CASES["lisa_eval"])[1], "clip_view", "") == "crop":
        contents = [uncropped_size(tuple(size), 336) for _, size in shapes]
    frames = tuple(Frame(content, (336, 336), (24, 24)) for content in contents)
    images = Images(
        sizes=tuple(tuple(size) for _, size in shapes),
        language_pixels=torch.stack(pixels),
        language_frames=frames,
        patch_valid=torch.stack([patch_validity(frame) for frame in frames]),
        mask_pixels=torch.stack(
            [
                normalize_and_pad(image(*content, seed), 1024, SAM_MEAN, SAM_STD)
                for (content, _), seed in zip(shapes, seeds, strict=True)
            ]
        ),
        mask_frames=tuple(Frame(tuple(content), (1024, 1024), (64, 64)) for content, _ in shapes),
        mask_features=(None,) * len(shapes),
        feature_keys=(),
    )
    truth = [torch.from_numpy(numbers[f"in.masks_list.{number}"]).bool() for number in range(len(shapes))]
    masks = tuple(of_image[of_image.flatten(1).any(dim=1)] for of_image in truth)
    conversations = Conversations(
        input_ids=expanded(ids, PLACEHOLDER),
        segments=torch.where(valid, 0, PADDING),
        positions=torch.arange(valid.shape[1]).expand_as(valid),
        row_images=torch.from_numpy(images_of_rows(numbers)),
        image_start=start,
        labels=labels,
        supervised=(labels[:, 1:] != IGNORED_LABEL).nonzero(as_tuple=True),
        targets=positions(numbers, (SEGMENT,)),
        slots=positions(numbers, (SEGMENT, REJECT)),
        masks=masks,
        ignore=(None,) * len(masks),
        present=tuple(tuple(range(len(each))) for each in masks),
        boxes=tuple(content_box(each) for each in masks),
        asked_in=tuple(tuple(range(len(each))) for each in masks),
        instances=((),) * len(masks),
    )
    return Batch(records=("",) * len(masks), images=images, conversations=conversations)


def error(found: torch.Tensor, wanted: np.ndarray) -> float:
    assert tuple(found.shape) == wanted.shape
    return float(np.abs(found.detach().numpy() - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize("name", WHOLE)
def test_from_images_and_ids(name, baselines):
    numbers, model = Numbers(baselines, name), make_model(name)
    batch = make_batch(numbers)
    if "mid.hidden_last" in numbers:
        check_states(numbers, model, batch)
    output = model(batch)
    for number, masks in enumerate(output.segmentation.masks):
        wanted = numbers[f"out.pred_masks.{number}"]
        wanted = wanted[np.abs(wanted).max(axis=(1, 2)) > 0]
        if len(wanted):
            assert error(masks, wanted) < 1e-4
    if "train" in name:
        check_training(numbers, model, output, batch)


def check_states(numbers: Numbers, model: AnchorSegModel, batch: Batch) -> None:
    check = numbers["check.images_clip_s16"]
    assert np.abs(batch.images.language_pixels[:, :, ::16, ::16].numpy() - check).max() < 1e-5
    with torch.no_grad():
        hidden = model.prefill(batch.images, batch.conversations)
    where = torch.from_numpy(numbers["mid.llm_attention_mask"])
    wanted = numbers["mid.hidden_last"]
    assert error(hidden[where], wanted[where.numpy()]) < 1e-4
    seen = where[:, ::16]
    logits = model.language.logits(hidden[:, ::16])
    assert error(logits[seen], numbers["out.logits_s16"][seen.numpy()]) < 1e-4


def check_training(numbers: Numbers, model: AnchorSegModel, output, batch: Batch) -> None:
    terms = Objective(LossWeights(), model.head)(output, batch).terms
    dice = min((0.5, 4.0), key=lambda weight: abs(weight * terms["mask_dice"] - float(numbers["out.mask_dice_loss"])))
    losses = Objective(LossWeights(ce=1, bce=2, dice=dice), model.head)(output, batch)
    for key, value in (
        ("out.ce_loss", losses.terms["ce"]),
        ("out.mask_bce_loss", 2 * losses.terms["mask_bce"]),
        ("out.mask_dice_loss", dice * losses.terms["mask_dice"]),
        ("out.loss", losses.total),
    ):
        assert float(value) == pytest.approx(float(numbers[key]), rel=1e-4), key
    if "grad_names" not in numbers:
        return
    losses.total.backward()
    found = {official_name(name): p.grad for name, p in model.named_parameters() if p.grad is not None}
    names = [str(name) for name in numbers["grad_names"]]
    total = float(numbers["grad_total_norm"])
    compared = 0
    for name, norm in zip(names, numbers["grad_norm"], strict=True):
        assert name in found, name
        if norm < 1e-6 * total:  # noise: k_proj biases, hypernetworks that nothing uses
            continue
        key = f"grad.{name}"
        if key in numbers:
            wanted = numbers[key][:1] if name == POSITIONS else numbers[key]  # a row for each of eight queries
            assert error(found[name], wanted) < 1e-4, name
        else:
            assert float(found[name].norm()) == pytest.approx(float(norm), rel=1e-4), name
        compared += 1
    assert compared > 100


@torch.inference_mode()
def test_written_answer(baselines):
    """Ids that the published code was made to write are dictated; the question is what stands before them."""
    file = dict(np.load(baselines / "lisa_generate.npz"))
    ids = file["in.prompt_ids"]
    file |= {"in.input_ids": ids, "in.labels": np.full_like(ids, IGNORED_LABEL), "in.offset": np.array([0, 1])}
    height, width = file["in.sam_mask_shape_list"][0][1]
    file["in.masks_list.0"] = np.zeros((0, height, width), np.uint8)
    numbers = Numbers.__new__(Numbers)
    numbers._files, numbers.name = [file], "lisa_generate"  # type: ignore[list-item]
    batch, model = make_batch(numbers), make_model("lisa_eval").eval()
    start = batch.conversations.image_start
    behind = batch.conversations.input_ids[0, start + TOKENS :].tolist()
    prefix = dataclasses.replace(
        batch.conversations.prefixes(1),
        input_ids=batch.conversations.input_ids[:, : start + TOKENS],
        segments=torch.zeros(1, start + TOKENS, dtype=torch.long),
        positions=torch.arange(start + TOKENS)[None],
    )
    planted = file["in.planted_tokens"].tolist()
    answer = planted[: planted.index(2)] if 2 in planted else planted
    made = answer_questions(model, prefill_images(model, batch.images, prefix), [behind], [0], answer=answer)
    assert made.ids == [answer] and answer == file["out.output_ids"][0, ids.shape[1] :].tolist()[: len(answer)]
    assert error(made.segmentation.masks[0], file["out.pred_masks.0"]) < 1e-4
