"""transformers' Auto classes in a process that imported nothing else of this project."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from anchorseg import AnchorSegProcessor, load_model
from anchorseg.weights.shipped import SHIPPED

ROOT = Path(__file__).parents[1]
IMPORTS = {
    "anchorseg first, and another library in between": "import anchorseg, transformers; heavy(); import peft",
    "Auto classes first": "from transformers import AutoModel; import anchorseg",
}
CODE = """
import sys
def heavy():
    assert "torch" not in sys.modules, "importing both imports torch"
{imports}
import numpy
from transformers import AutoConfig, AutoModel, AutoProcessor
folder = sys.argv[1]
config = AutoConfig.from_pretrained(folder)
model, processor = AutoModel.from_pretrained(folder, dtype="float32").eval(), AutoProcessor.from_pretrained(folder)
batch = processor(numpy.load(sys.argv[2]), ["the red cup", "Which one rolls?"]).to("cpu", model.dtype)
numpy.save(sys.argv[3], model(batch).segmentation.masks[0].detach().float().numpy())
print(type(config).__name__, type(model).__name__, type(processor).__name__)
"""


@pytest.mark.parametrize("order", IMPORTS)
def test_a_saved_folder_is_known(order, tmp_path):
    folder, image, found = SHIPPED["miniature"], tmp_path / "image.npy", tmp_path / "masks.npy"
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    np.save(image, pixels)
    command = [sys.executable, "-c", CODE.format(imports=IMPORTS[order]), folder, image, found]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["AnchorSegConfig", "AnchorSegModel", "AnchorSegProcessor"], done.stderr
    model, registry = load_model(folder, dtype=torch.float32)
    batch = AnchorSegProcessor(model.config, registry)(pixels, ["the red cup", "Which one rolls?"])
    with torch.inference_mode():
        wanted = model(batch.to("cpu", model.dtype)).segmentation.masks[0].float().numpy()
    assert np.abs(np.load(found) - wanted).max() <= 1e-5 * np.abs(wanted).max()
