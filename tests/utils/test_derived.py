"""Derived tensors follow their weights, whatever happens to these."""

import copy

import torch
from torch import nn

from utils.derived import Derived


def doubled(weight: torch.Tensor) -> torch.Tensor:
    return weight * 2


def frozen() -> nn.Parameter:
    return nn.Parameter(torch.arange(3.0), requires_grad=False)


def test_made_once_and_again_when_the_weight_changes():
    derived, weight = Derived(), frozen()
    first = derived.get(doubled, weight)
    assert derived.get(doubled, weight) is first
    with torch.no_grad():
        weight.add_(1)
    assert derived.get(doubled, weight).tolist() == [2.0, 4.0, 6.0]
    weight.data = torch.full((3,), 5.0)
    assert derived.get(doubled, weight).tolist() == [10.0] * 3
    half = nn.Parameter(weight.to(torch.bfloat16), requires_grad=False)
    assert derived.get(doubled, half).dtype == torch.bfloat16


def test_what_trains_is_made_at_every_call_and_has_a_gradient():
    derived, weight = Derived(), frozen().requires_grad_()
    assert derived.get(doubled, weight) is not derived.get(doubled, weight)
    derived.get(doubled, weight).sum().backward()
    assert weight.grad is not None and weight.grad.tolist() == [2.0] * 3


def test_made_in_inference_it_serves_training():
    derived, weight = Derived(), frozen()
    with torch.inference_mode():
        made = derived.get(doubled, weight)
    assert not made.is_inference() and derived.get(doubled, weight) is made
    factor = torch.ones(3, requires_grad=True)
    (made * factor).sum().backward()


def test_a_copy_goes_its_own_way():
    layer = nn.Linear(1, 1)
    layer.table, layer.derived = frozen(), Derived()
    layer.derived.get(doubled, layer.table)
    other = copy.deepcopy(layer)
    other.table.data.zero_()
    with torch.no_grad():
        other.table.add_(1)
    assert other.derived.get(doubled, other.table).tolist() == [2.0] * 3
    assert layer.derived.get(doubled, layer.table).tolist() == [0.0, 2.0, 4.0]
