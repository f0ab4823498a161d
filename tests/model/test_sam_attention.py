"""SAM's encoder gives what segment-anything's own gives, gradients too; padding is not projected, bias bounded."""

import copy

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.naive import published_encoder
from model import sam_attention
from model.sam import SamBackbone, SamSizes
from model.sam_attention import SamAttention
from model.sam_patches import PatchProjection


def sizes_of(grid, window, *, heads=2, width=32, global_attention=(1,), depth=3):
    return SamSizes(
        image_size=8 * grid, patch_size=8, window_size=window, encoder_heads=heads, encoder_width=width,
        encoder_depth=depth, global_attention=global_attention, prompt_width=16,
    )  # fmt: skip


PADDED = sizes_of(12, 5, heads=3, width=48)
SIZES = {
    "padded": PADDED,
    "not padded": sizes_of(10, 5),
    "one window": sizes_of(8, 8, global_attention=(), depth=2),
    "a window larger than the grid": sizes_of(9, 14, global_attention=(0,), depth=2),
}
# In chunks: 5 rows of the 12 for one padded image, 2 for two, 1 for three; 4 of the 5 of two images' windows.
MAX_BIAS = {"row by row": 1, "in chunks": 30_000, "at once": sam_attention.MAX_BIAS}

all_sizes = pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
all_chunks = pytest.mark.parametrize("max_bias", MAX_BIAS.values(), ids=MAX_BIAS)


def encoders(sizes, dtype=torch.float32):
    """Ours and the published one; the same weights, of which none is left at zero, in parameters of their own."""
    torch.manual_seed(0)
    sam = SamBackbone(sizes)
    for name, parameter in sam.image_encoder.named_parameters():
        if parameter.ndim == 1 or "pos" in name:
            torch.nn.init.normal_(parameter, mean=float("norm" in name), std=0.3)
    sam.to(dtype)
    return sam.image_encoder, copy.deepcopy(published_encoder(sam)).requires_grad_(True)


def images_of(sizes, count, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, sizes.image_size, sizes.image_size, generator=generator, dtype=dtype)


def difference(one, other):
    """The largest, as a part of the largest value."""
    assert one.shape == other.shape and one.dtype == other.dtype
    assert other.abs().max() > 0
    return float((one - other).abs().max() / other.abs().max())


def gradients(encoder, images):
    pixels = images.clone().requires_grad_()
    features = encoder(pixels)
    weights = torch.arange(features.numel(), dtype=features.dtype).sin().view_as(features)
    (features * weights).sum().backward()
    return {"pixels": pixels.grad, **{name: parameter.grad for name, parameter in encoder.named_parameters()}}


def watch_attention(monkeypatch):
    """The biases that attention gets, filled as it is called."""
    biases = []

    def attention(*arguments, attn_mask):
        biases.append(attn_mask)
        return scaled_dot_product_attention(*arguments, attn_mask=attn_mask)

    monkeypatch.setattr(sam_attention, "scaled_dot_product_attention", attention)
    return biases


def copied(bias):
    """Whether the sum came in another order than attention wants, so that it is no view, or will be copied there."""
    return not (bias._is_view() and bias.is_contiguous())


@all_sizes
@all_chunks
@pytest.mark.parametrize("count", [1, 3])
def test_features_are_the_published_ones(monkeypatch, sizes, max_bias, count):
    monkeypatch.setattr(sam_attention, "MAX_BIAS", max_bias)
    ours, published = encoders(sizes)
    images = images_of(sizes, count)
    with torch.no_grad():
        assert difference(ours(images), published(images)) < 1e-5


@all_sizes
@all_chunks
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_gradients_are_the_published_ones(monkeypatch, sizes, max_bias, dtype, bound):
    monkeypatch.setattr(sam_attention, "MAX_BIAS", max_bias)
    images = images_of(sizes, 2, dtype)
    ours, published = (gradients(encoder, images) for encoder in encoders(sizes, dtype))
    assert ours.keys() == published.keys()
    assert max(difference(ours[name], published[name]) for name in published) < bound


@pytest.mark.parametrize("forward", [SamAttention.attend_on_cpu, SamAttention.attend_on_gpu])
@all_chunks
def test_half_precision_is_as_near_as_the_published_code(monkeypatch, max_bias, forward):
    monkeypatch.setattr(SamAttention, "forward", forward)
    monkeypatch.setattr(sam_attention, "MAX_BIAS", max_bias)
    exact = encoders(PADDED)[1]
    images = images_of(PADDED, 2)
    with torch.no_grad():
        wanted = exact(images)
        ours, published = (encoder(images.bfloat16()) for encoder in encoders(PADDED, torch.bfloat16))
    assert ours.dtype == torch.bfloat16
    assert difference(ours.float(), wanted) < min(0.03, 1.5 * difference(published.float(), wanted))


def as_on_a_gpu(monkeypatch):
    monkeypatch.setattr(SamAttention, "forward", SamAttention.attend_on_gpu)
    monkeypatch.setattr(PatchProjection, "forward", PatchProjection.multiply)


