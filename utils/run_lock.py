"""One run at a time in a run folder."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from utils.errors import OutputExistsError, SettingsError
from utils.files import write_text


@contextmanager
def run_lock(folder: Path, flags: str = "--log_base_dir or --exp_name") -> Iterator[None]:
    """Hold a folder for this run, which ends with the process at the latest; other ranks than the first hold nothing.

    Args:
        folder: made if it is not there.
        flags: that choose it, for messages.

    Raises:
        OutputExistsError: if another run holds it.
        SettingsError: if the folder cannot be made.
    """
    if os.environ.get("RANK", "0") != "0" or os.environ.get("OMPI_COMM_WORLD_RANK", "0") != "0":
        yield
        return
    lock, holder = FileLock(folder / ".lock", timeout=0), folder / ".holder"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        name = holder.read_text().strip() if holder.is_file() else "another process"
        raise OutputExistsError(
            f"{folder} is in use by {name}; wait for it, stop it, or give another {flags}"
        ) from None
    except OSError as error:
        raise SettingsError(
            f"the folder {folder} cannot be made or written ({error.strerror}); give another {flags}, or mend what is "
            "there"
        ) from error
    try:
        write_text(holder, f"process {os.getpid()} on {socket.gethostname()}\n")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()
