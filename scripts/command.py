"""The command `anchorseg` of an installation: `anchorseg train|evaluate|predict|app ...`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from utils.errors import SettingsError, exit_on_error

COMMANDS = {
    "train": ("train_ds", "train a model; on several GPUs: deepspeed --module train_ds"),
    "evaluate": ("eval_reasonseg", "score a model on benchmarks; on several GPUs: deepspeed --module eval_reasonseg"),
    "score": ("scripts.score", "score the masks of any system, from files"),
    "merge": ("merge_lora_weights", "merge a run's adapters into a model folder"),
    "predict": ("scripts.predict", "ask questions about images, folders or a table of both"),
    "chat": ("scripts.chat", "talk about an image: question, answer, next question"),
    "app": ("scripts.app", "a page on which to ask about images; needs pip install anchorseg[app]"),
    "check-data": ("scripts.check_data", "say which datasets can train, what is missing, where it comes from"),
    "download": ("scripts.download", "list the weights and datasets of a recipe or table, and fetch the weights"),
}


def usage() -> str:
    """The commands, a line each."""
    lines = [f"  {name:<12}{about}" for name, (_, about) in COMMANDS.items()]
    return "\n".join(["usage: anchorseg COMMAND ...", "", *lines, "", "`anchorseg COMMAND --help` lists its flags."])


@exit_on_error()
def main(argv: Sequence[str] | None = None) -> int:
    """Hand the command line to one of the programs; returns its exit status.

    Raises:
        SettingsError: for an unknown command.
    """
    name, *rest = (sys.argv[1:] if argv is None else list(argv)) or ["--help"]
    if name in ("-h", "--help"):
        print(usage())
        return 0
    if name == "--version":
        print(import_module("utils.version").__version__)
        return 0
    if name not in COMMANDS:
        raise SettingsError(f"`anchorseg {name}` is no command; allowed: {', '.join(COMMANDS)}")
    sys.argv = [f"anchorseg {name}", *rest]
    return import_module(COMMANDS[name][0]).main(rest) or 0
