"""README and docs name files, symbols, modules, flags and presets that exist."""

import dataclasses
import importlib
import re
from pathlib import Path

import pytest

from anchorseg.settings import TrainSettings
from eval_reasonseg import EvalSettings
from merge_lora_weights import MergeSettings

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = {"train_ds.py": TrainSettings, "eval_reasonseg.py": EvalSettings, "merge_lora_weights.py": MergeSettings}
PLACEHOLDERS = {"runs", "models", "pictures", "checkpoints", "NAME.json", "NAME.2.json"}

page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)


def commands(text):
    """Shell commands of the code blocks, continued lines joined."""
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    return [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]


@page
def test_files_named_in_the_text_exist(path):
    names = re.findall(r"`([\w./-]+/[\w.-]+\.(?:py|sh|md|json|txt))`", path.read_text())
    links = re.findall(r"\]\(([\w./-]+\.(?:md|png))(?:#[\w-]+)?\)", path.read_text())
    absent = [name for name in names if not (ROOT / name).exists() and not PLACEHOLDERS & set(Path(name).parts)]
    absent += [link for link in links if not (path.parent / link).exists()]
    assert not absent


def test_the_map_of_the_readme_names_every_module():
    text = (ROOT / "README.md").read_text()
    for package in ("anchorseg", "model"):
        for file in (ROOT / package).glob("*.py"):
            assert file.name == "__init__.py" or file.name in text, file


def test_symbols_of_the_readme_exist():
    rows = re.findall(
        r"`((?:anchorseg|model|utils|dataset)/\w+\.py)`: ((?:`[\w.]+`(?:, )?)+)", (ROOT / "README.md").read_text()
    )
    assert len(rows) >= 8
    for file, symbols in rows:
        module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
        for symbol in re.findall(r"`([\w.]+)`", symbols):
            found = module
            for part in symbol.split("."):
                found = getattr(found, part)


@page
def test_flags_and_presets_in_commands_exist(path):
    for command in commands(path.read_text()):
        program = next((name for name in PROGRAMS if name in command), None)
        if program is None:
            continue
        fields = {field.name for field in dataclasses.fields(PROGRAMS[program])}
        for flag in re.findall(r"--(\w+)", command):
            assert flag in fields or flag.removeprefix("no_") in fields, f"{command}: --{flag}"
        for preset in re.findall(r"--preset (\S+)", command):
            assert (ROOT / "configs" / f"{preset}.json").is_file(), command


@page
def test_modules_and_scripts_in_commands_exist(path):
    for module in re.findall(r"python -m (scripts\.\w+)", path.read_text()):
        assert importlib.util.find_spec(module), module
    for script in re.findall(r"bash (scripts/\w+\.sh)", path.read_text()):
        assert (ROOT / script).is_file(), script
