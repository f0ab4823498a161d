"""Convert checkpoints between the published layout and this project's.

`python -m scripts.convert_checkpoint official SRC DST --vision_tower CLIP` makes a model folder of a released
checkpoint; `python -m scripts.convert_checkpoint export SRC DST` writes a model folder in the published layout.
"""

from __future__ import annotations

import argparse

from utils.errors import exit_on_error


def main(argv: list[str] | None = None) -> None:
    """Convert one folder and report what became of its tensors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="direction", required=True)
    forth = commands.add_parser("official", help="published layout to a model folder")
    back = commands.add_parser("export", help="model folder to the published layout")
    for command in (forth, back):
        command.add_argument("source", metavar="SRC", help="folder to read")
        command.add_argument("target", metavar="DST", help="new folder")
    forth.add_argument(
        "--vision_tower", required=True, help="CLIP folder or hub name: openai/clip-vit-large-patch14-336"
    )
    arguments = parser.parse_args(argv)

    from anchorseg.weights.official import convert, export

    if arguments.direction == "official":
        for report in convert(arguments.source, arguments.target, arguments.vision_tower):
            print(report)
        print(f"model folder in {arguments.target}; evaluate it: python eval_reasonseg.py --version {arguments.target}")
    else:
        print(f"{export(arguments.source, arguments.target)} tensors written to {arguments.target}")


if __name__ == "__main__":
    with exit_on_error():
        main()
