"""Training as CUDA graphs equals training without: graphs on a GPU, passes that are made again on a CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Literal, TypeVar

import pytest
import torch

from anchorseg.method.modeling import AnchorSegModel
from anchorseg.method.objective import Objective
from anchorseg.method.options import LossWeights
from anchorseg.training.build import choose_trainable
from anchorseg.training.settings import ModelSettings
from dataset.batch import Batch
from tests.conftest import make_batch, make_model, make_sample
from utils.cuda_graphs import CudaRecorder, Recording
from utils.errors import SettingsError
from utils.gradient_graphs import CapturedGradient
from utils.seeding import seed_torch

T = TypeVar("T")
pytestmark = pytest.mark.filterwarnings("ignore:.*non-writable.*")


class AgainRecorder:
    """Calls the function again at each replay, on the tensors that the recording keeps."""

    def __init__(self) -> None:
        self.recordings = self.replays = 0

    def __call__(self, function: Callable[[], T]) -> Recording[T]:
        self.recordings += 1
        outputs = function()
        many = outputs if isinstance(outputs, tuple) else (outputs,)
        kept = tuple(tensor.clone() for tensor in many)

        def replay() -> None:
            self.replays += 1
            made = function()
            for own, new in zip(kept, made if isinstance(made, tuple) else (made,), strict=True):
                own.copy_(new)

        return Recording(replay, kept if isinstance(outputs, tuple) else kept[0])  # type: ignore[arg-type]


def recorder_on(device: torch.device) -> AgainRecorder | CudaRecorder:
    return CudaRecorder() if device.type == "cuda" else AgainRecorder()


def weights_of(*values: torch.Tensor) -> torch.nn.ParameterList:
    return torch.nn.ParameterList(values)


def captured_call(function: Callable[..., torch.Tensor], weights: torch.nn.ParameterList) -> CapturedGradient:
    device = weights[0].device
    return CapturedGradient(function, weights, list(weights), recorder_on(device))


def cubic(weights: torch.nn.ParameterList) -> Callable[..., torch.Tensor]:
    def function(values: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
        return (values @ weights[0]) ** 3 * weights[1] + whole

    return function


@pytest.mark.cuda
def test_gradients_of_inputs_and_weights(device):
    generator = torch.Generator().manual_seed(0)
    weights = weights_of(torch.randn(4, 3, generator=generator).to(device), torch.ones(3, device=device))
    captured = captured_call(cubic(weights), weights)
    for rows in (2, 5, 2, 5, 2, 5):
        values = torch.randn(rows, 4, generator=generator).to(device)
        whole = torch.arange(3, device=device)
        found = []
        for call in (captured, cubic(weights)):
            given = values.clone().requires_grad_()
            result = call(given, whole)
            found.append([result, *torch.autograd.grad(result.sin().sum(), [given, *weights])])
        for one, other in zip(*found, strict=True):
            assert torch.allclose(one, other, rtol=1e-5, atol=1e-5)
    assert captured.calls == 4, "the first call of each shape is made as it is"


@pytest.mark.cuda
def test_a_gradient_is_the_callers_own(device):
    """Sums of gradients over calls, which a recording would write over."""
    weights = weights_of(torch.full((1, 1), 2.0, device=device))
    captured = captured_call(lambda values: values @ weights[0], weights)
    for factor in (1.0, 10.0, 100.0, 1000.0):
        captured(torch.full((1, 1), factor, device=device)).sum().backward()
    assert weights[0].grad is not None and weights[0].grad.item() == 1111


@pytest.mark.cuda
def test_hooked_weights(device):
    """As DeepSpeed hooks them: autograd's nodes of the weights are made before, and kept."""
    weights = weights_of(torch.full((1, 1), 2.0, device=device))
    node = weights[0].expand_as(weights[0]).grad_fn.next_functions[0][0]
    hooked = []
    node.register_hook(lambda *_: hooked.append(weights[0].grad.item()))
    captured = captured_call(lambda values: values @ weights[0], weights)
    for _ in range(3):
        captured(torch.ones(1, 1, device=device)).sum().backward()
    assert hooked == [1, 2, 3]


