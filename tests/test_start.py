"""Every command reads its flags before torch is imported, which takes seconds."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.startup import entry_points

ROOT = Path(__file__).parents[1]
COMMANDS = entry_points()
RUN = """
import runpy, sys
name, *flags = sys.argv[1:]
sys.argv = [name, *flags]
try:
    runpy.run_module(name, run_name="__main__", alter_sys=True)
except SystemExit as stopped:
    status = stopped.code
known = ("torch", "transformers", "deepspeed", "peft", "PIL", "tqdm", "gradio")
heavy = [module for module in known if module in sys.modules]
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


def test_the_programs_are_found():
    assert {"train_ds", "eval_reasonseg", "scripts.check_data", "scripts.predict"} <= set(COMMANDS)


def test_importing_anchorseg_imports_nothing_heavy_until_it_is_used():
    program = (
        "import sys, anchorseg\nheavy = ('torch', 'transformers', 'deepspeed', 'peft', 'PIL', 'numpy', 'cv2')\n"
        "assert not [module for module in heavy if module in sys.modules]\n"
        "assert anchorseg.AnchorSegConfig.__name__ == 'AnchorSegConfig' and 'transformers' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
