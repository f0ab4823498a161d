"""Inference as CUDA graphs equals inference without: graphs on a GPU, operators that are played again on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch

from anchorseg.inference.generation import answer_questions, generate
from anchorseg.inference.grammar import Generated
from anchorseg.method.head import Segmentation
from anchorseg.method.modeling import AnchorSegModel
from anchorseg.method.options import Method
from dataset.batch import Batch
from tests.anchorseg.test_generation import METHODS, relative_error, several_images, willing
from tests.conftest import make_batch, make_sample, prefill_batch
from tests.recording import OperatorRecorder
from utils.cuda_graphs import CapturedCall, CudaRecorder, Kept

pytestmark = pytest.mark.filterwarnings("ignore:.*non-writable.*")


class Recorders:
    """Makes recorders, and remembers those that count."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.made: list[OperatorRecorder] = []

    def __call__(self) -> OperatorRecorder | CudaRecorder:
        if self.device.type == "cuda":
            return CudaRecorder()
        self.made.append(OperatorRecorder())
        return self.made[-1]


def with_graphs(model: AnchorSegModel, call: Callable[[], Generated], times: int = 3) -> tuple[Generated, list]:
    """What a call gives without graphs, and what it gives with them, first eagerly, then recorded, then played."""
    plain = call()
    model.capture_graphs(Recorders(next(model.parameters()).device))
    return plain, [call() for _ in range(times)]


def assert_same_answers(made: Generated, wanted: Generated) -> None:
    assert made.ids == wanted.ids
    assert made.target_rows.tolist() == wanted.target_rows.tolist()
    assert_same_masks(made.segmentation, wanted.segmentation)


def assert_same_masks(found: Segmentation, wanted: Segmentation) -> None:
    bound = 1e-4 if found.low_resolution.is_cuda else 1e-5
    assert found.counts == wanted.counts
    pairs = [
        (found.low_resolution, wanted.low_resolution),
        (found.prior.similarity, wanted.prior.similarity),
        *zip(found.masks, wanted.masks, strict=True),
    ]
    assert max(relative_error(*pair) for pair in pairs) < bound


def questions_about_images(model: AnchorSegModel, registry, device: torch.device) -> Batch:
    batch = make_batch(model, registry, several_images(), share_prefix=False)
    return batch.to(device, torch.float32)


@pytest.mark.cuda
@pytest.mark.parametrize("name", METHODS)
def test_answers_of_all_lengths_and_kinds(name, device):
    model, registry = willing(METHODS[name])
    model.to(device)
    batch = questions_about_images(model, registry, device)
    plain, made = with_graphs(model, lambda: generate(model, batch, max_new_tokens=40))
    counts = torch.bincount(plain.target_rows, minlength=len(plain.ids))
    assert counts.min() == 0 and counts.max() >= 2, "answers without a target and with several"
    assert len({len(ids) for ids in plain.ids}) >= 2, "answers that end at different steps"
    for answers in made:
        assert_same_answers(answers, plain)


@pytest.mark.cuda
@pytest.mark.parametrize("limit", [1, 7, 8, 9, 33])
def test_limits(limit, device):
    model, registry = willing(Method())
    model.to(device)
    batch = questions_about_images(model, registry, device)
    plain, made = with_graphs(model, lambda: generate(model, batch, max_new_tokens=limit), times=2)
    assert max(map(len, plain.ids)) == limit
    for answers in made:
        assert_same_answers(answers, plain)


@pytest.mark.cuda
@pytest.mark.parametrize("latents", [0, 2])
def test_given_answers(latents, device):
    model, registry = willing(Method(num_latents=latents))
    model.to(device)
    batch, words = questions_about_images(model, registry, device), registry.encode_piece("a thing")
    half = model.bank_ids[: max(1, latents - 1)] if latents else ()
    given = [*words, *half, *words, *model.bank_ids, *model.bank_ids, *words, registry.eos_id, *words]
    for answer in (given, [], [registry.eos_id], list(model.bank_ids)):
        model.captured = None
        plain, made = with_graphs(model, lambda: generate(model, batch, max_new_tokens=50, answer=answer), times=2)  # noqa: B023
        assert len(plain.target_rows) == 15 * (2 if answer is given else answer == list(model.bank_ids))
        for answers in made:
            assert_same_answers(answers, plain)


@pytest.mark.parametrize("latents", [0, 7, 17])
def test_an_answer_like_the_last_one_is_read_with_its_question(latents):
    """Another one takes a step for each id, and one for its bank."""
    model, registry = willing(Method(num_latents=latents))
    images = prefill_batch(model, make_batch(model, registry, several_images()[:1], share_prefix=False))
    words, question = registry.encode_piece("a thing"), registry.encode_piece("What? ASSISTANT:")
    answers = [[*words[:count], *model.bank_ids, *words] for count in (1, 2)]
    recorders = Recorders(torch.device("cpu"))
    model.capture_graphs(recorders)
    steps = []
    for answer in (answers[0], answers[0], answers[1], answers[1]):
        before = recorders.made[0].replays
        made = answer_questions(model, images, [question, question], [0, 0], answer=answer)
        assert made.ids == [answer] * 2 and made.target_rows.tolist() == [0, 1]
        steps.append(recorders.made[0].replays - before)
    assert steps[0] == 1 + 1 + 1 + len(words)
    assert steps[1] == steps[3] == 1
    assert steps[2] > 2


