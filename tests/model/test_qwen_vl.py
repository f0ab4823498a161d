"""Qwen-VL's parts, each called by itself, give what transformers' own model gives; packed behind a shared image too."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from anchorseg.method.modeling import visibility
from dataset.batch import PADDING, PREFIX
from dataset.positions import prefix_positions, text_positions
from model.backbones import language_backbone
from model.qwen_view import QwenView

NAMES = ("qwen3-vl", "qwen2.5-vl")
VOCABULARY, IMAGE_ID = 300, 290
SIZES = ((90, 130), (200, 61), (64, 64), (333, 500))
OPENING, CLOSING = [3, 14, 15], [9]
QUESTIONS = ([[20, 21, 22], [30, 31, 32, 33, 34]], [[40], [41, 42]], [[50, 51]], [[60, 61, 62]])
all_backbones = pytest.mark.parametrize("name", NAMES)


def images() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


def backbone_of(name: str) -> tuple:
    """A backbone with drawn weights, and transformers' model with the same ones."""
    kind = language_backbone(name)
    config = kind.preset("tiny", VOCABULARY)
    config.image_token_id, config.video_token_id = IMAGE_ID, IMAGE_ID + 1
    torch.manual_seed(0)
    backbone = kind(copy.deepcopy(config)).eval()
    for parameter in backbone.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, mean=1.0, std=0.2)
    for layer in backbone.language_model.layers:  # so that it does not write the same id again and again
        layer.mlp.down_proj.weight.data *= 8
    reference = kind.Network(config).eval()
    state = backbone.network.state_dict()
    if backbone.tied:
        state["lm_head.weight"] = state["model.language_model.embed_tokens.weight"]
    reference.load_state_dict(state)
    return backbone, reference, kind.view(config, "clip")


def processed(view: QwenView) -> tuple[torch.Tensor, torch.Tensor]:
    """Patches and grids as its own processor gives them."""
    side = view.patch * view.merge
    processor = Qwen2VLImageProcessorPil(
        patch_size=view.patch,
        merge_size=view.merge,
        size={"shortest_edge": view.least * side**2, "longest_edge": view.most * side**2},
        image_mean=[value / 255 for value in view.mean],
        image_std=[value / 255 for value in view.std],
    )
    made = processor(images(), return_tensors="pt")
    return made["pixel_values"], made["image_grid_thw"]


def difference(found: torch.Tensor, wanted: torch.Tensor) -> float:
    assert found.shape == wanted.shape and wanted.abs().max() > 0
    return float((found - wanted).abs().max() / wanted.abs().max())


@all_backbones
def test_views_are_those_of_its_processor(name):
    _, _, view = backbone_of(name)
    pixels, grids = processed(view)
    frames = [view.frame(size) for size in SIZES]
    assert [(1, *(view.merge * side for side in frame.grid)) for frame in frames] == [tuple(g) for g in grids.tolist()]
    found = torch.cat([view.pixels(image) for image in images()])
    repeated = found.unflatten(1, (3, 1, -1)).expand(-1, -1, 2, -1).flatten(1)
    assert difference(repeated, pixels) < 1e-5


@all_backbones
@pytest.mark.parametrize("size", [(1, 900), (900, 1), (3, 3370), (1, 1), (4000, 6000)])
def test_images_of_every_shape_have_a_view(name, size):
    """Its processor refuses those that are more than 200 times as long as wide."""
    _, _, view = backbone_of(name)
    frame = view.frame(size)
    assert 1 <= frame.num_tokens <= view.most and frame.grid[0] * view.patch * view.merge == frame.view[0]
    assert view.pixels(np.zeros((*size, 3), dtype=np.uint8)).shape[0] == frame.num_tokens * view.merge**2
    assert view.positions(frame).shape == (frame.num_tokens, 3)


def own_features(backbone, view) -> tuple[torch.Tensor, list]:
    frames = [view.frame(size) for size in SIZES]
    pixels = pad_sequence([view.pixels(image) for image in images()], batch_first=True)
    counts = torch.tensor([frame.num_tokens for frame in frames])
    valid = torch.arange(int(counts.max())) < counts.unsqueeze(1)
    return backbone.image_features(pixels, valid, tuple(frame.grid for frame in frames)), frames


@all_backbones
@torch.no_grad()
def test_image_features(name):
    backbone, reference, view = backbone_of(name)
    features, frames = own_features(backbone, view)
    pixels, grids = processed(view)
    wanted = reference.model.get_image_features(pixels, grids, return_dict=True)
    stacked = getattr(wanted, "deepstack_features", [])
    for image, frame in enumerate(frames):
        whole = torch.cat([wanted.pooler_output[image], *(layer[image] for layer in stacked)], dim=-1)
        assert difference(features[image, : frame.num_tokens], whole) < 1e-5
        assert not features[image, frame.num_tokens :].any()


