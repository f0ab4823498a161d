"""Predictor: an image is read once and asked often, with the answers of fresh calls."""

import numpy as np
import PIL.Image
import pytest
import torch

from anchorseg.evaluation.queries import bank_responses, given_answer
from anchorseg.inference.answer import Answer
from anchorseg.inference.generation import generate
from anchorseg.inference.predictor import AnchorSegPredictor
from anchorseg.weights.folder import save_model
from dataset.sample import Conversation, Sample, TargetSlot, Turn
from tests.conftest import make_batch, make_model, make_sample
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
    with pytest.raises(ValueError, match="an RGB image is"):
        predictor.set_image(make_sample(0).image[None])
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
    "float": RGB.astype(np.float32),
    "nan": np.full((8, 8, 3), np.nan),
    "int64": RGB.astype(np.int64),
    "bool": RGB.astype(bool),
    "object": RGB.astype(object),
    "two channels": RGB[..., :2],
    "one dimension": RGB[0, 0],
    "channels first": np.zeros((3, 8, 8), np.uint8),
    "batch": RGB[None],
    "no rows": RGB[:0],
    "no columns": RGB[:, :0],
    "number": np.uint8(3),
    "float tensor": torch.zeros(3, 8, 8),
    "half tensor": torch.zeros(3, 8, 8, dtype=torch.bfloat16),
    "tensor with channels last": torch.zeros(8, 8, 3, dtype=torch.uint8),
    "16 bits of PIL": PIL.Image.fromarray(np.zeros((8, 8), np.uint16)),
    "float of PIL": PIL.Image.fromarray(np.zeros((8, 8), np.float32)),
    "nothing of PIL": PIL.Image.new("RGB", (0, 5)),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_what_is_no_image_is_refused_in_a_sentence(predictor, name):
    predictor.set_image(RGB)
    for take in (predictor.set_image, predictor.session):
        with pytest.raises(UserError, match=r"numpy array|an RGB|numbers of uint8|a tensor is|a PIL image of"):
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
    with pytest.raises(UserError, match="are a list of queries"):
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


def test_images_of_every_kind_are_the_same_image(predictor, tmp_path):
    image = make_sample(1).image
    path = tmp_path / "photo.png"
    PIL.Image.fromarray(image).save(path)
    clear = np.dstack([image, np.arange(image[..., 0].size, dtype=np.uint8).reshape(image.shape[:2])])
    channels_first = torch.from_numpy(image).permute(2, 0, 1)
    same = [path, str(path), PIL.Image.open(path), clear, PIL.Image.fromarray(clear), channels_first]
    wanted = fresh(predictor, image, QUERIES[0])
    for form in same:
        session = predictor.session(form)
        assert np.array_equal(session.image, image)
    assert_same(session.predict(QUERIES[0], max_new_tokens=20), wanted)
    grey = image[..., 0]
    for form in (
        grey,
        grey[..., None],
        PIL.Image.fromarray(grey),
        torch.from_numpy(grey),
        torch.from_numpy(grey)[None],
    ):
        assert np.array_equal(predictor.session(form).image, np.repeat(grey[..., None], 3, axis=2))


