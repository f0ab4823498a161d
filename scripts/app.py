"""Serve a page on which to ask about images: `anchorseg app --model FOLDER`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path

from utils.errors import SettingsError, exit_on_error

IDLE_SECONDS = 1800
"""For how long a visitor's image is kept without a request."""


def main(argv: Sequence[str] | None = None) -> None:
    """Load, serve; what can be wrong with the flags is found before torch is imported."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--model", default="miniature", help="folder of a merged model, or miniature, which comes here")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; the default is this machine alone")
    parser.add_argument("--port", type=int, default=7860, help="port to listen on")
    parser.add_argument("--device", default="auto", help="cuda, cuda:1, cpu; auto: a GPU where there is one")
    parser.add_argument("--dtype", choices=("auto", "bf16", "fp16", "fp32"), default="auto", help="of the weights")
    parser.add_argument("--load_in", choices=("none", "8bit", "4bit"), default="none", help="quantized language model")
    parser.add_argument("--examples", type=Path, help="folder of images; NAME.txt beside an image has its question")
    parser.add_argument("--max_upload_mb", type=float, default=20, help="largest upload")
    parser.add_argument("--max_pixels", type=int, default=16_000_000, help="most pixels of an image")
    parser.add_argument("--max_question", type=int, default=500, help="longest question in characters")
    parser.add_argument("--max_new_tokens", type=int, default=128, help="longest answer")
    parser.add_argument("--queue", type=int, default=64, help="most requests that wait")
    parser.add_argument("--visitors", type=int, default=32, help="most visitors whose image stays in memory")
    parser.add_argument("--concurrency", type=int, default=2, help="questions that are answered at once")
    arguments = parser.parse_args(argv)
    check(arguments)
    run(arguments)


def check(arguments: argparse.Namespace) -> None:
    """Refuse values that are not allowed.

    Raises:
        SettingsError: naming the flag.
    """
    for name in ("max_upload_mb", "max_pixels", "max_question", "max_new_tokens", "queue", "visitors", "concurrency"):
        value = getattr(arguments, name)
        if not value > 0:
            raise SettingsError(f"--{name} is above 0, not {value:g}")
    if not 1 <= arguments.port <= 65535:
        raise SettingsError(f"--port is 1 to 65535, not {arguments.port}")
    if arguments.examples is not None and not arguments.examples.is_dir():
        raise SettingsError(f"--examples {arguments.examples} is no folder; give one with images")
    if find_spec("gradio") is None:
        raise SettingsError("the page needs gradio, which is not installed: pip install anchorseg[app]")


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def run(arguments: argparse.Namespace) -> None:
    """Load the model and serve until told to stop."""
    if not is_loopback(arguments.host):
        sys.stderr.write(
            f"warning: --host {arguments.host} lets every machine that reaches this one use the page; "
            "it knows no passwords (docs/app.md)\n"
        )
    from scripts.page.server import private_folder

    with private_folder() as folder:
        serve_model(arguments, folder)


def serve_model(arguments: argparse.Namespace, folder: Path) -> None:
    """Serve a model's page, whose files are in a folder."""
    from anchorseg import AnchorSegPredictor
    from scripts.page.desk import Desk
    from scripts.page.examples import drawn_examples, folder_examples
    from scripts.page.layout import build_page
    from scripts.page.limits import Limits
    from scripts.page.pictures import colour_rules
    from scripts.page.server import Serving, serve
    from scripts.page.visits import Visits

    chosen = folder_examples(arguments.examples) if arguments.examples else drawn_examples(folder / "examples")
    predictor = AnchorSegPredictor.from_pretrained(
        arguments.model, device=arguments.device, dtype=arguments.dtype, quantization=arguments.load_in
    )
    limits = Limits(upload_mb=arguments.max_upload_mb, pixels=arguments.max_pixels, question=arguments.max_question)
    visits = Visits(folder / "answers", most=arguments.visitors, idle_seconds=IDLE_SECONDS)
    desk = Desk(
        predictor=predictor, limits=limits, visits=visits, uploads=folder, max_new_tokens=arguments.max_new_tokens
    )
    serving = Serving(
        host=arguments.host,
        port=arguments.port,
        queue=arguments.queue,
        concurrency=arguments.concurrency,
        upload_bytes=limits.upload_bytes,
    )
    page = build_page(desk, chosen, about=f"Ask about an image; answers of the model {Path(arguments.model).name}.")
    serve(page, serving, colours=colour_rules("#targets"), ready=lambda address: print(f"page: {address}", flush=True))


if __name__ == "__main__":
    with exit_on_error():
        main()
