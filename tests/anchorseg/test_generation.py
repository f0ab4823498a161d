"""Generation: equal to one id at a time and to one forward pass, however much is shared; the bank keeps its order."""

import dataclasses

import pytest
import torch

from anchorseg.inference.generation import answer_questions, generate
from anchorseg.inference.grammar import BankGrammar
from anchorseg.method.options import Method
from benchmarks.naive import one_by_one
from dataset.sample import Conversation, Sample, TargetSlot, Turn
from tests.conftest import make_batch, make_model, make_sample, prefill_batch


def talkative(method: Method | None = None):
    """A model that has learned one answer by heart: a target, then the end."""
    model, registry = make_model(method)
    samples = [make_sample(seed, conversations=2) for seed in range(2)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    batch = make_batch(model, registry, samples)
    for _ in range(30):
        output = model(batch)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(output.logits, output.labels).backward()
        optimizer.step()
    return model.eval(), registry


def ask(sample, *questions):
    return [
        dataclasses.replace(sample, conversations=(Conversation((Turn(question, None),)),)) for question in questions
    ]


@pytest.fixture(scope="module")
def trained():
    return talkative()


def test_generated_masks_equal_those_of_the_same_answer_forced(trained):
    model, registry = trained
    question = "What is the red thing in this image?"
    made = generate(model, make_batch(model, registry, ask(make_sample(0), question)), max_new_tokens=20)
    assert registry.decode(made.ids[0]).startswith("It is <REAS_1>")
    assert made.ids[0][-2 - 7 : -1] == list(registry.bank_ids)
    turn = Turn(question, ("It is", TargetSlot(0), "."))
    forced = dataclasses.replace(make_sample(0), conversations=(Conversation((turn,)),))
    with torch.inference_mode():
        expected = model(make_batch(model, registry, [forced])).segmentation
    pairs = [
        (made.segmentation.masks[0], expected.masks[0]),
        (made.segmentation.low_resolution, expected.low_resolution),
        (made.segmentation.prior.similarity, expected.prior.similarity),
    ]
    for found, wanted in pairs:
        assert float((found - wanted).abs().max() / wanted.abs().max()) < 1e-5


def test_a_dictated_answer_is_written_and_segmented(trained):
    model, registry = trained
    batch = make_batch(model, registry, ask(make_sample(0), "What is it?"))
    words = registry.encode_piece("a thing")
    made = generate(model, batch, answer=[*words, *registry.bank_ids, registry.eos_id])
    assert made.ids == [[*words, *registry.bank_ids]] and made.target_rows.tolist() == [0]


def test_batched_equals_single(trained):
    model, registry = trained
    questions = ["What is it?", "What is the very very very red thing in this image?", "Which object is red?"]
    together = generate(model, make_batch(model, registry, ask(make_sample(0), *questions)), max_new_tokens=20)
    assert together.target_rows.tolist() == [0, 1, 2]
    for index, question in enumerate(questions):
        alone = generate(model, make_batch(model, registry, ask(make_sample(0), question)), max_new_tokens=20)
        assert alone.ids[0] == together.ids[index]
        first, second = alone.segmentation.low_resolution[0], together.segmentation.low_resolution[index]
        assert torch.allclose(first, second, atol=1e-4, rtol=1e-4)


def test_the_bank_keeps_its_order_whatever_the_logits():
    grammar = BankGrammar((10, 11, 12))
    logits = torch.zeros(2, 20)
    logits[:, 12], logits[:, 11], logits[:, 5] = 9.0, 8.0, 1.0
    logits[1, 10] = 7.0
    assert grammar.choose(logits) == [(5,), (10, 11, 12)]
    assert logits[0, 12] == 9.0
    assert BankGrammar((12,)).choose(logits) == [(12,), (12,)]


def test_a_dictated_bank_is_read_at_once_and_half_a_bank_id_by_id():
    grammar = BankGrammar((10, 11, 12))
    answer = [5, 10, 11, 12, 10, 11]
    assert [grammar.dictate(answer, start) for start in (0, 1, 4, 5, 6)] == [(5,), (10, 11, 12), (10,), (11,), ()]


def test_no_target_is_an_answer(trained):
    model, registry = trained
    made = generate(model, make_batch(model, registry, ask(make_sample(0), "What is it?")), max_new_tokens=1)
    assert len(made.target_rows) == 0 and made.segmentation.masks[0].shape == (0, 60, 80)


QUESTIONS = ("What is it?", "What is the very very very red thing in this image?", "Which is red?", "Where?", "red")
SIZES = ((60, 80), (80, 40), (64, 64))


def willing(method: Method):
    """A random model, its head bent so that answers differ in where banks begin, how many there are, and the end."""
    model, registry = make_model(method)
    generator = torch.Generator().manual_seed(1 if method.num_latents else 3)
    with torch.no_grad():
        for index in (model.bank_ids[0], registry.eos_id):
            weight = model.llava.lm_head.weight[index]
            weight += 0.3 * torch.randn(weight.shape, generator=generator)
    return model.eval(), registry


def several_images() -> list[Sample]:
    conversations = tuple(Conversation((Turn(question, None),)) for question in QUESTIONS)
    return [
        dataclasses.replace(make_sample(seed, size), conversations=conversations) for seed, size in enumerate(SIZES)
    ]


def relative_error(found, wanted) -> float:
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max() / wanted.abs().max()) if wanted.numel() else 0.0


