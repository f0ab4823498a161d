"""PixelLM from images to masks and gradients, beside the numbers of its public implementations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlavaConfig

from anchorseg.method.config import AnchorSegConfig
from anchorseg.method.modeling import AnchorSegModel
from anchorseg.method.objective import Objective
from anchorseg.method.options import LossWeights, PixelOptions
from anchorseg.method.pixel_head import Codebook, overlap_loss
from anchorseg.method.tokens import TokenStrings
from anchorseg.training.trainable import set_trainable
from anchorseg.weights.official_names import official_name
from dataset.batch import BankPositions, Batch, Conversations, Images
from model.lora import add_lora
from model.lora_settings import LoraSettings
from model.pixel_decoder import PixelDecoder
from model.pixel_llava import PixelLlava24Backbone, PixelLlavaBackbone
from model.pixel_masks import PixelBackbone, PixelSizes
from model.pixel_view import MarkedView, resized_positions
from tests.parity.rules import image, tensor
from utils.filters import content_box
from utils.geometry import SAM_MEAN, SAM_STD, Frame, normalize_and_pad
from utils.matching import drawn_points, match_by_costs, point_costs

SIZES = PixelSizes(
    encoder_width=32, encoder_depth=12, encoder_heads=2, encoder_mlp=64, layers=(11, 2), projected_width=64,
    projector_factor=1, published=True,
)  # fmt: skip
MATRIX = "positional_encoding_gaussian_matrix"
RENAMED = {
    "no_mask_embed.weight": "model.prompt_encoder.no_mask_embed.weight",
    f"positions.0.{MATRIX}": f"model.prompt_encoder.pe_layer.{MATRIX}",
    f"positions.1.{MATRIX}": f"model.mask_decoder.pe1.{MATRIX}",
}
FEATURES = ("pixellm_eval", "pixellm_train", "pixellm_train_llm16", "pixellm_train_original")


@dataclass(frozen=True)
class Published:
    """Weights of the decoder's parts by the rule."""

    masks: PixelBackbone
    codebook: Codebook


def name_of(part: str, name: str) -> str:
    return {
        "image_encoder": f"clip.vision_model.{name}",
        "projector": f"model.out_mm_projector.{name}",
        "neck": f"model.image_feature_neck.{name}",
        "decoder": RENAMED.get(name, f"model.mask_decoder.{name}"),
    }[part]


@pytest.fixture(scope="module")
def published() -> Published:
    return by_rule(SIZES)


@pytest.fixture(scope="module")
def original() -> Published:
    return by_rule(replace(SIZES, projector_factor=2))


def by_rule(sizes: PixelSizes) -> Published:
    masks = PixelBackbone(sizes).requires_grad_(False)
    for part in ("image_encoder", "projector", "neck", "decoder"):
        module = getattr(masks, part)
        for name, parameter in [*module.named_parameters(), *module.named_buffers()]:
            if name == "scale_weights" or name.endswith("position_ids"):
                continue
            rule = name_of(part, name)
            if name == "embeddings.position_embedding.weight":
                table = torch.from_numpy(tensor(rule, (1 + 24**2, 32)))
                parameter.data.copy_(resized_positions(table, 32, shifted=True))
                continue
            parameter.data.copy_(torch.from_numpy(tensor(rule, tuple(parameter.shape))))
    codebook = Codebook(64, 256, 6, trained_weights=False)
    for name, parameter in codebook.projection.named_parameters():
        parameter.data.copy_(torch.from_numpy(tensor(f"model.text_hidden_fcs.0.{name}", tuple(parameter.shape))))
    return Published(masks, codebook)


def numbers(folder: Path, name: str) -> dict[str, np.ndarray]:
    base = "pixellm_train_llm16" if name == "pixellm_train_original" else name
    return {**np.load(folder / f"{base}.npz"), **np.load(folder / f"{name}.npz")}


def error(found: Tensor, wanted: np.ndarray) -> float:
    assert found.shape == wanted.shape
    return float(np.abs(found.detach().numpy() - wanted).max() / np.abs(wanted).max())


