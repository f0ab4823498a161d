"""A random model that learns one answer by heart: two words, one query bank, a full stop."""

import numpy as np
import torch

from anchorseg.method.modeling import AnchorSegModel
from dataset.collator import Collator
from dataset.sample import Conversation, Sample, TargetSlot, Turn
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
