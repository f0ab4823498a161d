"""Generation: batched equals single, states equal those of one forward pass, the bank keeps its order."""

import dataclasses

import pytest
import torch

from anchorseg.config import Method
from anchorseg.generation import BankGrammar, generate
from anchorseg.predictor import AnchorSegPredictor, phrase_or_sentence
from dataset.sample import Conversation, TargetSlot, Turn
from tests.conftest import make_batch, make_model, make_sample


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
    logits = torch.zeros(1, 20)
    logits[0, 12], logits[0, 11], logits[0, 5] = 9.0, 8.0, 1.0
    assert grammar.choose(logits, torch.tensor([-1])).item() == 5
    assert grammar.choose(logits, torch.tensor([10])).item() == 11
    assert grammar.choose(logits, torch.tensor([11])).item() == 12
    logits[0, 10] = 7.0
    assert grammar.choose(logits, torch.tensor([12])).item() == 10
    assert BankGrammar((12,)).choose(logits, torch.tensor([-1])).item() == 12


def test_no_target_is_an_answer(trained):
    model, registry = trained
    made = generate(model, make_batch(model, registry, ask(make_sample(0), "What is it?")), max_new_tokens=1)
    assert len(made.target_rows) == 0 and made.segmentation.masks[0].shape == (0, 60, 80)


def test_predictor(trained, tmp_path):
    from anchorseg.build import save_model

    model, registry = trained
    save_model(model, registry, tmp_path)
    predictor = AnchorSegPredictor.from_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="set_image"):
        predictor.predict("the red thing")
    with pytest.raises(ValueError, match="wants an RGB image"):
        predictor.set_image(make_sample(0).image[..., 0])
    predictor.set_image(make_sample(0).image)
    with pytest.raises(ValueError, match="empty"):
        predictor.predict("  ")
    question = "What is the red thing in this image?"
    answer = predictor.predict(question, raw_prompt=True, max_new_tokens=20)
    assert answer.has_target and answer.mask.shape == (60, 80) and answer.mask.dtype == bool
    target = answer.targets[0]
    assert target.phrase == "It is" and 0 <= target.score <= 1
    assert target.prior.shape == (60, 80) and target.prior.min() >= 0 and target.prior.max() <= 1
    silent = predictor.predict(question, raw_prompt=True, max_new_tokens=1)
    assert not silent.has_target and silent.mask is None


def test_phrases_and_sentences_get_the_published_prompts():
    assert phrase_or_sentence("the cup") == "What is the cup in this image? Please output segmentation mask."
    assert phrase_or_sentence("Which one rolls?") == "Which one rolls? Please output segmentation mask."
