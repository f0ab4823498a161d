"""RefCOCO and its relatives: splits, phrases, masks, prompts; malformed records named."""

import json
import pickle
import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from anchorseg.inference.collate import make_collator
from anchorseg.method.options import Method
from anchorseg.weights.presets import preset_config
from dataset.families.refer_seg import ReferBenchmark, ReferSeg
from dataset.readers.folder import DataFolder
from dataset.readers.refer import ReferSplit
from dataset.sample import RejectSlot, Sample, TargetSlot
from tests.conftest import make_registry
from utils.errors import DataError

HEIGHT, WIDTH = 20, 30
BOXES = {1: (2, 2, 10, 8), 2: (12, 4, 20, 16), 3: (5, 5, 15, 12)}
TRAIN2014 = "images/mscoco/images/train2014"


def box_mask(*annotations: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    for number in annotations:
        left, top, right, bottom = BOXES[number]
        mask[top:bottom, left:right] = True
    return mask


def ring(number: int) -> list[int]:
    left, top, right, bottom = BOXES[number]
    return [left, top, right, top, right, bottom, left, bottom]


def annotation(number: int, image_id: int = 7, **changed) -> dict:
    made = {"id": number, "image_id": image_id, "category_id": 1, "segmentation": [ring(number)], "iscrowd": 0}
    return {**made, **changed}


def reference(ref_id: int, ann_id: object, *texts: str, image_id: int = 7, split: str = "train", **changed) -> dict:
    sentences = [{"sent_id": 100 * ref_id + k, "sent": text, "raw": text} for k, text in enumerate(texts)]
    made = {"ref_id": ref_id, "ann_id": ann_id, "image_id": image_id, "split": split, "sentences": sentences}
    return {**made, **changed}


def write_photograph(path: Path, size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = cv2.imencode(path.suffix, np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))[1]
    path.write_bytes(encoded.tobytes())


def write_set(
    root: Path,
    references: list,
    *,
    name: str = "refcoco",
    file: str = "refs(unc).p",
    annotations: list[dict] | None = None,
    images: tuple[tuple[int, str], ...] = ((7, "seven.png"),),
    folder: str = TRAIN2014,
) -> DataFolder:
    """One set with its photographs, all of one size, below `root`."""
    place = root / "refer_seg" / name
    place.mkdir(parents=True, exist_ok=True)
    content = json.dumps(references).encode() if file.endswith(".json") else pickle.dumps(references, 2)
    (place / file).write_bytes(content)
    instances = {
        "images": [{"id": number, "file_name": file, "height": HEIGHT, "width": WIDTH} for number, file in images],
        "annotations": [annotation(number) for number in BOXES] if annotations is None else annotations,
        "categories": [{"id": 1, "name": "box"}],
    }
    (place / "instances.json").write_text(json.dumps(instances))
    (root / "refer_seg" / folder).mkdir(parents=True, exist_ok=True)
    for _, file_name in images:
        if ".." not in file_name and not file_name.startswith("/"):
            write_photograph(root / "refer_seg" / folder / file_name)
    return DataFolder(root, root / "index")


def train(data: DataFolder, spec: str = "refcoco", index: int = 0, *, questions: int = 3, phrases: int = 3) -> Sample:
    source = ReferSeg(data, spec, max_questions=questions, max_per_question=phrases)
    return source.training_sample(index, np.random.default_rng(0))


def slots(sample: Sample) -> list[TargetSlot | RejectSlot]:
    parts = [part for talk in sample.conversations for turn in talk.turns for part in turn.answer or ()]
    return [part for part in parts if not isinstance(part, str)]


# --- training


def test_phrases_of_all_references_are_pooled(tmp_path):
    refs = [reference(1, 1, "Left Box", "the box"), reference(2, 2, "right box"), reference(3, 3, "val", split="val")]
    sample = train(write_set(tmp_path, refs))
    assert sorted(question.text for question in sample.questions) == ["Left Box", "right box", "the box"]
    wanted = {"Left Box": box_mask(1), "the box": box_mask(1), "right box": box_mask(2)}
    for question, slot in zip(sample.questions, slots(sample), strict=True):
        assert isinstance(slot, TargetSlot) and question.targets == (slot.mask,)
        assert np.array_equal(sample.masks[slot.mask], wanted[question.text])
    assert [slot.mask for slot in slots(sample)] == [0, 1, 2]
    assert "left box" in " ".join(talk.turns[0].question for talk in sample.conversations)


@pytest.mark.parametrize(("questions", "phrases", "conversations", "asked"), [(3, 3, 3, 9), (1, 2, 1, 2), (3, 1, 3, 3)])
def test_at_most_so_many_phrases(tmp_path, questions, phrases, conversations, asked):
    data = write_set(tmp_path, [reference(n, 1 + n % 3, f"box {n}", f"thing {n}") for n in range(10)])
    sample = train(data, questions=questions, phrases=phrases)
    assert len(sample.conversations) == conversations and len(slots(sample)) == asked
    assert len({question.text for question in sample.questions}) == asked
    again = train(data, questions=questions, phrases=phrases)
    assert sample.conversations == again.conversations and np.array_equal(sample.masks, again.masks)


@pytest.mark.parametrize("ann_id", [[], [-1], -1])
@pytest.mark.parametrize(("name", "file"), [("grefcoco", "grefs(unc).p"), ("refzom", "Ref_ZOM.p")])
def test_no_target_is_rejected_and_several_are_united(tmp_path, name, file, ann_id):
    refs = [reference(1, [1, 3], "both boxes"), reference(2, ann_id, "a horse"), reference(3, 2, "one box")]
    sample = train(write_set(tmp_path, refs, name=name, file=file), name)
    wanted = {"both boxes": box_mask(1, 3), "one box": box_mask(2)}
    assert len(sample.masks) == 2
    for question, slot in zip(sample.questions, slots(sample), strict=True):
        if question.text == "a horse":
            assert slot == RejectSlot() and question.targets == ()
        else:
            assert np.array_equal(sample.masks[slot.mask], wanted[question.text])


def test_no_target_alone_has_no_masks(tmp_path):
    data = write_set(tmp_path, [reference(1, [-1], "a horse")], name="grefcoco", file="grefs(unc).json")
    sample = train(data, "grefcoco")
    assert sample.masks.shape == (0, HEIGHT, WIDTH) and slots(sample) == [RejectSlot()]


def test_no_target_is_an_error_where_every_phrase_has_one(tmp_path):
    data = write_set(tmp_path, [reference(1, [-1], "a horse")])
    with pytest.raises(DataError, match=r'refs\(unc\)\.p, reference 1: "a horse" has no annotation'):
        train(data)


def test_splits_of_one_set_stand_side_by_side(tmp_path):
    refs = [reference(1, 1, "for training"), reference(2, 2, "for validation", split="val")]
    data = write_set(tmp_path, refs)
    sources = {
        spec: ReferSeg(data, spec, max_questions=3, max_per_question=3)
        for spec in ("refcoco|train", "refcoco|val", "refcoco|unc|val", "refcoco")
    }
    texts = {
        spec: [q.text for q in source.training_sample(0, np.random.default_rng(0)).questions]
        for spec, source in sources.items()
    }
    assert texts == {
        "refcoco|train": ["for training"],
        "refcoco|val": ["for validation"],
        "refcoco|unc|val": ["for validation"],
        "refcoco": ["for training"],
    }


def test_a_missing_annotation_is_named(tmp_path):
    data = write_set(tmp_path, [reference(1, [1, 99], "a box")], name="refzom", file="Ref_ZOM.p")
    with pytest.raises(
        DataError, match=r"Ref_ZOM\.p, reference 1: it refers to annotation 99, which .*instances\.json"
    ):
        train(data, "refzom")
    with pytest.raises(DataError, match=r"Ref_ZOM\.p: 1 annotations are not in .*instances\.json, such as 99"):
        ReferBenchmark(data, "refzom|final|train")


def test_references_without_sentences_are_left_out(tmp_path):
    refs = [reference(1, 1), reference(2, 2, "right box"), reference(3, 3, image_id=8)]
    data = write_set(tmp_path, refs, images=((7, "seven.png"), (8, "eight.png")))
    benchmark = ReferBenchmark(data, "refcoco|unc|train")
    assert len(benchmark) == 1
    assert [q.text for q in benchmark.evaluation_sample(0, protocol="forced").questions] == ["right box"]


# --- files and folders


def test_the_pickle_of_grefcoco_wins(tmp_path):
    write_set(tmp_path, [reference(1, [1], "from json")], name="grefcoco", file="grefs(unc).json")
    data = DataFolder(tmp_path, tmp_path / "index")
    assert train(data, "grefcoco").query == "from json"
    write_set(tmp_path, [reference(1, [1], "from pickle")], name="grefcoco", file="grefs(unc).p")
    assert train(data, "grefcoco").query == "from pickle"


@pytest.mark.parametrize(
    "folders",
    [
        ("refzom/trainval2014",),
        ("refzom/train2014", "refzom/val2014"),
        (TRAIN2014,),
        (TRAIN2014, "images/mscoco/images/val2014"),
    ],
)
def test_photographs_of_refzom(tmp_path, folders):
    images = ((7, "seven.png"), (8, "eight.png"))
    refs = [reference(1, [1], "a box"), reference(2, [], "a horse", image_id=8)]
    data = write_set(tmp_path, refs, name="refzom", file="Ref_ZOM.p", images=images, folder="elsewhere")
    for number, (_, name) in enumerate(images):
        write_photograph(tmp_path / "refer_seg" / folders[number % len(folders)] / name)
    assert train(data, "refzom", 1).record.endswith("Ref_ZOM.p, image 8")


def test_the_first_folder_wins(tmp_path):
    data = write_set(tmp_path, [reference(1, [1], "a box")], name="refzom", file="Ref_ZOM.p")
    write_photograph(tmp_path / "refer_seg/refzom/train2014/seven.png")
    write_photograph(tmp_path / "refer_seg/refzom/trainval2014/seven.png", (10, 10))
    with pytest.raises(DataError, match=r"trainval2014/seven\.png: it has 10 x 10 pixels .* its record says 20 x 30"):
        train(data, "refzom")


def test_refclef_has_photographs_of_its_own(tmp_path):
    images = ((7, "00/images/25 ü.png"),)
    data = write_set(
        tmp_path, [reference(1, 1, "la forêt 犬")], name="refclef", images=images, folder="images/saiapr_tc-12"
    )
    assert train(data, "refclef").query == "la forêt 犬"


def test_the_split_of_refcocog(tmp_path):
    data = write_set(tmp_path, [reference(1, 1, "a box")], name="refcocog", file="refs(umd).p")
    assert train(data, "refcocog").query == "a box"
    with pytest.raises(DataError, match=r"refcocog is split by umd, not unc; write refcocog\|umd\|val"):
        ReferBenchmark(data, "refcocog|unc|val")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("refcoco2|unc|val", "there is no set refcoco2; allowed: refclef, refcoco, refcoco[+], refcocog"),
        ("refcoco", r"it names no split; write refcoco\|unc\|SPLIT"),
        ("refcoco|unc|", r"it names no split; write refcoco\|unc\|SPLIT"),
        ("refcoco|unc|val|x", r"it names no split; write refcoco\|unc\|SPLIT"),
        ("refcoco|unc|testC", r"refs\(unc\)\.p: it has no split testC; it has train, val"),
    ],
)
def test_names_of_benchmarks(tmp_path, spec, message):
    data = write_set(tmp_path, [reference(1, 1, "a"), reference(2, 2, "b", split="val")])
    with pytest.raises(DataError, match=message):
        ReferBenchmark(data, spec)


