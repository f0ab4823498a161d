"""The page, in a real browser where there is one: answers, dialogues, targets, limits, downloads, closed doors."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from anchorseg import AnchorSegPredictor
from benchmarks.page_server import ROOT, served_page
from dataset.drawn.writer import make_scene
from scripts import app
from tests.teaching import teach_several
from utils.errors import InputError, SettingsError
from utils.pictures import save_picture

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WAIT = 30_000


def lacking(reason: str) -> None:
    """Skip, except where everything must be there."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


@pytest.fixture(scope="module")
def gradio():
    try:
        import gradio
    except ImportError:
        lacking("gradio is not installed: pip install -r requirements-dev.txt")
    return gradio


@pytest.fixture(scope="module")
def miniature():
    return AnchorSegPredictor.from_pretrained("miniature", device="cpu")


@pytest.fixture(scope="module")
def page(gradio, tmp_path_factory):
    with served_page(
        tmp_path_factory.mktemp("miniature") / "app", "--max_upload_mb", "0.5", "--max_pixels", "90000"
    ) as it:
        yield it


@pytest.fixture(scope="module")
def browser():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        lacking("playwright is not installed: pip install -r requirements-dev.txt")
    if CHROMIUM is None:
        lacking("there is no chromium; Debian's package is called chromium")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Tab:
    """One visitor's tab; it sees to it that nothing is fetched from elsewhere."""

    def __init__(self, browser, address: str, **context) -> None:
        self.page = browser.new_page(**context)
        self.page.set_default_timeout(WAIT)
        self.foreign: list[str] = []
        self.page.on("request", lambda request: self._see(request.url, address))
        self.page.goto(address)
        self.page.wait_for_selector("#ask")
        self.page.click("#raw button")  # what is folded up is not in the document
        self.page.wait_for_selector("#written textarea")

    def _see(self, url: str, address: str) -> None:
        if not url.startswith((address, "data:", "blob:")):
            self.foreign.append(url)

    def upload(self, path: Path) -> None:
        self.page.set_input_files("#image input[type=file]", str(path))

    def upload_and_see(self, path: Path) -> None:
        self.upload(path)
        self.page.wait_for_selector("#image img")

    def ask(self, question: str, button: str = "#ask") -> str:
        """Ask, and wait for the answer that is not the one there was."""
        before = self.page.locator("#written textarea").input_value(), self.turns
        self.page.fill("#question textarea", question)
        with self.page.expect_response(lambda response: "queue/join" in response.url):
            self.page.click(button)
        self.page.wait_for_selector(".notice")
        self.page.wait_for_function(
            "([text, turns]) => document.querySelector('#written textarea').value !== text"
            " || document.querySelectorAll('.dialogue dt').length !== turns",
            arg=list(before),
        )
        return self.page.locator("#written textarea").input_value()

    @property
    def turns(self) -> int:
        return self.page.locator(".dialogue dt").count()

    def sees(self, part: str, wanted: str | int | list[str]) -> None:
        """Wait until a part of the page has a text, several texts, or so many places; parts change one by one."""
        from playwright.sync_api import expect

        found = expect(self.page.locator(part))
        if isinstance(wanted, int):
            found.to_have_count(wanted, timeout=WAIT)
        elif isinstance(wanted, list):
            found.to_have_text(wanted, timeout=WAIT)
        else:
            found.to_contain_text(wanted, timeout=WAIT)

    def boxes(self, *checked: bool) -> None:
        """Wait until the boxes of the targets are checked like this."""
        from playwright.sync_api import expect

        self.sees("#targets input", len(checked))
        for number, wanted in enumerate(checked):
            expect(self.page.locator("#targets input").nth(number)).to_be_checked(checked=wanted, timeout=WAIT)

    def error(self) -> str:
        self.page.wait_for_selector(".toast-body.error")
        return self.page.locator(".toast-body.error").first.inner_text()

    @contextmanager
    def new_picture(self):
        """Wait at the end of the block for the picture that follows the one there is."""
        before = self.page.locator("#result img").get_attribute("src")
        yield
        self.page.wait_for_function("before => document.querySelector('#result img')?.src !== before", arg=before)
        self.page.wait_for_function("document.querySelector('#result img').complete")

    def download(self, button: str, folder: Path) -> Path:
        with self.page.expect_download() as waiting:
            self.page.click(button)
        path = folder / waiting.value.suggested_filename
        waiting.value.save_as(path)
        return path

    def close(self) -> None:
        self.page.close()
        assert not self.foreign