def reference_states(reference, view, questions) -> list[list[tuple[torch.Tensor, torch.Tensor]]]:
    """Hidden states at the image's tokens and at the question, each question in a sequence of its own."""
    pixels, grids = processed(view)
    patches = grids.prod(dim=1).tolist()
    found = []
    for image, (grid, own) in enumerate(zip(grids, pixels.split(patches), strict=True)):
        tokens = int(grid.prod()) // view.merge**2
        of_image = []
        for question in questions[image]:
            ids = torch.tensor([[*OPENING, *[IMAGE_ID] * tokens, *CLOSING, *question]])
            hidden = reference.model(
                input_ids=ids,
                pixel_values=own,
                image_grid_thw=grid.unsqueeze(0),
                mm_token_type_ids=(ids == IMAGE_ID).int(),
            ).last_hidden_state[0]
            of_image.append((hidden[len(OPENING) : len(OPENING) + tokens], hidden[-len(question) :]))
        found.append(of_image)
    return found


def packed(view, frames, questions):
    """Ids, segments, positions and validity (R, T) of all questions about an image in its row."""
    columns = max(frame.num_tokens for frame in frames)
    rows = []
    for frame, asked in zip(frames, questions, strict=True):
        prefix = prefix_positions(view.positions(frame), before=len(OPENING), columns=columns, behind=len(CLOSING))
        length = len(prefix)
        ids = [*OPENING, *[-200] * columns, *CLOSING]
        segments, positions = [PREFIX] * length, [prefix]
        valid = [not frame.num_tokens <= place - len(OPENING) < columns for place in range(length)]
        for number, question in enumerate(asked, start=1):
            ids += question
            segments += [number] * len(question)
            valid += [True] * len(question)
            positions.append(text_positions(int(prefix[-1].max()) + 1, len(question), prefix))
        rows.append((torch.tensor(ids), torch.tensor(segments), torch.cat(positions), torch.tensor(valid)))
    ids, segments, positions, valid = zip(*rows, strict=True)
    return (
        pad_sequence(ids, batch_first=True),
        pad_sequence(segments, batch_first=True, padding_value=PADDING),
        pad_sequence(positions, batch_first=True),
        pad_sequence(valid, batch_first=True),
    )


@all_backbones
@pytest.mark.parametrize("several", [False, True], ids=["single", "packed"])
@torch.no_grad()
def test_hidden_states_and_logits(name, several):
    backbone, reference, view = backbone_of(name)
    questions = QUESTIONS if several else [asked[:1] for asked in QUESTIONS]
    wanted = reference_states(reference, view, questions)
    features, frames = own_features(backbone, view)
    ids, segments, positions, valid = packed(view, frames, questions)
    for zero_padding in (False, True):
        hidden = backbone.hidden_states(
            backbone.embed(ids, features, len(OPENING)),
            positions,
            visibility(segments, valid, zero_padding=zero_padding),
        )
        for image, frame in enumerate(frames):
            for number, (of_image, of_question) in enumerate(wanted[image], start=1):
                own = hidden[image, len(OPENING) : len(OPENING) + frame.num_tokens]
                assert difference(own, of_image) < 1e-5
                written = hidden[image, segments[image] == number]
                assert difference(written, of_question) < 1e-5
                assert difference(backbone.logits(written), reference.lm_head(of_question)) < 1e-5


@all_backbones
@torch.no_grad()
def test_greedy_ids_with_a_cache(name):
    backbone, reference, view = backbone_of(name)
    features, frames = own_features(backbone, view)
    questions = [asked[:1] for asked in QUESTIONS]
    pixels, grids = processed(view)
    for image, (frame, own) in enumerate(zip(frames, pixels.split(grids.prod(dim=1).tolist()), strict=True)):
        ids = torch.tensor([[*OPENING, *[IMAGE_ID] * frame.num_tokens, *CLOSING, *questions[image][0]]])
        wanted = reference.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=own,
            image_grid_thw=grids[image : image + 1],
            mm_token_type_ids=(ids == IMAGE_ID).int(),
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )[0, ids.shape[1] :]
        own_ids, segments, positions, valid = packed(view, [frame], [questions[image]])
        cache = backbone.new_cache()
        visible = visibility(segments, valid, zero_padding=False)
        embeddings = backbone.embed(own_ids, features[image : image + 1, : frame.num_tokens], len(OPENING))
        hidden = backbone.hidden_states(embeddings, positions, visible, cache)
        written = []
        for step in range(12):
            written.append(int(backbone.logits(hidden[:, -1]).argmax()))
            seen = torch.ones(1, 1, own_ids.shape[1] + step + 1, dtype=torch.bool)
            at = positions[:, -1, 0].unsqueeze(1) + step + 1
            hidden = backbone.hidden_states(backbone.embed_tokens(torch.tensor([[written[-1]]])), at, seen, cache)
        assert written == wanted.tolist()
        assert len(set(written)) > 1, "a sequence that tells steps apart"