def assert_same(made, question, image, alone):
    """An answer among others equals the same answer alone: ids, and everything computed for its targets."""
    assert made.ids[question] == alone.ids[0]
    chosen = made.target_rows == question
    found, wanted = made.segmentation, alone.segmentation
    among = chosen.split(found.counts)[image]
    assert chosen.sum() == among.sum() == len(alone.target_rows)
    pairs = [
        (found.low_resolution[chosen], wanted.low_resolution),
        (found.iou[chosen], wanted.iou),
        (found.masks[image][among], wanted.masks[0]),
        (found.prior.similarity[chosen], wanted.prior.similarity),
        (found.prior.responses[chosen], wanted.prior.responses),
        (found.prior.maps[image][among], wanted.prior.maps[0]),
    ]
    assert max(relative_error(*pair) for pair in pairs) < 1e-5


def assert_equal_to_one_by_one(model, registry, max_new_tokens, answer=None):
    """All questions about all images at once against each by itself, one id a step; returns what was generated."""
    samples = several_images()
    batch = make_batch(model, registry, samples, share_prefix=False)
    made = generate(model, batch, max_new_tokens=max_new_tokens, answer=answer)
    for question, image in enumerate(batch.conversations.row_images.tolist()):
        alone = make_batch(model, registry, ask(samples[image], QUESTIONS[question % len(QUESTIONS)]))
        assert_same(made, question, image, one_by_one(model, alone, max_new_tokens=max_new_tokens, answer=answer))
    return made


METHODS = {
    "zero rule": Method(),
    "plain, valid": Method(padding_attention="plain", prior_range="valid"),
    "zero rule, valid": Method(prior_range="valid"),
    "no latents": Method(num_latents=0),
}


@pytest.mark.parametrize("name", METHODS)
def test_all_at_once_equals_one_id_at_a_time(name):
    model, registry = willing(METHODS[name])
    made = assert_equal_to_one_by_one(model, registry, 40)
    starts = [[place for place, index in enumerate(ids) if index == model.bank_ids[0]] for ids in made.ids]
    counts = torch.bincount(made.target_rows, minlength=len(made.ids))
    assert counts.min() == 0 and counts.max() >= 2
    assert len({places[0] for places in starts if places}) >= 4
    assert len({len(ids) for ids in made.ids}) >= 2


@pytest.mark.parametrize("limit", range(1, 14, 2))
def test_a_limit_inside_a_bank_leaves_no_target(limit):
    model, registry = willing(Method())
    made = assert_equal_to_one_by_one(model, registry, limit)
    assert max(map(len, made.ids)) == limit
    if limit > 1:
        assert any(ids and ids[-1] in model.bank_ids[:-1] for ids in made.ids)


@pytest.mark.parametrize("latents", [0, 2])
def test_a_dictated_answer_equals_one_id_at_a_time(latents):
    model, registry = make_model(Method(num_latents=latents))
    model.eval()
    words = registry.encode_piece("a thing")
    answer = [*words, *registry.bank_ids, *registry.bank_ids, *words, *registry.bank_ids, registry.eos_id, *words]
    made = assert_equal_to_one_by_one(model, registry, 100, answer)
    assert made.target_rows.tolist() == [question for question in range(15) for _ in range(3)]
    cut = assert_equal_to_one_by_one(model, registry, len(answer) - len(words) - 2, answer)
    assert len(cut.target_rows) == 15 * 2


def test_images_that_were_read_serve_again_and_again():
    model, registry = willing(Method())
    samples = several_images()
    batch = make_batch(model, registry, samples)
    images = prefill_batch(model, batch)
    keys = [layer.keys.clone() for layer in images.cache.layers]
    separate = make_batch(model, registry, samples, share_prefix=False)
    together = generate(model, separate, max_new_tokens=30)
    asked = separate.conversations
    questions = [row[own].tolist() for row, own in zip(asked.input_ids, asked.segments > 0, strict=True)]
    for question, (ids, image) in enumerate(zip(questions, asked.row_images.tolist(), strict=True)):
        single = answer_questions(model, images, [ids], [image], max_new_tokens=30)
        assert single.ids == [together.ids[question]]
        chosen = together.target_rows == question
        assert relative_error(single.segmentation.low_resolution, together.segmentation.low_resolution[chosen]) < 1e-5
    assert all(torch.equal(layer.keys, before) for layer, before in zip(images.cache.layers, keys, strict=True))


def test_the_prefix_is_in_memory_once_however_many_questions():
    model, registry = willing(Method())
    images = prefill_batch(model, make_batch(model, registry, several_images()[:1]))
    branch = images.branch_cache()
    assert all(
        mine.keys.data_ptr() == theirs.keys.data_ptr()
        for mine, theirs in zip(branch.layers, images.cache.layers, strict=True)
    )
    assert images.cache.layers[0].keys.shape[0] == 1


def test_no_questions_have_no_answers():
    model, registry = willing(Method())
    images = prefill_batch(model, make_batch(model, registry, several_images()))
    made = answer_questions(model, images, [], [])
    assert made.ids == [] and [mask.shape for mask in made.segmentation.masks] == [(0, *size) for size in SIZES]


@pytest.mark.filterwarnings("error::FutureWarning")
def test_no_argument_of_the_libraries_is_deprecated(trained):
    model, registry = trained
    assert generate(model, make_batch(model, registry, ask(make_sample(0), "What is it?")), max_new_tokens=3).ids