@pytest.fixture
def tab(browser, page):
    tab = Tab(browser, page.address)
    yield tab
    tab.close()


def scene_file(folder: Path, number: int) -> tuple[Path, object, str]:
    """A drawn scene as a file, its objects and its question."""
    scene, (query, *_) = make_scene(7, "test", number)
    path = folder / f"scene{number}.png"
    save_picture(path, np.asarray(scene.image))
    return path, scene, query.texts[0]


def masks_of(results: list[dict], height: int, width: int, folder: Path) -> list[np.ndarray]:
    """As pycocotools reads them."""
    image = {"images": [{"id": 1, "height": height, "width": width}], "annotations": [], "categories": [{"id": 1}]}
    (folder / "image.json").write_text(json.dumps(image))
    read = COCO(str(folder / "image.json")).loadRes(results)
    return [read.annToMask(item).astype(bool) for item in read.loadAnns(read.getAnnIds(imgIds=[1]))]


def test_upload_question_answer_follow_up_download(tab, miniature, tmp_path):
    path, scene, question = scene_file(tmp_path, 5)
    session = miniature.session(path)
    expected = session.predict(question)
    tab.upload_and_see(path)
    assert not tab.page.locator("#follow").is_enabled()
    assert tab.ask(question) == expected.text
    tab.sees(".notice", "1 target. Answered in ")
    tab.sees("#targets", expected.targets[0].phrase)

    found = masks_of(json.loads(tab.download("#coco", tmp_path).read_text()), *scene.image.shape[:2], tmp_path)
    assert len(found) == 1 and np.array_equal(found[0], expected.mask)
    picture = cv2.imread(str(tab.download("#png", tmp_path)))[..., ::-1]
    assert np.array_equal(picture, expected.overlay())

    tab.page.click("#maps button")
    tab.page.wait_for_selector("#gallery img")
    tab.sees("#gallery .caption-label", 9)
    captions = tab.page.locator("#gallery .caption-label").all_inner_texts()
    assert captions[0] == "1: spatial prior" and captions[-1] == "1: <SEG>" and len(captions) == 9

    follow_up = session.predict("the fish", after=expected)
    assert follow_up.text != session.predict("the fish").text, "the dialogue matters for this question"
    assert tab.ask("the fish", "#follow") == follow_up.text
    tab.sees(".dialogue dt", [question])
    assert tab.ask("the fish") == session.predict("the fish").text
    tab.sees(".dialogue dt", 0)  # a new question starts afresh


def test_no_target_is_said_and_words_alone(tab, tmp_path):
    path, _, _ = scene_file(tmp_path, 6)
    tab.upload_and_see(path)
    tab.ask("Is there a umbrella in this image?")
    tab.sees(".notice", "No target: the model found nothing that answers the question.")
    tab.page.wait_for_selector("#targets", state="hidden")
    tab.page.wait_for_selector("#coco:disabled, #coco :disabled, #coco.disabled", state="attached")
    tab.page.click("#mode label:has-text('Words alone')")
    tab.ask("What is in the picture?")
    tab.sees(".notice", "Answered in words alone")
    tab.page.click("#mode label:has-text('A mask in any case')")
    tab.ask("Is there a umbrella in this image?")
    tab.sees(".notice", "1 target.")


def test_a_closed_tab_is_forgotten(browser, page, tmp_path):
    def kept() -> set[Path]:
        return set(page.folder.glob("anchorseg-app-*/files/answers/*"))

    before, (path, _, question) = kept(), scene_file(tmp_path, 2)
    tab = Tab(browser, page.address)
    tab.upload_and_see(path)
    tab.ask(question)
    (own,) = kept() - before
    tab.close()
    until = time.monotonic() + WAIT / 1000
    while own.exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not own.exists()