def test_missing_files_are_named(tmp_path):
    data = DataFolder(tmp_path, tmp_path / "index")
    with pytest.raises(FileNotFoundError, match=r"grefcoco/grefs\(unc\)\.p or .*grefcoco/grefs\(unc\)\.json does not"):
        train(data, "grefcoco")
    write_set(tmp_path, [reference(1, 1, "a box")])
    shutil.rmtree(tmp_path / "refer_seg" / "images")
    with pytest.raises(FileNotFoundError, match=r"mscoco/images/train2014 does not exist"):
        train(data)


@pytest.mark.parametrize(
    ("split", "exact", "names"),
    [
        ("train", False, {"train"}),
        ("val", False, {"val"}),
        ("test", False, {"test", "testA", "testAB", "testB"}),
        ("testA", False, {"testA", "testAB"}),
        ("testB", False, {"testB", "testAB"}),
        ("testA", True, {"testA"}),
        ("test", True, {"test"}),
    ],
)
def test_which_splits_match(tmp_path, split, exact, names):
    splits = ("train", "val", "test", "testA", "testB", "testAB", "validation")
    data = write_set(tmp_path, [reference(n, 1, split, split=split) for n, split in enumerate(splits)])
    folder = tmp_path / "refer_seg" / "refcoco"
    found = ReferSplit(folder / "refs(unc).p", folder / "instances.json", data.index, split, exact=exact)
    assert {phrase.text for phrase in found[0].phrases} == names


