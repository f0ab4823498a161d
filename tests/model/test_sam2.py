"""SAM 2.1: transformers' own masks, features of all levels in one tensor, published files, and a step of each head."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import Sam2Model, Sam2VideoConfig, Sam2VideoModel

from anchorseg.inference.feature_cache import open_store
from anchorseg.method.heads import head_entry
from anchorseg.method.modeling import AnchorSegModel
from anchorseg.training.pretrained import join_pretrained
from anchorseg.training.settings import ModelSettings
from anchorseg.training.trainable import set_trainable, trainable_groups
from anchorseg.weights.presets import preset_config
from model import sam2_files
from model.backbones import mask_backbone
from model.sam2 import MINIATURE, Sam2Backbone
from model.sam2_files import PUBLISHED_SIZES, Sam2Sizes
from tests.conftest import make_batch, make_registry, make_sample
from tests.recording import OperatorRecorder
from utils.cuda_graphs import CapturedCall
from utils.errors import CheckpointError, SettingsError
from utils.seeding import seed_torch

IMAGES = {"wide": (60, 200), "tall": (211, 37), "square": (192, 192), "one pixel wide": (90, 1)}
all_images = pytest.mark.parametrize("size", IMAGES.values(), ids=IMAGES)
MIB = 2**20


def drawn(sizes=MINIATURE, *, positions="float32"):
    """A backbone of which no weight is zero, and whose masks are of the size of one."""
    seed_torch(0)
    backbone = Sam2Backbone(sizes, positions).eval()
    for name, parameter in backbone.named_parameters():
        std = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.2
        torch.nn.init.normal_(parameter, mean=float("norm" in name and name.endswith("weight")), std=std)
    return backbone


def whole_of(backbone):
    """`Sam2Model` with the backbone's weights, its mask-token table among them; masks are token 0's."""
    whole = Sam2Model(backbone.sizes.config()).eval()
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


def picture(size):
    return np.random.default_rng(sum(size)).integers(0, 256, (*size, 3)).astype(np.uint8)


def views(backbone, sizes):
    return torch.stack([backbone.view.pixels(picture(size)) for size in sizes])


@all_images
@pytest.mark.parametrize("multimask", [False, True])
def test_masks_of_points_are_those_of_sam2(size, multimask):
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
        at_size = backbone.to_image(masks[:, 0], backbone.view.frame(size), size)
    assert difference(masks, wanted.pred_masks[0]) < 1e-5
    assert difference(iou, wanted.iou_scores[0]) < 1e-5
    assert difference(scores, wanted.object_score_logits[0]) < 1e-5
    # As SAM 2's own post-processing.
    published = F.interpolate(wanted.pred_masks[0][:, :1], size, mode="bilinear", align_corners=False)
    assert difference(at_size, published[:, 0]) < 1e-5


def test_each_target_has_the_masks_that_sam2_gives_its_queries_and_its_prior():
    """One after the other, through SAM 2's own classes: two images, one of them with two targets."""
    backbone = drawn()
    whole = whole_of(backbone)
    sizes = (IMAGES["wide"], IMAGES["tall"])
    pixels, queries = views(backbone, sizes), torch.randn(3, 8, backbone.prompt_width)
    maps = [torch.rand(2, *sizes[0]), torch.rand(1, *sizes[1])]
    places = [(0, maps[0][0]), (0, maps[0][1]), (1, maps[1][0])]
    with torch.inference_mode():
        found = {
            given: backbone(
                backbone.condition(backbone.image_features(pixels)[[0, 0, 1]], maps if given else None), queries
            )
            for given in (True, False)
        }
        for number, (image, prior) in enumerate(places):
            fine, middle, embedding = whole.get_image_embeddings(pixels[image : image + 1])
            side = backbone.low_resolution
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
    assert difference(found[True][0], found[False][0]) > 1e-2


def test_levels_are_views_of_the_features():
    backbone = drawn()
    with torch.inference_mode():
        features = backbone.image_features(views(backbone, IMAGES.values()))
        levels = backbone.levels(features)
        wanted = whole_of(backbone).get_image_embeddings(views(backbone, IMAGES.values()))
    for level, own in zip(levels, wanted[::-1], strict=True):
        assert level.untyped_storage().data_ptr() == features.untyped_storage().data_ptr()
        assert difference(level, own) < 1e-5
    assert sum(level.numel() for level in levels) == features.numel()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_stored_features_give_the_same_masks_to_the_last_bit(tmp_path, dtype):
    backbone = drawn().to(dtype)
    with torch.inference_mode():
        features = backbone.image_features(views(backbone, [IMAGES["wide"]]).to(dtype))
        store = open_store(backbone, tmp_path)
        assert store.write("ab12", features[0]) == store.entry_bytes
        stored = store.find("ab12")[None]
        queries = torch.randn(1, 8, backbone.prompt_width, dtype=dtype)
        masks, again = (backbone(backbone.condition(kept, None), queries)[0] for kept in (features, stored))
        assert torch.equal(masks, again) and masks.dtype == dtype
        for parameters in backbone.trained().values():
            parameters[0].add_(1)
        assert open_store(backbone, tmp_path) == store, "what trains has no part in stored features"
        for table in (backbone.image_encoder.conv_s0.bias, backbone.image_encoder.no_memory_embedding):
            before = open_store(backbone, tmp_path)
            table.add_(1)
            assert open_store(backbone, tmp_path) != before