def test_an_example_is_chosen_and_answered(tab):
    tab.page.locator("table tbody tr").last.click()
    tab.page.wait_for_selector("#image img")
    tab.page.wait_for_function("document.querySelector('#question textarea').value !== ''")
    tab.ask(tab.page.locator("#question textarea").input_value())
    tab.sees(".notice", "target")


def test_files_that_are_refused(tab, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (500, 500, 3)).astype(np.uint8)
    save_picture(tmp_path / "heavy.png", noise)
    tab.upload(tmp_path / "heavy.png")
    assert "maximum allowed size" in tab.error()
    tab.page.reload()
    tab.page.wait_for_selector("#ask")

    save_picture(tmp_path / "wide.png", np.zeros((301, 300, 3), np.uint8))
    tab.upload(tmp_path / "wide.png")
    assert "The image has 300 x 301 pixels, 0.09 million are allowed: make it smaller." in tab.error()
    tab.page.reload()
    tab.page.wait_for_selector("#ask")

    path, _, question = scene_file(tmp_path, 5)
    (tmp_path / "broken.png").write_bytes(path.read_bytes()[:200])
    tab.upload(tmp_path / "broken.png")
    said = tab.error()
    assert "The image cannot be read:" in said and "Traceback" not in said and str(tmp_path) not in said
    tab.page.reload()
    tab.page.wait_for_selector("#ask")
    tab.page.fill("#question textarea", question)
    tab.page.click("#ask")
    assert "There is no image yet" in tab.error()


def test_several_targets_hide_and_show(gradio, browser, tmp_path):
    image, question = teach_several(tmp_path / "taught")
    save_picture(tmp_path / "own" / "scene.png", image)
    (tmp_path / "own" / "scene.txt").write_text(question)
    expected = AnchorSegPredictor.from_pretrained(tmp_path / "taught", device="cpu").session(image).predict(question)
    assert len(expected.targets) == 2
    flags = ("--model", str(tmp_path / "taught"), "--examples", str(tmp_path / "own"))
    with served_page(tmp_path / "app", *flags) as page:
        tab = Tab(browser, page.address)
        tab.page.locator("table tbody tr").click()
        tab.page.wait_for_selector("#image img")
        assert tab.ask(question) == expected.text
        tab.sees(".notice", "2 targets.")
        tab.boxes(True, True)

        with tab.new_picture():
            tab.page.locator("#targets input").first.uncheck()
        only_second = json.loads(tab.download("#coco", tmp_path).read_text())
        assert len(only_second) == 1
        assert np.array_equal(masks_of(only_second, *image.shape[:2], tmp_path)[0], expected.targets[1].mask)
        captions = tab.page.locator("#targets label").all_inner_texts()
        assert captions[0].startswith("1 · ") and captions[1].startswith("2 · "), "numbers stay"

        with tab.new_picture():
            click_in_picture(tab, expected.targets[0].mask)
        tab.boxes(True, True)
        assert np.array_equal(cv2.imread(str(tab.download("#png", tmp_path)))[..., ::-1], expected.overlay())
        with tab.new_picture():
            click_in_picture(tab, expected.targets[1].mask)
        tab.boxes(True, False)
        with zipfile.ZipFile(tab.download("#masks", tmp_path)) as archive:
            archive.extractall(tmp_path)
            assert archive.namelist() == ["mask1.png", "coco_results.json", "coco_image.json"]
        read = COCO(str(tmp_path / "coco_image.json")).loadRes(str(tmp_path / "coco_results.json"))
        assert np.array_equal(read.annToMask(read.loadAnns(1)[0]) > 0, expected.targets[0].mask)
        assert np.array_equal(cv2.imread(str(tmp_path / "mask1.png"))[..., 0] > 0, expected.targets[0].mask)
        tab.close()


def click_in_picture(tab: Tab, mask: np.ndarray) -> None:
    """Click the mask's innermost pixel."""
    inside = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3)
    y, x = np.unravel_index(inside.argmax(), mask.shape)
    picture = tab.page.locator("#result img")
    natural, size = picture.evaluate(
        "image => [[image.naturalWidth, image.naturalHeight], [image.clientWidth, image.clientHeight]]"
    )
    scale = min(size[0] / natural[0], size[1] / natural[1], 1)
    places = ((x + 0.5) / mask.shape[1], (y + 0.5) / mask.shape[0])
    across, down = ((size[axis] - natural[axis] * scale) / 2 + natural[axis] * scale * places[axis] for axis in (0, 1))
    picture.click(position={"x": across, "y": down})


