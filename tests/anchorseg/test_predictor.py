"""Predictor: an image is read once and asked often, with the answers of fresh calls."""

import numpy as np
import pytest

from anchorseg.inference.predictor import AnchorSegPredictor, Answer
from anchorseg.weights.folder import save_model
from tests.conftest import make_model, make_sample
from tests.teaching import teach
from utils.errors import UserError

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


def test_the_prompt_that_was_sent_is_in_the_answer(predictor):
    predictor.set_image(make_sample(0).image)
    whole = "What is the cup in this image? Please output segmentation mask."
    for query in ("the cup", "What is the cup in this image?", whole):
        assert predictor.predict(query, max_new_tokens=1).prompt == whole
    assert predictor.predict("Red cup", kind="prompt", max_new_tokens=1).prompt == "Red cup"
    answers = predictor.predict_batch(["Red cup", "Why?"], kind="sentence", max_new_tokens=1, max_rows=1)
    assert [answer.prompt[:7] for answer in answers] == ["Red cup", "Why? Pl"]


def test_the_image_is_the_callers_to_overwrite(predictor):
    image = make_sample(1).image
    wanted = fresh(predictor, image.copy(), QUERIES[0])
    predictor.set_image(image)
    session = predictor.session(image)
    image[:] = 0
    assert_same(predictor.predict(QUERIES[0], max_new_tokens=20), wanted)
    assert_same(session.predict(QUERIES[0], max_new_tokens=20), wanted)


@pytest.mark.parametrize("change", [lambda a: a[::-1], lambda a: a[:, ::-1], lambda a: np.asfortranarray(a)])
def test_any_layout_in_memory_is_the_same_image(predictor, change):
    image = change(make_sample(1).image)
    image.flags.writeable = False
    predictor.set_image(image)
    assert_same(predictor.predict(QUERIES[0]), fresh(predictor, image.copy(), QUERIES[0]))


RGB = np.zeros((8, 8, 3), np.uint8)
BAD_IMAGES = {
    "None": None,
    "dict": {"image": RGB},
    "list": RGB.tolist(),
    "path": "photo.jpg",
    "float": RGB.astype(np.float32),
    "nan": np.full((8, 8, 3), np.nan),
    "int64": RGB.astype(np.int64),
    "bool": RGB.astype(bool),
    "object": RGB.astype(object),
    "grey": RGB[..., 0],
    "one channel": RGB[..., :1],
    "two channels": RGB[..., :2],
    "four channels": np.zeros((8, 8, 4), np.uint8),
    "channels first": np.zeros((3, 8, 8), np.uint8),
    "batch": RGB[None],
    "no rows": RGB[:0],
    "no columns": RGB[:, :0],
    "number": np.uint8(3),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_what_is_no_image_is_refused_in_a_sentence(predictor, name):
    predictor.set_image(RGB)
    for take in (predictor.set_image, predictor.session):
        with pytest.raises(UserError, match=r"numpy array|wants an RGB image"):
            take(BAD_IMAGES[name])
    assert predictor.predict("the cup", max_new_tokens=1).prompt, "the image set before stays"


@pytest.mark.parametrize("query", [None, 3, b"the cup", ["the cup"], {"a": 1}, float("nan"), "", " \n\t", "a \ud800"])
def test_what_is_no_query_is_refused_in_a_sentence(predictor, query):
    predictor.set_image(RGB)
    for ask in (predictor.predict, lambda query: predictor.predict_batch(["the cup", query])):
        with pytest.raises(UserError, match=r"a query is a text|is empty|lone surrogate"):
            ask(query)


@pytest.mark.parametrize("queries", ["ball", b"ball", None, 3, {"ball": 1}, {"ball"}, np.array(["ball"])])
def test_what_is_no_list_of_queries_is_refused_in_a_sentence(predictor, queries):
    predictor.set_image(RGB)
    with pytest.raises(UserError, match="takes a list of queries"):
        predictor.predict_batch(queries)


@pytest.mark.parametrize(
    "wrong", [{"max_rows": 0}, {"max_new_tokens": -1}, {"max_new_tokens": 2.5}, {"max_rows": True}, {"kind": "word"}]
)
def test_other_arguments_that_are_not_allowed_are_named(predictor, wrong):
    predictor.set_image(RGB)
    with pytest.raises(UserError, match=next(iter(wrong))):
        predictor.predict_batch(["the cup"], **wrong)


def test_a_question_that_is_too_long_is_refused_in_a_sentence(predictor):
    predictor.set_image(RGB)
    with pytest.raises(UserError, match="tokens, but at most 2048"):
        predictor.predict("very " * 3000 + "red")
