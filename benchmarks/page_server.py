"""The page as a process of its own on a free port of this machine, for measurements and tests."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, kw_only=True)
class Served:
    """A page that answers: its address, and the folder in which it keeps its private one."""

    address: str
    folder: Path


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def served_page(folder: Path, *flags: str, start_seconds: float = 180) -> Iterator[Served]:
    """Run `python -m scripts.app` until the block ends, and see that it ends well.

    Args:
        folder: for its files and its log.
        flags: of the command.
        start_seconds: longest start.

    Raises:
        RuntimeError: if it does not start, or leaves files behind; with what it said.
    """
    port, log, files = free_port(), folder / "app.log", folder / "temporary"
    files.mkdir(parents=True)
    command = [sys.executable, "-m", "scripts.app", "--port", str(port), "--device", "cpu", *flags]
    environment = {**os.environ, "TMPDIR": str(files)}
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait(process, log, port, start_seconds)
        yield Served(address=f"http://127.0.0.1:{port}", folder=files)
    finally:
        process.terminate()
        try:
            process.wait(60)
        finally:
            process.kill()
    if left := list(files.glob("anchorseg-app-*")):
        raise RuntimeError(f"the page has left {left}")


def _wait(process: subprocess.Popen[bytes], log: Path, port: int, seconds: float) -> None:
    until = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < until:
        if f":{port}" in log.read_text(errors="replace"):
            return
        time.sleep(0.1)
    raise RuntimeError(f"the page does not start:\n{log.read_text(errors='replace')}")