def test_names_of_grefcoco_splits_are_exact(tmp_path):
    refs = [reference(1, [1], "a", split="testA"), reference(2, [1], "both", split="testAB")]
    gres = write_set(tmp_path, refs, name="grefcoco", file="grefs(unc).p")
    plain = write_set(tmp_path, refs)
    for data, spec, asked in ((gres, "grefcoco|unc|testA", 1), (plain, "refcoco|unc|testA", 2)):
        assert len(ReferBenchmark(data, spec).evaluation_sample(0, protocol="forced").questions) == asked


# --- the benchmark

REFS = [reference(1, [1], " A box. ", "box 2"), reference(2, [-1], "a horse"), reference(3, [2, 3], "two boxes")]


def gres(tmp_path: Path) -> ReferBenchmark:
    return ReferBenchmark(write_set(tmp_path, REFS, name="grefcoco", file="grefs(unc).json"), "grefcoco|unc|train")


@pytest.mark.parametrize("protocol", ["forced", "symmetric", "generate"])
def test_truth_of_a_benchmark(tmp_path, protocol):
    sample = gres(tmp_path).evaluation_sample(0, protocol=protocol)
    assert [question.text for question in sample.questions] == ["a box.", "box 2", "a horse", "two boxes"]
    assert [question.targets for question in sample.questions] == [(0,), (1,), (), (3,)]
    wanted = [box_mask(1), box_mask(1), box_mask(), box_mask(2, 3)]
    assert np.array_equal(sample.masks, np.stack(wanted))


