"""Training: losses and every gradient of forward_train* files, and the optimizer steps of train_steps.npz."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from anchorseg.method.modeling import AnchorSegModel
from anchorseg.weights.official_names import official_name
from tests.parity import objectives, rules
from tests.parity.batches import make_batch
from tests.parity.context import Context, plain_attention
from tests.parity.forward import check_shared, check_values, forward_values, inputs_of, is_eager
from tests.parity.names import is_unused
from tests.parity.reference import TOLERANCE, Fixture
from tests.parity.trace import run

NOISE = 1e-6
"""Gradients below this share of the largest norm are zero but for rounding; they are compared with that norm."""

STEPS_BATCH = "forward_train.npz"
STEPS = {"lr": 3e-4, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.0}
CLIP_NORM = 1.0


def check_training(fixture: Fixture, context: Context) -> None:
    """Every array of a forward_train* file."""
    model = context.training_model()
    inputs, weights = inputs_of(fixture, context), objectives.weights_of(context)
    with plain_attention(model, is_eager(fixture)):
        batch = make_batch(inputs, model, share_prefix=False)
        trace = run(model, batch)
        found = objectives.losses_of(trace, batch, model, weights)
        found.total.backward()
        with torch.no_grad():
            values = forward_values(model, batch, trace, batch.conversations.targets)
            values |= objectives.loss_values(found, weights)
            values |= objectives.term_values(trace.masks, batch)
            check_values(fixture, values, batch, labels=True)
            check_gradients(fixture, model)
            shared_batch = make_batch(inputs, model, share_prefix=True)
            shared = objectives.losses_of(check_shared(fixture, model, inputs), shared_batch, model, weights)
        for name, value in objectives.loss_values(shared, weights).items():
            fixture.check(name, value, label="(shared prefix)", optional=True)


def gradients(model: AnchorSegModel) -> dict[str, Tensor | None]:
    """Gradients of everything trainable, by published names."""
    return {official_name(name): p.grad for name, p in model.named_parameters() if p.requires_grad}


def check_gradients(fixture: Fixture, model: AnchorSegModel) -> None:
    """Names, norms, probes and full gradients; files of plain attention need not have them."""
    if is_eager(fixture) and "grad_names" not in fixture:
        return
    found = gradients(model)
    _check_names(fixture, "grad_names", {name for name, value in found.items() if value is not None})
    _check_names(fixture, "grad_is_none", {name for name, value in found.items() if value is None})
    given = {name: value.double() for name, value in found.items() if value is not None}
    names = [str(name) for name in fixture.input("grad_names")]
    known = [name for name in names if name in given]
    norms = np.array([float(given[name].norm()) if name in given else np.nan for name in names])
    expected = fixture.input("grad_norm")
    largest = float(expected.max())
    _check_each(fixture, "grad_norm", norms, np.where(expected > NOISE * largest, expected, largest))
    # A probe sees every entry of a gradient, so it is compared with the gradient's size, not with its own sum.
    probes = np.array([_probe(name, given[name]) if name in given else np.nan for name in names])
    _check_each(fixture, "grad_probe_dot", probes, np.where(expected > NOISE * largest, expected, largest))
    total = torch.stack([value.norm() for value in given.values()]).norm()
    fixture.check("grad_total_norm", total)
    for name in known:
        is_noise = expected[names.index(name)] <= NOISE * largest
        small = given[name].numel() <= 20_000
        fixture.check(f"grad.{name}", given[name], scale=largest if is_noise else None, optional=not small)


def _check_names(fixture: Fixture, array: str, found: set[str]) -> None:
    """Compare names as sets, without the tensors that the published model carries and does not use."""
    expected = {str(name) for name in fixture.input(array)}
    missing, surplus = sorted(expected - found), sorted(found - expected)
    unused = [name for name in missing if is_unused(name)]
    wrong = [name for name in missing if name not in unused] + surplus
    note = f"unused here: {', '.join(unused)}" if unused else ""
    fixture.add(array, not wrong, note=f"differ: {', '.join(wrong)}" if wrong else note)


def _check_each(fixture: Fixture, array: str, found: np.ndarray, scales: np.ndarray) -> None:
    """Compare every entry with a magnitude of its own."""
    expected = fixture.input(array)
    if expected.shape != found.shape:
        fixture.fail(array, f"shape {expected.shape} instead of {found.shape}")
        return
    error = float(np.nan_to_num(np.abs(found - expected) / scales, nan=np.inf).max(initial=0.0))
    fixture.add(array, error <= TOLERANCE, error, "of each tensor's norm")


def _probe(name: str, gradient: Tensor) -> float:
    probe = rules.tensor(f"probe.{name}", (gradient.numel(),))
    return float(gradient.flatten() @ torch.from_numpy(probe).double())


def check_steps(fixture: Fixture, context: Context) -> None:
    """Losses and gradient norms of a few AdamW steps on the batch of forward_train.npz."""
    model, weights = context.training_model(), objectives.weights_of(context)
    inputs = inputs_of(context.beside(STEPS_BATCH), context)
    batch = make_batch(inputs, model, share_prefix=False)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, **STEPS)  # type: ignore[arg-type]
    columns = [str(name) for name in fixture.input("columns")]
    losses, norms = [], []
    for _ in range(len(fixture.input("grad_norm_before_clip"))):
        optimizer.zero_grad(set_to_none=True)
        found = objectives.losses_of(run(model, batch), batch, model, weights)
        shares = objectives.weighted(found, weights)
        losses.append([float(shares[name]) for name in columns])
        found.total.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(trained, CLIP_NORM)))
        optimizer.step()
    fixture.check("losses", np.array(losses))
    fixture.check("grad_norm_before_clip", np.array(norms))