def test_a_pil_image_is_turned_as_its_file_is(predictor, tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.fromarray(make_sample(1).image).save(tmp_path / "turned.png", exif=exif)
    turned = predictor.session(tmp_path / "turned.png").image
    assert turned.shape == (80, 60, 3)
    assert np.array_equal(predictor.session(PIL.Image.open(tmp_path / "turned.png")).image, turned)


def test_a_missing_file_is_named(predictor):
    with pytest.raises(UserError, match="no_such_photo"):
        predictor.set_image("no_such_photo.jpg")


def test_modes(predictor):
    predictor.set_image(make_sample(0).image)
    bank = "".join(f"<REAS_{k}> " for k in range(1, 8)) + "<SEG>."
    free = predictor.predict(QUERIES[0], max_new_tokens=20)
    assert free.has_target and free.complete
    forced = predictor.predict(QUERIES[0], mode="mask")
    assert forced.text == bank and len(forced.targets) == 1 and forced.prompt == free.prompt
    words = predictor.predict(QUERIES[0], mode="text", max_new_tokens=20)
    assert not words.has_target and words.text and "<SEG>" not in words.text and "<REAS" not in words.text
    assert words.prompt == QUERIES[0], "sent as it is"
    assert predictor.predict("the cup", mode="text", kind="phrase", max_new_tokens=1).prompt.endswith("mask.")
    assert not predictor.predict(QUERIES[0], max_new_tokens=1).complete
    assert predictor.predict(QUERIES[0], mode="mask", max_new_tokens=1).text == bank, "it is given, not written"


def test_a_forced_mask_is_that_of_forced_evaluation(predictor):
    image = make_sample(3).image
    target = predictor.session(image).predict(QUERIES[0], mode="mask", token_maps=True).targets[0]
    found = bank_responses(predictor.model, given_answer(predictor.model, predictor.registry, image, QUERIES[0]))
    assert np.array_equal(target.mask, found.masks[0])
    assert list(target.token_maps) == [f"<REAS_{k}>" for k in range(1, 8)] + ["<SEG>"]
    assert np.abs(np.stack(list(target.token_maps.values())) - found.maps[0]).max() < 1e-5


def test_a_follow_up_question_is_a_further_turn_of_the_conversation(predictor):
    model, registry, image = predictor.model, predictor.registry, make_sample(0).image
    session = predictor.session(image)
    first = session.predict(QUERIES[0], max_new_tokens=20)
    second = session.predict("the cup", after=first, max_new_tokens=20)
    third = session.predict("Why?", after=second, mode="mask")
    assert len(first.targets) == len(third.targets) == 1
    said, _, _ = first.text.partition(" <REAS_1>")
    turns = (Turn(first.prompt, (said, TargetSlot(0), ".")), Turn(second.prompt, None))
    sample = Sample(record="", image=image, conversations=(Conversation(turns),), masks=np.zeros((1, 60, 80), bool))
    batch = make_batch(model, registry, [sample])
    (asked,) = [row[own].tolist() for row, own in
                zip(batch.conversations.input_ids, batch.conversations.segments > 0, strict=True)]  # fmt: skip
    assert second.dialogue[: len(asked)] == tuple(asked)
    made = generate(model, batch, max_new_tokens=20)
    assert registry.decode(made.ids[0]) == second.text
    assert len(made.target_rows) == len(second.targets), "the first answer's target is not drawn again"
    assert np.array_equal(made.segmentation.masks[0].numpy() > 0, [target.mask for target in second.targets])
    assert_same(session.predict(QUERIES[0], max_new_tokens=20), first)
    cut = session.predict(QUERIES[0], max_new_tokens=4)
    assert "<REAS_1>" in cut.text and not set(cut.dialogue) & set(registry.bank_ids), "half a bank is no answer"
    with pytest.raises(ValueError, match="read-only"):
        first.image[:] = 0
    with pytest.raises(UserError, match="after= takes"):
        session.predict("Why?", after="Sure.")
    with pytest.raises(UserError, match="another session"):
        predictor.session(image).predict("Why?", after=first)
    with pytest.raises(UserError, match="tokens, but at most 2048"):
        session.predict("very " * 3000 + "red", after=first)


@pytest.mark.parametrize(("max_images", "max_rows"), [(1, 16), (2, 3), (8, 16)])
def test_many_images_equal_one_by_one(predictor, max_images, max_rows):
    images = [make_sample(seed, size).image for seed, size in enumerate([(60, 80), (80, 60), (40, 90)])]
    asked = [(images[0], QUERIES), (images[1], []), (images[2], QUERIES[:1])]
    found = list(predictor.predict_images(iter(asked), max_images=max_images, max_rows=max_rows, max_new_tokens=20))
    assert [len(answers) for answers in found] == [4, 0, 1]
    for (image, queries), answers in zip(asked, found, strict=True):
        for query, answer in zip(queries, answers, strict=True):
            assert answer.query == query and np.array_equal(answer.image, image)
            assert_same(answer, fresh(predictor, image, query))
    assert list(predictor.predict_images([])) == []