def status(address: str, data: bytes | None = None) -> int:
    request = urllib.request.Request(address, data=data, headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_no_file_of_the_host_is_reachable(page):
    (private,) = page.folder.glob("anchorseg-app-*")
    (private / "files" / "link").symlink_to("/etc/passwd")
    (private / "files" / "folder").symlink_to("/etc")
    there = [
        "/etc/passwd", str(ROOT / "pyproject.toml"), "pyproject.toml", "scripts/app.py", "../../etc/passwd",
        f"{private}/files/link", f"{private}/files/folder/passwd", f"{private}/files/../../../../../../etc/passwd",
        f"{private}/files/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "C:/etc/passwd", "file:///etc/passwd",
        "http://127.0.0.1/", "https://example.com/", str(private / "files"), "/proc/self/environ",
    ]  # fmt: skip
    for name in there:
        for path in (name, urllib.parse.quote(name, safe="")):
            assert status(f"{page.address}/gradio_api/file={path}") in (403, 404), path
    for path in ("static/../../../../etc/passwd", "assets/..%2f..%2f..%2fetc/passwd", "gradio_api/file/etc/passwd"):
        assert status(f"{page.address}/{path}") in (403, 404), path
    (image,) = list((private / "files" / "examples").glob("scene2.png"))
    assert status(f"{page.address}/gradio_api/file={image}") == 200, "what is the page's own is served"


def test_what_the_page_does_not_need_is_closed(page):
    for path in ("gradio_api/openapi.json", "docs", "openapi.json", "monitoring", "gradio_api/runs", "logout",
                 "gradio_api/vibe-code/", "gradio_api/proxy=http://127.0.0.1/", "gradio_api/deep_link"):  # fmt: skip
        assert status(f"{page.address}/{path}") == 404, path
    with urllib.request.urlopen(f"{page.address}/gradio_api/info") as answer:
        assert json.load(answer) == {"named_endpoints": {}, "unnamed_endpoints": {}}
    join = f"{page.address}/gradio_api/queue/join"
    fetched = {"data": [{"path": "http://127.0.0.1/a.png", "meta": {"_type": "gradio.FileData"}}, "it", "auto"]}
    assert status(join, json.dumps(fetched).encode()) == 403
    assert status(join, json.dumps({"data": ["x" * 300_000]}).encode()) == 413
    assert status(join, b"no json") == 403


def test_calls_beside_the_page_are_held_to_the_same_limits(page, tmp_path):
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    path, _, _ = scene_file(tmp_path, 5)
    client = Client(page.address, verbose=False, download_files=False, analytics_enabled=False)
    for question, mode, sentence in (
        ("x" * 501, "auto", "The question has 501 characters, 500 are allowed"),
        (" ", "auto", "The question is empty"),
        ({"a": 1}, "auto", "The question is empty"),
        ("it", "other", "the mode is one of auto, mask, text, not 'other'"),
    ):
        with pytest.raises(AppError, match=sentence):
            client.predict(handle_file(str(path)), question, mode, api_name="/ask")
    with pytest.raises(AppError, match="no answer that a question could follow"):
        client.predict(handle_file(str(path)), "it", "auto", api_name="/follow_up")


@pytest.fixture
def desk(miniature, tmp_path):
    from scripts.page.desk import Desk
    from scripts.page.limits import Limits
    from scripts.page.visits import Visits

    visits = Visits(tmp_path / "answers", most=2, idle_seconds=60)
    return Desk(predictor=miniature, limits=Limits(), visits=visits, uploads=tmp_path)


def test_an_image_is_read_once_and_visitors_are_apart(desk, miniature, tmp_path, monkeypatch):
    read = []
    prefill = miniature.prefill
    monkeypatch.setattr(miniature, "prefill", lambda images: read.append(1) or prefill(images))
    first, second = (scene_file(tmp_path, number) for number in (2, 5))
    one = desk.ask("one", str(first[0]), first[2], "auto", follow=False)
    two = desk.ask("two", str(second[0]), second[2], "auto", follow=False)
    assert desk.open("one", str(first[0])).written == one.written
    desk.ask("one", str(first[0]), "the key", "auto", follow=True)
    assert len(read) == 2
    assert desk.show("two", []).hidden == {1} and desk.open("two", str(second[0])).dialogue == two.dialogue
    assert len(desk.open("one", str(first[0])).dialogue) == 2
    assert desk.open("one", None).dialogue == ()
    with pytest.raises(InputError, match="no answer yet"):
        desk.click("one", 0, 0)


def test_files_elsewhere_are_not_read(desk, tmp_path):
    (tmp_path / "link.png").symlink_to("/etc/passwd")
    for path in ("/etc/passwd", str(tmp_path / ".." / "other.png"), str(tmp_path / "link.png")):
        with pytest.raises(InputError, match="not uploaded here"):
            desk.ask("one", path, "it", "auto", follow=False)
    with pytest.raises(InputError, match="no longer kept"):
        desk.ask("one", str(tmp_path / "gone.png"), "it", "auto", follow=False)


def test_visitors_are_forgotten(desk, tmp_path):
    from scripts.page.visits import Visits

    path, _, question = scene_file(tmp_path, 2)
    view = desk.ask("one", str(path), question, "auto", follow=False)
    assert view.downloads.picture.exists()
    desk.visits.of("two"), desk.visits.of("three")
    assert len(desk.visits) == 2 and not view.downloads.picture.exists()
    with pytest.raises(InputError, match="no answer that a question could follow"):
        desk.ask("one", str(path), question, "auto", follow=True)

    now = 0.0
    visits = Visits(tmp_path, most=9, idle_seconds=10, clock=lambda: now)
    old = visits.of("old")
    now = 11.0
    visits.of("new")
    assert len(visits) == 1 and visits.of("old") is not old
    visits.forget("new")
    visits.forget("nobody")
    assert len(visits) == 1


def test_answers_in_words():
    from scripts.page.wording import dialogue_html, readable

    bank = ("<R1>", "<R2>", "<SEG>")
    assert readable("It is <R1> <R2> <SEG> and <SEG>.", bank) == "It is [1] and [2]."
    assert readable("Nothing <R1>.", bank) == "Nothing <R1>."
    assert readable("It is <SEG>.", ("<SEG>",)) == "It is [1]."
    assert "<b>" not in dialogue_html([("<b>", "<b>")])


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--port", "0"], "--port is 1 to 65535"),
        (["--max_pixels", "0"], "--max_pixels is above 0"),
        (["--examples", "/nowhere"], "--examples /nowhere is no folder"),
    ],
)
def test_flags(flags, sentence):
    with pytest.raises(SettingsError, match=sentence):
        app.main(flags)


