"""SAM 3: transformers' own masks, the published file's names, angles that survive bf16, and a step of each head."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import Sam3TrackerModel, Sam3VideoConfig, Sam3VideoModel

from anchorseg.inference.feature_cache import open_store
from anchorseg.method.heads import head_entry
from anchorseg.method.modeling import AnchorSegModel
from anchorseg.training.trainable import set_trainable, trainable_groups
from anchorseg.weights.presets import preset_config
from model import sam2_files, sam3_files
from model.backbones import mask_backbone
from model.sam3 import MINIATURE, Sam3Backbone
from model.sam3_files import Sam3Sizes
from tests.conftest import make_batch, make_registry, make_sample
from tests.recording import OperatorRecorder
from utils.cuda_graphs import CapturedCall
from utils.errors import CheckpointError, SettingsError
from utils.seeding import seed_torch

IMAGES = {"wide": (60, 200), "tall": (211, 37), "square": (168, 168)}


def drawn(positions="float32"):
    """A backbone of which no weight is zero."""
    seed_torch(0)
    backbone = Sam3Backbone(MINIATURE, positions).eval()
    for name, parameter in backbone.named_parameters():
        std = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.2
        torch.nn.init.normal_(parameter, mean=float("norm" in name and name.endswith("weight")), std=std)
    return backbone


def whole_of(backbone):
    """`Sam3TrackerModel` with the backbone's weights, its mask-token table among them; masks are token 0's."""
    whole = Sam3TrackerModel(backbone.sizes.config()).eval()
    own = backbone.state_dict()
    whole.load_state_dict({name: own[sam2_files.own_name(name)] for name in whole.state_dict()})
    whole.mask_decoder.mask_tokens.weight.data += backbone.mask_token_positions
    whole.mask_decoder.dynamic_multimask_via_stability = False
    return whole


def difference(one, other):
    """The largest, as a part of the largest value."""
    assert one.shape == other.shape and one.dtype == other.dtype
    assert other.abs().max() > 0
    return float((one - other).abs().max() / other.abs().max())


def views(backbone, sizes):
    pictures = (np.random.default_rng(sum(size)).integers(0, 256, (*size, 3)).astype(np.uint8) for size in sizes)
    return torch.stack([backbone.view.pixels(picture) for picture in pictures])


@pytest.mark.parametrize("size", IMAGES.values(), ids=IMAGES)
@pytest.mark.parametrize("multimask", [False, True])
def test_masks_of_points_are_those_of_sam3(size, multimask):
    backbone = drawn()
    pixels = views(backbone, [size])
    points, labels = torch.rand(3, 5, 2) * backbone.sizes.image_size, torch.randint(-1, 2, (3, 5))
    with torch.inference_mode():
        wanted = whole_of(backbone)(
            pixel_values=pixels, input_points=points[None], input_labels=labels[None], multimask_output=multimask
        )
        features = backbone.condition(backbone.image_features(pixels).expand(3, -1, -1, -1), None)
        prompts = backbone.point_prompts(points, labels)
        masks, iou = backbone(features, prompts, multimask=multimask)
        scores = backbone.decode(features, prompts).object_scores
    assert difference(masks, wanted.pred_masks[0]) < 1e-5
    assert difference(iou, wanted.iou_scores[0]) < 1e-5
    assert difference(scores, wanted.object_score_logits[0]) < 1e-5
    assert backbone.to_image(masks[:, 0], backbone.view.frame(size), size).shape == (3, *size)


def test_each_target_has_the_masks_that_sam3_gives_its_queries_and_its_prior():
    """One after the other, through SAM 3's own classes: two images, one of them with two targets."""
    backbone = drawn()
    whole = whole_of(backbone)
    sizes = (IMAGES["wide"], IMAGES["tall"])
    pixels, queries = views(backbone, sizes), torch.randn(3, 8, backbone.prompt_width)
    maps = [torch.rand(2, *sizes[0]), torch.rand(1, *sizes[1])]
    places = [(0, maps[0][0]), (0, maps[0][1]), (1, maps[1][0])]
    side = backbone.low_resolution
    with torch.inference_mode():
        features = backbone.image_features(pixels)[[0, 0, 1]]
        found = {given: backbone(backbone.condition(features, maps if given else None), queries) for given in (1, 0)}
        for number, (image, prior) in enumerate(places):
            fine, middle, embedding = whole.get_image_embeddings(pixels[image : image + 1])
            prompt = F.interpolate(prior[None, None], (side, side), mode="bilinear", antialias=True)
            for given, (masks, iou) in found.items():
                _, dense = whole.prompt_encoder(None, None, None, prompt if given else None)
                wanted, wanted_iou, _, _ = whole.mask_decoder(
                    image_embeddings=embedding,
                    image_positional_embeddings=whole.get_image_wide_positional_embeddings(),
                    sparse_prompt_embeddings=queries[number][None, None],
                    dense_prompt_embeddings=dense,
                    multimask_output=False,
                    high_resolution_features=[fine, middle],
                )
                assert difference(masks[number : number + 1], wanted[0]) < 1e-5
                assert difference(iou[number : number + 1], wanted_iou[0]) < 1e-5
    assert difference(found[1][0], found[0][0]) > 1e-3


