"""Settings: defaults < preset < flags, and sentences for everything that is refused."""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from utils.errors import SettingsError
from utils.settings import Settings, add_arguments, flags_of, from_dict, parse, render, setting, to_dict


@dataclass(frozen=True, kw_only=True)
class _Settings:
    preset: str | None = setting(None, help="Named settings.")
    steps_per_epoch: int = setting(500, help="Optimizer steps.", minimum=1, group="training")
    learning_rate: float = setting(3e-4, help="Peak, 100% of it.", above=0, maximum=1, group="training")
    dropout: float | None = setting(None, help="Share dropped.", minimum=0, below=1, group="training")
    size: Literal["7b", "13b"] = setting("7b", help="Language model.")
    depth: Literal[2, 4] = setting(2, help="Layers.")
    weights: tuple[float, ...] = setting((1.0, 2.0), help="Mixture.", minimum=0)
    names: tuple[str, ...] = setting((), help="Sources.", choices=("ade", "coco"))
    cycle: bool = setting(True, help="Add the cycle loss.")
    output: str = setting("runs", help="Folder.")


@dataclass(frozen=True, kw_only=True)
class _Merge(Settings):
    checkpoint: str = setting(help="What to merge.")
    shards: int = setting(1, help="Files.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.checkpoint == "old":
            raise ValueError("The checkpoint old cannot be merged.")


@dataclass(frozen=True, kw_only=True)
class _Loader(Settings):
    GROUP = "data"

    workers: int = setting(4, help="Processes.", minimum=0)


@dataclass(frozen=True, kw_only=True)
class _Optimizer(Settings):
    GROUP = "training"

    lr: float = setting(1.0, help="Rate.", above=0)
    seed: int = setting(0, help="Of all.", group="run")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lr > 9:
            raise ValueError("lr diverges")


@dataclass(frozen=True, kw_only=True)
class _Composed(_Optimizer, _Loader):
    GROUP = ""

    output: str = setting("runs", help="Folder.")


@pytest.fixture
def presets(tmp_path: Path) -> Path:
    (tmp_path / "paper.json").write_text(json.dumps({"learning_rate": 1, "weights": [9, 3], "cycle": False}))
    (tmp_path / "wrong.json").write_text(json.dumps({"learning_rates": 1}))
    (tmp_path / "typed.json").write_text(json.dumps({"steps_per_epoch": 2.5}))
    (tmp_path / "nested.json").write_text(json.dumps({"preset": "paper"}))
    (tmp_path / "broken.json").write_text("{")
    return tmp_path


def test_defaults_then_preset_then_flags(presets: Path) -> None:
    assert parse(_Settings, []) == _Settings()
    settings = parse(_Settings, ["--preset", "paper", "--learning_rate=3e-4", "--cycle"], preset_dir=presets)
    assert settings == _Settings(preset="paper", weights=(9.0, 3.0), learning_rate=3e-4, cycle=True)
    assert parse(_Settings, ["--preset", "paper"], preset_dir=presets).cycle is False


def test_every_type_converts() -> None:
    flags = "--steps_per_epoch 3 --dropout 0.5 --size 13b --depth 4 --weights 1,0,2.5 --names coco,ade --output x"
    settings = parse(_Settings, flags.split())
    assert settings == _Settings(
        steps_per_epoch=3,
        dropout=0.5,
        size="13b",
        depth=4,
        weights=(1.0, 0.0, 2.5),
        names=("coco", "ade"),
        output="x",
    )
    assert parse(_Settings, ["--dropout", "none", "--names", ""]) == _Settings()
    assert parse(_Settings, ["--output=--x"]).output == "--x"


@pytest.mark.parametrize("flag", ["--no_cycle", "--no-cycle"])
def test_switches_go_both_ways(flag: str) -> None:
    assert parse(_Settings, [flag]).cycle is False
    assert parse(_Settings, [flag, "--cycle"]).cycle is True


def test_flags_not_given_are_absent() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser, _Settings)
    assert vars(parser.parse_args(["--steps_per_epoch", "500"])) == {"steps_per_epoch": 500}