def test_all_phrases_in_one_question(tmp_path):
    benchmark = gres(tmp_path)
    (forced,) = benchmark.evaluation_sample(0, protocol="forced").conversations
    question = "What are a box, box 2, a horse, two boxesin this image? Please output segmentation masks."
    assert forced.turns[0].question == question
    assert forced.turns[0].answer == (
        *("Sure,a box:", TargetSlot(0), ", box 2:", TargetSlot(1), ", a horse:", RejectSlot()),
        *(", two boxes:", TargetSlot(3), "."),
    )
    (symmetric,) = benchmark.evaluation_sample(0, protocol="symmetric").conversations
    assert symmetric.turns[0].question == question
    assert [slot.mask for slot in symmetric.targets] == [0, 1, 2, 3]


def test_each_phrase_by_itself(tmp_path):
    talks = gres(tmp_path).evaluation_sample(0, protocol="generate").conversations
    assert [talk.turns[0].question for talk in talks] == [
        f"What is {text} in this image? Please output segmentation mask."
        for text in ("a box.", "box 2", "a horse", "two boxes")
    ]
    assert all(talk.turns[0].answer is None for talk in talks)


def test_a_question_reaches_the_model_in_the_published_pieces(tmp_path):
    registry = make_registry()
    collator = make_collator(preset_config("tiny", Method(), registry), registry, max_length=4096)
    sample = gres(tmp_path).evaluation_sample(0, protocol="forced")
    branch = collator.prompt.branch(sample.conversations[0], sample.record)
    asked = "What are a box, box 2, a horse, two boxesin this image? Please output segmentation masks. ASSISTANT:"
    bank, encode = list(registry.bank_ids), registry.encode_piece
    answer = [*encode("Sure,a box:"), *bank, *encode(", box 2:"), *bank, *encode(", a horse:"), registry.reject_id]
    answer += [*encode(", two boxes:"), *bank, *encode("."), registry.eos_id]
    assert list(branch.ids) == encode(asked) + answer
    assert registry.bank_ids[-1] != registry.reject_id


