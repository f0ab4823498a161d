"""Scores and seconds by the length of query banks: `python -m scripts.bank_lengths MODEL ... --dataset_dir DATA`.

For models that were trained with `--bank_length random`, such as the row `nested` of `scripts.ablations` with several
seeds. Printed is a table in Markdown, and written are the scores of each model and rule as JSON.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset.sample import Protocol
from scripts.ablation_report import seed_interval
from utils.errors import exit_on_error
from utils.files import write_json
from utils.waiting import wait_without_spinning

if TYPE_CHECKING:
    from torch import Tensor

    from anchorseg.method.bank_length import BankRule
    from anchorseg.method.head import ImageContext
    from anchorseg.method.modeling import AnchorSegModel
    from dataset.batch import BankPositions

PROTOCOLS: tuple[Protocol, ...] = ("forced", "generate")
Measured = dict[str, dict[str, dict[str, float]]]
"""gIoU, seconds a question and mean latents, by rule and protocol."""


@dataclass
class Counted:
    """A rule that counts the latents of the banks which masks are decoded from."""

    rule: BankRule
    counts: list[int] = field(default_factory=list)

    @property
    def latents(self) -> int | None:
        """See `BankRule`."""
        return self.rule.latents

    @property
    def chosen(self) -> bool:
        """See `BankRule`."""
        return self.rule.chosen

    def locate(self, input_ids: Tensor, bank_ids: tuple[int, ...]) -> BankPositions:
        """See `BankRule`."""
        return self.rule.locate(input_ids, bank_ids)

    def shorten(
        self, model: AnchorSegModel, hidden: Tensor, targets: BankPositions, context: ImageContext
    ) -> BankPositions:
        """See `BankRule`."""
        found = self.rule.shorten(model, hidden, targets, context)
        whole = found.columns.shape[1]
        self.counts += [length - 1 for length in found.lengths or (whole,) * len(found)]
        return found


def measure(folder: Path, rules: Sequence[str], arguments: argparse.Namespace) -> Measured:
    """What a model does by each rule."""
    from anchorseg.evaluation.evaluator import Evaluator
    from anchorseg.inference.collate import make_collator
    from anchorseg.training.data import data_folder, open_benchmarks
    from anchorseg.weights.folder import load_model

    model, registry = load_model(folder)
    data = data_folder(arguments.dataset_dir, None)
    ((name, source),) = open_benchmarks(arguments.val_dataset, data, None, workers=0).items()
    found: Measured = {}
    for rule in rules:
        found[rule] = {}
        for protocol in PROTOCOLS:
            model.set_bank_length(rule)
            counted: Any = Counted(model.bank_rule)
            model.bank_rule = counted
            collator = make_collator(model.config, registry, max_length=2048, latents=counted.latents)
            began = time.perf_counter()
            result = Evaluator(model, registry, collator, workers=0).evaluate(source, name=name, protocol=protocol)
            seconds = (time.perf_counter() - began) / len(result.rows)
            latents = sum(counted.counts) / max(len(counted.counts), 1)
            found[rule][protocol] = {"giou": result.giou, "seconds": seconds, "latents": latents}
    return found


def table(models: Sequence[Measured]) -> str:
    """Markdown; means over the models, and 95 % intervals over them."""
    lines = ["| latents | forced gIoU | latents used | written gIoU | latents used | seconds a question |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for rule in models[0]:
        cells = [rule]
        for protocol in PROTOCOLS:
            scores = [100 * model[rule][protocol]["giou"] for model in models]
            interval = seed_interval(scores)
            reach = "" if interval is None else f" ± {(interval[1] - interval[0]) / 2:.1f}"
            used = sum(model[rule][protocol]["latents"] for model in models) / len(models)
            cells += [f"{sum(scores) / len(scores):.1f}{reach}", f"{used:.2f}"]
        seconds = [sum(model[rule][protocol]["seconds"] for model in models) / len(models) for protocol in PROTOCOLS]
        cells.append(", ".join(f"{value:.3f}" for value in seconds))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("models", type=Path, nargs="+", metavar="MODEL", help="model folders of one kind")
    made.add_argument("--dataset_dir", default="./data", help="folder that holds the datasets")
    made.add_argument("--val_dataset", default="ReasonSeg|test", help="one benchmark")
    made.add_argument("--rules", nargs="+", metavar="RULE", help="as eval_reasonseg.py --bank_length; default: all")
    made.add_argument("--output", type=Path, default=Path("bank_lengths.json"), help="file of all figures")
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Measure each model by each rule."""
    arguments = parser().parse_args(argv)

    from anchorseg.method.model_folder import read_config

    wait_without_spinning()
    latents = read_config(arguments.models[0]).method_settings.num_latents
    rules = arguments.rules or [*map(str, range(latents + 1)), "auto", "steady"]
    models = [measure(folder, rules, arguments) for folder in arguments.models]
    write_json(arguments.output, {str(folder): found for folder, found in zip(arguments.models, models, strict=True)})
    print(table(models))


if __name__ == "__main__":
    with exit_on_error():
        main()