@pytest.mark.parametrize("words", [["--local_rank", "3"], ["--local_rank=3"], ["--local-rank=3"], ["--local_rank"]])
def test_launcher_argument_is_dropped(words: list[str]) -> None:
    assert parse(_Settings, ["--output", "x", *words]) == _Settings(output="x")


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (
            ["--learning_rat", "1"],
            r"no flag --learning_rat; did you mean --learning_rate.*--help` lists every flag",
        ),
        (["--learning_rat=1"], r"no flag --learning_rat;"),
        (["--no_cycles"], r"--no_cycle"),
        (["--qqqq"], r"no flag --qqqq\. `"),
        (["--cycle", "true"], r"'true' is not expected here.*--no_name alone"),
        (["--cycle=false"], r"a switch takes no value; write --name or --no_name"),
        (["--steps", "3"], r"no flag --steps"),
        (["--steps_per_epoch", "0"], r"--steps_per_epoch is '0'; it must be a whole number at least 1\."),
        (["--steps_per_epoch", "1.5"], r"--steps_per_epoch is '1.5'"),
        (["--learning_rate", "0"], r"--learning_rate is '0'; it must be a number above 0 and at most 1\."),
        (["--learning_rate", "nan"], r"--learning_rate is 'nan'"),
        (["--learning_rate", "fast"], r"--learning_rate is 'fast'"),
        (["--dropout", "1"], r"--dropout is '1'; it must be a number at least 0 and below 1, or none\."),
        (["--size", "70b"], r"--size is '70b'; it must be one of 7b, 13b\."),
        (
            ["--weights", "1,x"],
            r"--weights is '1,x'; it must be a comma-separated list, each a number at least 0\.",
        ),
        (["--weights", "1,,2"], r"--weights is '1,,2'"),
        (["--weights=-1,2"], r"--weights is '-1,2'"),
        (["--weights", "-1,2"], r"expected one argument \(write --name=value"),
        (["--names", "voc"], r"--names is 'voc'; it must be a comma-separated list, each one of ade, coco"),
        (["--preset", "paper"], r"--preset is 'paper', but this program has no presets"),
    ],
)
def test_refused_flags(argv: list[str], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        parse(_Settings, argv)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("papr", r"no preset 'papr'; did you mean paper\?.*holds: broken, nested, paper, typed, wrong\."),
        ("../paper", r"no preset '../paper'"),
        ("wrong", r"wrong\.json, 'learning_rates' is not a setting; did you mean learning_rate\?.*_Settings"),
        ("typed", r"typed\.json, steps_per_epoch is 2\.5; it must be a whole number"),
        ("nested", r"cannot name another"),
        ("broken", r"broken\.json is not valid JSON"),
    ],
)
def test_refused_presets(presets: Path, name: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        parse(_Settings, ["--preset", name], preset_dir=presets)


@pytest.mark.parametrize(
    "values",
    [
        {"cycle": 1},
        {"cycle": "true"},
        {"steps_per_epoch": True},
        {"steps_per_epoch": "3"},
        {"learning_rate": "0.1"},
        {"weights": 1.0},
        {"output": None},
        {"depth": 3},
    ],
)
def test_wrong_json_types_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=f"{next(iter(values))} is "):
        from_dict(_Settings, values)


def test_dictionary_round_trip_is_json() -> None:
    settings = _Settings(weights=(1.0, 0.5), dropout=0.1, names=("ade",))
    assert from_dict(_Settings, json.loads(json.dumps(to_dict(settings)))) == settings


def test_required_settings() -> None:
    assert parse(_Merge, ["--checkpoint", "a"]) == _Merge(checkpoint="a")
    with pytest.raises(SettingsError, match="--checkpoint is required"):
        parse(_Merge, [])
    with pytest.raises(SettingsError, match="'checkpoint' is required"):
        from_dict(_Merge, {})


def test_checks_of_the_class_itself() -> None:
    with pytest.raises(SettingsError, match="The checkpoint old cannot be merged"):
        parse(_Merge, ["--checkpoint", "old"])
    with pytest.raises(SettingsError, match="shards is 'many'"):
        _Merge(checkpoint="a", shards="many")  # type: ignore[arg-type]


def test_settings_are_composed_of_parts() -> None:
    assert parse(_Composed, ["--workers", "1"]) == _Composed(workers=1)
    assert list(to_dict(_Composed())) == ["workers", "lr", "seed", "output"]
    headings = [line for line in render(_Composed()).splitlines() if line.endswith(":")]
    assert headings == ["data:", "training:", "run:", "other:"]
    with pytest.raises(SettingsError, match="workers is -1"):
        _Loader(workers=-1)
    for part in (_Optimizer, _Composed):
        with pytest.raises(ValueError, match="lr diverges"):
            part(lr=10.0)
    both = flags_of("both", _Composed, _Loader, _Settings)
    assert list(to_dict(both()))[:5] == ["workers", "lr", "seed", "output", "preset"]
    assert render(both()).startswith("data:")
    both(lr=10.0)


def test_help_describes_every_flag(presets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        parse(_Settings, ["--help"], preset_dir=presets, description="Train a model.")
    assert exit_info.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        "Train a model.",
        "training:",
        "--no_cycle",
        "100% of it",
        "default: 500",
        "one of 7b, 13b",
        "paper",
    ):
        assert part in text


def test_render_marks_what_differs() -> None:
    lines = render(_Settings(steps_per_epoch=7, cycle=False)).splitlines()
    assert "* steps_per_epoch  7        (default 500)" in lines
    assert "* cycle            no       (default yes)" in lines
    assert "  size             7b" in lines
    assert lines[1] == "training:"
    assert sum(line.startswith("*") for line in lines) == 2
