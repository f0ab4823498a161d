"""Ask questions about images: `anchorseg predict photos --query "the red cup" --model FOLDER --out FOLDER`.

INPUT is an image, a folder, a pattern ("photos/**/*.jpg") or a table, a CSV or JSONL file of images and questions.
--out gets an overlay of each question, a PNG mask of each target, answers.jsonl, and results.json and images.json for
pycocotools. An image that cannot be read is reported and the rest goes on; the exit status is then 1. --resume goes on
where an earlier start was stopped.

`anchorseg predict photo.jpg "the red cup" --out answer.png` asks one question and draws question, mask and prior.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from dataset.readers.asked import IMAGE_SUFFIXES, TABLE_SUFFIXES, AskedImage, asked_images
from dataset.templates.wording import Kind
from utils.errors import SettingsError, UserError, exit_on_error
from utils.pictures import SUFFIXES, check_picture_path, save_picture
from utils.run_lock import run_lock
from utils.waiting import wait_without_spinning

if TYPE_CHECKING:
    import numpy as np

    from anchorseg.inference.answer import Answer
    from anchorseg.inference.answer_files import AnswerFolder
    from anchorseg.inference.inputs import AskOptions
    from anchorseg.inference.predictor import AnchorSegPredictor

FAILED = 1
"""Exit status if an image could not be used."""


def model_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that say which model answers, and how it is loaded."""
    parser.add_argument("--model", default="miniature", help="model folder, name on the hub, or miniature: the default")
    parser.add_argument("--device", default="auto", help="cuda, cuda:1, cpu; auto: a GPU where there is one")
    parser.add_argument("--dtype", choices=("auto", "bf16", "fp16", "fp32"), default="auto", help="auto: the files'")
    parser.add_argument("--load_in", choices=("none", "8bit", "4bit"), default="none", help="needs bitsandbytes")
    parser.add_argument(
        "--padding_attention",
        choices=("model", "zero", "plain"),
        default="model",
        help="attention output of padding patches: as the model was trained; plain: as in the published demos",
    )
    parser.add_argument("--bank_length", default="full", help="as in eval_reasonseg.py")
    parser.add_argument("--cuda_graphs", action="store_true", help="as in eval_reasonseg.py")


