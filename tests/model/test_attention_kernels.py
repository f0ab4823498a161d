"""cuDNN's attention is left out exactly where it is known to be wrong, or as chosen."""

import pytest
import torch
from torch import nn

from model import attention_kernels
from model.attention_kernels import choose_cudnn_attention, cudnn_is_wrong, leaves_out_cudnn, right_kernels
from model.zeroing_attention import zeroing_attention
from utils.errors import UserError


@pytest.mark.parametrize(
    ("torch_version", "cudnn", "capability", "wrong"),
    [
        ("2.11.0+cu130", 91900, (9, 0), True),
        ("2.13.0", 92000, (9, 0), True),
        ("2.12.1", 91900, (10, 0), True),
        ("3.0.0", 100000, (9, 0), True),
        ("2.10.0+cu128", 91900, (9, 0), False),
        ("2.9.1", 91000, (9, 0), False),
        ("2.11.0", 91002, (9, 0), False),
        ("2.13.0", 92000, (8, 0), False),
        ("2.13.0", 92000, (12, 0), False),
        ("2.13.0+cpu", None, (9, 0), False),
    ],
)
def test_versions(torch_version, cudnn, capability, wrong):
    assert cudnn_is_wrong(torch_version, cudnn, capability) is wrong


@pytest.mark.parametrize("keys", [64, 192, 704, 832, 2112])
def test_lengths_that_leave_64_over_128_in_training(keys):
    assert leaves_out_cudnn(keys, backward=True, wrong=True)
    assert not leaves_out_cudnn(keys, backward=False, wrong=True)
    assert not leaves_out_cudnn(keys, backward=True, wrong=False)
    assert not leaves_out_cudnn(keys, backward=True, wrong=True, choice="on")
    assert leaves_out_cudnn(keys, backward=False, wrong=False, choice="off")


@pytest.mark.parametrize("keys", [1, 63, 65, 128, 700, 768])
def test_other_lengths_keep_it(keys):
    assert not leaves_out_cudnn(keys, backward=True, wrong=True)


def test_an_unknown_choice_is_refused():
    with pytest.raises(UserError, match="auto, on, off, not 'never'"):
        choose_cudnn_attention("never")
    assert attention_kernels._choice == "auto"


@pytest.mark.cuda
@pytest.mark.parametrize("length", [64, 700, 704, 768, 832])
def test_gradients_are_finite_though_all_scores_of_a_query_are_far_below_zero(device, length):
    """pytorch#196678 with a key in every row, which masks alone do not mend."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, length, 64).to(device, dtype)
    query[..., 0], key[..., 0] = 1, -120 * 8
    for tensor in (query, key, value):
        tensor.requires_grad_()
    mask = torch.ones(1, 1, length, length, dtype=torch.bool, device=device).tril()
    no_key = torch.zeros(1, length, 1, dtype=torch.bool, device=device)
    output, _ = zeroing_attention(nn.Module().eval(), query, key, value, mask, no_key=no_key)
    output.backward(torch.randn_like(output))
    for tensor in (output, query.grad, key.grad, value.grad):
        assert torch.isfinite(tensor).all()


@pytest.mark.cuda
def test_torchs_own_switches_are_as_before(device):
    before = torch.backends.cuda.cudnn_sdp_enabled()
    query = torch.zeros(1, 1, 64, 8, device=device, requires_grad=True)
    with right_kernels(query, query):
        pass
    assert torch.backends.cuda.cudnn_sdp_enabled() == before