@pytest.mark.cuda
def test_weights_that_are_updated(device):
    weights = weights_of(torch.full((1, 1), 2.0, device=device))
    captured = captured_call(lambda values: values @ weights[0], weights)
    made = []
    for _ in range(4):
        made.append(captured(torch.ones(1, 1, device=device)).item())
        with torch.no_grad():
            weights[0].mul_(2)
    assert made == [2, 4, 8, 16]


@pytest.mark.cuda
def test_without_weights(device):
    captured = CapturedGradient(lambda values: values * 3, torch.nn.Module(), [], recorder_on(device))
    for _ in range(3):
        values = torch.ones(2, device=device, requires_grad=True)
        captured(values).sum().backward()
        assert values.grad is not None and values.grad.tolist() == [3, 3]


@pytest.mark.cuda
def test_two_forward_passes_before_a_backward_pass_are_an_error(device):
    weights = weights_of(torch.ones(1, 1, device=device))
    captured = captured_call(lambda values: (values @ weights[0]) ** 2, weights)
    values = torch.ones(1, 1, device=device)
    captured(values)
    first, second = captured(values), captured(values)
    second.sum().backward()
    with pytest.raises(RuntimeError, match="backward of call 1 of a captured function after call 2"):
        first.sum().backward()


def trained(rows: Literal["all", "new"], dropout: float = 0.0) -> tuple[AnchorSegModel, object]:
    model, registry = make_model()
    choose_trainable(model, ModelSettings(size="tiny", train_embeddings=rows, lora_dropout=dropout), registry)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.train(), registry


def gradients(model: AnchorSegModel, batch: Batch, seed: int = 0) -> dict[str, torch.Tensor]:
    seed_torch("dropout", seed)
    objective = Objective(LossWeights(), model.head)
    for _ in range(2):  # as two micro-batches
        objective(model(batch), batch).total.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.cuda
@pytest.mark.parametrize("rows", ["all", "new"])
def test_gradients_of_a_model(device, rows):
    model, registry = trained(rows)
    plain = copy.deepcopy(model).to(device)
    model.to(device)
    made: list[AgainRecorder | CudaRecorder] = []

    def recorder() -> AgainRecorder | CudaRecorder:
        made.append(recorder_on(device))
        return made[-1]

    model.capture_training(recorder)
    batches = [
        make_batch(model, registry, [make_sample(seed, conversations=count) for seed in range(2)]).to(
            device, torch.float32
        )
        for count in (1, 3)
    ]
    for batch in [*batches, *batches]:
        found, wanted = gradients(model, batch), gradients(plain, batch)
        assert found.keys() == wanted.keys()
        largest = max(float(value.abs().max()) for value in wanted.values())
        for name, value in wanted.items():
            assert float((found[name] - value).abs().max()) < 1e-5 * largest, name
    if device.type == "cpu":
        encoders, language_model = made
        assert encoders.recordings == 2 and language_model.recordings == 2 * 2, "both passes of two lengths"


@pytest.mark.cuda
def test_dropout_follows_the_seed(device):
    model, registry = trained("all", dropout=0.5)
    model.to(device).capture_training(lambda: recorder_on(device))
    batch = make_batch(model, registry, [make_sample(0)]).to(device, torch.float32)
    gradients(model, batch)
    first, again, other = (gradients(model, batch, seed) for seed in (1, 1, 2))
    name = next(name for name in first if "lora_A" in name)
    assert torch.allclose(first[name], again[name], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(first[name], other[name], rtol=1e-2)


def test_validation_is_not_captured():
    model, registry = trained("all")
    recorder = AgainRecorder()
    model.capture_training(lambda: recorder)
    batch = make_batch(model, registry, [make_sample(0)])
    for _ in range(3):
        with torch.inference_mode():
            model.eval()(batch)
    assert recorder.recordings == 0


def test_a_cpu_has_no_graphs():
    model, _ = trained("all")
    with pytest.raises(SettingsError, match="CUDA graphs need the model on a GPU, and it is on cpu"):
        model.capture_training()