def test_stored_features_give_the_same_masks_to_the_last_bit(tmp_path):
    backbone = drawn().to(torch.bfloat16)
    with torch.inference_mode():
        features = backbone.image_features(views(backbone, [IMAGES["wide"]]).to(torch.bfloat16))
        store = open_store(backbone, tmp_path)
        assert store.write("ab12", features[0]) == store.entry_bytes
        queries = torch.randn(1, 8, backbone.prompt_width, dtype=torch.bfloat16)
        kept = store.find("ab12")[None]
        masks, again = (backbone(backbone.condition(each, None), queries)[0] for each in (features, kept))
    assert torch.equal(masks, again)


def test_bfloat16_is_near_and_leaves_the_angles_whole():
    backbone = drawn()
    pixels = views(backbone, [IMAGES["wide"]])
    turns = backbone.image_encoder.vision.backbone.layers[2].rotary_emb
    with torch.inference_mode():
        exact, angles = backbone.image_features(pixels), turns(pixels, None)
        backbone.to(torch.bfloat16)
        near = backbone.image_features(pixels.to(torch.bfloat16))
        again = turns(pixels.to(torch.bfloat16), None)
    assert near.dtype == torch.bfloat16 and difference(near.float(), exact) < 0.05
    assert all(map(torch.equal, angles, again)) and angles[0].dtype == torch.float32


def test_the_encoder_compiles_whole():
    """With the tracer of torch.compile alone; generating code takes minutes."""
    backbone = drawn()
    pixels = views(backbone, [IMAGES["wide"]])
    with torch.no_grad():
        expected = backbone.image_features(pixels)
        backbone.image_encoder.compile(backend="eager", fullgraph=True)
        assert difference(backbone.image_features(pixels), expected) < 1e-6


@torch.inference_mode()
def test_the_encoder_can_be_captured():
    """As a CUDA graph would play it: the same operators on the same memory, without the Python around them."""
    backbone = drawn()
    recorder = OperatorRecorder()
    encode = CapturedCall(lambda pixels: (backbone.image_features(pixels),), recorder)
    for size in IMAGES.values():
        pixels = views(backbone, [size])
        assert difference(encode(pixels)[0], backbone.image_features(pixels)) < 1e-6
    assert recorder.recordings == 1 and recorder.replays


class Published:
    """Names and shapes of the published file, and no values but of the encoding of positions."""

    path = "facebook/sam3"

    def __init__(self):
        with torch.device("meta"):
            self.values = dict(Sam3VideoModel(Sam3VideoConfig()).state_dict())
        for name in sam3_files.POSITIONS:
            self.values[name] = torch.ones(self.values[name].shape)

    def __iter__(self):
        return iter(self.values)

    def __getitem__(self, name):
        return self.values[name]

    def shape(self, name):
        return self.values[name].shape


def test_published_names_and_shapes_load_strictly():
    files = Published()
    sizes = mask_backbone("sam3").preset("7b")
    with torch.device("meta"):
        backbone = Sam3Backbone(sizes)
    assert backbone.feature_shape == (1024, 72, 72)
    report = backbone.load_published(files, torch.bfloat16)
    assert report.new == ("mask_token_positions",)
    assert set(report.loaded.values()) | set(report.refused) == set(files)
    assert not any("vision_encoder.backbone" in name for name in report.refused)
    matrix = files.values[sam3_files.POSITIONS[0]].numel()
    assert sum(value.numel() for value in files.values.values()) - 2 * matrix == 859_921_848
    counts = {name: sum(p.numel() for p in getattr(backbone, name).parameters()) for name in
              ("image_encoder", "mask_decoder", "prompt_encoder")}  # fmt: skip
    assert counts["mask_decoder"] == 4_190_437 and counts["prompt_encoder"] == 6_220
    assert counts["image_encoder"] == 453_211_232
    del files.values["tracker_model.mask_decoder.conv_s0.weight"]
    with pytest.raises(CheckpointError, match=r"missing: image_encoder\.conv_s0\.weight"):
        backbone.load_published(files, torch.bfloat16)


