"""Rank, barrier and exact exchange between processes; works launched and unlaunched alike."""

import os
import socket
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from utils.errors import SettingsError

T = TypeVar("T")

COLLECTIVE_TIMEOUT = timedelta(hours=4)
"""How long a rank waits for the others: one may index large files, fill a cache or validate meanwhile."""

# DeepSpeed finds its own way from mpirun's variables; setting ours would hide the other processes from it.
_LAUNCHER_RANKS = ("RANK", "OMPI_COMM_WORLD_RANK")


def _is_initialized() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Index of this process among all, from 0; read from the launcher's environment before initialization."""
    return dist.get_rank() if _is_initialized() else int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Number of processes; read from the launcher's environment before initialization."""
    return dist.get_world_size() if _is_initialized() else int(os.environ.get("WORLD_SIZE", "1"))


def local_rank() -> int:
    """Index of this process among those of its machine, hence of its GPU; 0 unlaunched."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def own_device() -> torch.device:
    """This process's GPU, made the current one, through which NCCL sends objects; the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.cuda.set_device(local_rank())
    return torch.device("cuda", local_rank())


def join() -> torch.device:
    """Join the other processes, if a launcher started several, and choose this one's device."""
    if world_size() > 1 and not _is_initialized():
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=COLLECTIVE_TIMEOUT)
    return own_device()


def is_main() -> bool:
    """Whether this is the process that writes files and prints."""
    return rank() == 0


def _exchanges() -> bool:
    """Whether there is anybody to talk to; silence would otherwise pass for agreement."""
    if _is_initialized():
        return True
    if world_size() > 1:
        raise RuntimeError(
            f"WORLD_SIZE is {world_size()} but torch.distributed is not initialized; call "
            "deepspeed.init_distributed() or torch.distributed.init_process_group() first."
        )
    return False


def barrier() -> None:
    """Wait for every process; returns at once when there is only this one."""
    if not _exchanges():
        return
    if dist.get_backend() == "nccl":
        dist.barrier(device_ids=[torch.cuda.current_device()])
    else:
        dist.barrier()


def leave() -> None:
    """Leave the other processes, after the last collective; one that ends as a member may be aborted at its end."""
    if _is_initialized():
        barrier()
        dist.destroy_process_group()


def all_gather_objects(obj: T) -> list[T]:
    """Collect one picklable object from every process, in the order of ranks, on every process."""
    if not _exchanges():
        return [obj]
    gathered: list[T | None] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, obj)
    return gathered  # type: ignore[return-value]  # every slot has been filled


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ensure_single_process_environment() -> None:
    """Set what torch.distributed needs for one process on this machine, unless a launcher has done so.

    Sets RANK, WORLD_SIZE and LOCAL_RANK, and MASTER_ADDR and MASTER_PORT where absent, so that plain
    ``python train_ds.py`` can initialize DeepSpeed.

    Raises:
        SettingsError: if WORLD_SIZE or srun promises several processes but no launcher has given this one a rank.
    """
    if any(name in os.environ for name in _LAUNCHER_RANKS):
        return
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    if tasks != "1":
        raise SettingsError(
            f"srun started {tasks} tasks (SLURM_STEP_NUM_TASKS), and none of them has a RANK: each would train alone; "
            "start one launcher on each node, as scripts/train.slurm does"
        )
    promised = os.environ.get("WORLD_SIZE", "1")
    if promised != "1":
        raise SettingsError(
            f"The environment variable WORLD_SIZE is {promised} but RANK is not set; start several "
            "processes with the deepspeed or torchrun launcher, or unset WORLD_SIZE for one."
        )
    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", str(_free_port()))
