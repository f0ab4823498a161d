"""Predictor: an image is read once and asked often, with the answers of fresh calls."""

import numpy as np
import pytest

from anchorseg.build import save_model
from anchorseg.predictor import AnchorSegPredictor, Answer, phrase_or_sentence
from benchmarks.generation import teach
from tests.conftest import make_model, make_sample

QUERIES = ("What is the red thing in this image?", "the cup", "What is the very very red thing in this image?", "Why?")


@pytest.fixture(scope="module")
def trained():
    model, registry = make_model()
    teach(model, AnchorSegPredictor(model, registry).collator)
    return model, registry


@pytest.fixture
def predictor(trained):
    return AnchorSegPredictor(*trained)


def assert_same(found: Answer, wanted: Answer) -> None:
    assert found.text == wanted.text and len(found.targets) == len(wanted.targets)
    for first, second in zip(found.targets, wanted.targets, strict=True):
        assert np.array_equal(first.mask, second.mask) and first.phrase == second.phrase
        assert abs(first.score - second.score) < 1e-5
        assert np.abs(first.prior - second.prior).max() < 1e-5


def fresh(predictor, image, query):
    other = AnchorSegPredictor(predictor.model, predictor.registry)
    other.set_image(image)
    return other.predict(query, max_new_tokens=20)


def test_from_a_folder(trained, tmp_path):
    save_model(*trained, tmp_path)
    predictor = AnchorSegPredictor.from_pretrained(tmp_path)
    predictor.set_image(make_sample(0).image)
    answer = predictor.predict(QUERIES[0], raw_prompt=True, max_new_tokens=20)
    assert answer.has_target and answer.mask.shape == (60, 80) and answer.mask.dtype == bool
    target = answer.targets[0]
    assert target.phrase == "It is" and 0 <= target.score <= 1
    assert target.prior.shape == (60, 80) and target.prior.min() >= 0 and target.prior.max() <= 1
    silent = predictor.predict(QUERIES[0], raw_prompt=True, max_new_tokens=1)
    assert not silent.has_target and silent.mask is None


def test_wrong_use_is_refused(predictor):
    with pytest.raises(RuntimeError, match="set_image"):
        predictor.predict("the red thing")
    with pytest.raises(ValueError, match="wants an RGB image"):
        predictor.set_image(make_sample(0).image[..., 0])
    predictor.set_image(make_sample(0).image)
    with pytest.raises(ValueError, match="empty"):
        predictor.predict("  ")
    with pytest.raises(ValueError, match="empty"):
        predictor.predict_batch(["the cup", ""])
    predictor.reset_image()
    with pytest.raises(RuntimeError, match="set_image"):
        predictor.predict("the red thing")


@pytest.mark.parametrize("max_rows", [1, 3, 16])
def test_one_image_and_many_questions_equal_fresh_calls(predictor, max_rows):
    for image in (make_sample(1).image, make_sample(2, (90, 50)).image):
        predictor.set_image(image)
        wanted = [fresh(predictor, image, query) for query in QUERIES]
        assert sum(len(answer.targets) for answer in wanted) >= 1
        together = predictor.predict_batch(QUERIES, max_new_tokens=20, max_rows=max_rows)
        for query, found, expected in zip(QUERIES, together, wanted, strict=True):
            assert_same(found, expected)
            assert_same(predictor.predict(query, max_new_tokens=20), expected)
    assert predictor.predict_batch([]) == []


def test_the_backbones_read_an_image_once(predictor):
    calls = []
    hooks = [
        module.register_forward_hook(lambda *_: calls.append(1))
        for module in (predictor.model.sam.image_encoder, predictor.model.llava.network.model.vision_tower.embeddings)
    ]
    predictor.set_image(make_sample(1).image)
    for query in QUERIES:
        predictor.predict(query, max_new_tokens=3)
    predictor.predict_batch(QUERIES, max_new_tokens=3, max_rows=2)
    assert len(calls) == 2
    predictor.set_image(make_sample(2).image)
    predictor.predict_batch(QUERIES, max_new_tokens=3)
    assert len(calls) == 4
    for hook in hooks:
        hook.remove()


def test_phrases_and_sentences_get_the_published_prompts():
    assert phrase_or_sentence("the cup") == "What is the cup in this image? Please output segmentation mask."
    assert phrase_or_sentence("Which one rolls?") == "Which one rolls? Please output segmentation mask."
