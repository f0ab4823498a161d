"""The installed project: imported from anywhere, its command, and folders of the user's that hide its packages."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import anchorseg
from scripts import command

ROOT = Path(__file__).resolve().parent.parent


def run_python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a folder, with the project on the path behind it, where an editable install puts it."""
    environment = {**os.environ, "PYTHONPATH": "", "CODE_ROOT": str(ROOT)}
    code = f"import os, sys; sys.path.append(os.environ['CODE_ROOT'])\n{code}"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_import_from_another_folder(tmp_path: Path) -> None:
    done = run_python("import anchorseg; print(anchorseg.__version__, anchorseg.Method().num_latents)", tmp_path)
    assert done.stdout.split() == [anchorseg.__version__, "7"], done.stderr


@pytest.mark.parametrize("name", ["utils", "model", "dataset"])
@pytest.mark.parametrize("form", ["package", "folder", "module"])
def test_a_namesake_is_named(tmp_path: Path, name: str, form: str) -> None:
    if form == "module":
        (tmp_path / f"{name}.py").write_text("")
    else:
        (tmp_path / name).mkdir()
    if form == "package":
        (tmp_path / name / "__init__.py").write_text("")
    done = run_python("import anchorseg; print(anchorseg.Method().num_latents)", tmp_path)
    if form == "folder":  # without __init__.py a folder gives way to a package further down the path
        assert done.stdout.strip() == "7", done.stderr
    else:
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith(f"ImportError: AnchorSeg's package '{name}'"), done.stderr
        assert str(tmp_path / name) in last and "rename yours" in last


def test_a_namesake_that_is_imported_already(tmp_path: Path) -> None:
    (tmp_path / "utils.py").write_text("")
    done = run_python("import utils, anchorseg", tmp_path)
    assert "rename yours" in done.stderr


def test_command_lists_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in ([], ["--help"], ["-h"]):
        assert command.main(argv) == 0
        text = capsys.readouterr().out
        assert all(name in text for name in command.COMMANDS)
    assert command.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == anchorseg.__version__


@pytest.mark.parametrize("name", command.COMMANDS)
def test_each_command_has_help(name: str) -> None:
    code = f"from scripts import command; sys.argv = ['anchorseg', {name!r}, '--help']; sys.exit(command.main())"
    done = run_python(code, ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: anchorseg {name} "), done.stdout


def test_an_unknown_command_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(["segment"])
    assert stopped.value.code == 2
    assert re.fullmatch(r"error: `anchorseg segment` is no command; allowed: .*\n", capsys.readouterr().err)
