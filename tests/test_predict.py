"""`anchorseg predict`: many images into one folder, stopped and continued; and `anchorseg chat`."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from pycocotools.coco import COCO

from anchorseg import AnchorSegPredictor
from dataset.drawn.writer import make_scene
from dataset.images import read_mask
from dataset.readers.asked import AskedImage, asked_images
from scripts import predict
from utils.errors import DataError, OutputExistsError, SettingsError
from utils.run_lock import run_lock

ROOT = Path(__file__).parents[1]
QUERIES = ("the red object", "Where is the green object in the picture?")


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Seven drawn scenes, some of them in a subfolder, and a file that is no image."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    for number in range(7):
        scene, _ = make_scene(5, "test", number)
        PIL.Image.fromarray(scene.image).save(folder / ("more" if number > 4 else ".") / f"scene {number}.png")
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "notes.txt").write_text("nothing")
    return folder


def run(photos: Path, out: Path, *flags: str) -> int:
    return predict.main([str(photos), "--query", QUERIES[0], "--query", QUERIES[1], "--out", str(out), *flags])


def lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(photos, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    assert run(photos, out, "--max_images", "3") == predict.FAILED
    return out


def test_every_image_is_answered_or_reported(whole, photos):
    found = lines(whole)
    assert [line["image_id"] for line in found] == [1, *[n for n in range(2, 9) for _ in QUERIES]]
    assert "broken.jpg" in found[0]["image"] and "not an image" in found[0]["error"]
    predictor = AnchorSegPredictor.from_pretrained("miniature", device="cpu")
    for line in found[1:]:
        answer = predictor.session(line["image"]).predict(line["query"])
        assert answer.text == line["text"] and len(answer.targets) == len(line["targets"])


def test_coco_files_and_pictures(whole):
    read = COCO(whole / "images.json").loadRes(str(whole / "results.json"))
    found = [line for line in lines(whole) if "error" not in line]
    assert len(read.getImgIds()) == 7
    assert len(read.anns) == sum(len(line["targets"]) for line in found) > 5
    assert len(list((whole / "overlays").iterdir())) == len(found)
    masks = sorted((whole / "masks").iterdir())
    assert len(masks) == len(read.anns)
    for path, annotation in zip(masks, read.loadAnns(sorted(read.anns)), strict=True):
        mask = read_mask(path)
        assert np.array_equal(mask, read.annToMask(annotation)) and mask.sum() == annotation["area"]
        assert path.name.startswith(f"{annotation['image_id']:06d}_")


@pytest.mark.parametrize("left", [0, 1, 4, 5, 6, 9, 14, 15])
def test_a_stopped_run_goes_on_with_the_same_files(whole, photos, tmp_path, left, monkeypatch):
    """Stopped behind any line, or inside one."""
    out = tmp_path / "out"
    out.mkdir()
    text = (whole / "answers.jsonl").read_text().splitlines(keepends=True)
    torn = text[left][:40] if left < len(text) else ""
    (out / "answers.jsonl").write_text("".join(text[:left]) + torn)
    (out / "predict.json").write_text((whole / "predict.json").read_text())
    with pytest.raises(OutputExistsError, match="--resume"):
        run(photos, out, "--max_images", "3")
    asked = []
    plain = AnchorSegPredictor.predict_images
    monkeypatch.setattr(
        AnchorSegPredictor,
        "predict_images",
        lambda self, what, **options: plain(self, asked.append(what) or what, **options),
    )
    run(photos, out, "--max_images", "3", "--resume")
    for name in ("answers.jsonl", "results.json", "images.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert len(asked) == {0: 3, 1: 3, 4: 3, 5: 2, 6: 2, 9: 2, 14: 1, 15: 0}[left], "whole groups are kept"


def test_a_kill_loses_nothing(whole, photos, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "scripts.predict", str(photos), "--query", QUERIES[0], "--query", QUERIES[1],
               "--out", str(out), "--max_images", "3"]  # fmt: skip
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        while running.poll() is None and not ((out / "answers.jsonl").exists() and lines(out)):
            time.sleep(0.05)
        running.kill()
    done = subprocess.run([*command, "--resume"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == predict.FAILED, done.stderr
    for name in ("answers.jsonl", "results.json", "images.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    for kind in ("overlays", "masks"):
        assert {path.name for path in (out / kind).iterdir()} == {path.name for path in (whole / kind).iterdir()}


def test_other_settings_are_refused(whole, photos):
    with pytest.raises(OutputExistsError, match="with max_images 3, and now it is 2"):
        run(photos, whole, "--max_images", "2", "--resume")
    with pytest.raises(OutputExistsError, match="other images or questions"):
        predict.main([str(photos / "more"), "--query", "x", "--max_images", "3", "--out", str(whole), "--resume"])


def test_one_question_and_one_picture(photos, tmp_path, capsys):
    image, out = str(photos / "scene 1.png"), tmp_path / "new" / "answer.png"
    assert predict.main([image, QUERIES[1], "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "prompt: Where is the green object" in said and "score" in said and out.is_file()
    with pytest.raises(SettingsError, match="one picture"):
        predict.main([image, "--query", "a", "--query", "b", "--out", str(out)])


def test_inputs(photos, tmp_path):
    names = [Path(one.path).name for one in asked_images([str(photos)], ["a"])]
    assert names == ["broken.jpg", *[f"scene {n}.png" for n in (5, 6)], *[f"scene {n}.png" for n in range(5)]]
    pattern = asked_images(
        [str(photos / "**" / "scene [56].png"), str(photos / "more" / "scene 5.png")], ["a", "b", "a"]
    )
    assert [Path(one.path).name for one in pattern] == ["scene 5.png", "scene 6.png"]
    assert pattern[0].queries == ("a", "b")
    assert asked_images(["missing.jpg"], ["a"]) == [AskedImage("missing.jpg", ("a",))]


def test_names_that_are_no_text_or_too_long(photos, tmp_path):
    odd = [b"\xff\xfe.png", ("\u6f22" * 80 + ".png").encode()]
    for name in odd:
        (tmp_path / os.fsdecode(name)).write_bytes((photos / "scene 1.png").read_bytes())
    (tmp_path / ".thumbs").mkdir()
    (tmp_path / ".thumbs" / "a.png").write_bytes((photos / "scene 1.png").read_bytes())
    for _ in range(2):  # the folder of the answers lies in that of the images
        assert predict.main([str(tmp_path), "--query", QUERIES[1], "--out", str(tmp_path / "out"), "--resume"]) == 0
    assert len(lines(tmp_path / "out")) == 2
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 2


def test_the_users_files_are_not_overwritten_or_mistaken(photos, tmp_path):
    image = tmp_path / "photo.png"
    image.write_bytes((photos / "scene 1.png").read_bytes())
    with pytest.raises(SettingsError, match="the image itself"):
        predict.main([str(image), "the ball", "--out", str(image)])
    with pytest.raises(SettingsError, match="no question"):
        predict.main([str(image), "other.png"])
    with pytest.raises(SettingsError, match="--out"):
        predict.main([str(image), "the ball", "--out", str(image / "x")])
    with run_lock(tmp_path / "out"), pytest.raises(OutputExistsError, match="in use"):
        predict.main([str(image), "the ball", "--out", str(tmp_path / "out")])


TABLES = {
    "table.csv": 'image,note,question\na.png,x,the cup\n"b, c.png",,"the ball, red"\na.png,,Why?\n',
    "table.jsonl": """{"image": "a.png", "question": "the cup"}