def published_name(name):
    """The name in the published file of a tensor of `Sam3TrackerModel`."""
    for own, published in (("backbone.", sam3_files.BACKBONE), ("neck.", "tracker_neck.")):
        if name.startswith(f"vision_encoder.{own}"):
            return published + name.removeprefix(f"vision_encoder.{own}")
    return f"tracker_model.{name}"


def test_a_folder_gives_the_weights_and_another_size_is_refused(tmp_path):
    seed_torch(1)
    model = Sam3TrackerModel(MINIATURE.config())
    model.shared_image_embedding.positional_embedding.copy_(model.prompt_encoder.shared_embedding.positional_embedding)
    model.config.save_pretrained(tmp_path)
    values = {published_name(name): value for name, value in model.state_dict().items()}
    others = ("detector_model.text_projection.bias", "tracker_model.memory_attention.layer_norm.bias")
    save_file({**values, **{name: torch.ones(1) for name in others}}, tmp_path / "model.safetensors", {"format": "pt"})
    wanted = Sam3TrackerModel.from_pretrained(tmp_path).state_dict()
    for place in (tmp_path, tmp_path / "model.safetensors"):
        backbone = drawn()
        report = backbone.load_published(backbone.open_published(place, MINIATURE), torch.float32)
        assert set(others) < set(report.refused)
        own = backbone.state_dict()
        for name, value in wanted.items():
            assert torch.equal(own[sam2_files.own_name(name)], value), name
    with pytest.raises(CheckpointError, match="width 32 and depth 3 instead of 1024 and 32"):
        Sam3Backbone.open_published(tmp_path, Sam3Sizes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["vision_config"]["backbone_config"]["window_size"] = 6
    (tmp_path / "config.json").write_text(json.dumps({"tracker_config": config}))
    with pytest.raises(CheckpointError, match="window 6 instead of 5"):
        Sam3Backbone.open_published(tmp_path, MINIATURE)
    torch.save({"image_encoder.pos_embed": torch.ones(1)}, tmp_path / "sam.pth")
    with pytest.raises(CheckpointError, match="holds no SAM 3 in transformers' layout"):
        Sam3Backbone.open_published(tmp_path / "sam.pth", MINIATURE)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"encoder_width": 0}, "encoder_width is 0; it must be at least 1"),
        ({"global_attention": (32,)}, "blocks are 0 to 31"),
        ({"image_size": 1000}, "not a multiple of 14"),
        ({"encoder_width": 1000}, "not a multiple of 64"),
        ({"prompt_width": 100}, "not a multiple of 8"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(values, said):
    with pytest.raises(ValueError, match=said):
        Sam3Sizes(**values)


def test_sizes_are_those_of_the_configuration():
    for sizes in (MINIATURE, Sam3Sizes()):
        assert Sam3Sizes.of(sizes.config()) == sizes
    assert Sam3Sizes.of(Sam3VideoConfig().tracker_config) == Sam3Sizes()
    with pytest.raises(SettingsError, match="published in one size"):
        Sam3Backbone.published_sizes("vit_h")


@pytest.mark.parametrize("head", ["anchorseg", "lisa", "gsva", "read"])
def test_every_head_trains_the_decoder_and_leaves_the_encoder(head):
    options = head_entry(head).Options()
    registry = make_registry(options.num_latents)
    seed_torch(0)
    model = AnchorSegModel(preset_config("tiny", options, registry, head=head, mask_model="sam3"))
    assert "Sam3ViTLayer" in model._no_split_modules
    set_trainable(model, "paper")
    samples = [make_sample(0, conversations=1), make_sample(1, (90, 50), conversations=1)]
    made = model(make_batch(model, registry, samples)).segmentation
    assert [tuple(masks.shape) for masks in made.masks] == [(1, 60, 80), (1, 90, 50)]
    sum(masks.square().sum() for masks in made.masks).backward()
    assert all(parameter.grad is None for parameter in model.masks.image_encoder.parameters())
    for group in ("mask decoder", "mask-token table"):
        assert any(p.grad is not None and p.grad.any() for p in trainable_groups(model)[group]), group