def load(arguments: argparse.Namespace) -> AnchorSegPredictor:
    """The predictor of the flags."""
    from anchorseg import AnchorSegPredictor

    return AnchorSegPredictor.from_pretrained(
        arguments.model,
        device=arguments.device,
        dtype=arguments.dtype,
        quantization=arguments.load_in,
        padding_attention=arguments.padding_attention,
        cuda_graphs=arguments.cuda_graphs,
        bank_length=arguments.bank_length,
    )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("input", nargs="+", help="images, folders, patterns, or one table; or one image and its question")
    made.add_argument(
        "--query", action="append", default=[], help="asked about every image; may be given several times"
    )
    made.add_argument("--out", default="predictions", help="folder; for one question also a picture file")
    made.add_argument("--resume", action="store_true", help="go on in --out where an earlier start was stopped")
    made.add_argument("--mode", choices=("auto", "mask", "text"), default="auto", help="mask: a mask in any case")
    made.add_argument(
        "--kind", choices=get_args(Kind), default="auto", help="what the queries are; auto: by their words"
    )
    made.add_argument("--max_new_tokens", type=int, default=128, help="longest answer")
    made.add_argument("--max_images", type=int, default=4, help="most images that are read together")
    made.add_argument("--max_rows", type=int, default=16, help="most questions that are answered together")
    made.add_argument("--no_overlays", action="store_true", help="write no pictures")
    made.add_argument(
        "--no_masks", action="store_true", help="write no PNG masks; results.json has them as run lengths"
    )
    model_flags(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Load, ask, write; what can be wrong with the arguments is found before torch is imported."""
    arguments = parser().parse_args(argv)
    inputs, queries = list(arguments.input), list(arguments.query)
    if len(inputs) == 2 and not queries and not any(map(is_file_name, inputs[1:])):
        queries.append(inputs.pop())
    one = Path(arguments.out).suffix.lower() in SUFFIXES
    asked = asked_images(inputs, queries, out=None if one else arguments.out)
    wait_without_spinning()
    if not one:
        with run_lock(Path(arguments.out), flags="--out"):
            return many(arguments, asked)
    if len(asked) > 1 or len(asked[0].queries) > 1 or arguments.resume:
        raise SettingsError(f"--out {arguments.out} is one picture, for one question without --resume; give a folder")
    return one_picture(arguments, asked[0])


def is_file_name(text: str) -> bool:
    """Whether a word of the command line names an image or a table, and is no question."""
    return Path(text).suffix.lower() in (*IMAGE_SUFFIXES, *TABLE_SUFFIXES)


def options_of(arguments: argparse.Namespace) -> AskOptions:
    """How the flags ask."""
    return {
        "mode": arguments.mode,
        "kind": arguments.kind,
        "max_new_tokens": arguments.max_new_tokens,
        "max_rows": arguments.max_rows,
    }


def one_picture(arguments: argparse.Namespace, asked: AskedImage) -> int:
    """Answer one question, and draw question, image, mask and prior."""
    out = check_picture_path(arguments.out)

    from dataset.images import read_image

    image = read_image(asked.path)
    if out.exists() and out.samefile(asked.path):
        raise SettingsError(f"--out {arguments.out} is the image itself, which would be overwritten; give another name")

    from utils import drawing

    predictor = load(arguments)
    (query,) = asked.queries
    answer = predictor.session(image).predict(query, **options_of(arguments))
    print(f"prompt: {answer.prompt}")
    print(f"answer: {answer.text}")
    if not answer.has_target:
        print("no target: the model wrote none")
    for target in answer.targets:
        print(f"target: {target.area} pixels, score {target.score:.3f}, phrase {target.phrase!r}")
    prior = answer.targets[0].prior if answer.targets else None
    save_picture(out, drawing.panel(image, query, prediction=answer.mask, prior=prior, caption=answer.text))
    print(f"picture: {out}")
    return 0


def many(arguments: argparse.Namespace, asked: Sequence[AskedImage]) -> int:
    """Answer all questions into a folder; returns the exit status."""
    from anchorseg.inference.answer_files import AnswerFolder
    from anchorseg.inference.inputs import Asking, check_limits
    from utils.progress import Bar

    Asking(**options_of(arguments))
    check_limits(max_images=arguments.max_images)
    folder = AnswerFolder(
        Path(arguments.out),
        settings_of(arguments, asked),
        resume=arguments.resume,
        overlays=not arguments.no_overlays,
        masks=not arguments.no_masks,
    )
    start = folder.go_on([len(one.queries) for one in asked], arguments.max_images)
    if start < len(asked):
        predictor = load(arguments)
        with Bar(total=len(asked), initial=start, desc="predict", unit="image") as bar:
            for count in answered(predictor, folder, asked[start:], start, arguments):
                bar.update(count)
    questions, targets, failed = folder.finish()
    print(f"{questions} questions answered, {targets} targets, {failed} images that could not be used: {folder.folder}")
    return FAILED if failed else 0


def settings_of(arguments: argparse.Namespace, asked: Sequence[AskedImage]) -> dict[str, Any]:
    """What the answers depend on."""
    from anchorseg.evaluation.results import identify
    from anchorseg.inference.answer_files import INPUTS
    from anchorseg.method.model_folder import FILES
    from anchorseg.weights.shipped import shipped
    from utils.loading import local_folder

    names = ("mode", "kind", "max_new_tokens", "max_images", "max_rows", "dtype", "load_in", "padding_attention",
             "bank_length", "no_overlays", "no_masks")  # fmt: skip
    of_all = hashlib.blake2b(ascii([(one.path, one.queries) for one in asked]).encode(), digest_size=16)
    return {
        "model": identify(local_folder(shipped(arguments.model), "--model", files=FILES)).digest,
        INPUTS: of_all.hexdigest(),
        **{name: getattr(arguments, name) for name in names},
    }


Group = list[tuple[int, AskedImage, "np.ndarray | UserError"]]
"""Number of each image, it, and its pixels or why they cannot be read."""


def answered(
    predictor: AnchorSegPredictor,
    folder: AnswerFolder,
    asked: Sequence[AskedImage],
    start: int,
    arguments: argparse.Namespace,
) -> Iterator[int]:
    """Answer group after group, the next one read and the last one written meanwhile; yields how many are done."""
    size = arguments.max_images
    groups = [list(enumerate(asked[first : first + size], start + first)) for first in range(0, len(asked), size)]
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        ahead: Future[Group] = reader.submit(read, groups[0])
        written: Future[int] | None = None
        for number in range(len(groups)):
            group = ahead.result()
            if number + 1 < len(groups):
                ahead = reader.submit(read, groups[number + 1])
            answers = answer(predictor, group, options_of(arguments))
            if written is not None:
                yield written.result()
            written = writer.submit(write, folder, group, answers)
        if written is not None:
            yield written.result()


def read(group: Sequence[tuple[int, AskedImage]]) -> Group:
    """Read the images of a group."""
    from anchorseg.inference.inputs import as_rgb

    found: Group = []
    for number, one in group:
        try:
            found.append((number, one, as_rgb(one.path)))
        except UserError as error:
            found.append((number, one, error))
    return found


def answer(predictor: AnchorSegPredictor, group: Group, options: AskOptions) -> dict[int, list[Answer] | UserError]:
    """The answers about each image of a group; a question that is too long fails its image alone."""
    whole = [(number, one.queries, pixels) for number, one, pixels in group if not isinstance(pixels, UserError)]
    found: dict[int, list[Answer] | UserError] = {
        number: pixels for number, _, pixels in group if isinstance(pixels, UserError)
    }
    try:
        asked = [(pixels, queries) for _, queries, pixels in whole]
        together = list(predictor.predict_images(asked, max_images=max(1, len(asked)), **options))
        return found | {number: answers for (number, _, _), answers in zip(whole, together, strict=True)}
    except UserError as error:
        if len(whole) == 1:
            return found | {whole[0][0]: error}
    for number, queries, pixels in whole:
        try:
            found[number] = predictor.session(pixels).predict_batch(queries, **options)
        except UserError as error:
            found[number] = error
    return found


def write(folder: AnswerFolder, group: Group, answers: dict[int, list[Answer] | UserError]) -> int:
    """Write the answers of a group, pictures first; returns how many images it has."""
    from anchorseg.inference.answer_files import line_of, line_of_error

    lines = []
    for number, one, _ in group:
        found = answers[number]
        if isinstance(found, UserError):
            print(f"not used: {found}", file=sys.stderr)
            lines.append(line_of_error(number, one.path, found))
            continue
        folder.pictures(number, one.path, found)
        lines += [line_of(number, one.path, question, answer) for question, answer in enumerate(found)]
    folder.add(lines)
    return len(group)


if __name__ == "__main__":
    with exit_on_error():
        sys.exit(main())
