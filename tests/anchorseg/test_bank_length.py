"""Banks of any length: in the prompt, in a batch, written by the model, and cut by the prior."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from anchorseg.inference.collate import make_collator
from anchorseg.inference.generation import generate
from anchorseg.inference.prefix import PackedQuestions
from anchorseg.method.bank_length import BankRule, ChosenByModel, SteadyPrior, bank_rule, first_latents, truncated
from anchorseg.method.head import Segmentation
from anchorseg.method.modeling import AnchorSegModel
from anchorseg.method.options import Method
from anchorseg.method.query_bank import locate_banks, locate_begun_banks
from anchorseg.training.data import with_banks_of_random_length
from dataset.batch import BankPositions, Batch
from dataset.sample import Sample
from tests.anchorseg.test_generation import relative_error, several_images, willing
from tests.conftest import make_batch, make_model, make_sample, prefill_batch
from tests.recording import OperatorRecorder
from utils.errors import SettingsError

K = 7
NESTED = Method(bank_length="random")


def assert_same_masks(found: Segmentation, wanted: Segmentation) -> None:
    assert found.counts == wanted.counts and found.prior is not None and wanted.prior is not None
    assert relative_error(found.low_resolution, wanted.low_resolution) < 1e-5
    assert relative_error(found.prior.similarity, wanted.prior.similarity) < 1e-5


def of_length(latents: int | None, *samples: Sample) -> list[Sample]:
    return [
        replace(sample, conversations=tuple(replace(each, latents=latents) for each in sample.conversations))
        for sample in samples
    ]


@pytest.mark.parametrize("latents", range(K + 1))
@torch.inference_mode()
def test_of_a_whole_bank_the_first_latents_are_a_bank(latents):
    model, registry = make_model(NESTED)
    samples = [make_sample(0), make_sample(1, (90, 50), 2)]
    whole = make_batch(model, registry, samples)
    short = make_batch(model, registry, of_length(latents, *samples))
    assert short.conversations.targets.columns.shape == (5, latents + 1) and not short.conversations.targets.lengths
    wanted = model.eval()(short).segmentation
    if latents:
        hidden = model.prefill(whole.images, whole.conversations)
        targets = truncated(whole.conversations.targets, [latents] * 5)
        context = model.image_context(whole.images, whole.conversations, hidden)
        assert_same_masks(model.segment(hidden, targets, context), wanted)
    collator = make_collator(model.config, registry, max_length=2048, latents=latents)
    assert torch.equal(collator(samples).conversations.input_ids, short.conversations.input_ids)


@torch.inference_mode()
def test_a_batch_of_several_lengths_gives_what_each_gives():
    model, registry = make_model(NESTED)
    samples = [make_sample(0), make_sample(1, (90, 50), 2)]
    lengths = iter([3, 7, 1, 3, 0])
    ragged = [
        replace(sample, conversations=tuple(replace(each, latents=next(lengths)) for each in sample.conversations))
        for sample in samples
    ]
    batch = make_batch(model, registry, ragged)
    assert batch.conversations.targets.lengths == (4, 8, 2, 4, 1)
    together = model.eval()(batch).segmentation
    alone = [
        model(make_batch(model, registry, [replace(sample, conversations=(each,))])).segmentation
        for sample in ragged
        for each in sample.conversations
    ]
    for number, one in enumerate(alone):
        assert relative_error(together.low_resolution[number], one.low_resolution[0]) < 1e-5
    assert relative_error(torch.cat(together.masks[1:]), torch.cat([one.masks[0] for one in alone[3:]])) < 1e-5
    found = locate_begun_banks(batch.conversations.input_ids, model.bank_ids)
    assert found.lengths == (4, 8, 2, 4, 1) and torch.equal(found.columns, batch.conversations.targets.columns)


def test_training_draws_lengths_and_supervises_the_end():
    model, registry = make_model(NESTED)
    drawn = with_banks_of_random_length(make_sample(0), np.random.default_rng(0), num_latents=K)
    again = with_banks_of_random_length(make_sample(0), np.random.default_rng(0), num_latents=K)
    assert drawn.conversations == again.conversations
    lengths = [each.latents for each in drawn.conversations]
    assert all(length is not None and 1 <= length <= K for length in lengths) and len(set(lengths)) > 1
    many = np.random.default_rng(1)
    seen = {with_banks_of_random_length(make_sample(0, (8, 8), 1), many, num_latents=K).conversations[0].latents
            for _ in range(200)}  # fmt: skip
    assert seen == set(range(1, K + 1))
    labels = make_batch(model, registry, [drawn]).conversations.labels[0].tolist()
    for length in lengths:
        place = [labels[at : at + 1 + length] for at in range(len(labels))]
        assert [*model.bank_ids[:length], model.bank_ids[-1]] in place
    output = model(make_batch(model, registry, [drawn]))
    output.segmentation.low_resolution.sum().backward()
    gradient = model.head.modules["query_bank"].positions.grad
    assert gradient is not None and gradient[0].any() and gradient[-1].any()
    assert not gradient[max(length for length in lengths if length) : -1].any()


def one_by_one(
    model: AnchorSegModel, batch: Batch, question: list[int], row: int, limit: int
) -> tuple[list[int], torch.Tensor]:
    """The ids that a model writes which may end a bank after any latent, and the masks of its banks."""
    images = prefill_batch(model, batch)
    packed = PackedQuestions(model, images, [row])
    *latents, segment = model.bank_ids
    written: list[int] = []
    piece = question
    while True:
        logits = model.language.logits(packed.extend({0: piece}))[0]
        last = written[-1] if written else None
        if last in latents:
            following = model.bank_ids[latents.index(last) + 1]
            index = segment if logits[segment] >= logits[following] else following
        else:
            logits[list(model.bank_ids[1:])] = -torch.inf
            index = int(logits.argmax())
        if index == model.config.token_ids["eos"] or len(written) == limit:
            break
        written.append(index)
        piece = [index]
    ids, hidden, _ = packed.in_order()
    context = model.image_context(images.images, images.sequences, images.hidden, images.mask_features.result())
    return written, model.segment(hidden, locate_begun_banks(ids, model.bank_ids), context).low_resolution


@pytest.mark.parametrize("limit", [5, 11, 40])
@torch.inference_mode()
def test_a_model_ends_its_banks(limit):
    model, registry = willing(NESTED)
    generator = torch.Generator().manual_seed(5)
    for index in model.bank_ids[1:]:
        model.llava.lm_head.weight[index] += 0.5 * torch.randn(model.width, generator=generator)
    model.set_bank_length("auto")
    batch = make_batch(model, registry, several_images(), share_prefix=False)
    asked = batch.conversations
    questions = [row[own].tolist() for row, own in zip(asked.input_ids, asked.segments > 0, strict=True)]
    wanted, masks = zip(
        *(
            one_by_one(model, batch, question, row, limit)
            for question, row in zip(questions, asked.row_images.tolist(), strict=True)
        ),
        strict=True,
    )
    if limit == 40:
        assert len(set(bank_lengths([index for ids in wanted for index in ids], model.bank_ids))) > 2
    plain = generate(model, batch, max_new_tokens=limit)
    model.capture_graphs(OperatorRecorder)
    for made in (plain, *(generate(model, batch, max_new_tokens=limit) for _ in range(2))):
        assert made.ids == list(wanted)
        assert made.target_rows.tolist() == [row for row, own in enumerate(masks) for _ in own]
        assert relative_error(made.segmentation.low_resolution, torch.cat(masks)) < 1e-5


def bank_lengths(ids: list[int], bank_ids: tuple[int, ...]) -> list[int]:
    lengths, length = [], 0
    for index in ids:
        length = length + 1 if index in bank_ids else 0
        if index == bank_ids[-1]:
            lengths.append(length)
            length = 0
    return lengths


@torch.inference_mode()
def test_the_prior_ends_banks():
    model, registry = make_model(NESTED)
    model.eval()
    batch = make_batch(model, registry, [make_sample(0), make_sample(1, (90, 50), 2)])
    hidden = model.prefill(batch.images, batch.conversations)
    targets, context = batch.conversations.targets, model.image_context(batch.images, batch.conversations, hidden)
    responses = []
    for latents in range(1, K + 1):
        part = model.segment(hidden, truncated(targets, [latents] * 5), context)
        assert part.prior is not None
        responses.append(part.prior.responses)
    changes = torch.stack(responses, dim=1).diff(dim=1).abs().mean(dim=2)
    for threshold in (0.0, float(changes.median()), 1.0):
        rule = SteadyPrior(threshold=threshold)
        wanted = [next((k + 2 for k in range(K - 1) if row[k] < threshold), K) for row in changes]
        found = rule.shorten(model, hidden, targets, context)
        assert [length - 1 for length in found.lengths] == wanted
    model.bank_rule = SteadyPrior(threshold=1.0)
    assert_same_masks(
        model(batch).segmentation, model_with(BankRule(), model, hidden, truncated(targets, [2] * 5), context)
    )


def model_with(rule, model, hidden, targets, context):
    model.bank_rule = rule
    return model.segment(hidden, targets, context)


def test_stops():
    stops = torch.tensor([[False, True, True], [False, False, False], [True, False, True]])
    assert first_latents(stops) == [2, 3, 1]


def test_rules():
    assert bank_rule("full", 0, nested=False) == BankRule()
    assert bank_rule("3", K, nested=True) == BankRule(latents=3)
    assert bank_rule("auto", K, nested=True) == ChosenByModel()
    assert bank_rule("steady:0.5", K, nested=True) == SteadyPrior(threshold=0.5)
    for text, nested, sentence in (
        ("8", True, "--bank_length is '8'; allowed: full, a number from 0 to 7, auto, steady"),
        ("some", True, "--bank_length is 'some'"),
        ("auto", False, "all banks of this model have 7 latent tokens"),
    ):
        with pytest.raises(SettingsError, match=sentence):
            bank_rule(text, K, nested=nested)
    with pytest.raises(ValueError, match="bank_length random draws how many"):
        Method(bank_length="random", num_latents=0)


def test_a_bank_with_a_hole_is_refused():
    model, _ = make_model(NESTED)
    ids = torch.tensor([[5, model.bank_ids[1], model.bank_ids[-1]]])
    with pytest.raises(ValueError, match="<SEG> follows the latent 2 without those before it"):
        locate_begun_banks(ids, model.bank_ids)
    none = locate_begun_banks(torch.tensor([[5, 6]]), model.bank_ids)
    assert isinstance(none, BankPositions) and none.counts == (0,) and len(none) == 0
    whole = torch.tensor([[5, *model.bank_ids, 6]])
    found, wanted = locate_begun_banks(whole, model.bank_ids), locate_banks(whole, model.bank_ids)
    assert torch.equal(found.columns, wanted.columns) and found.lengths == wanted.lengths
