"""What a recipe or a table of the paper needs, where it comes from, and what is there: `python -m scripts.download`.

`--preset 7b` or `--table 1` lists weights and datasets with source, terms and size; nothing is fetched. `--fetch`
fetches the weights into --weights_dir, after saying what and how many bytes; a transfer that broke off goes on with the
same command, and every file is checked by its published digest. Datasets are not fetched: their terms are accepted at
the source, whose address is printed.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from anchorseg.weights.published import Weights
from dataset.source import ARCHIVES, TRAIN2014, TRAIN2017
from scripts.needs import TABLES, Needs, of_preset, of_table
from utils.errors import SettingsError, exit_on_error
from utils.files import make_folder

if TYPE_CHECKING:
    from utils.fetching import RemoteFile


def main(argv: Sequence[str] | None = None) -> int:
    """List what is needed, and fetch weights if asked to; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--preset", help="recipe, a file of the folder configs")
    what.add_argument("--table", type=int, choices=TABLES, help="table of the paper")
    parser.add_argument("--weights_dir", default="weights", help="folder of the weights (default: weights)")
    parser.add_argument("--dataset_dir", default="data", help="folder that holds all datasets (default: data)")
    parser.add_argument("--weights", help="names of the list, by comma: fetch these alone")
    parser.add_argument("--fetch", action="store_true", help="fetch the weights that are missing")
    parser.add_argument("--revision", help="branch, tag or commit of the one repository that is fetched; none: main")
    given = parser.parse_args(argv)
    needs = of_preset(given.preset) if given.preset else of_table(given.table)
    folder = Path(given.weights_dir)
    print("\n".join([*weight_lines(needs, folder), *data_lines(needs, Path(given.dataset_dir))]), flush=True)
    chosen = choose(needs, given.weights, given.revision)
    if given.fetch and not chosen:
        print("no weights are needed, so nothing was fetched")
    elif given.fetch:
        fetch_weights(chosen, folder, given.revision)
    elif needs.weights:
        print("nothing was fetched; --fetch fetches the weights")
    return 0


def weight_lines(needs: Needs, folder: Path) -> Iterator[str]:
    """The weights, a few lines each."""
    yield from needs.about
    if needs.weights:
        yield f"weights, in {folder}:"
    for weights in needs.weights:
        size = "" if weights.gigabytes is None else f", about {weights.gigabytes:g} GB"
        yield f"  {_state(_is_present(folder / weights.name))}  {weights.name}{size}"
        yield f"           {weights.source}"
        yield f"           {weights.licence}; check the terms there"


def data_lines(needs: Needs, root: Path) -> Iterator[str]:
    """The datasets, a few lines each, with every place below the data folder."""
    if needs.datasets or needs.benchmarks:
        yield f"datasets, in {root}; their terms are accepted at the source, and they are not fetched from here:"
    for name, expected in needs.datasets.items():
        yield f"  {name}"
        yield f"           {expected.source}"
        yield f"           terms: {expected.terms}"
        missing = expected.lacks(root)
        for need in expected.needs:
            yield f"  {_state(need not in missing)}  {need}{_archive(need)}"
    if needs.benchmarks:
        yield "  for validation and evaluation, and explanations, with ReasonSeg (https://github.com/dvlab-research/LISA):"
    for place in needs.benchmarks:
        yield f"  {_state((root / place).exists())}  {place}"
    if any(need in (TRAIN2014, TRAIN2017) for expected in needs.datasets.values() for need in expected.needs):
        yield "  COCO's photographs are under Flickr's terms, its annotations under CC BY 4.0"


def _state(there: bool) -> str:
    return "[there]  " if there else "[missing]"


def _is_present(path: Path) -> bool:
    """Whether there are weights at a path: a file, or a folder of which no part is still being fetched."""
    if path.is_dir():
        return (path / "config.json").exists() and not any(path.rglob(".*.part"))
    return path.is_file()


def _archive(need: str) -> str:
    sizes = [ARCHIVES[place] for place in need.split(" or ") if place in ARCHIVES]
    return f" (archive of about {sizes[0]:g} GB)" if sizes else ""


def choose(needs: Needs, names: str | None, revision: str | None) -> tuple[Weights, ...]:
    """The weights that are to be fetched.

    Raises:
        SettingsError: for a name that is not on the list, or a revision of none or several repositories.
    """
    known = {weights.name: weights for weights in needs.weights}
    wanted = list(known) if names is None else names.split(",")
    for name in wanted:
        if name not in known:
            raise SettingsError(f"--weights {name} is not on the list; allowed: {', '.join(known) or 'none'}")
    chosen = tuple(known[name] for name in wanted)
    repositories = [weights.name for weights in chosen if weights.repository]
    if revision is not None and len(repositories) != 1:
        raise SettingsError(
            f"--revision {revision} is of one repository, but the list has {', '.join(repositories) or 'none'}; choose "
            "one with --weights"
        )
    return chosen


def fetch_weights(chosen: Sequence[Weights], folder: Path, revision: str | None) -> None:
    """Fetch what is missing, after saying what and how many bytes.

    Raises:
        CheckpointError: if the hub cannot be read, or a file has another digest than is published.
        OutputExistsError: if another file has the place of one, or another process fetches into the folder.
        SettingsError: if the folder cannot be written or has too little room.
    """
    from utils.fetching import bytes_left, fetch
    from utils.run_lock import run_lock

    folder = make_folder(folder, "--weights_dir")
    with run_lock(folder, "--weights_dir"):
        missing = list(missing_files(chosen, folder, revision))
        total, free = sum(bytes_left(file, target) for target, file in missing), shutil.disk_usage(folder).free
        if total > free:
            raise SettingsError(
                f"--weights_dir {folder} has {free:,} bytes free, but {total:,} are needed; give another"
            )
        for target, file in missing:
            fetch(file, target)
            print(f"{target / file.path}: {file.size:,} bytes, {file.kind} digest as published", flush=True)
    print(f"all weights are in {folder}")


def missing_files(chosen: Sequence[Weights], folder: Path, revision: str | None) -> Iterator[tuple[Path, RemoteFile]]:
    """The files that are not there, and the folder of each; says of every weights how many they are, and how large."""
    from utils.fetching import bytes_left, is_there

    for weights in chosen:
        target, files = remote_files(weights, folder, revision)
        lacking = [file for file in files if not is_there(file, target)]
        total = sum(bytes_left(file, target) for file in lacking)
        count = f"{len(lacking)} of {len(files)} files to fetch, {total:,} bytes"
        print(f"{weights.name}: {count}, into {target}", flush=True)
        yield from ((target, file) for file in lacking)


def remote_files(weights: Weights, folder: Path, revision: str | None) -> tuple[Path, tuple[RemoteFile, ...]]:
    """The folder that weights go to, and their files."""
    from utils.fetching import RemoteFile, list_repository

    if weights.repository:
        commit, files = list_repository(weights.repository, revision)
        print(f"{weights.name}: commit {commit} of {weights.repository}")
        return folder / weights.name, files
    assert weights.url and weights.sha256 and weights.size
    file = RemoteFile(path=weights.name, url=weights.url, size=weights.size, kind="sha256", digest=weights.sha256)
    return folder, (file,)


if __name__ == "__main__":
    with exit_on_error():
        raise SystemExit(main())
