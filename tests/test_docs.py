"""README and docs name files, symbols, modules, flags and presets that exist."""

import dataclasses
import importlib
import re
from pathlib import Path

import pytest

from anchorseg.training import lisa_flags
from anchorseg.training.settings import TrainSettings
from eval_reasonseg import EvalSettings
from merge_lora_weights import MergeSettings
from utils.errors import SettingsError
from utils.settings import parse

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = {"train_ds.py": TrainSettings, "eval_reasonseg.py": EvalSettings, "merge_lora_weights.py": MergeSettings}
STARTERS = {**PROGRAMS, "train.slurm": TrainSettings}
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


def test_the_map_of_the_code_names_every_module():
    text = (ROOT / "docs" / "code.md").read_text()
    for package in ("anchorseg", "model"):
        for file in (ROOT / package).rglob("*.py"):
            assert file.name == "__init__.py" or file.name in text, file


ROOMS = ("method", "weights", "inference", "evaluation", "training")


def test_imports_between_packages_and_rooms_go_one_way():
    below = {"utils": (), "model": ("utils",), "dataset": ("utils",), "anchorseg": ("utils", "model", "dataset")}
    for package, allowed in below.items():
        for file in (ROOT / package).rglob("*.py"):
            for name in re.findall(r"^\s*(?:from|import) (\w+)", file.read_text(), flags=re.MULTILINE):
                assert name not in below or name in (package, *allowed), f"{file} imports {name}"
    for number, room in enumerate(ROOMS):
        for file in (ROOT / "anchorseg" / room).glob("*.py"):
            for name in re.findall(r"(?:from|import) anchorseg\.(\w+)", file.read_text()):
                assert name in ROOMS[: number + 1], f"{file} imports {name}"


def test_symbols_named_beside_the_paper_exist():
    rows = re.findall(
        r"`((?:anchorseg|model|utils|dataset)/[\w/]+\.py)`: ((?:`[\w.]+`(?:, )?)+)",
        (ROOT / "docs" / "code.md").read_text(),
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
        program = next((name for name in STARTERS if name in command), None)
        if program is None:
            continue
        fields = {field.name for field in dataclasses.fields(STARTERS[program])}
        for flag in re.findall(r"--(\w+)", command.partition(program)[2]):  # those before are a launcher's
            assert flag in fields or flag.removeprefix("no_") in fields, f"{command}: --{flag}"
        for preset in re.findall(r"--preset (\S+)", command):
            assert (ROOT / "configs" / f"{preset}.json").is_file(), command


@page
def test_modules_and_scripts_in_commands_exist(path):
    for module in re.findall(r"python -m (scripts\.\w+)", path.read_text()):
        assert importlib.util.find_spec(module), module
    for script in re.findall(r"bash (scripts/\w+\.sh)", path.read_text()):
        assert (ROOT / script).is_file(), script


def test_the_tables_of_lisas_flags_are_those_of_the_refusals():
    text = (ROOT / "docs" / "from_lisa.md").read_text()
    rows = {line.replace("\\|", "|") for line in text.splitlines() if line.startswith("| `--")}
    tables = (lisa_flags.TRAINING, lisa_flags.EVALUATION, lisa_flags.MERGING)
    assert rows == {f"| `--{flag}` | {here} |" for table in tables for flag, here in table.items()}


@pytest.mark.parametrize(
    ("program", "table"),
    [
        ("train_ds.py", lisa_flags.TRAINING),
        ("eval_reasonseg.py", lisa_flags.EVALUATION),
        ("merge_lora_weights.py", lisa_flags.MERGING),
    ],
)
def test_flags_of_lisa_are_refused_with_what_to_give_here(program, table):
    fields = {field.name for field in dataclasses.fields(PROGRAMS[program])}
    for flag, here in table.items():
        assert flag not in fields
        for named in re.findall(r"^--(\w+)", here):
            assert named in fields, flag
        with pytest.raises(SettingsError) as refused:
            parse(PROGRAMS[program], [f"--{flag}", "1"], elsewhere=table, preset_dir=ROOT / "configs")
        assert str(refused.value) == f"--{flag} is a flag of LISA's; here: {here} (docs/from_lisa.md)."


def test_sections_of_the_readme_that_messages_name_exist():
    headings = re.findall(r"^## (.+)$", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    named = {
        name
        for package in ("anchorseg", "dataset", "model", "utils", "scripts")
        for path in (ROOT / package).rglob("*.py")
        for name in re.findall(r"README, section ([\w ]+)", path.read_text())
    }
    assert named and named <= set(headings)