{"image": "b, c.png", "questions": ["the ball, red"]}
{"image": "a.png", "questions": ["Why?", "the cup"]}
""",
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_tables(name, encoding, tmp_path):
    (tmp_path / name).write_text(TABLES[name], encoding=encoding)
    wanted = [
        AskedImage(str(tmp_path / "a.png"), ("the cup", "Why?")),
        AskedImage(str(tmp_path / "b, c.png"), ("the ball, red",)),
    ]
    assert asked_images([str(tmp_path / name)], []) == wanted
    with pytest.raises(SettingsError, match="without --query"):
        asked_images([str(tmp_path / name)], ["a"])


BAD_TABLES = {
    "no.csv": ("picture,question\na.png,b\n", "lacks image"),
    "empty.csv": ("", "lacks image"),
    "comma.csv": ("image,question\na.png,which one, the red?\n", "line 2 has more fields"),
    "quote.csv": ('image,question\na.png,"the ball\nb.png,the cup\n', "is no CSV"),
    "twice.csv": ("image,question,image\na.png,b,c.png\n", "names the column image twice"),
    "short.csv": ("image,question\na.png\n", 'line 2: "question" is None'),
    "rows.csv": ("image,question\n", "no row"),
    "list.jsonl": ("[1]\n", "line 1 is"),
    "torn.jsonl": ('{"image": "a", "question": "b"}\n{"image":\n', "line 2 is no JSON"),
    "number.jsonl": ('{"image": 3, "question": "b"}\n', '"image" is 3'),
    "none.jsonl": ('{"image": "a", "questions": []}\n', '"questions" is'),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_wrong_table_is_refused_in_a_sentence(name, tmp_path):
    text, reason = BAD_TABLES[name]
    (tmp_path / name).write_text(text)
    with pytest.raises((DataError, SettingsError), match=reason):
        asked_images([str(tmp_path / name)], [])


@pytest.mark.parametrize(
    ("inputs", "queries", "reason"),
    [
        (["x.jpg"], [], "no question"),
        (["x.jpg"], ["a", " "], "empty"),
        (["*.nothing"], ["a"], "no image matches"),
        (["missing.csv"], [], "does not exist"),
    ],
)
def test_wrong_inputs_are_refused(inputs, queries, reason):
    with pytest.raises((DataError, SettingsError), match=reason):
        asked_images(inputs, queries)
    with pytest.raises(SettingsError, match="holds no image"):
        asked_images([str(ROOT / "configs")], ["a"])


def test_chat(photos, tmp_path):
    """A dialogue over standard input: images, questions, follow-ups, modes, mistakes, the end of the input."""
    images = [photos / "scene 1.png", photos / "scene 2.png"]
    said = ["no such.png", images[0], QUERIES[1], "the red object", "", "/text", "What is it?", "/nonsense"]
    said += [f"/image {photos / 'broken.jpg'}", "/mask", "the moon", "/new", f"/image {images[1]}", QUERIES[0]]
    out = tmp_path / "chat"
    done = subprocess.run(
        [sys.executable, "-m", "scripts.chat", "--out", str(out)],
        cwd=ROOT, input="\n".join(map(str, said)), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("image> ") == 2 and done.stdout.count("error: ") == 2, done.stdout
    assert done.stdout.count("picture: ") == 5 and done.stdout.count("commands: ") == 3
    assert "no target" in done.stdout and "mode mask" in done.stdout
    answers = [json.loads((out / f"00{number}.answer.json").read_text()) for number in range(1, 6)]
    assert [answer["query"] for answer in answers] == [*said[2:4], "What is it?", "the moon", QUERIES[0]]
    assert answers[0]["targets"] and not answers[2]["targets"] and len(answers[3]["targets"]) == 1
    predictor = AnchorSegPredictor.from_pretrained("miniature", device="cpu")
    for image, answer, mode in ((images[0], answers[0], "auto"), (images[1], answers[4], "mask")):
        alone = predictor.session(image).predict(answer["query"], mode=mode)
        assert alone.to_dict() == answer, "the first question of a dialogue follows nothing"