def test_bytes_of_an_image_at_real_size(tmp_path):
    with torch.device("meta"):
        backbone = Sam2Backbone(PUBLISHED_SIZES["tiny"]).to(torch.bfloat16)
    assert backbone.feature_shape == (1024, 64, 64)
    store = open_store(drawn().to(torch.bfloat16), tmp_path)
    assert store.entry_bytes == 32 + 2 * 256 * 12 * 12
    assert 2 * torch.Size(backbone.feature_shape).numel() == 8 * MIB


@pytest.mark.parametrize("positions", ["float32", "weights"])
def test_bfloat16_is_near(positions):
    backbone = drawn(positions=positions)
    pixels, queries = views(backbone, [IMAGES["wide"]]), torch.randn(1, 8, backbone.prompt_width)
    with torch.inference_mode():
        exact = backbone(backbone.condition(backbone.image_features(pixels), None), queries)[0]
        backbone, pixels, queries = (part.to(torch.bfloat16) for part in (backbone, pixels, queries))
        near = backbone(backbone.condition(backbone.image_features(pixels), None), queries)[0]
    assert near.dtype == torch.bfloat16 and difference(near.float(), exact) < 0.05


def test_the_encoder_compiles_whole():
    """With the tracer of torch.compile alone; generating code takes minutes."""
    backbone = drawn()
    pixels = views(backbone, [IMAGES["wide"]])
    with torch.no_grad():
        expected = backbone.image_features(pixels)
        backbone.image_encoder.compile(backend="eager", fullgraph=True)
        assert difference(backbone.image_features(pixels), expected) < 1e-6
    assert not any("_orig_mod" in name for name in backbone.state_dict())


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


def test_no_target_gives_no_mask():
    backbone = drawn()
    nothing = torch.zeros(0, *backbone.feature_shape), torch.zeros(0, 8, backbone.prompt_width)
    side = backbone.low_resolution
    assert [part.shape for part in backbone(*nothing)] == [(0, 1, side, side), (0, 1)]
    assert [part.shape for part in backbone(*nothing, multimask=True)] == [(0, 3, side, side), (0, 3)]


class Published:
    """Names and shapes of a published file, and no values but of the encoding of positions."""

    path = "facebook/sam2.1-hiera"

    def __init__(self, sizes):
        with torch.device("meta"):
            self.values = dict(Sam2VideoModel(video_config(sizes)).state_dict())
        for name in sam2_files.POSITIONS:
            self.values[name] = torch.ones(self.values[name].shape)

    def __iter__(self):
        return iter(self.values)

    def __getitem__(self, name):
        return self.values[name]

    def shape(self, name):
        return self.values[name].shape


def video_config(sizes):
    """As published folders have it, for videos."""
    image = sizes.config()
    prompts, decoder = (
        {name: value for name, value in part.to_dict().items() if name != "model_type"}
        for part in (image.prompt_encoder_config, image.mask_decoder_config)
    )
    of_memory = ("memory_attention_hidden_size", "memory_encoder_hidden_size", "memory_fuser_embed_dim")
    return Sam2VideoConfig(
        vision_config=image.vision_config,
        prompt_encoder_config=prompts,
        mask_decoder_config=decoder,
        mask_downsampler_embed_dim=sizes.prompt_width,
        **dict.fromkeys(of_memory, sizes.prompt_width),
    )


