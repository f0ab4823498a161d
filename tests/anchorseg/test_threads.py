"""Threads that share a model: the answers of one after the other, and a model that nothing was written to."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
import torch
from torch import nn

from anchorseg.inference.generation import generate
from anchorseg.inference.predictor import AnchorSegPredictor
from model.lora import add_lora, add_token_rows
from model.lora_settings import LoraSettings
from tests.conftest import make_batch, make_model, make_sample
from tests.recording import OperatorRecorder
from tests.teaching import teach
from utils.errors import NoImageError

THREADS, QUESTIONS = 4, 50
IMAGES = [make_sample(seed, size).image for seed, size in enumerate([(60, 80), (80, 60), (40, 90), (64, 64)])]
QUERIES = [f"What is the {'very ' * (k % 5)}red thing number {k} in this image?" for k in range(QUESTIONS)]


@pytest.fixture(scope="module")
def trained():
    model, registry = make_model()
    teach(model, AnchorSegPredictor(model, registry).collator)
    return model, registry


def state_of(model: nn.Module) -> dict[str, tuple[int, int, torch.Tensor]]:
    """Identity, place in memory and values of every parameter and buffer."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: (id(value), value.data_ptr(), value.detach().clone()) for name, value in tensors.items()}


def assert_untouched(model: nn.Module, before: dict[str, tuple[int, int, torch.Tensor]]) -> None:
    after = state_of(model)
    assert after.keys() == before.keys()
    for name, (identity, place, values) in before.items():
        assert after[name][:2] == (identity, place), name
        assert torch.equal(after[name][2], values), name


def attributes(model: nn.Module) -> dict[str, dict[str, int]]:
    """What every module holds, by identity: whatever a forward pass writes shows."""
    held = {}
    for name, module in model.named_modules():
        own = {key: id(value) for key, value in vars(module).items() if not key.startswith("_")}
        inner = {f"{group}.{key}": id(value) for group in ("_parameters", "_buffers", "_modules")
                 for key, value in vars(module)[group].items()}  # fmt: skip
        held[name] = {**own, **inner, "training": module.training}
    return held


def assert_same(found, wanted):
    assert found
    for one, other in zip(found, wanted[: len(found)], strict=True):
        assert one.text == other.text and len(one.targets) == len(other.targets)
        for target, expected in zip(one.targets, other.targets, strict=True):
            assert np.array_equal(target.mask, expected.mask) and np.array_equal(target.prior, expected.prior)
            assert target.score == expected.score and target.phrase == expected.phrase


def in_threads(asks, questions):
    """Each thread asks about its own image, all at the same time."""
    start = Barrier(THREADS)

    def run(ask, image):
        start.wait(timeout=60)
        return [ask(image, query) for query in QUERIES[:questions]]

    with ThreadPoolExecutor(THREADS) as pool:
        return [future.result() for future in [pool.submit(run, *pair) for pair in zip(asks, IMAGES, strict=True)]]


@pytest.fixture(scope="module")
def sequential(trained):
    predictor = AnchorSegPredictor(*trained)
    answers = []
    for image in IMAGES:
        predictor.set_image(image)
        answers.append([predictor.predict(query, raw_prompt=True, max_new_tokens=11) for query in QUERIES])
    assert any(answer.has_target for row in answers for answer in row)
    return answers


def setting(predictor):
    """The older way: set the image again before each question."""

    def ask(image, query):
        predictor.set_image(image)
        return predictor.predict(query, raw_prompt=True, max_new_tokens=11)

    return ask


def opening(predictor):
    sessions = {}

    def ask(image, query):
        if id(image) not in sessions:
            sessions[id(image)] = predictor.session(image)
        return sessions[id(image)].predict(query, raw_prompt=True, max_new_tokens=11)

    return ask


@pytest.mark.parametrize(
    ("way", "questions"),
    [("one predictor, its sessions", QUESTIONS), ("one predictor, set_image", 10), ("two predictors", 10)],
)
def test_four_threads_get_the_sequential_answers_and_leave_the_model_alone(trained, sequential, way, questions):
    model, _ = trained
    before, held = state_of(model), attributes(model)
    one, other = AnchorSegPredictor(*trained), AnchorSegPredictor(*trained)
    asks = {
        "one predictor, its sessions": [opening(one)] * THREADS,
        "one predictor, set_image": [setting(one)] * THREADS,
        "two predictors": [setting(one), setting(other)] * (THREADS // 2),
    }[way]
    for found, wanted in zip(in_threads(asks, questions), sequential, strict=True):
        assert_same(found, wanted)
    assert_untouched(model, before)
    assert attributes(model) == held


def test_threads_share_graphs(trained, sequential):
    model, registry = trained
    predictor, questions = AnchorSegPredictor(model, registry), 5
    model.capture_graphs(OperatorRecorder)
    try:
        one_by_one = [[opening(predictor)(image, query) for query in QUERIES[:questions]] for image in IMAGES]
        for found, wanted in zip(in_threads([opening(predictor)] * THREADS, questions), one_by_one, strict=True):
            assert_same(found, wanted)
    finally:
        model.captured = None
    for found, wanted in zip(one_by_one, sequential, strict=True):
        assert [answer.text for answer in found] == [answer.text for answer in wanted[:questions]]


def test_threads_may_ask_one_session(trained, sequential):
    session = AnchorSegPredictor(*trained).session(IMAGES[0])
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda query: session.predict(query, raw_prompt=True, max_new_tokens=11), QUERIES))
    assert_same(found, sequential[0])


def test_a_thread_without_an_image_asks_about_the_only_one_or_is_told(trained, sequential):
    predictor = AnchorSegPredictor(*trained)

    def ask(_=None):
        return predictor.predict(QUERIES[0], raw_prompt=True, max_new_tokens=11)

    predictor.set_image(IMAGES[0])
    with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
        assert_same([first.submit(ask).result()], sequential[0][:1])
        first.submit(predictor.set_image, IMAGES[1]).result()
        assert_same([first.submit(ask).result(), ask()], [sequential[1][0], sequential[0][0]])
        with pytest.raises(NoImageError, match="2 threads have set an image"):
            second.submit(ask).result()
        predictor.reset_image()
        assert_same([second.submit(ask).result()], sequential[1][:1])


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("train", [False, True])
def test_no_forward_pass_writes_to_a_module(adapted, train, monkeypatch):
    model, registry = make_model()
    if adapted:
        add_lora(model.llava.language_model, LoraSettings())
        add_token_rows(model.llava.network, ["embed_tokens", "lm_head"], registry.bank_ids)
    model.train(train)
    batch = make_batch(model, registry, [make_sample(0), make_sample(1, (30, 50))])
    before, held = state_of(model), attributes(model)
    written = []

    def refuse(module, name, value):
        written.append((type(module).__name__, name))
        object.__setattr__(module, name, value)

    monkeypatch.setattr(nn.Module, "__setattr__", refuse)
    model(batch)
    if not train:
        generate(model, batch, max_new_tokens=12)
    monkeypatch.undo()
    assert not written
    assert_untouched(model, before)
    assert attributes(model) == held
