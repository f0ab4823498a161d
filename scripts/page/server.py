"""Serving a page: a private folder for its files, limits, and nothing that leaves the machine."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from utils.errors import SettingsError

if TYPE_CHECKING:
    import gradio as gr

STYLE = Path(__file__).with_name("style.css")
FONT, MONOSPACE = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]


@dataclass(frozen=True, kw_only=True)
class Serving:
    """Where and how many are served.

    Attributes:
        host: address to listen on.
        port: of it.
        queue: most requests that wait; further ones are refused.
        concurrency: questions that are answered at once.
        upload_bytes: largest upload.
    """

    host: str
    port: int
    queue: int
    concurrency: int
    upload_bytes: int


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder for all files of the server, which nobody else on the machine can read; it is removed at the end.

    The framework is told before it is imported; by itself it takes a folder that all its pages on a machine share.
    """
    with tempfile.TemporaryDirectory(prefix="anchorseg-app-") as name:
        folder = Path(name).resolve()
        os.environ.update(
            GRADIO_TEMP_DIR=str(folder / "files"),
            GRADIO_EXAMPLES_CACHE=str(folder / "examples"),
            GRADIO_ANALYTICS_ENABLED="False",
            HF_HUB_DISABLE_TELEMETRY="1",
        )
        (folder / "files").mkdir()
        yield folder / "files"


def serve(page: gr.Blocks, serving: Serving, *, colours: str, ready: Callable[[str], None]) -> None:
    """Serve a page until the process is told to stop.

    Args:
        page: see `layout.build_page`.
        serving: where.
        colours: more rules of the style sheet.
        ready: is told the page's address once it answers.

    Raises:
        SettingsError: if the address cannot be taken.
    """
    import gradio as gr
    from starlette.middleware import Middleware

    from scripts.page.doors import Doors

    page.queue(max_size=serving.queue, default_concurrency_limit=serving.concurrency, api_open=False)
    options: dict[str, Any] = {"app_kwargs": {"middleware": [Middleware(Doors)]}}
    signal.signal(signal.SIGTERM, _stop)
    try:
        _, address, _ = page.launch(
            server_name=serving.host,
            server_port=serving.port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            show_error=False,
            max_file_size=serving.upload_bytes,
            allowed_paths=[],
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            state_session_capacity=1000,
            css_paths=STYLE,
            css=colours,
            theme=gr.themes.Default(font=FONT, font_mono=MONOSPACE),
            **options,
        )
    except OSError as error:
        raise SettingsError(
            f"--host {serving.host} --port {serving.port} cannot be served ({error}); give another --port"
        ) from error
    ready(address)
    page.block_thread()


def _stop(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)  # rather than to die at once: files are removed on the way out
