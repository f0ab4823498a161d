"""Parameters of a preset by group, beside the paper's Table 7: `python -m scripts.parameters --preset 7b`.

Counted on the meta device; no weight is allocated; tables have the rows of the backbone's published tokenizer. The
published model also carries a layer gate, which it counts as trained, and a second projector; it uses neither.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from anchorseg.training.settings import SMALL, ModelSettings, TrainSettings
from anchorseg.weights.published import PIECES
from utils.errors import exit_on_error
from utils.settings import parse

if TYPE_CHECKING:
    from anchorseg.method.modeling import AnchorSegModel

CONFIGS = Path(__file__).parents[1] / "configs"
OF_THE_PAPER = ("llava-1.5", "llava-pixellm", "llava-pixellm-24")
"""Language backbones of the papers' own counts."""
PAPER = {
    ("7b", "anchorseg"): "306.29 M of 7.77 B (3.94 %)",
    ("7b", "lisa"): "288.25 M of 7.71 B (3.74 %)",
    ("7b", "gsva"): "288.26 M",
    ("7b", "pixellm"): "375.72 M",
}


def meta_model(settings: ModelSettings) -> AnchorSegModel:
    """The training model of a preset on the meta device, its tables sized for the backbone's published vocabulary."""
    import torch

    from anchorseg.method.modeling import AnchorSegModel
    from anchorseg.training.build import choose_trainable, config_of
    from anchorseg.weights.folder import tiny_tokenizer
    from anchorseg.weights.presets import new_registry

    name = settings.language_model
    registry = new_registry(tiny_tokenizer(name), name, settings.method().token_counts())
    config = config_of(settings, registry)
    if settings.size not in SMALL:
        pieces = PIECES.get(name, registry.vocabulary_size)
        config.language_config.text_config.vocab_size = pieces + len(registry.new_ids)
    with torch.device("meta"):
        model = AnchorSegModel(config)
        choose_trainable(model, settings, registry)
    return model


def unused_in_published(model: AnchorSegModel) -> tuple[int, int]:
    """Sizes of the published model's layer gate and second projector, which this project does not carry."""
    layers = model.config.language_config.text_config.num_hidden_layers
    projector = sum(p.numel() for p in model.llava.network.model.multi_modal_projector.parameters())
    return (layers + 1) * model.width, projector


def table(settings: ModelSettings) -> str:
    """The table, one group a line."""
    from anchorseg.training.trainable import trainable_groups

    model = meta_model(settings)
    groups = {name: sum(p.numel() for p in parameters) for name, parameters in trainable_groups(model).items()}
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    rows = [*groups.items(), ("trained here", trained), ("all parameters here", total)]
    lines = [f"{name:<44}{count:>16,}" for name, count in rows]
    sums = [("here", trained, total)]
    papers = settings.language_model in OF_THE_PAPER
    if settings.head == "anchorseg" and papers:
        gate, projector = unused_in_published(model)
        sums.append(("with the published layer gate and projector", trained + gate, total + gate + projector))
    if "neck" in groups:
        sums.append(("without the neck, which PixelLM's code leaves", trained - groups["neck"], total))
    for name, first, second in sums:
        lines.append(f"{name:<44}{first / 1e6:>10.2f} M of {second / 1e9:.3f} B ({first / second:.2%})")
    if papers:
        lines.append(f"{'paper, Table 7':<44}    {PAPER.get((settings.size, settings.head), 'not given')}")
    return "\n".join(lines)


if __name__ == "__main__":
    with exit_on_error():
        print(table(parse(TrainSettings, sys.argv[1:], preset_dir=CONFIGS, description=__doc__)))
