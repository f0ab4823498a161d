"""Progress bars: few whole lines in a log, a bar on a terminal."""

import io

import pytest

from utils import progress
from utils.progress import Bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def run(clock, file, seconds, **options):
    bar = Bar(total=seconds, file=file, mininterval=0, miniters=1, **options)
    for _ in range(seconds):
        clock[0] += 1
        bar.update()
    bar.close()
    return file.getvalue()


def test_lines_of_a_log_thin_out(clock):
    text = run(clock, io.StringIO(), 1000)
    assert "\r" not in text
    counts = [int(line.split("|")[-1].split("/")[0]) for line in text.splitlines()]
    assert counts == [10, 30, 70, 150, 310, 630, 1000]


def test_two_days_of_training_fit_a_screen_or_two(clock):
    lines = run(clock, io.StringIO(), 48 * 3600).splitlines()
    assert len(lines) < 300


@pytest.mark.parametrize(("leave", "lines"), [(True, 1), (False, 0)])
def test_a_short_bar_leaves_its_end_or_nothing(clock, leave, lines):
    text = run(clock, io.StringIO(), 5, leave=leave)
    assert len(text.splitlines()) == lines and ("5/5" in text) == leave


def test_text_beside_a_bar_adds_no_lines_of_it(clock, capsys):
    log = io.StringIO()
    bar = Bar(total=5, file=log)
    Bar.write("a sentence", file=log)
    bar.set_postfix(loss=1.0)
    assert log.getvalue() == "a sentence\n"
    bar.close()


def test_a_terminal_gets_a_bar(clock):
    text = run(clock, Terminal(), 5)
    assert text.count("\r") >= 5 and text.endswith("\n")


def test_a_disabled_bar_is_silent(clock):
    assert run(clock, io.StringIO(), 100, disable=True) == ""