@pytest.mark.cuda
def test_one_decoder_serves_questions_of_other_images_and_numbers(device):
    model, registry = willing(Method())
    model.to(device)
    batch = questions_about_images(model, registry, device)
    asked = batch.conversations
    ids = [row[own].tolist() for row, own in zip(asked.input_ids, asked.segments > 0, strict=True)]
    groups = [[0], [4], [2, 3, 1], [0, 1, 2, 3], [4, 0, 1]]

    def answers() -> list[Generated]:
        images = [
            prefill_batch(model, make_batch(model, registry, [sample]).to(device, torch.float32))
            for sample in several_images()
        ]
        return [
            answer_questions(model, images[number % 3], [ids[one] for one in group], [0] * len(group))
            for number, group in enumerate([*groups, *groups])
        ]

    plain = answers()
    recorders = Recorders(device)
    model.capture_graphs(recorders)
    for _ in range(2):
        for made, wanted in zip(answers(), plain, strict=True):
            assert_same_answers(made, wanted)
    if recorders.made:
        # The prefill of one image, and two steps for each of 1 and 4 questions.
        assert recorders.made[0].recordings == 1 + 2 * 2
        assert recorders.made[1].recordings == 1
    assert answer_questions(model, prefill_batch(model, batch), [], []).ids == []


@pytest.mark.cuda
def test_forced_answers_of_several_lengths(device):
    model, registry = willing(Method(prior_range="valid"))
    model.to(device)
    batches = [
        make_batch(model, registry, [make_sample(seed, size, count)]).to(device, torch.float32)
        for seed, (size, count) in enumerate([((60, 80), 1), ((50, 90), 3), ((64, 64), 1)])
    ]
    with torch.inference_mode():
        plain = [model(batch) for batch in batches]
        recorders = Recorders(device)
        model.capture_graphs(recorders)
        for _ in range(2):
            for batch, wanted in zip(batches, plain, strict=True):
                output = model(batch)
                assert relative_error(output.logits, wanted.logits) < 1e-4
                assert_same_masks(output.segmentation, wanted.segmentation)
    if recorders.made:
        lengths = {-(-batch.conversations.input_ids.shape[1] // 64) for batch in batches}
        assert recorders.made[0].recordings == len(lengths) < len(batches)


def test_training_does_not_use_graphs():
    model, registry = willing(Method())
    batch = make_batch(model, registry, [make_sample(0)])
    recorders = Recorders(torch.device("cpu"))
    model.capture_graphs(recorders)
    for _ in range(3):
        model(batch).logits.sum().backward()
    assert not any(recorder.recordings for recorder in recorders.made)


def test_a_value_read_on_the_host_cannot_be_recorded():
    values = torch.arange(3.0)
    with pytest.raises(RuntimeError):
        OperatorRecorder()(lambda: (values * float(values.sum()),))


def test_a_recording_reads_what_its_inputs_hold_then():
    recorder = OperatorRecorder()
    call = CapturedCall(lambda left, right, *, factor: (left * factor + right,), recorder, keep=2)
    for shape in (2, 3, 2, 3, 2, 4, 4, 3):
        left, right = torch.randn(2, shape)
        (found,) = call(left, right, factor=2)
        assert torch.equal(found, left * 2 + right)
    assert recorder.recordings == 4, "two shapes, then a third in place of the first, which is not asked for again"
    (other,) = call(torch.ones(2), torch.ones(2), factor=3)
    assert other.tolist() == [4.0, 4.0]


def test_results_belong_to_the_caller():
    call = CapturedCall(lambda value: (value + 1,), OperatorRecorder())
    results = [call(torch.full((2,), float(number)))[0] for number in range(4)]
    assert [result.tolist() for result in results] == [[number + 1.0] * 2 for number in range(4)]


def test_the_value_unused_for_longest_goes():
    kept: Kept[str, int] = Kept(2)
    made: list[str] = []
    for key in "abacab":
        kept.get(key, lambda key=key: made.append(key) or len(made))
    assert made == ["a", "b", "c", "b"]


@pytest.mark.cuda
def test_dialogues_text_alone_and_token_maps(device):
    model, registry = willing(Method())
    model.to(device)
    batch = questions_about_images(model, registry, device)
    asked = batch.conversations
    ids = [row[own].tolist() for row, own in zip(asked.input_ids, asked.segments > 0, strict=True)]
    earlier = [*ids[0], *registry.encode_piece("It is"), *model.bank_ids, registry.eos_id]
    images, rows = prefill_batch(model, batch), [0, 0, 0, 1, 1]
    questions = [ids[0], [*earlier, *ids[1]], [*earlier, *earlier, *ids[2]], [*earlier, *ids[3]], ids[4]]
    segment = model.bank_ids[-1]
    for options in ({"answer": [*ids[1][:2], *model.bank_ids]}, {}, {"targets": False}):
        model.captured = None
        ask = partial(answer_questions, model, images, questions, rows, max_new_tokens=40, token_maps=True, **options)
        plain, made = with_graphs(model, ask)
        counts = [written.count(segment) for written in plain.ids]
        assert counts == [1] * 5 if "answer" in options else (sum(counts) > 0) == options.get("targets", True)
        assert torch.bincount(plain.target_rows, minlength=5).tolist() == counts
        assert len(plain.token_maps) == sum(counts)
        for answers in made:
            assert_same_answers(answers, plain)
            for found, wanted in zip(answers.token_maps, plain.token_maps, strict=True):
                assert (found - wanted).abs().max() < (1e-3 if found.is_cuda else 1e-5)
