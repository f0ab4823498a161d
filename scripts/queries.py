"""What each token of the query bank looks at (paper, Fig. 3), as pictures and as a number.

`python -m scripts.queries FOLDER --model MODEL --image IMAGE --query "the cup"` draws the similarity maps of one
question. With `--dataset_dir DATA --val_dataset "ReasonSeg|val"` it also states, over all questions of a benchmark that
have one target, which share of each token's map lies inside the true mask, with a 95 % bootstrap interval over images.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from utils.errors import SettingsError, exit_on_error
from utils.files import write_json
from utils.pictures import save_picture
from utils.waiting import wait_without_spinning

if TYPE_CHECKING:
    import numpy as np

    from anchorseg.method.modeling import AnchorSegModel
    from anchorseg.method.tokens import TokenRegistry

FILE = "queries.json"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("folder", type=Path, help="for the pictures and queries.json")
    made.add_argument("--model", required=True, help="folder of a merged model, or miniature: the one that comes here")
    made.add_argument("--image", help="image file")
    made.add_argument("--query", help="a phrase, a sentence or a whole prompt about the image")
    made.add_argument("--dataset_dir", default="./data", help="folder that holds the datasets")
    made.add_argument("--val_dataset", help="benchmark, in place of --image and --query")
    made.add_argument("--pictures", type=int, default=8, help="most questions of a benchmark that are drawn")
    made.add_argument("--device", default="auto", help="cuda, cuda:1, cpu; auto: a GPU where there is one")
    return made


def names_of(registry: TokenRegistry) -> list[str]:
    """Names of a bank's tokens, `<SEG>` last."""
    return [registry.decode([index]) for index in registry.bank_ids]


def of_image(arguments: argparse.Namespace, image: np.ndarray, model: AnchorSegModel, registry: TokenRegistry) -> None:
    """Draw the maps of one question."""
    from anchorseg.evaluation.queries import bank_responses, given_answer
    from utils import drawing

    found = bank_responses(model, given_answer(model, registry, image, arguments.query))
    maps = dict(zip(names_of(registry), found.maps[0], strict=True))
    picture = arguments.folder / "queries.png"
    save_picture(picture, drawing.response_sheet(image, arguments.query, maps, prediction=found.masks[0]))
    print(f"picture: {picture}")


def of_benchmark(arguments: argparse.Namespace, model: AnchorSegModel, registry: TokenRegistry) -> None:
    """Draw some questions, and state the shares of all."""
    import numpy as np

    from anchorseg.evaluation.intervals import mean_interval
    from anchorseg.evaluation.queries import bank_responses, inside_share
    from anchorseg.inference.collate import make_collator
    from anchorseg.training.data import data_folder, open_benchmarks
    from utils import drawing
    from utils.progress import Bar

    ((name, source),) = open_benchmarks(
        arguments.val_dataset, data_folder(arguments.dataset_dir, None), None, workers=0
    ).items()
    weight = next(model.parameters())
    collator = make_collator(model.config, registry, max_length=2048)
    shares: list[np.ndarray] = []
    areas: list[float] = []
    images: list[int] = []
    for index in Bar(range(len(source)), desc=f"{name} queries", unit="image"):
        sample = source.evaluation_sample(index, protocol="forced")
        if any(len(question.targets) != 1 for question in sample.questions):
            continue
        found = bank_responses(model, collator([sample]).to(weight.device, weight.dtype))
        for maps, mask, question in zip(found.maps, found.masks, sample.questions, strict=True):
            truth = sample.masks[question.targets[0]]
            if len(shares) < arguments.pictures:
                titles = dict(zip(names_of(registry), maps, strict=True))
                sheet = drawing.response_sheet(sample.image, question.text, titles, prediction=mask, truth=truth)
                save_picture(arguments.folder / f"{len(shares):04d}.png", sheet)
            shares.append(inside_share(maps, truth))
            areas.append(float(truth.mean()))
            images.append(index)
    if not shares:
        raise SettingsError(f"--val_dataset {name}: no question of it has one target; choose another benchmark")
    columns = [*np.stack(shares, axis=1), np.array(areas)]
    rows = {
        title: dict(zip(("share", "low", "high"), mean_interval(column, images), strict=True))
        for title, column in zip([*names_of(registry), "a uniform map"], columns, strict=True)
    }
    write_json(arguments.folder / FILE, {"benchmark": name, "questions": len(shares), "inside": rows})
    print(f"share of a map inside the true mask, mean of {len(shares)} questions of {name}")
    for title, row in rows.items():
        print(f"{title:<14}{row['share']:.3f}  ({row['low']:.3f} to {row['high']:.3f})")
    print(f"written to {arguments.folder}")


def main(argv: Sequence[str] | None = None) -> None:
    """Load, and analyze one image or a benchmark."""
    arguments = parser().parse_args(argv)
    single = arguments.image is not None and arguments.query is not None
    if single == (arguments.val_dataset is not None) or (arguments.image is None) != (arguments.query is None):
        raise SettingsError("give --image and --query, or --val_dataset")
    if arguments.val_dataset is not None and "||" in arguments.val_dataset:
        raise SettingsError(f"--val_dataset {arguments.val_dataset}: give one benchmark")
    wait_without_spinning()
    if single:
        from dataset.images import read_image

        image = read_image(arguments.image)

    from anchorseg.weights.folder import load_model
    from utils.machine import chosen_device

    model, registry = load_model(arguments.model)
    model = model.to(chosen_device(arguments.device))
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if single:
        of_image(arguments, image, model, registry)
    else:
        of_benchmark(arguments, model, registry)


if __name__ == "__main__":
    with exit_on_error():
        main()