def views(case: dict[str, np.ndarray]) -> Tensor:
    """The marked views, from pictures that have the size of their content already."""
    made = []
    for content, seed in zip(case["in.clip_resize_list"].tolist(), case["in.image_seed"], strict=True):
        pixels = normalize_and_pad(image(*content, int(seed) + 50), 448, SAM_MEAN, SAM_STD)
        shown = torch.zeros(1, 448, 448)
        shown[:, : content[0], : content[1]] = 1
        made.append(torch.cat([pixels, shown]))
    return torch.stack(made)


def test_positions_are_resized_as_published_or_in_place(baselines, published):
    wanted = numbers(baselines, "pixellm_train")["mid.resized_position_embedding_s4"]
    table = published.masks.image_encoder.embeddings.position_embedding.weight
    assert error(table[::4], wanted) < 1e-5
    plain = torch.arange(1 + 4.0**2).unsqueeze(1)
    assert torch.equal(resized_positions(plain, 4, shifted=False), plain)
    assert torch.equal(resized_positions(plain, 4, shifted=True), plain)
    assert resized_positions(plain, 8, shifted=False)[0] == 0 and resized_positions(plain, 8, shifted=True)[-1] == 16


@pytest.mark.parametrize("name", FEATURES)
@torch.no_grad()
def test_from_images_and_prompts_to_masks(baselines, published, original, name):
    case, masks = numbers(baselines, name), (published if name in ("pixellm_eval", "pixellm_train") else original).masks
    pixels = views(case)
    if "check.images_clip_s16" in case:
        assert np.abs(pixels[:, :3, ::16, ::16].numpy() - case["check.images_clip_s16"]).max() < 1e-5
    states = masks.image_features(pixels)
    offsets = case["in.offset"]
    rows = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    keys = ("mid.clip_hidden_m2_s8", "mid.clip_hidden_m11_s8")
    for scale, key in enumerate(keys if keys[0] in case else ()):
        assert error(states[:, scale, 7::8], case[key][np.unique(rows, return_index=True)[1]][:, 1:]) < 1e-4
    features = masks.projected(states)
    for number, (content, (_, size)) in enumerate(
        zip(case["in.clip_resize_list"].tolist(), case["in.sam_mask_shape_list"].tolist(), strict=True)
    ):
        queries = torch.from_numpy(case[f"mid.text_embeds.{number}"])
        if f"mid.neck_s4.{number}" in case:
            assert error(features[number, :, :, ::4, ::4], case[f"mid.neck_s4.{number}"]) < 1e-4
        of_image = features[number].expand(len(queries), -1, -1, -1, -1)
        low, _ = masks.decoder.scale(0, of_image[:, 0], queries[:, :1])
        final, _ = masks(of_image, queries)
        assert error(low, case[f"mid.mask_image{number}_scale0"]) < 1e-4
        if f"mid.mask_image{number}_fused_s2" in case:
            assert error(final[..., ::2, ::2], case[f"mid.mask_image{number}_fused_s2"]) < 1e-4
        frame = Frame(tuple(content), (448, 448), (32, 32))
        at_size = masks.to_image(final[:, 0], frame, tuple(size))
        if f"out.pred_masks.{number}" in case:
            assert error(at_size, case[f"out.pred_masks.{number}"]) < 1e-4
        if f"out.mask_scores.{number}" in case:
            shown = at_size > 0
            scores = (at_size.sigmoid() * shown).flatten(1).sum(1) / shown.flatten(1).sum(1)
            assert error(scores, case[f"out.mask_scores.{number}"]) < 1e-4


def test_codebook(baselines, published):
    parts = np.load(baselines / "pixellm_components.npz")
    states = torch.from_numpy(parts["codebook.in"]).unflatten(0, (-1, 6))
    assert error(published.codebook.fuse(states), parts["codebook.out"]) < 1e-5
    case = numbers(baselines, "pixellm_train")
    projected = torch.from_numpy(case["mid.text_hidden_states_selected"]).unflatten(0, (-1, 6))
    wanted = np.concatenate([case["mid.text_embeds.0"], case["mid.text_embeds.1"]])
    assert error(published.codebook.fuse(projected), wanted) < 1e-5


