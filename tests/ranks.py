"""Several ranks of a program, started as DeepSpeed's launcher starts them, without its own two processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).parents[1]


def start_ranks(arguments: list[str], ranks: int, outputs: list[int], **environment: str) -> list[subprocess.Popen]:
    """A process for each rank.

    Args:
        arguments: of python.
        ranks: how many.
        outputs: for each rank the file that gets what it says.
        environment: beside that of this process.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(ranks), **environment}
    program, *flags = arguments
    return [
        subprocess.Popen(
            [sys.executable, program, f"--local_rank={rank}", *flags], cwd=ROOT, stdout=output, stderr=output,
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank, output in enumerate(outputs)
    ]  # fmt: skip


def run_ranks(arguments: list[str], ranks: int, **environment: str) -> subprocess.CompletedProcess:
    """Run all ranks to their end; where one fails, the others are ended, and its status is that of all.

    What they say, on either stream, is both in `stdout` and in `stderr`, rank after rank.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        files = [opened.enter_context(Path(folder, str(rank)).open("w+")) for rank in range(ranks)]
        started = start_ranks(arguments, ranks, [file.fileno() for file in files], **environment)
        while any(process.poll() is None for process in started):
            if any(process.returncode for process in started):
                for process in started:
                    process.kill()
            time.sleep(0.05)
        said = "".join(Path(file.name).read_text() for file in files)
    # That of the rank that failed first; those that were ended with it have a negative one.
    status = max(process.returncode for process in started) or min(process.returncode for process in started)
    return subprocess.CompletedProcess(arguments, status, stdout=said, stderr=said)