@pytest.mark.parametrize(
    ("name", "published"), [("tiny", 38.96), ("small", 46.06), ("base-plus", 80.85), ("large", 224.45)]
)
def test_published_names_and_shapes_load_strictly(name, published):
    """SAM 2.1's authors count 38.9, 46, 80.8 and 224.4 million parameters, those for videos among them."""
    sizes = mask_backbone(f"sam2.1-{name}").preset("7b")
    files = Published(sizes)
    matrix = files.values[sam2_files.POSITIONS[0]].numel()
    total = sum(value.numel() for value in files.values.values()) - 2 * matrix
    assert round(total / 1e6, 2) == published
    with torch.device("meta"):
        backbone = Sam2Backbone(sizes)
    report = backbone.load_published(files, torch.bfloat16)
    assert report.new == ("mask_token_positions",)
    assert set(report.loaded.values()) | set(report.refused) == set(files)
    del files.values["mask_decoder.conv_s0.weight"]
    with pytest.raises(CheckpointError, match=r"missing: image_encoder\.conv_s0\.weight"):
        backbone.load_published(files, torch.bfloat16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as published, of the miniature."""
    place = tmp_path_factory.mktemp("sam2")
    seed_torch(1)
    model = Sam2VideoModel(video_config(MINIATURE))
    model.shared_image_embedding.positional_embedding.copy_(model.prompt_encoder.shared_embedding.positional_embedding)
    model.save_pretrained(place)
    return place


def test_a_published_folder_and_its_file_give_the_weights(folder):
    wanted = Sam2Model.from_pretrained(folder).state_dict()
    for place in (folder, folder / "model.safetensors"):
        backbone = drawn()
        backbone.load_published(backbone.open_published(place, MINIATURE), torch.float32)
        own = backbone.state_dict()
        for name, value in wanted.items():
            assert torch.equal(own[sam2_files.own_name(name)], value), name


def test_a_folder_of_another_size_or_with_other_windows_is_refused(folder, tmp_path):
    with pytest.raises(CheckpointError, match=r"an encoder of width 16 and depth 5, but sam2\.1-large is asked for"):
        Sam2Backbone.open_published(folder, PUBLISHED_SIZES["large"])
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["backbone_config"]["window_size_per_stage"] = [8, 4, 14, 7]
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"window_sizes \(8, 4, 14, 7\) instead of \(8, 4, 6, 3\)"):
        Sam2Backbone.open_published(tmp_path, MINIATURE)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="copy it again"):
        Sam2Backbone.open_published(tmp_path, MINIATURE)
    torch.save({"image_encoder.pos_embed": torch.ones(1)}, tmp_path / "sam.pth")
    with pytest.raises(CheckpointError, match=r"holds no SAM 2\.1 in transformers' layout"):
        Sam2Backbone.open_published(tmp_path / "sam.pth", MINIATURE)


def test_a_model_is_joined_of_published_parts(folder):
    settings = ModelSettings(
        size="mini", version="tiny-llava", vision_pretrained=str(folder), mask_model="sam2.1-base-plus"
    )
    model, _, reports = join_pretrained(settings, torch.float32, seed=0)
    wanted = Sam2Model.from_pretrained(folder).state_dict()
    for name, value in wanted.items():
        assert torch.equal(model.sam2.state_dict()[sam2_files.own_name(name)], value), name
    assert any("mask_token_positions" in str(report) and "memory_attention" in str(report) for report in reports)
    assert model.sam2.mask_token_positions.any()
    with pytest.raises(SettingsError, match="use --sam_model preset"):
        join_pretrained(dataclasses.replace(settings, sam_model="vit_h"), torch.float32, seed=0)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"encoder_width": 0}, "encoder_width is 0; it must be at least 1"),
        ({"blocks": (1, 2, 3)}, r"blocks is \(1, 2, 3\); give 4 numbers"),
        ({"global_attention": (48,)}, "blocks are 0 to 47"),
        ({"window_sizes": (8, 4, 7, 7)}, "must be even"),
        ({"image_size": 1000}, "not a multiple of 32"),
        ({"prompt_width": 100}, "not a multiple of 8"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(values, said):
    with pytest.raises(ValueError, match=said):
        Sam2Sizes(**values)


def test_sizes_are_those_of_the_configuration():
    for sizes in (MINIATURE, *PUBLISHED_SIZES.values()):
        assert Sam2Sizes.of(sizes.config()) == sizes
    with pytest.raises(SettingsError, match=r"--mask_model sam2\.1-NAME: tiny, small, base-plus, large"):
        Sam2Backbone.published_sizes("vit_h")


@pytest.mark.parametrize("head", ["anchorseg", "lisa", "gsva", "read"])
def test_every_head_trains_the_decoder_and_leaves_the_encoder(head):
    options = head_entry(head).Options()
    registry = make_registry(options.num_latents)
    seed_torch(0)
    model = AnchorSegModel(preset_config("tiny", options, registry, head=head, mask_model="sam2.1-small"))
    assert "Sam2MultiScaleBlock" in model._no_split_modules
    set_trainable(model, "paper")
    samples = [make_sample(0, conversations=1), make_sample(1, (90, 50), conversations=1)]
    made = model(make_batch(model, registry, samples)).segmentation
    assert [tuple(masks.shape) for masks in made.masks] == [(1, 60, 80), (1, 90, 50)]
    sum(masks.square().sum() for masks in made.masks).backward()
    assert all(parameter.grad is None for parameter in model.masks.image_encoder.parameters())
    for group in ("mask decoder", "mask-token table"):
        assert any(p.grad is not None and p.grad.any() for p in trainable_groups(model)[group]), group
    used = model.masks.prompt_encoder.mask_embed.conv1 if head == "anchorseg" else (
        model.masks.prompt_encoder.point_embed if head == "read" else model.masks.prompt_encoder.no_mask_embed
    )  # fmt: skip
    assert used.weight.grad.any()
