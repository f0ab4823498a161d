"""Exchange between processes: alone, and between two under gloo."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from utils import distributed
from utils.errors import SettingsError

ROOT = Path(__file__).resolve().parents[2]
VARIABLES = (
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "OMPI_COMM_WORLD_RANK", "SLURM_STEP_NUM_TASKS",
)  # fmt: skip

TWO_RANKS = """
import torch.distributed as dist
from utils.distributed import all_gather_objects, barrier
from utils.distributed import is_main, local_rank, rank, world_size
before = rank()
dist.init_process_group("gloo")
barrier()
assert before == rank() == local_rank() and world_size() == 2 and is_main() == (rank() == 0)
assert all_gather_objects({"rank": rank()}) == [{"rank": 0}, {"rank": 1}]
dist.destroy_process_group()
"""


@pytest.fixture(autouse=True)
def _unlaunched(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # so that what the code sets is undone after the test
        monkeypatch.delenv(name)


def test_alone() -> None:
    assert (distributed.rank(), distributed.world_size(), distributed.local_rank()) == (0, 1, 0)
    assert distributed.is_main()
    distributed.barrier()
    assert distributed.all_gather_objects("a") == ["a"]


def test_single_process_environment() -> None:
    distributed.ensure_single_process_environment()
    assert [os.environ[name] for name in VARIABLES[:4]] == ["0", "1", "0", "127.0.0.1"]
    assert 0 < int(os.environ["MASTER_PORT"]) < 65536


@pytest.mark.parametrize("name", ["RANK", "OMPI_COMM_WORLD_RANK"])
def test_a_launcher_is_left_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "3")
    before = dict(os.environ)
    distributed.ensure_single_process_environment()
    assert dict(os.environ) == before


def test_tasks_of_srun_without_a_launcher_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    with pytest.raises(SettingsError, match=r"srun started 2 tasks .* scripts/train.slurm"):
        distributed.ensure_single_process_environment()
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    distributed.ensure_single_process_environment()


def test_half_a_launch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(SettingsError, match="WORLD_SIZE is 4 but RANK is not set"):
        distributed.ensure_single_process_environment()


def test_exchange_before_initialization_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="not initialized"):
        distributed.all_gather_objects(1)


def test_two_processes() -> None:
    distributed.ensure_single_process_environment()
    shared = {**os.environ, "WORLD_SIZE": "2", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_RANKS],
            env={**shared, "RANK": rank, "LOCAL_RANK": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    messages = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], messages
