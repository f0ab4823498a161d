"""Nothing to segment: no answer with a target, no question, and a batch of text only are safe on every device.

CUDA refuses some kernels for empty batches ("invalid argument"), the CPU none; here the CPU refuses all that may.
"""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from anchorseg.evaluation.evaluator import Evaluator
from anchorseg.inference.collate import make_collator
from anchorseg.inference.generation import answer_questions, generate
from anchorseg.inference.predictor import AnchorSegPredictor
from anchorseg.method.objective import Objective
from anchorseg.method.options import LossWeights
from dataset.sample import Conversation, Question, RejectSlot, TargetSlot, Turn
from tests.conftest import make_batch, make_model, make_sample, prefill_batch

REFUSED = ("upsample", "convolution", "scaled_dot_product", "layer_norm", "max_pool", "grid_sampler")


class RefuseEmpty(TorchDispatchMode):
    """Kernels that need at least one element, as on CUDA."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(name in func.name() for name in REFUSED):
            first = next(value for value in args if isinstance(value, torch.Tensor))
            if first.numel() == 0:
                raise RuntimeError(f"CUDA error: invalid argument ({func.name()} of {tuple(first.shape)})")
        return func(*args, **(kwargs or {}))


@pytest.fixture
def refusing(device) -> Iterator[None]:
    with RefuseEmpty():
        yield


def silent(count: int = 1, answer: tuple[str, ...] | None = ("There is none.",)):
    """A sample whose answers name no target."""
    conversations = tuple(Conversation((Turn(f"Is there {k} cup?", answer),)) for k in range(count))
    return replace(make_sample(0), conversations=conversations)


def moved(model, batch, device):
    return model.to(device), batch.to(device, torch.float32)


def test_the_emulation_refuses_what_cuda_refuses(refusing):
    with pytest.raises(RuntimeError, match="invalid argument"):
        torch.nn.functional.interpolate(torch.zeros(0, 1, 8, 8), (4, 4), mode="bilinear", antialias=True)


@pytest.mark.cuda
def test_answers_without_a_target(refusing, device):
    model, registry = make_model()
    model, batch = moved(model.eval(), make_batch(model, registry, [silent(3, None)], share_prefix=False), device)
    made = generate(model, batch, max_new_tokens=3)
    assert made.segmentation.masks[0].shape == (0, 60, 80) and len(made.target_rows) == 0
    assert made.segmentation.prior.maps[0].shape == (0, 60, 80)
    assert made.segmentation.low_resolution.shape[1:] == (model.sam.sizes.low_resolution,) * 2


@pytest.mark.cuda
def test_no_question(refusing, device):
    model, registry = make_model()
    model, batch = moved(model.eval(), make_batch(model, registry, [make_sample(0), make_sample(1, (30, 50))]), device)
    made = answer_questions(model, prefill_batch(model, batch), [], [])
    assert made.ids == [] and [tuple(masks.shape) for masks in made.segmentation.masks] == [(0, 60, 80), (0, 30, 50)]


@pytest.mark.cuda
def test_one_image_of_two_has_no_target(refusing, device):
    model, registry = make_model()
    model, batch = moved(model.eval(), make_batch(model, registry, [silent(), make_sample(1, (30, 50))]), device)
    with torch.no_grad():
        masks = model(batch).segmentation.masks
    assert [tuple(mask.shape) for mask in masks] == [(0, 60, 80), (3, 30, 50)]


@pytest.mark.cuda
def test_training_on_text_gives_every_layer_a_gradient(refusing, device):
    model, registry = make_model()
    model, batch = moved(model.train(), make_batch(model, registry, [silent(2)]), device)
    losses = Objective(LossWeights(), model.head)(model(batch), batch)
    losses.total.backward()
    assert torch.isfinite(losses.total)
    for part in (model.sam.mask_decoder.transformer, model.query_bank, model.sam.prompt_encoder.mask_downscaling):
        assert all(parameter.grad is not None and (parameter.grad == 0).all() for parameter in part.parameters())


@pytest.mark.cuda
def test_a_predictor_says_no_target(refusing, device):
    model, registry = make_model()
    predictor = AnchorSegPredictor(model.to(device), registry)
    predictor.set_image(make_sample(0).image)
    answer = predictor.predict("the cup", max_new_tokens=2)
    assert not answer.has_target and answer.mask is None
    assert predictor.predict_batch([]) == []


class Silent:
    """A benchmark whose questions the model answers without a target."""

    scoring, protocols = "gres", ("forced", "symmetric", "generate")

    def __len__(self):
        return 2

    def evaluation_sample(self, index, *, protocol):
        slot = TargetSlot(0) if protocol == "symmetric" else RejectSlot()
        answer = None if protocol == "generate" else ("Sure, the ghost:", slot, ".")
        conversations = (Conversation((Turn("What is the ghost in this image?", answer),)),)
        sample = make_sample(index, (60, 80) if index else (30, 50))
        return replace(sample, conversations=conversations, questions=(Question("the ghost", ()),))


@pytest.mark.cuda
@pytest.mark.parametrize("protocol", Silent.protocols)
def test_an_evaluation_without_targets(refusing, device, protocol):
    model, registry = make_model()
    collator = make_collator(model.config, registry, max_length=2048)
    evaluator = Evaluator(model.eval().to(device), registry, collator, max_new_tokens=2)
    result = evaluator.evaluate(Silent(), name="silent", protocol=protocol)
    assert len(result.rows) == 2 and not any(row.has_target for row in result.rows)
    if protocol == "generate":
        assert [row.num_masks for row in result.rows] == [0, 0] and result.scores["n_acc"] == 1