def test_scoring_and_protocols(tmp_path):
    refs = [reference(1, 1, "a box")]
    plain = ReferBenchmark(write_set(tmp_path, refs), "refcoco|unc|train")
    assert (plain.scoring, plain.protocols) == ("refer", ("forced", "generate"))
    zom = ReferBenchmark(write_set(tmp_path, refs, name="refzom", file="Ref_ZOM.p"), "refzom|final|train")
    assert (zom.scoring, zom.protocols) == ("zom", ("forced", "symmetric", "generate"))
    assert (gres(tmp_path).scoring, gres(tmp_path).protocols) == ("gres", ("forced", "symmetric", "generate"))
    with pytest.raises(
        DataError, match=r"refcoco\|unc\|train: it has no protocol symmetric; allowed: forced, generate"
    ):
        plain.evaluation_sample(0, protocol="symmetric")


def test_all_forms_of_a_segmentation(tmp_path):
    mask = np.asfortranarray(box_mask(1, 3).astype(np.uint8))
    packed = {key: value.decode() if key == "counts" else value for key, value in coco_mask.encode(mask).items()}
    runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[2], mask.ravel(order="F"), [2]]))))
    counts = [*([0] if mask[0, 0] else []), *runs.tolist()]
    overlapping = [ring(1), ring(3)]
    both = [
        {key: value.decode() if key == "counts" else value for key, value in coco_mask.encode(part).items()}
        for part in (np.asfortranarray(box_mask(n).astype(np.uint8)) for n in (1, 3))
    ]
    forms = [overlapping, both, {"size": [HEIGHT, WIDTH], "counts": counts}, packed, []]
    annotations = [annotation(1, id=n, segmentation=form) for n, form in enumerate(forms)]
    data = write_set(tmp_path, [reference(n, n, f"box {n}") for n in range(5)], annotations=annotations)
    sample = ReferBenchmark(data, "refcoco|unc|train").evaluation_sample(0, protocol="forced")
    for number in range(4):
        assert np.array_equal(sample.masks[number], mask.astype(bool)), number
    assert not sample.masks[4].any() and sample.questions[4].targets == ()
    assert slots(sample) == [TargetSlot(0), TargetSlot(1), TargetSlot(2), TargetSlot(3), TargetSlot(4)]


# --- malformed records


def without(record: dict, key: str) -> dict:
    return {name: value for name, value in record.items() if name != key}


BAD = reference(5, 1, "bad", image_id=8)
MALFORMED = [
    (without(BAD, "ann_id"), 'reference 5 has no "ann_id"'),
    (without(BAD, "ref_id"), 'reference number 1 has no "ref_id"'),
    (without(BAD, "sentences"), 'reference 5 has no "sentences"'),
    (without(BAD, "split"), 'reference 5 has no "split"'),
    ({**BAD, "ann_id": "one"}, "reference 5: \"ann_id\" is 'one'"),
    ({**BAD, "ann_id": [1, None]}, 'reference 5: "ann_id" is \\[1, None\\]'),
    ({**BAD, "ann_id": True}, 'reference 5: "ann_id" is True'),
    ({**BAD, "ref_id": 1.5}, 'reference number 1: "ref_id" is 1.5'),
    ({**BAD, "split": 3}, 'reference 5: "split" is 3'),
    ({**BAD, "split": ["train"]}, "reference 5: \"split\" is \\['train'\\]"),
    ({**BAD, "sentences": "bad"}, "reference 5: \"sentences\" is 'bad'"),
    ({**BAD, "sentences": ["bad"]}, "reference 5, sentence 0 is 'bad': it must be an object"),
    ({**BAD, "sentences": [{"raw": "x"}]}, 'reference 5, sentence 0 has no "sent"'),
    ({**BAD, "sentences": [{"sent": " "}]}, 'reference 5, sentence 0: "sent" is empty'),
    ({**BAD, "sentences": [{"sent": 4}]}, 'reference 5, sentence 0: "sent" is 4'),
    ({**BAD, "sentences": [{"sent": "x", "exist": "no"}]}, "sentence 0: \"exist\" is 'no': it must be true or false"),
    ({**BAD, "ref_id": 1}, "reference 1: another reference has the same id"),
    (without(BAD, "image_id"), 'reference 5 has no "image_id"'),
    ({**BAD, "image_id": "eight"}, "reference 5: \"image_id\" is 'eight'"),
    (["no object"], "reference number 1 is \\['no object'\\]: it must be an object"),
]


