"""Ask the shipped miniature about a few unseen drawn scenes: `python -m scripts.first_answer FOLDER`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from utils.errors import exit_on_error

QUESTIONS = 6
SEED = 7
"""Of scenes that no model was trained on."""


def main(argv: Sequence[str] | None = None) -> None:
    """Load, ask, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="for the pictures")
    parser.add_argument(
        "--model", default="miniature", help="model folder, or the miniature that comes with the project"
    )
    ask(parser.parse_args(argv))


def ask(arguments: argparse.Namespace) -> None:
    """Answer one question about each scene, and draw question, truth, prediction and prior."""
    import numpy as np

    from anchorseg import AnchorSegPredictor
    from dataset.drawn.writer import make_scene
    from dataset.masks import fill_polygon
    from utils import drawing
    from utils.pictures import save_picture

    predictor = AnchorSegPredictor.from_pretrained(arguments.model, device="cpu")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    panels = []
    for number in range(QUESTIONS):
        scene, (query, *_) = make_scene(SEED, "test", number)
        size = scene.image.shape[:2]
        truth = np.any([fill_polygon(scene.objects[index].polygon, *size) for index in query.targets], axis=0)
        predictor.set_image(scene.image)
        answer = predictor.predict(query.texts[0])
        prior = answer.targets[0].prior if answer.targets else None
        panels.append(
            drawing.panel(
                scene.image, query.texts[0], truth=truth, prediction=answer.mask, prior=prior, caption=answer.text
            )
        )
        save_picture(arguments.folder / f"{number}.png", panels[-1])
        print(f"{query.texts[0]} -> {answer.text}")
    save_picture(arguments.folder / "all.png", drawing.contact_sheet(panels, 1))
    print(f"pictures: {arguments.folder}")


if __name__ == "__main__":
    with exit_on_error():
        main()
