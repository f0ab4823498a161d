"""Ask one question about one image: `python -m scripts.predict IMAGE "QUERY" --model FOLDER --out PNG`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import get_args

from dataset.templates.wording import Kind
from utils.errors import SettingsError, exit_on_error
from utils.pictures import check_picture_path, save_picture


def main(argv: Sequence[str] | None = None) -> None:
    """Load, ask, print, draw; what can be wrong with the arguments is found before torch is imported."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", help="image file")
    parser.add_argument("query", help="a phrase, a sentence, or a whole prompt that asks for a segmentation itself")
    parser.add_argument("--kind", choices=get_args(Kind), default="auto", help="what the query is; auto: by its words")
    parser.add_argument(
        "--model", required=True, help="folder of a merged model, or miniature: the one that comes here"
    )
    parser.add_argument("--out", default="prediction.png", help="picture to write")
    parser.add_argument("--device", default="auto", help="cuda, cuda:1, cpu; auto: a GPU where there is one")
    parser.add_argument(
        "--padding_attention",
        choices=("model", "zero", "plain"),
        default="model",
        help="attention output of padding patches: as the model was trained; plain: as in the published demos",
    )
    ask(parser.parse_args(argv))


def ask(arguments: argparse.Namespace) -> None:
    """Answer the question of the command line."""
    if not arguments.query.strip():
        raise SettingsError('the query is empty; ask for something, such as "the red cup"')
    out = check_picture_path(arguments.out)

    from dataset.images import read_image

    image = read_image(arguments.image)

    from anchorseg import AnchorSegPredictor
    from anchorseg.method.model_folder import is_large
    from anchorseg.weights.shipped import shipped
    from utils import drawing
    from utils.loading import local_folder
    from utils.machine import chosen_device, refuse_without_gpu

    device = chosen_device(arguments.device)
    refuse_without_gpu(
        wanted=arguments.device == "auto" and is_large(local_folder(shipped(arguments.model), "--model"))
    )
    predictor = AnchorSegPredictor.from_pretrained(
        arguments.model, device=device, padding_attention=arguments.padding_attention
    )
    predictor.set_image(image)
    answer = predictor.predict(arguments.query, kind=arguments.kind)
    print(f"prompt: {answer.prompt}")
    print(f"answer: {answer.text}")
    if not answer.has_target:
        print("no target: the model wrote none")
    for target in answer.targets:
        print(f"target: {int(target.mask.sum())} pixels, score {target.score:.3f}, phrase {target.phrase!r}")
    prior = answer.targets[0].prior if answer.targets else None
    save_picture(out, drawing.panel(image, arguments.query, prediction=answer.mask, prior=prior, caption=answer.text))
    print(f"picture: {out}")


if __name__ == "__main__":
    with exit_on_error():
        main()
