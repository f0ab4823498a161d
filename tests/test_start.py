"""Every command reads its flags before torch is imported, which takes seconds."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMANDS = (
    "train_ds", "eval_reasonseg", "merge_lora_weights", "scripts.ablations", "scripts.app", "scripts.check_data",
    "scripts.compare", "scripts.convert_checkpoint", "scripts.first_answer", "scripts.make_scenes",
    "scripts.parameters", "scripts.parity", "scripts.predict", "scripts.queries", "scripts.quickstart",
    "scripts.real_size",
)  # fmt: skip
RUN = """
import runpy, sys
name, *flags = sys.argv[1:]
sys.argv = [name, *flags]
try:
    runpy.run_module(name, run_name="__main__", alter_sys=True)
except SystemExit as stopped:
    status = stopped.code
heavy = [module for module in ("torch", "transformers", "deepspeed", "peft", "PIL", "gradio") if module in sys.modules]
print("imported:", heavy, "status:", status)
"""


def start(name, *flags):
    done = subprocess.run(
        [sys.executable, "-c", RUN, name, *flags], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout, done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_help_and_a_mistyped_flag_import_nothing_heavy(name):
    said, complaints = start(name, "--help")
    assert said.splitlines()[-1] == "imported: [] status: 0", complaints
    said, complaints = start(name, "--no_such_flag")
    assert said.splitlines()[-1] == "imported: [] status: 2"
    assert "Traceback" not in complaints and complaints.strip()