@pytest.mark.parametrize(("bad", "message"), MALFORMED)
def test_a_malformed_reference(tmp_path, bad, message):
    images = ((7, "seven.png"), (8, "eight.png"))
    refs = [reference(1, 1, "good"), bad, reference(6, 2, "also good", split="val")]
    data = write_set(tmp_path, refs, images=images)
    with pytest.raises(DataError, match=r"refs\(unc\)\.p: 1 of \d records are malformed: .*" + message):
        ReferBenchmark(data, "refcoco|unc|val")
    assert train(data).query == "good"
    source = ReferSeg(data, "refcoco", max_questions=3, max_per_question=3)
    if len(source) == 2:  # the record still names an image and a split
        with pytest.raises(DataError, match=message):
            source.training_sample(1, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[2, 2, 10, 2, 10]], "annotation 1: a polygon ring has 5 entries"),
        ([[2, 2, 10, 2, 10, "x"]], "annotation 1: a polygon ring has 6 entries: it must be pairs of finite numbers"),
        ({"size": [HEIGHT, WIDTH], "counts": [5]}, "annotation 1: the runs of a mask cover 5 pixels"),
        ({"size": [WIDTH, HEIGHT], "counts": [600]}, r"annotation 1: a run-length mask has size \[30, 20\]"),
    ],
)
def test_a_malformed_segmentation(tmp_path, segmentation, message):
    data = write_set(tmp_path, [reference(1, 1, "a")], annotations=[annotation(1, segmentation=segmentation)])
    with pytest.raises(DataError, match=message):
        train(data)
    with pytest.raises(DataError, match=message):
        ReferBenchmark(data, "refcoco|unc|train").evaluation_sample(0, protocol="forced")


@pytest.mark.parametrize("segmentation", [[], [[2, 2, 10, 8]], [[90, 90, 95, 90, 95, 95]]])
def test_an_object_without_a_pixel(tmp_path, segmentation):
    data = write_set(tmp_path, [reference(1, 1, "a")], annotations=[annotation(1, segmentation=segmentation)])
    with pytest.raises(DataError, match=r'refs\(unc\)\.p, image 7: no pixel belongs to "a"'):
        train(data)
    sample = ReferBenchmark(data, "refcoco|unc|train").evaluation_sample(0, protocol="forced")
    assert slots(sample) == [TargetSlot(0)] and sample.questions[0].targets == () and not sample.masks.any()


def test_an_annotation_of_another_image(tmp_path):
    images = ((7, "seven.png"), (8, "eight.png"))
    data = write_set(tmp_path, [reference(1, 1, "a")], images=images, annotations=[annotation(1, image_id=8)])
    with pytest.raises(DataError, match="reference 1: annotation 1 belongs to image 8, not 7"):
        train(data)


def test_an_unknown_image(tmp_path):
    data = write_set(tmp_path, [reference(1, 1, "a"), reference(2, 2, "b", image_id=9)])
    with pytest.raises(
        DataError, match=r"refs\(unc\)\.p, image 9: it refers to image 9, which .*instances\.json lacks"
    ):
        train(data, index=1)
    with pytest.raises(DataError, match="it refers to image 9"):
        ReferBenchmark(data, "refcoco|unc|train")


@pytest.mark.parametrize("name", ["../../../../../../etc/passwd", "/etc/passwd", "../up.png", "..\\up.png"])
def test_a_photograph_outside_its_folder(tmp_path, name):
    write_photograph(tmp_path / "refer_seg/images/mscoco/images/up.png")
    data = write_set(tmp_path, [reference(1, 1, "a")], images=((7, name),))
    with pytest.raises(DataError, match=r"image 7: its image name .* leads out of the image folder"):
        train(data)
    with pytest.raises(DataError, match=r"leads out of the image folder"):
        ReferBenchmark(data, "refcoco|unc|train").evaluation_sample(0, protocol="forced")


