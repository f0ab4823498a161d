"""tiny-sam: what its script writes is a SAM for this project's reader and for segment-anything itself."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from model import sam as module
from model.sam import SamBackbone
from scripts.foundation.cutouts import DETAIL, GROUP, NOTHING, OBJECT, boxes_of, draw_cutouts, draw_points, draw_targets

ROOT = Path(__file__).parents[1]
SMALL = ("--scenes", "24", "--unseen", "4", "--batch", "2", "--report", "3", "--workers", "1")


def train(file: Path, *flags: str) -> None:
    command = [sys.executable, "-m", "scripts.foundation.sam", str(file), *SMALL, *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("foundation") / "tiny_sam.pth"
    train(file, "--steps", "6")
    return file


@pytest.fixture(scope="module")
def room():
    return draw_cutouts(40, seed=3, split="train", view=SamBackbone.preset("mini").view, workers=1)


def test_targets_are_objects_details_and_groups(room):
    torch.manual_seed(0)
    chosen = torch.arange(len(room))
    for kind in (OBJECT, DETAIL, GROUP):
        masks = draw_targets(room, chosen, 3, kind)
        assert bool(masks.any(-1).any(-1).all())
        for image, of_image in enumerate(masks):
            for mask in of_image:
                owners = set(room.objects[image][mask].tolist())
                assert NOTHING not in owners
                whole = sum(int((room.objects[image] == owner).sum()) for owner in owners)
                assert int(mask.sum()) == whole if kind != DETAIL else int(mask.sum()) <= whole
                assert kind == GROUP or len(owners) == 1
                if kind == GROUP:
                    shared = room.attributes[image][sorted(owners)]
                    assert bool((shared == shared[0]).all(0).any())


def test_points_lie_inside_and_boxes_around(room):
    torch.manual_seed(0)
    masks = draw_targets(room, torch.arange(len(room)), 2, OBJECT).flatten(0, 1)
    points = (draw_points(masks, 2) - 0.5).long()
    rows = torch.arange(len(masks))[:, None]
    assert bool(masks[rows, points[..., 1], points[..., 0]].all())
    boxes = boxes_of(masks, 0.0)
    for mask, (low, high) in zip(masks, boxes, strict=True):
        y, x = np.nonzero(mask.numpy())
        assert (low.tolist(), high.tolist()) == ([x.min(), y.min()], [x.max() + 1, y.max() + 1])


def test_the_file_is_read_strictly_and_by_segment_anything_itself(trained):
    sizes = SamBackbone.preset("mini")
    backbone = SamBackbone(sizes).eval()
    report = backbone.load_published(SamBackbone.open_published(trained, sizes), torch.float32)
    assert report.loaded and not report.refused and report.new == ("mask_token_positions",)
    package = module._sam
    encoder = package.ImageEncoderViT(
        img_size=sizes.image_size, patch_size=sizes.patch_size, embed_dim=sizes.encoder_width,
        depth=sizes.encoder_depth, num_heads=sizes.encoder_heads, mlp_ratio=4, out_chans=sizes.prompt_width,
        qkv_bias=True, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6), use_rel_pos=True,
        window_size=sizes.window_size, global_attn_indexes=sizes.global_attention,
    )  # fmt: skip
    whole = package.Sam(encoder, module._prompt_encoder(sizes), module._mask_decoder(sizes)).eval()
    whole.load_state_dict(torch.load(trained, weights_only=True), strict=True)
    pixels = torch.randn(1, 3, sizes.image_size, sizes.image_size)
    points, labels = torch.tensor([[[40.0, 60.0]]]), torch.tensor([[1]])
    with torch.no_grad():
        features = whole.image_encoder(pixels)
        assert torch.allclose(features, backbone.image_features(pixels), atol=1e-4 * float(features.abs().max()))
        sparse, dense = whole.prompt_encoder(points=(points, labels), boxes=None, masks=None)
        masks, quality = whole.mask_decoder(
            features, whole.prompt_encoder.get_dense_pe(), sparse, dense, multimask_output=True
        )
        backbone.mask_token_positions.zero_()
        ours, estimates = backbone(features + dense, sparse, multimask=True)
    assert torch.allclose(ours, masks, atol=1e-4 * float(masks.abs().max()))
    assert torch.allclose(estimates, quality, atol=1e-4)


@pytest.mark.slow
def test_an_interrupted_run_resumes_to_the_same_weights(trained, tmp_path):
    file = tmp_path / "again.pth"
    train(file, "--steps", "6", "--stop_after", "3")
    train(file, "--steps", "6", "--resume")
    one, other = (torch.load(each, weights_only=True) for each in (trained, file))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
