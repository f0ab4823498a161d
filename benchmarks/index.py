"""Opening a large annotation file, cold and warm, beside parsing it: `python -m benchmarks.index --gigabytes 1`.

Writes a COCO instances file of that size into a temporary folder. Every measurement runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

CASES = {
    "json.load": "import json; data = json.load(open(PATH))",
    "index, cold": "from dataset.readers.coco import CocoInstances; data = CocoInstances(Path(PATH), Path(INDEX))",
    "index, warm": "from dataset.readers.coco import CocoInstances; data = CocoInstances(Path(PATH), Path(INDEX))",
    "index, warm, 100 images read": (
        "from dataset.readers.coco import CocoInstances; data = CocoInstances(Path(PATH), Path(INDEX))\n"
        "for n in range(0, len(data), len(data) // 100): data.image(n), data.annotations(n)"
    ),
}

PROGRAM = """
import json, resource, time
from pathlib import Path
import numpy, tqdm, ijson, filelock, cv2, pycocotools.mask
import dataset.readers.coco
PATH, INDEX = {path!r}, {index!r}
def now(): return int(next(line for line in open('/proc/self/status') if line.startswith('VmRSS')).split()[1]) / 1024
before, began = now(), time.perf_counter()
{code}
seconds = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({{"seconds": seconds, "added_mib": now() - before, "peak_mib": peak}}))
"""


def write_instances(path: Path, gigabytes: float) -> tuple[int, int]:
    """A COCO file of about that size; gives the numbers of images and annotations."""
    rng = np.random.default_rng(0)
    images = int(gigabytes * 1e9 / 7200)
    with path.open("w") as file:
        file.write('{"images": [')
        for number in range(images):
            record = {"id": number, "file_name": f"train2017/{number:012d}.jpg", "height": 480, "width": 640}
            file.write(("," if number else "") + json.dumps(record))
        file.write('], "annotations": [')
        for number in range(images * 7):
            ring = np.round(rng.uniform(0, 480, 128), 2).tolist()
            record = {"id": number, "image_id": number % images, "category_id": 1, "segmentation": [ring], "iscrowd": 0}
            file.write(("," if number else "") + json.dumps(record))
        file.write('], "categories": [{"id": 1, "name": "thing"}]}')
    return images, images * 7


def measure(code: str, path: Path, index: Path) -> dict[str, float]:
    """Seconds and memory of a piece of code in a new process."""
    program = PROGRAM.format(path=str(path), index=str(index), code=code)
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Write, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path, index = Path(folder) / "instances.json", Path(folder) / "index"
        images, annotations = write_instances(path, arguments.gigabytes)
        size = path.stat().st_size
        print(f"{size / 1e9:.2f} GB, {images} images, {annotations} annotations")
        results = {name: measure(code, path, index) for name, code in CASES.items()}
        stored = sum(file.stat().st_size for file in index.rglob("*") if file.is_file())
    print(f"{'':<30} {'seconds':>9} {'memory added, MiB':>18} {'peak, MiB':>10}")
    for name, result in results.items():
        print(f"{name:<30} {result['seconds']:>9.3f} {result['added_mib']:>18.1f} {result['peak_mib']:>10.0f}")
    print(f"index on disk {stored / 1e9:.2f} GB")
    print(json.dumps({"bytes": size, "index_bytes": stored, "results": results}))


if __name__ == "__main__":
    main()