def test_photographs_are_looked_for_at_the_start(tmp_path):
    images = tuple((number, f"{number}.png") for number in range(7, 11))
    refs = [reference(number, 1, "a", image_id=number) for number, _ in images]
    data = write_set(tmp_path, refs, images=images)
    folder = tmp_path / "refer_seg" / TRAIN2014
    (folder / "8.png").unlink()
    (folder / "9.png").write_bytes(b"")
    for opened in (lambda: train(data), lambda: ReferBenchmark(data, "refcoco|unc|train")):
        with pytest.raises(FileNotFoundError, match=r"1 of 4 images looked for are not in .*train2014: 8\.png"):
            opened()
    write_photograph(folder / "8.png", (HEIGHT, WIDTH - 1))
    with pytest.raises(DataError, match=r"8\.png: it has 20 x 29 pixels .*, but its record says 20 x 30"):
        train(data, index=1)
    with pytest.raises(DataError, match=r"9\.png: the file is not an image"):
        ReferBenchmark(data, "refcoco|unc|train").evaluation_sample(2, protocol="generate")


def test_a_benchmark_looks_for_every_photograph(tmp_path):
    images = tuple((number, f"{number}.png") for number in range(401))
    data = write_set(tmp_path, [reference(n, 1, "a", image_id=n) for n, _ in images], images=images)
    (tmp_path / "refer_seg" / TRAIN2014 / "1.png").unlink()
    ReferSeg(data, "refcoco", max_questions=3, max_per_question=3)
    with pytest.raises(FileNotFoundError, match=r"1 of 401 images looked for are not in .*: 1\.png"):
        ReferBenchmark(data, "refcoco|unc|train")


def test_a_benchmark_refuses_malformed_annotations(tmp_path):
    annotations = [annotation(1), annotation(2, segmentation=None)]
    data = write_set(tmp_path, [reference(1, 1, "a")], annotations=annotations)
    with pytest.raises(DataError, match=r"instances\.json: 1 of 3 records are malformed: annotation 2"):
        ReferBenchmark(data, "refcoco|unc|train")


@pytest.mark.parametrize("content", ["{", '{"refs": []}', "[]", "7"])
def test_a_file_that_holds_no_references(tmp_path, content):
    data = write_set(tmp_path, [reference(1, [1], "a")], name="grefcoco", file="grefs(unc).json")
    path = tmp_path / "refer_seg/grefcoco/grefs(unc).json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"grefs\(unc\)\.json: (it is not valid JSON|it must hold a list)"):
        train(data, "grefcoco")


# --- real records

NAMED = {"train": {"train"}, "val": {"val"}, "test": {"test", "testA", "testB"}, "testA": {"testA"}, "testB": {"testB"}}
REAL = [("refcoco", "unc"), ("refcoco", "google"), ("refcoco+", "unc"), ("refcocog", "umd"), ("refcocog", "google")]


@pytest.mark.parametrize(("name", "split_by"), REAL)
def test_splits_of_real_records(shared, tmp_path, name, split_by):
    folder = shared / "data" / "refer_tfds" / name
    path = folder / f"refs({split_by}).p"
    with path.open("rb") as file:
        records = pickle.load(file)
    files = {image["id"]: image["file_name"] for image in json.loads((folder / "instances.json").read_text())["images"]}
    present = {record["split"] for record in records}
    for split, names in NAMED.items():
        wanted = [record for record in records if record["split"] in names]
        if not wanted:
            with pytest.raises(DataError, match=f"it has no split {split}; it has {', '.join(sorted(present))}"):
                ReferSplit(path, folder / "instances.json", tmp_path, split)
            continue
        found = ReferSplit(path, folder / "instances.json", tmp_path, split)
        found.refuse_problems()
        texts = Counter((files[r["image_id"]], r["ann_id"], s["sent"].strip()) for r in wanted for s in r["sentences"])
        read = [found[number] for number in range(len(found))]
        assert Counter((i.image.file_name, *p.annotations, p.text) for i in read for p in i.phrases) == texts
        assert len(found) == len({record["image_id"] for record in wanted})


