"""Chains of resizes: the values and the gradients of torch's own resizes, crops included."""

import pytest
import torch
import torch.nn.functional as F

from utils.resampling import Resize, _by_matrices, resample

VIEW = (Resize((336, 336), (252, 336)), Resize((480, 640), (480, 640)))
THIN = (Resize((336, 336), (27, 336)), Resize((97, 1203), (97, 1203)))


def plain(maps, chain):
    for step in chain:
        maps = F.interpolate(maps[:, None], step.size, mode="bilinear", antialias=step.antialias)[:, 0]
        maps = maps[:, : step.crop[0], : step.crop[1]]
    return maps


@pytest.mark.parametrize(
    ("size", "chain"),
    [
        ((24, 24), VIEW),
        ((24, 24), THIN),
        ((480, 640), (Resize((192, 256), (192, 256), antialias=True),)),
        ((60, 80), (Resize((192, 256), (192, 256), antialias=True),)),
        ((100, 333), (Resize((77, 256), (77, 200), antialias=True),)),
    ],
)
def test_values_and_gradients_are_those_of_plain_resizes(size, chain):
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, *size, generator=generator, requires_grad=True)
    ours = resample(maps, *chain)
    assert torch.equal(ours, plain(maps, chain))
    weights = torch.randn(ours.shape, generator=generator)
    (found,) = torch.autograd.grad(ours, maps, weights)
    exact = maps.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(plain(exact, chain), exact, weights.double())
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def test_low_precision_comes_in_and_its_gradient_goes_back():
    maps = torch.rand(1, 8, 8).bfloat16().requires_grad_()
    grown = resample(maps, Resize((16, 16), (16, 16)))
    grown.sum().backward()
    assert grown.dtype == torch.float32 and maps.grad.dtype == torch.bfloat16
    assert torch.equal(maps.grad, torch.full_like(maps, 4)), "every pixel is shared out wholly"


def test_no_map_comes_out_as_no_map():
    maps = torch.zeros(0, 8, 8, requires_grad=True)
    grown = resample(maps, Resize((16, 20), (16, 20)))
    grown.sum().backward()
    assert grown.shape == (0, 16, 20) and maps.grad.shape == maps.shape


@pytest.mark.parametrize("size", [(2000, 5), (5, 2000)])
def test_a_side_of_one_pixel_is_treated_like_the_other_and_its_gradient_fits(size):
    kept = tuple(max(side // 10, 1) for side in size)
    maps = torch.rand(2, *size, generator=torch.Generator().manual_seed(1)).requires_grad_()
    shrunk = resample(maps, Resize(kept, kept, antialias=True))
    turned = resample(maps.mT, Resize(kept[::-1], kept[::-1], antialias=True)).mT
    torch.testing.assert_close(shrunk, turned, rtol=0, atol=1e-6)
    torch.testing.assert_close(shrunk.mean(), maps.mean(), rtol=0.02, atol=0)
    (gradient,) = torch.autograd.grad(shrunk.square().sum() / 2, maps)
    # Linear: <A x, A x> = <A^T A x, x>
    torch.testing.assert_close((gradient * maps).sum(), shrunk.square().sum(), rtol=1e-4, atol=0)


@pytest.mark.cuda
@pytest.mark.parametrize(("size", "after"), [((2000, 40), (16, 1)), ((7, 3000), (1, 20)), ((97, 1), (1, 1))])
def test_a_strong_shrink_by_matrix_products(device, size, after):
    maps = torch.rand(2, *size, generator=torch.Generator().manual_seed(2))
    step = Resize(after, after, antialias=True)
    wanted = resample(maps, step)
    assert (_by_matrices(maps[:, None], step)[:, 0] - wanted).abs().max() < 1e-6
    given = maps.to(device).requires_grad_()
    found = resample(given, step)
    found.sum().backward()
    assert (found.detach().cpu() - wanted).abs().max() < 1e-5 and torch.isfinite(given.grad).all()


@pytest.mark.cuda
@pytest.mark.parametrize("antialias", [False, True])
def test_no_map_on_any_device(device, antialias):
    maps = torch.zeros(0, 480, 640, device=device, requires_grad=True)
    grown = resample(maps, Resize((192, 256), (192, 250), antialias))
    grown.sum().backward()
    assert grown.shape == (0, 192, 250) and maps.grad.shape == maps.shape
