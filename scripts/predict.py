"""Ask one question about one image: `python -m scripts.predict IMAGE "QUERY" --model FOLDER --out PNG`."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import torch

from anchorseg import AnchorSegPredictor
from dataset.images import read_image
from utils import drawing
from utils.errors import exit_on_error


def main() -> None:
    """Load, ask, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", help="image file")
    parser.add_argument("query", help="a phrase or a sentence")
    parser.add_argument("--model", required=True, help="model folder written by merge_lora_weights.py")
    parser.add_argument("--out", default="prediction.png", help="picture to write")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    image = read_image(arguments.image)
    predictor = AnchorSegPredictor.from_pretrained(arguments.model, device=arguments.device)
    predictor.set_image(image)
    answer = predictor.predict(arguments.query)
    print(f"answer: {answer.text}")
    if not answer.has_target:
        print("no target: the model wrote none")
    for target in answer.targets:
        print(f"target: {int(target.mask.sum())} pixels, score {target.score:.3f}, phrase {target.phrase!r}")
    prior = answer.targets[0].prior if answer.targets else None
    picture = drawing.panel(image, arguments.query, prediction=answer.mask, prior=prior, caption=answer.text)
    Path(arguments.out).parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(arguments.out, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    print(f"picture: {arguments.out}")


if __name__ == "__main__":
    with exit_on_error():
        main()