@all_sizes
@pytest.mark.parametrize("count", [1, 3])
def test_features_for_a_gpu_are_the_published_ones(monkeypatch, sizes, count):
    as_on_a_gpu(monkeypatch)
    ours, published = encoders(sizes)
    images = images_of(sizes, count)
    with torch.no_grad():
        assert difference(ours(images), published(images)) < 1e-5


@all_sizes
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_gradients_for_a_gpu_are_the_published_ones(monkeypatch, sizes, dtype, bound):
    as_on_a_gpu(monkeypatch)
    images = images_of(sizes, 2, dtype)
    ours, published = (gradients(encoder, images) for encoder in encoders(sizes, dtype))
    assert max(difference(ours[name], published[name]) for name in published) < bound


@pytest.mark.cuda
@all_sizes
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_features_on_a_gpu(device, sizes, dtype, bound):
    ours, published = encoders(sizes)
    images = images_of(sizes, 2)
    with torch.no_grad():
        wanted = published(images)
        found = ours.to(device, dtype)(images.to(device, dtype)).cpu().float()
    assert difference(found, wanted) < bound


def test_tokens_for_a_gpu_lie_one_behind_the_other(monkeypatch):
    """What normalizations and sums of all blocks read."""
    as_on_a_gpu(monkeypatch)
    ours, _ = encoders(PADDED)
    read = []
    for block in ours.blocks:
        block.norm1.register_forward_hook(lambda _, inputs, output: read.append(inputs[0].is_contiguous()))
    with torch.no_grad():
        ours(images_of(PADDED, 2))
    assert read == [True] * 3


def test_names_and_shapes_are_the_published_ones():
    ours, published = (encoder.state_dict() for encoder in encoders(PADDED))
    assert [(name, value.shape) for name, value in ours.items()] == [
        (name, value.shape) for name, value in published.items()
    ]


def test_it_is_built_and_runs_on_meta():
    with torch.device("meta"):
        sam = SamBackbone(PADDED)
    assert all(parameter.is_meta for parameter in sam.parameters())
    assert sam.image_features(images_of(PADDED, 2).to("meta")).shape == (2, 16, 12, 12)


def test_only_tokens_of_the_grid_are_projected():
    ours, _ = encoders(PADDED)
    tokens = []
    for block in ours.blocks:
        for layer in (block.attn.qkv, block.attn.proj):
            layer.register_forward_hook(lambda _, inputs, output: tokens.append(inputs[0].shape[:-1].numel()))
    ours(images_of(PADDED, 2))
    assert tokens == [2 * 12 * 12] * 6


@pytest.mark.parametrize("rows", [1, 5, 11])
def test_the_bias_is_bounded(monkeypatch, rows):
    sizes = sizes_of(12, 5, depth=1, global_attention=(0,))
    max_bias = 2 * 2 * rows * 12**3
    monkeypatch.setattr(sam_attention, "MAX_BIAS", max_bias)
    biases = watch_attention(monkeypatch)
    encoders(sizes)[0](images_of(sizes, 2))
    assert len(biases) == -(-12 // rows)
    assert max(bias.numel() for bias in biases) == max_bias
    assert sum(bias.numel() for bias in biases) == 2 * 2 * 12**4
    assert not any(copied(bias) for bias in biases)


def test_no_padded_query_asks_and_a_bias_that_fits_is_one_contiguous_tensor(monkeypatch):
    """12 x 12 tokens of 2 images: 4 whole windows of 5 x 5 each, and what is left at the right, below and between."""
    biases = watch_attention(monkeypatch)
    encoders(PADDED)[0](images_of(PADDED, 2))
    windows = [(8, 3, 25, 25), (4, 3, 10, 25), (4, 3, 10, 25), (2, 3, 4, 25)]
    assert [tuple(bias.shape) for bias in biases] == [*windows, (2, 3, 144, 144), *windows]
    assert not any(copied(bias) for bias in biases)


def test_training_holds_no_bias_of_more_rows_than_the_bound(monkeypatch):
    sizes = sizes_of(12, 5, depth=1, global_attention=(0,))
    ours, _ = encoders(sizes)
    held = []
    for max_bias in (sam_attention.MAX_BIAS, 2 * 2 * 3 * 12**3):
        monkeypatch.setattr(sam_attention, "MAX_BIAS", max_bias)
        saved = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, saved=saved: saved.setdefault(tensor.data_ptr(), tensor), lambda tensor: tensor
        ):
            ours(images_of(sizes, 2))
        held.append(sum(tensor.numel() for tensor in saved.values()))
    assert held[1] + 2 * 2 * 12**4 <= held[0]


def test_the_encoder_compiles_whole(monkeypatch):
    """With the tracer of torch.compile alone; generating code takes minutes."""
    ours, _ = encoders(PADDED)
    images = images_of(PADDED, 1)
    with torch.no_grad():
        expected = ours(images)
        ours.compile(backend="eager", fullgraph=True)
        assert difference(ours(images), expected) < 1e-6
    assert not any("_orig_mod" in name for name in ours.state_dict())