@pytest.fixture
def derived(shared: Path, tmp_path: Path) -> DataFolder:
    """The derived records, in the official tree."""
    source = shared / "data" / "derived_refer"
    root = tmp_path / "data"
    for name, file in (("refcoco", "refs(unc).p"), ("grefcoco", "grefs(unc).json")):
        (root / "refer_seg" / name).mkdir(parents=True)
        for part in (file, "instances.json"):
            shutil.copy(source / part, root / "refer_seg" / name / part)
    (root / "refer_seg" / TRAIN2014).parent.mkdir(parents=True)
    (root / "refer_seg" / TRAIN2014).symlink_to(source / "images")
    return DataFolder(root, tmp_path / "index")


def truth(data: DataFolder, name: str, file: str) -> dict[tuple[str, str], np.ndarray]:
    """Mask of each phrase by record and words, from pycocotools alone."""
    folder = data.root / "refer_seg" / name
    coco = COCO(folder / "instances.json")
    path = folder / file
    records = json.loads(path.read_text()) if file.endswith("json") else pickle.loads(path.read_bytes())
    masks = {}
    for record in records:
        image = coco.imgs[record["image_id"]]
        united = np.zeros((image["height"], image["width"]), dtype=bool)
        numbers = record["ann_id"] if isinstance(record["ann_id"], list) else [record["ann_id"]]
        for number in numbers:
            if number != -1:
                united |= coco.annToMask(coco.anns[number]).astype(bool)
        for sentence in record["sentences"]:
            masks[f"{path}, image {record['image_id']}", sentence["sent"].strip()] = united
    return masks


DERIVED = [("refcoco", "refs(unc).p", 24, 0), ("grefcoco", "grefs(unc).json", 26, 2)]


@pytest.mark.parametrize(("name", "file", "phrases", "absent"), DERIVED)
def test_real_benchmarks(derived, name, file, phrases, absent):
    wanted = truth(derived, name, file)
    assert len(wanted) == phrases and sum(not mask.any() for mask in wanted.values()) == absent
    lowered = {(record, text.lower()): mask for (record, text), mask in wanted.items()}
    benchmark = ReferBenchmark(derived, f"{name}|unc|val")
    registry = make_registry()
    collator = make_collator(preset_config("tiny", Method(), registry), registry, max_length=4096)
    for protocol in benchmark.protocols:
        samples = [benchmark.evaluation_sample(index, protocol=protocol) for index in range(len(benchmark))]
        seen = {(s.record, q.text): m for s in samples for q, m in zip(s.questions, s.masks, strict=True)}
        assert seen.keys() == lowered.keys()
        assert all(np.array_equal(seen[key], lowered[key]) for key in seen)
        assert sum(not question.targets for sample in samples for question in sample.questions) == absent
        rows = [collator([sample]).conversations.input_ids for sample in samples]
        banks = sum(int(ids.eq(registry.bank_ids[-1]).sum()) for ids in rows)
        rejected = sum(int(ids.eq(registry.reject_id).sum()) for ids in rows)
        expected = {"forced": (phrases - absent, absent), "symmetric": (phrases, 0), "generate": (0, 0)}
        assert (banks, rejected) == expected[protocol]


@pytest.mark.parametrize(("name", "file", "phrases", "absent"), DERIVED)
def test_real_training(derived, name, file, phrases, absent):
    wanted = truth(derived, name, file)
    source = ReferSeg(derived, f"{name}|val", max_questions=3, max_per_question=3)
    samples = [source.training_sample(index, np.random.default_rng(index)) for index in range(len(source))]
    found = [slot for sample in samples for slot in slots(sample)]
    assert len(found) == phrases and found.count(RejectSlot()) == absent
    for sample in samples:
        for question, slot in zip(sample.questions, slots(sample), strict=True):
            mask = wanted[sample.record, question.text]
            assert np.array_equal(sample.masks[slot.mask], mask) if mask.any() else slot == RejectSlot()
