"""forward_generate*.npz: the model writes a given answer token by token."""

from __future__ import annotations

import numpy as np
import torch

from anchorseg.inference.generation import generate
from dataset.batch import IGNORED_LABEL
from tests.parity import rules
from tests.parity.backbones import EVALUATION_IMAGE
from tests.parity.batches import Inputs, make_batch
from tests.parity.context import Context, plain_attention
from tests.parity.forward import is_eager
from tests.parity.reference import Fixture

IMAGE_FILE, IMAGE_ARRAY = "forward_eval.npz", "in.raw_image.0"


def check_generation(fixture: Fixture, context: Context) -> None:
    """Every array of a forward_generate* file."""
    given = fixture
    if "in.prompt_ids" not in fixture and is_eager(fixture):
        given = context.beside(fixture.file.replace("_eager", ""))
    prompt = given.input("in.prompt_ids")
    answer: list[int] = given.input("in.forced_answer_ids").tolist()
    image, note = _image(given, context)
    inputs = Inputs(
        images=[image],
        input_ids=prompt,
        labels=np.full_like(prompt, IGNORED_LABEL),
        offset=[0, 1],
        masks=[np.zeros((0, *image.shape[:2]), dtype=bool)],
    )
    model = context.model
    with plain_attention(model, is_eager(fixture)):
        batch = make_batch(inputs, model, share_prefix=False)
        written = generate(model, batch, max_new_tokens=len(answer), answer=answer)
    end: int = model.config.token_ids["eos"]
    ids = written.ids[0] + [end] * (len(written.ids[0]) < len(answer))
    masks, prior = written.segmentation.masks[0], written.segmentation.prior
    assert prior is not None
    fixture.check("out.sequences", np.concatenate([prompt, np.array([ids])], axis=1))
    fixture.check("out.similarity", prior.similarity, note=note)
    fixture.check("out.pred_mask_logits", masks, note=note)
    first = (masks[0] > 0) if len(masks) else torch.zeros(image.shape[:2])
    fixture.check("out.pred_mask", first, note="the first target's")


def _image(given: Fixture, context: Context) -> tuple[np.ndarray, str]:
    """The image asked about: of the file itself, of the evaluation file beside it, or by rule."""
    if IMAGE_ARRAY in given:
        return given.input(IMAGE_ARRAY), ""
    if (context.folder / IMAGE_FILE).is_file():
        return context.beside(IMAGE_FILE).input(IMAGE_ARRAY), f"image of {IMAGE_FILE}"
    height, width, seed = EVALUATION_IMAGE
    return rules.image(height, width, seed), f"image by rule: {height} x {width}, seed {seed}"
