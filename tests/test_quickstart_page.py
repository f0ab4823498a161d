"""The quick start's page: well-formed, escaped, every picture there, every figure shown."""

import json
import multiprocessing
import time
from html.parser import HTMLParser

import numpy as np

from scripts.quickstart import memory_in_use
from scripts.quickstart_page import write_page
from utils.pictures import save_picture


class Reader(HTMLParser):
    """Collects the text and the pictures of a page, and refuses tags that do not close in order."""

    def __init__(self):
        super().__init__()
        self.open, self.said, self.pictures, self.lines = [], "", [], 0

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.pictures.append(dict(attrs)["src"])
        elif tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.lines += tag == "polyline"

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.said += data


def test_a_page_shows_figures_curves_and_pictures(tmp_path):
    scores = {"giou": 0.81234, "ciou": 0.7, "intervals": {"giou": [0.78, 0.84], "ciou": [0.6, 0.8]}}
    summary = {
        "forced": scores, "generate": scores, "shipped": scores, "train_seconds": 200.0, "peak_rss_gb": 1.5,
        "merged_max_abs_diff": 3e-5, "num_eval_samples": 300,
        "by_kind": {"<kind>": {"giou": 0.9, "low": 0.8, "high": 0.95, "questions": 60}},
    }  # fmt: skip
    names = ["ce", "mask_bce", "mask_dice", "t2m_bce", "t2m_dice", "m2t_bce", "m2t_dice"]
    rows = [{"step": step, **{f"train/{name}": -1 + 5 / step for name in names}} for step in (10, 20, 30)]
    rows.append({"step": 30, "val/ReasonSeg|val/giou": 0.6})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("first/all.png", "pictures/ReasonSeg_test/forced/0000_0_a.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        save_picture(tmp_path / name, np.zeros((8, 8, 3), np.uint8))
    reader = Reader()
    reader.feed(write_page(tmp_path, summary, tmp_path / "pictures").read_text(encoding="utf-8"))
    assert not reader.open and "<kind>" in reader.said and "0.780 to 0.840" in reader.said
    assert reader.pictures == ["first/all.png", "pictures/ReasonSeg_test/forced/0000_0_a.png"]
    assert all((tmp_path / picture).is_file() for picture in reader.pictures)
    assert reader.lines == 4 * 5 + len(names) + 1  # rules and curves


def test_memory_that_processes_share_counts_once():
    before = memory_in_use()
    block = b"x" * 200_000_000
    held = memory_in_use() - before
    context = multiprocessing.get_context("fork")
    child = context.Process(target=time.sleep, args=(30,), daemon=True)
    child.start()
    try:
        together = memory_in_use() - before
    finally:
        child.kill()
        child.join()
    assert len(block) * 0.9 < held < together < held + len(block) / 2
