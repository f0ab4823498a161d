"""Fixtures: a small model, drawn samples, the folder of real test material where there is one.

GPUs are hidden from the tests, which compare bits; `pytest --cuda -m cuda` runs the marked ones on a GPU.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from anchorseg.inference.collate import make_collator
from anchorseg.inference.prefix import ImagePrefix, prefill_images
from anchorseg.method.modeling import AnchorSegModel
from anchorseg.method.options import Method
from anchorseg.method.tokens import TokenRegistry, TokenStrings
from anchorseg.weights.folder import tiny_tokenizer_model
from anchorseg.weights.presets import preset_config
from dataset.batch import Batch
from dataset.sample import Conversation, Question, Sample, TargetSlot, Turn
from utils.numerics import choose_numerics
from utils.seeding import seed_torch

SHARED = Path(os.environ.get("ANCHORSEG_SHARED", Path(__file__).parents[2] / "shared"))


LONGEST = (
    "test_stopping.py", "test_train_ds.py", "test_families.py", "test_cached_training.py", "test_seams.py",
    "test_guides.py", "test_foundation_llava.py", "test_zero3.py", "test_numerics.py", "test_run_damage.py",
    "test_foundation_sam.py", "test_app.py", "test_predict.py", "test_real_input.py", "test_models.py",
)  # fmt: skip
"""Files that take longest, which come first: a long one that begins last runs alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(LONGEST)))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cuda", action="store_true", help="leave the GPU visible, and run the tests marked cuda on it")


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--cuda"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # read when CUDA starts, which importing torch does not do
    elif not torch.cuda.is_available():
        raise pytest.UsageError("--cuda is given, but torch sees no GPU here")


@pytest.fixture
def device(request: pytest.FixtureRequest) -> torch.device:
    """Where a test marked `cuda` runs, with the numerics of the product's own commands."""
    choose_numerics(deterministic=False, tf32=False)
    return torch.device("cuda" if request.config.getoption("--cuda") else "cpu")


@pytest.fixture
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("the folder of real test material is not here (ANCHORSEG_SHARED)")
    return SHARED


@pytest.fixture
def baselines(request: pytest.FixtureRequest) -> Path:
    """The folder of the published baselines' numbers."""
    given = os.environ.get("ANCHORSEG_BASELINES")
    folder = Path(given) if given else request.getfixturevalue("shared") / "fixtures" / "baselines"
    if not (folder / "lisa_train.npz").is_file():
        pytest.skip("the numbers of the published baselines are not here (ANCHORSEG_BASELINES)")
    return folder


def make_registry(num_latents: int = 7) -> TokenRegistry:
    return TokenRegistry.create(tiny_tokenizer_model(), TokenStrings.for_bank(num_latents))


def make_model(method: Method | None = None) -> tuple[AnchorSegModel, TokenRegistry]:
    method = method or Method()
    registry = make_registry(method.num_latents)
    seed_torch(0)
    return AnchorSegModel(preset_config("tiny", method, registry)), registry


def make_sample(seed: int, size: tuple[int, int] = (60, 80), conversations: int = 3) -> Sample:
    """An image of noise with two boxes; conversations of differing length, each with one target."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((2, *size), dtype=bool)
    masks[0, 10:30, 15:45] = True
    masks[1, 35:50, 20:60] = True
    turns = [
        Turn(f"What is the {'very ' * k}red thing in this image?", ("It is", TargetSlot(k % 2), "."))
        for k in range(conversations)
    ]
    return Sample(
        record=f"sample {seed}",
        image=rng.integers(0, 256, (*size, 3)).astype(np.uint8),
        conversations=tuple(Conversation((turn,)) for turn in turns),
        masks=masks,
        questions=(Question("the red thing"),),
    )


def make_batch(model: AnchorSegModel, registry: TokenRegistry, samples: list[Sample], *, share_prefix: bool = True):
    return make_collator(model.config, registry, max_length=2048, share_prefix=share_prefix)(samples)


def prefill_batch(model: AnchorSegModel, batch: Batch) -> ImagePrefix:
    """The images of a batch behind its prefix, read once for any number of questions."""
    return prefill_images(model, batch.images, batch.conversations.prefixes(len(batch.images)))