def test_without_gradio_it_says_what_to_install():
    code = "import sys; sys.modules['gradio'] = None; from scripts.command import main; main(['app'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "pip install anchorseg[app]" in done.stderr


def test_other_machines_are_let_in_with_a_warning(gradio, monkeypatch, capsys):
    hosts = []
    monkeypatch.setattr(os, "environ", os.environ.copy())  # where the framework is told its folder
    monkeypatch.setattr(app, "serve_model", lambda arguments, folder: hosts.append(arguments.host))
    app.main(["--host", "0.0.0.0"])
    assert capsys.readouterr().err.startswith("warning: --host 0.0.0.0 lets every machine")
    app.main([])
    assert capsys.readouterr().err == "" and hosts == ["0.0.0.0", "127.0.0.1"]


def test_addresses_of_this_machine():
    assert [app.is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "example.com")] == [
        True, True, True, False, False,
    ]  # fmt: skip


def test_examples_of_a_folder(tmp_path):
    from scripts.page.examples import folder_examples

    with pytest.raises(SettingsError, match="has no image"):
        folder_examples(tmp_path)
    path, _, _ = scene_file(tmp_path, 2)
    other, _, _ = scene_file(tmp_path, 5)
    path.with_suffix(".txt").write_text("the key\n")
    assert folder_examples(tmp_path) == [(path, "the key"), (other, "")]
