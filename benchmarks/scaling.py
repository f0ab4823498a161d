"""How the costs grow: `python -m benchmarks.scaling --size mid`.

A training step against conversations of an image and against the size of the image, and written answers against
questions about one image.
"""

from __future__ import annotations

import argparse
import json

from benchmarks import inference
from benchmarks.measure import Cost, as_json, describe
from benchmarks.train_step import Steps
from benchmarks.workload import build, samples

Costs = dict[str, Cost]


def main(argv: list[str] | None = None) -> None:
    """Measure and print one table a line of the series."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=["tiny", "mid"], default="mid")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 3, 9, 27], help="conversations, and questions")
    parser.add_argument("--heights", type=int, nargs="+", default=[240, 480, 960], help="of the image; 4:3")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args(argv)
    model, registry = build(arguments.size)
    series: dict[str, dict[int, Costs]] = {"conversations": {}, "image height": {}, "questions": {}}
    for count in arguments.counts:
        found = Steps(model, registry, samples(1, count)).costs(arguments.repeats)
        series["conversations"][count] = found
        print(describe(f"training step, {count} conversations", found, images=1), flush=True)
    for height in arguments.heights:
        chosen = samples(1, 3, height=height, width=height * 4 // 3)
        found = Steps(model, registry, chosen).costs(arguments.repeats)
        series["image height"][height] = found
        print(describe(f"training step, image {height} high", found, images=1), flush=True)
    model.eval()
    for count in arguments.counts:
        found = inference.measure(model, registry, count, repeats=arguments.repeats)["written"]
        series["questions"][count] = found
        print(describe(f"{count} questions, written", found, images=1), flush=True)
    print(
        json.dumps(
            {
                "size": arguments.size,
                "series": {
                    name: {value: as_json(found) for value, found in rows.items()} for name, rows in series.items()
                },
            }
        )
    )


if __name__ == "__main__":
    main()
