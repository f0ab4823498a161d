"""Attention under masks whose rows may be empty: zeros there, right gradients, and no kernel sees such a row."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from anchorseg.inference.generation import generate
from dataset.sample import Conversation, TargetSlot, Turn
from model.zeroing_attention import zeroing_attention
from tests.conftest import make_batch, make_model, make_sample

HEADS, WIDTH = 2, 64


def masks(length: int) -> torch.Tensor:
    """(2, T, T): causal; some positions, at start, middle and end, see nothing and are not seen."""
    valid = torch.ones(2, length, dtype=torch.bool)
    valid[0, 5:40] = valid[0, -7:] = valid[1, :3] = False
    return torch.ones(length, length, dtype=torch.bool).tril() & valid.unsqueeze(1) & valid.unsqueeze(2)


def defined(query, key, value, visible):
    """The definition, (R, T, heads, d), in the precision of its arguments."""
    scores = (query @ key.mT / WIDTH**0.5).masked_fill(~visible.unsqueeze(1), -torch.inf)
    weights = scores.softmax(dim=-1).nan_to_num(0)
    return (weights @ value).transpose(1, 2)


@pytest.mark.cuda
@pytest.mark.parametrize("length", [64, 100, 192, 320, 700, 704, 768, 832])
def test_outputs_and_gradients_are_those_of_the_definition(device, length):
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    torch.manual_seed(length)
    inputs = [torch.randn(2, HEADS, length, WIDTH) for _ in range(3)]
    weight, visible = torch.randn(2, length, HEADS, WIDTH), masks(length)

    exact = [value.to(dtype).double().requires_grad_() for value in inputs]
    # A row without a key has no softmax; without its NaN gradients, the definition is differentiable.
    some_key = visible | ~visible.any(-1, keepdim=True)
    wanted = defined(*exact, some_key) * visible.any(-1)[..., None, None]
    torch.testing.assert_close(wanted, defined(*exact, visible))
    (wanted * weight.double()).sum().backward()

    given = [value.to(device, dtype).requires_grad_() for value in inputs]
    no_key = ~visible.any(-1, keepdim=True).to(device)
    layer = nn.Module().eval()
    found, _ = zeroing_attention(layer, *given, (visible.to(device) | no_key).unsqueeze(1), no_key=no_key)
    (found * weight.to(device, dtype)).sum().backward()

    tolerance = 3e-2 if dtype == torch.bfloat16 else 1e-5
    pairs = [(found, wanted), *((a.grad, b.grad) for a, b in zip(given, exact, strict=True))]
    for value, right in pairs:
        assert torch.isfinite(value).all()
        assert (value.cpu().double() - right).abs().max() <= tolerance * right.abs().max()
    assert (found[no_key.squeeze(-1)] == 0).all()


def sample_of_length(model, registry, seed, size, length):
    """A sample whose row has `length` positions."""
    base = make_sample(seed, size, conversations=1)
    for words in range(length):
        turn = Turn("a " * words, ("It is", TargetSlot(0), "."))
        sample = replace(base, conversations=(Conversation((turn,)),))
        if make_batch(model, registry, [sample]).conversations.input_ids.shape[1] == length:
            return sample
    raise AssertionError(length)


@pytest.mark.parametrize(("size", "length"), [((60, 80), 192), ((80, 60), 193), ((20, 200), 191), ((64, 64), 192)])
def test_no_kernel_sees_a_row_without_a_key(monkeypatch, size, length):
    model, registry = make_model()
    longest = sample_of_length(model, registry, 0, size, length)
    batch = make_batch(model, registry, [longest, make_sample(1, (64, 64), conversations=1)])
    assert batch.conversations.input_ids.shape[1] == length
    attend, seen = F.scaled_dot_product_attention, []

    def checked(query, key, value, attn_mask=None, **kwargs):
        if attn_mask is not None:
            allowed = attn_mask if attn_mask.dtype == torch.bool else attn_mask > -torch.inf
            assert allowed.any(dim=-1).all()
            seen.append(query.shape[-2])
        return attend(query, key, value, attn_mask=attn_mask, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", checked)
    model.train()
    model(batch).logits.sum().backward()
    model.eval()
    generate(model, batch, max_new_tokens=6)
    assert len(seen) > 2 * model.config.language_config.text_config.num_hidden_layers
