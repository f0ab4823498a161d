"""Models that learn one answer by heart: two words, one query bank, a full stop; or two targets."""

from pathlib import Path

import numpy as np
import torch

from anchorseg.inference.collate import make_collator
from anchorseg.method.modeling import AnchorSegModel
from anchorseg.method.objective import Objective
from anchorseg.method.options import LossWeights
from anchorseg.weights.folder import load_model, save_model
from anchorseg.weights.shipped import shipped
from dataset.collator import Collator
from dataset.drawn.writer import make_scene
from dataset.masks import fill_polygon
from dataset.sample import Conversation, Sample, TargetSlot, Turn
from dataset.templates.wording import prompt_of_query
from utils.seeding import generator_for

QUERIES = tuple(f"What is the {'very ' * count}red thing in this image?" for count in (0, 3, 6, 9))
LESSONS = 30


def teach(model: AnchorSegModel, collator: Collator) -> None:
    """Let the model learn to answer every query with one target."""
    answer = ("It is", TargetSlot(0), ".")
    batch = collator(
        [
            Sample(
                record="noise",
                image=generator_for("generation", 0).integers(0, 256, (60, 80, 3)).astype(np.uint8),
                conversations=tuple(Conversation((Turn(query, answer),)) for query in QUERIES),
                masks=np.ones((1, 60, 80), dtype=bool),
            )
        ]
    )
    optimizer = torch.optim.AdamW(model.llava.language_model.parameters(), lr=1e-3)
    for _ in range(LESSONS):
        output = model(batch)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(output.logits, output.labels).backward()
        optimizer.step()
    model.eval()


def teach_several(folder: Path) -> tuple[np.ndarray, str]:
    """Let the miniature learn one answer with two targets, and save it.

    Returns:
        The image (H, W, 3) uint8 RGB, and the question, which means two objects of one colour.
    """
    model, registry = load_model(shipped("miniature"), dtype="fp32")
    scene, (query, *_) = make_scene(7, "test", 14)
    first, second = (f"the {scene.objects[index].colour} {scene.objects[index].kind}" for index in query.targets)
    answer = (f"It is {first}", TargetSlot(0), f"and {second}", TargetSlot(1), ".")
    size = scene.image.shape[:2]
    sample = Sample(
        record="scene",
        image=scene.image,
        conversations=(Conversation((Turn(prompt_of_query(query.texts[0], "auto"), answer),)),),
        masks=np.stack([fill_polygon(scene.objects[index].polygon, *size) for index in query.targets]),
    )
    batch = make_collator(model.config, registry, max_length=2048)([sample])
    frozen = ("vision", "image_encoder")
    parameters = [value for name, value in model.named_parameters() if not any(part in name for part in frozen)]
    optimizer = torch.optim.AdamW(parameters, lr=5e-4)
    objective = Objective(LossWeights(), model.head)
    for _ in range(2 * LESSONS):
        optimizer.zero_grad()
        objective(model(batch), batch).total.backward()
        optimizer.step()
    save_model(model.eval(), registry, folder)
    return scene.image, query.texts[0]