@pytest.mark.parametrize("number", [0, 1])
def test_overlap(baselines, number):
    file = np.load(baselines / "pixellm_match_overlap.npz")
    groups = file[f"overlap.{number}.targets_per_question"]
    logits = torch.from_numpy(file[f"match.{number}.logits"])[: groups.sum()].requires_grad_()
    truth = torch.from_numpy(file[f"match.{number}.gt"])[: groups.sum()].bool()
    loss = overlap_loss(logits, truth, tuple(np.repeat(np.arange(len(groups)), groups).tolist())).mean()
    loss.backward()
    assert float(loss) == pytest.approx(float(file[f"overlap.{number}.out"]), rel=1e-5, abs=1e-7)
    wanted = file[f"overlap.{number}.grad"]
    assert logits.grad is not None
    assert np.abs(logits.grad.numpy() - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("number", [0, 1])
def test_matching(baselines, number):
    file = np.load(baselines / "pixellm_match_overlap.npz")
    points = drawn_points(int(file[f"match.{number}.point_seed"]))
    assert np.allclose(points[:8], file[f"match.{number}.points_first8"][0])
    logits, truth = (torch.from_numpy(file[f"match.{number}.{part}"]) for part in ("logits", "gt"))
    costs = point_costs(logits, truth.bool(), points)
    assert error(costs, file[f"match.{number}.cost"]) < 1e-5
    drawn, wanted = list((logits > 0).numpy()), list(truth.bool().numpy())
    scores = match_by_costs(drawn, wanted, costs.numpy())
    pairs = dict(
        zip(file[f"match.{number}.gt_index"].tolist(), file[f"match.{number}.pred_index"].tolist(), strict=True)
    )
    for place, target in enumerate(wanted):
        mask = drawn[pairs[place]] if place in pairs else np.zeros_like(target)
        assert scores[place].intersection == (mask & target).sum() and scores[place].union == (mask | target).sum()
    assert len(scores) == max(len(drawn), len(wanted))


@torch.no_grad()
def test_two_scales_against_a_second_writing(published):
    """Mask by mask, in float64, with plain loops over tokens and pixels where the decoder has products."""
    decoder: PixelDecoder = PixelDecoder(16, heads=2, mlp=8, trained_weights=True).double()
    decoder.scale_weights.copy_(torch.tensor([0.25, 2.0]))
    features, queries = torch.randn(2, 2, 16, 4, 4).double(), torch.randn(2, 2, 16).double()
    found, _ = decoder(features, queries)
    for target in range(2):
        maps = features[target]
        masks = []
        for level in range(2):
            image_map = maps[level : level + 1]
            if level:
                image_map = decoder.upsample_2x(image_map) * (1 + 1 / (1 + (-masks[0]).exp()))
            rows = [decoder.iou_token.weight[0], *decoder.mask_tokens.weight, queries[target, level]]
            tokens = torch.stack([row + decoder.level_embed.weight[level] for row in rows]).unsqueeze(0)
            image_map = image_map + decoder.no_mask_embed.weight.view(1, -1, 1, 1)
            side = image_map.shape[2]
            matrix = decoder.positions[level].positional_encoding_gaussian_matrix.float()
            centres = [2 * (cell + 0.5) / side - 1 for cell in range(side)]
            angles = 2 * np.pi * torch.tensor([[[x, y] for x in centres] for y in centres]) @ matrix
            places = torch.cat([angles.sin(), angles.cos()], dim=2).permute(2, 0, 1).double()
            states, source = decoder.transformer[level](image_map, places.unsqueeze(0), tokens)
            wide = decoder.output_upscaling(source.transpose(1, 2).reshape(1, 16, side, side))[0]
            kernel = decoder.output_hypernetworks_mlps[0](states[0, 1])
            masks.append(sum(kernel[channel] * wide[channel] for channel in range(len(kernel)))[None, None])
        doubled = torch.nn.functional.interpolate(masks[0].float(), scale_factor=2, mode="bilinear")
        assert torch.allclose(found[target], 0.25 * doubled[0].double() + 2 * masks[1][0], atol=1e-6)


def test_a_marked_view_tells_what_is_padding():
    view = MarkedView(side=96, grid=4, mean=SAM_MEAN, std=SAM_STD)
    pixels = view.pixels(np.zeros((60, 80, 3), np.uint8))
    assert pixels.shape == (4, 96, 96)
    assert pixels[3, :72].all() and not pixels[3, 72:].any() and view.num_tokens == 16


@pytest.mark.parametrize(
    ("name", "backbone", "tokens"),
    [("pixellm_train", PixelLlava24Backbone, 24), ("pixellm_train_original", PixelLlavaBackbone, 16)],
)
@torch.no_grad()
def test_tokens_for_the_language_model(baselines, published, name, backbone, tokens):
    case = numbers(baselines, name)
    text = LlamaConfig(hidden_size=64, intermediate_size=176, num_hidden_layers=1, num_attention_heads=4, vocab_size=8)
    config = LlavaConfig(
        vision_config=SIZES.clip(), text_config=text, vision_feature_layer=-2, image_seq_length=tokens**2
    )
    llava = backbone(config)
    llava.network.model.vision_tower.load_state_dict(published.masks.image_encoder.state_dict(), strict=False)
    for own, rule in (("linear_1", 0), ("linear_2", 2)):
        for part, parameter in getattr(llava.network.model.multi_modal_projector, own).named_parameters():
            drawn = tensor(f"model.mm_projector.{rule}.{part}", tuple(parameter.shape))
            parameter.copy_(torch.from_numpy(drawn))
    features = llava.image_features(views(case), torch.ones(2, tokens**2, dtype=torch.bool), ())
    first_rows = case["in.offset"][:-1]
    assert error(features[:, ::4], case["mid.image_features_s4"][first_rows]) < 1e-4


def official(name: str) -> str:
    """The published name of one of this model's tensors."""
    for part, beginning in (
        ("pixel_decoder.image_encoder.", "clip.vision_model."),
        ("pixel_decoder.projector.", "model.out_mm_projector."),
        ("pixel_decoder.neck.", "model.image_feature_neck."),
        ("codebook.projection.", "model.text_hidden_fcs.0."),
    ):
        if name.startswith(part):
            return beginning + name.removeprefix(part)
    if name.startswith("pixel_decoder.decoder."):
        return name_of("decoder", name.removeprefix("pixel_decoder.decoder."))
    return official_name(name)


def whole_model(tokens: int) -> AnchorSegModel:
    text = LlamaConfig(
        hidden_size=64, intermediate_size=176, num_hidden_layers=3, num_attention_heads=4, rms_norm_eps=1e-5,
        vocab_size=654, pad_token_id=None,
    )  # fmt: skip
    ids = {"segment": 645, "reject": 651, "reasoning": list(range(640, 645)), "bos": 1, "eos": 2}
    config = AnchorSegConfig(
        language_model="llava-pixellm-24" if tokens == 24 else "llava-pixellm",
        language_config=LlavaConfig(
            vision_config=SIZES.clip(), text_config=text, vision_feature_layer=-2, image_seq_length=tokens**2
        ),
        mask_model="pixellm-published",
        mask_config=SIZES if tokens == 24 else replace(SIZES, projector_factor=2),
        head="pixellm",
        method=PixelOptions(num_latents=5, codebook_weights="constant"),
        tokens=TokenStrings.for_bank(5),
        token_ids=ids,
    )
    model = AnchorSegModel(config)
    add_lora(model.language.adapted, LoraSettings(r=8, alpha=16, dropout=0.0, targets=("q_proj", "v_proj")))
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if name.endswith(("position_ids", "inv_freq", "scale_weights", "codebook.weights")):
            continue
        if name.endswith("position_embedding.weight"):
            table = torch.from_numpy(tensor("clip.vision_model.embeddings.position_embedding.weight", (577, 32)))
            value.data.copy_(resized_positions(table, 32, shifted=True))
            continue
        value.data.copy_(torch.from_numpy(tensor(official(name), tuple(value.shape))))
    set_trainable(model, "paper")
    model.masks.neck.requires_grad_(True)
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "tokens"), [("pixellm_train", 24), ("pixellm_train_llm16", 16), ("pixellm_train_original", 16)]
)
def test_from_images_and_ids_to_gradients(baselines, name, tokens):
    case, base = numbers(baselines, name), np.load(baselines / "pixellm_train.npz")
    model = whole_model(tokens)
    ids, labels = (torch.from_numpy(case[f"in.{part}"]) for part in ("input_ids", "labels"))
    (start,) = set((ids == -200).nonzero()[:, 1].tolist())

    def expanded(rows: Tensor, value: int) -> Tensor:
        return torch.cat([rows[:, :start], torch.full((len(rows), tokens**2), value), rows[:, start + 1 :]], dim=1)

    rows = torch.from_numpy(np.repeat(np.arange(2), np.diff(case["in.offset"])))
    targets, ends = (ids == 645).nonzero(as_tuple=True)
    bank = BankPositions(
        rows=targets,
        columns=(ends + tokens**2 - 1)[:, None] + torch.arange(-5, 1),
        counts=tuple(int((rows[targets] == number).sum()) for number in range(2)),
    )
    contents = [tuple(content) for content in case["in.clip_resize_list"].tolist()]
    pixels = views(case)
    shown = pixels[:, 3, ::14, ::14] > 0
    nearest = torch.arange(tokens) * 32 // tokens
    frames = tuple(Frame(content, (448, 448), (32, 32)) for content in contents)
    images = Images(
        sizes=tuple(tuple(size) for _, size in case["in.sam_mask_shape_list"].tolist()),
        language_pixels=pixels,
        language_frames=frames,
        patch_valid=shown[:, nearest][:, :, nearest].flatten(1),
        mask_pixels=pixels,
        mask_frames=frames,
        mask_features=(None, None),
        feature_keys=(),
    )
    truth = tuple(torch.from_numpy(base[f"in.masks_list.{number}"]).bool() for number in range(2))
    masks = tuple(of_image[of_image.flatten(1).any(dim=1)] for of_image in truth)
    valid, labels = expanded((ids != 0).long(), 1).bool(), expanded(labels, -100)
    conversations = Conversations(
        input_ids=expanded(ids, model.language.placeholder),
        segments=torch.where(valid, 0, -1),
        positions=torch.arange(valid.shape[1]).expand_as(valid),
        row_images=rows,
        image_start=start,
        labels=labels,
        supervised=(labels[:, 1:] != -100).nonzero(as_tuple=True),
        targets=bank,
        slots=bank,
        masks=masks,
        ignore=(None, None),
        present=tuple(tuple(range(len(each))) for each in masks),
        boxes=tuple(content_box(each) for each in masks),
        asked_in=tuple(tuple(range(len(each))) for each in masks),
        instances=((), ()),
    )
    batch = Batch(records=("", ""), images=images, conversations=conversations)
    output = model(batch)
    for number, found in enumerate(output.segmentation.masks):
        assert error(found, case[f"out.pred_masks.{number}"]) < 1e-4
    losses = Objective(LossWeights(ce=1, bce=2, dice=0.5), model.head)(output, batch)
    dice = 0.5 if abs(float(losses.total) / float(case["out.loss"]) - 1) < 1e-4 else 4.0
    losses = Objective(LossWeights(ce=1, bce=2, dice=dice), model.head)(output, batch)
    assert float(losses.total) == pytest.approx(float(case["out.loss"]), rel=1e-4)
    losses.total.backward()
    gradients = {official(key): p.grad for key, p in model.named_parameters() if p.grad is not None}
    files = [case]
    if name == "pixellm_train":
        files.append(dict(np.load(baselines / "pixellm_neck_gradients.npz")))
    compared = 0
    for file in files:
        for key, norm in zip(map(str, file["grad_names"]), file["grad_norm"], strict=True):
            if norm < 1e-6 * float(case["grad_total_norm"]):
                continue
            if f"grad.{key}" in file:
                assert error(gradients[key], file[f"grad.{key}"]) < 1e-4, key
            assert float(gradients[key].norm()) == pytest.approx(float(norm), rel=1e-4), key
            compared += 1
    assert compared > 150
