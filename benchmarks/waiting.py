"""Training steps a second on quiet and on busy cores, by how OpenMP's threads wait: `python -m benchmarks.waiting`.

A busy machine is emulated by one process a core that never sleeps. Each figure is of a process of its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import time

VARIANTS: dict[str, dict[str, str]] = {
    "default": {},
    "chosen": {"GOMP_SPINCOUNT": "1000", "OMP_WAIT_POLICY": "PASSIVE"},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
_STEPS = """
import json, time, torch
from benchmarks.train_step import Steps
from benchmarks.workload import build, samples
model, registry = build("tiny")
steps = Steps(model.train(), registry, samples(2, 3))
for _ in range(3):
    steps.step()
began = time.perf_counter()
count = 0
while time.perf_counter() - began < {seconds}:
    steps.step()
    count += 1
print(json.dumps(count / (time.perf_counter() - began)))
"""


def spin() -> None:
    """Keep a core busy for ever."""
    while True:
        pass


def steps_per_second(variant: str, seconds: float) -> float:
    """Of the tiny model, in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    program = _STEPS.format(seconds=seconds)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**environment, **VARIANTS[variant]}
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Measure every variant, quiet and busy, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    seconds = parser.parse_args().seconds
    quiet = {variant: steps_per_second(variant, seconds) for variant in VARIANTS}
    others = [multiprocessing.Process(target=spin, daemon=True) for _ in range(os.cpu_count() or 1)]
    for other in others:
        other.start()
    time.sleep(0.5)
    busy = {variant: steps_per_second(variant, seconds) for variant in VARIANTS}
    for other in others:
        other.terminate()
    print(f"{'steps a second':<16} {'quiet':>8} {'busy':>8} {'quiet / busy':>14}")
    for variant in VARIANTS:
        print(f"{variant:<16} {quiet[variant]:8.2f} {busy[variant]:8.2f} {quiet[variant] / busy[variant]:14.2f}")


if __name__ == "__main__":
    main()
