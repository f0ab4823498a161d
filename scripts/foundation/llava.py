"""Train tiny-llava from nothing on drawn scenes: `python -m scripts.foundation.llava FOLDER`.

A LLaVA-1.5 of under two million parameters in transformers' layout, which answers questions about drawn scenes in
words. It sees no mask. Its image tokens learn to say what stands at their patch, the language model's states there the
words for it, and the state that begins an answer at which patches the objects are that it names.
`python -m scripts.foundation.llava --help` lists the options; `--resume` continues an interrupted run.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anchorseg.method.modeling import visibility
from dataset.batch import PADDING
from dataset.drawn.layout import MOST, SIZES
from dataset.drawn.objects import COLOURS, KINDS
from model.llava import LlavaBackbone
from model.network_backbone import IMAGE_PLACEHOLDER
from scripts.foundation.classroom import (
    CLASSES,
    EXTREMES,
    FACTS,
    IGNORED,
    LENGTH,
    LESSON_KINDS,
    LESSONS,
    NOTHING,
    Classroom,
    draw_classroom,
)
from scripts.foundation.optimization import Optimizers, load_state, save_state
from scripts.foundation.tokenizer import processor_of, train_tokenizer
from utils.files import write_json
from utils.geometry import PaddedView, patch_validity
from utils.prompt_template import SYSTEM
from utils.seeding import seed_torch

TAUGHT = 6
"""Lessons of a scene in one step."""
SETTINGS = ("scenes", "steps", "tower_steps", "batch", "rate", "matrix_rate", "unseen", "seed")
"""Options that decide the weights and their figures."""
DENSE, NAMING, GROUNDING = 0.5, 0.3, 0.3
"""Weights beside the text loss: what a patch shows, its words, where the named objects are."""


class Student(nn.Module):
    """tiny-llava with what it only has while it learns: a reader of facts at image tokens, and a pointer to patches.

    Args:
        tokenizer: serialised SentencePiece model.
    """

    prefix: Tensor
    valid: Tensor
    content: Tensor
    mean: Tensor
    std: Tensor
    colour_ids: Tensor
    kind_ids: Tensor

    def __init__(self, tokenizer: bytes) -> None:
        super().__init__()
        words = processor_of(tokenizer)
        config = LlavaBackbone.preset("mini", words.get_piece_size() + 1)
        config.image_token_index = words.get_piece_size()
        self.llava = LlavaBackbone(config)
        width = self.llava.width
        self.view: PaddedView = LlavaBackbone.view(config, "sam")
        self.facts = nn.Linear(width, sum(CLASSES) + EXTREMES + 1)
        self.point_from, self.point_to = nn.Linear(width, width), nn.Linear(width, width)
        opening = [words.bos_id(), *words.encode(f"{SYSTEM} USER:")]
        self.image_start, self.patches = len(opening), self.view.num_tokens
        constants = {
            "prefix": torch.tensor(opening + [IMAGE_PLACEHOLDER] * self.patches),
            "valid": torch.stack([patch_validity(self.view.frame(size)) for size in SIZES]),
            "content": torch.stack([self._content(size) for size in SIZES]),
            "mean": torch.tensor(self.view.mean).view(3, 1, 1),
            "std": torch.tensor(self.view.std).view(3, 1, 1),
            "colour_ids": torch.tensor([words.encode(name)[0] for name in COLOURS]),
            "kind_ids": torch.tensor([words.encode(name)[0] for name in KINDS]),
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)

    def _content(self, size: tuple[int, int]) -> Tensor:
        content = torch.zeros(1, self.view.side, self.view.side, dtype=torch.bool)
        height, width = self.view.frame(size).content
        content[:, :height, :width] = True
        return content

    def pixels(self, views: Tensor, sizes: Tensor) -> Tensor:
        """(B, 3, S, S) normalized views of (B, S, S, 3) uint8 ones; padding is 0."""
        values = (views.permute(0, 3, 1, 2).float() - self.mean) / self.std
        return values * self.content[sizes]

    def image_tokens(self, room: Classroom, chosen: Tensor) -> Tensor:
        """(B, P, D) image tokens of some scenes."""
        sizes = room.sizes[chosen]
        return self.llava.image_features(self.pixels(room.views[chosen], sizes), self.valid[sizes], ())

    def hidden_states(self, room: Classroom, chosen: Tensor, features: Tensor, ids: Tensor) -> Tensor:
        """Last-layer states (B, T, D) of the prefix and m lessons (B, m, L) that share it."""
        count, taught = ids.shape[:2]
        prefix = self.prefix.expand(count, -1)
        flat = ids.flatten(1)
        branches = torch.arange(1, taught + 1, device=ids.device).repeat_interleave(LENGTH).expand(count, -1)
        segments = torch.cat([torch.zeros_like(prefix), torch.where(flat == 0, PADDING, branches)], dim=1)
        own = torch.arange(LENGTH, device=ids.device).repeat(taught) + prefix.shape[1]
        positions = torch.cat([torch.arange(prefix.shape[1], device=ids.device), own]).expand(count, -1)
        valid = (segments != PADDING).slice_scatter(
            self.valid[room.sizes[chosen]], dim=1, start=self.image_start, end=self.image_start + self.patches
        )
        embeddings = self.llava.embed(torch.cat([prefix, flat], dim=1), features, self.image_start)
        return self.llava.hidden_states(embeddings, positions, visibility(segments, valid, zero_padding=True))

    def of_image(self, hidden: Tensor) -> Tensor:
        """(B, P, D) states at the image tokens."""
        return hidden[:, self.image_start : self.image_start + self.patches]

    def of_lessons(self, hidden: Tensor, taught: int) -> Tensor:
        """(B, m, L, D) states at the lessons."""
        return hidden[:, len(self.prefix) :].unflatten(1, (taught, LENGTH))

    def pointed(self, of_image: Tensor, of_lessons: Tensor, starts: Tensor) -> Tensor:
        """(B, m, P) logits of the patches where the objects are that the answers name."""
        index = starts[..., None, None].expand(-1, -1, 1, of_lessons.shape[-1])
        queries = self.point_from(of_lessons.gather(2, index)[:, :, 0])
        return queries @ self.point_to(of_image).mT * queries.shape[-1] ** -0.5


def mean_over(values: Tensor, counted: Tensor) -> Tensor:
    """Mean of the values where `counted` is 1; 0 where it never is."""
    return (values * counted).sum() / counted.sum().clamp(min=1)


def facts_loss(student: Student, room: Classroom, chosen: Tensor, features: Tensor) -> Tensor:
    """Cross-entropy of what patches show, and of whether they show anything."""
    shown = room.shown[chosen].long()
    present = (shown != NOTHING).float()
    place = shown.clamp(max=MOST - 1).unsqueeze(-1)
    logits = student.facts(features)
    *classes, flags, presence = logits.split([*CLASSES, EXTREMES, 1], dim=-1)
    truth = room.facts[chosen].gather(1, place.expand(-1, -1, len(FACTS)))
    losses = [
        F.cross_entropy(each.transpose(1, 2), truth[..., number], reduction="none")
        for number, each in enumerate(classes)
    ]
    flagged = room.flags[chosen].gather(1, place.expand(-1, -1, EXTREMES)).float()
    losses.append(F.binary_cross_entropy_with_logits(flags, flagged, reduction="none").mean(-1))
    seen = F.binary_cross_entropy_with_logits(presence[..., 0], present)
    return torch.stack([mean_over(loss, present) for loss in losses]).mean() + 0.2 * seen


def naming_loss(student: Student, room: Classroom, chosen: Tensor, of_image: Tensor) -> Tensor:
    """Cross-entropy of the words for colour and kind at the patches that show an object."""
    shown = room.shown[chosen].long()
    facts = room.facts[chosen].gather(1, shown.clamp(max=MOST - 1)[..., None].expand(-1, -1, 2))
    wanted = torch.stack([student.kind_ids[facts[..., 0]], student.colour_ids[facts[..., 1]]], dim=-1)
    said = student.llava.logits(of_image).log_softmax(-1).gather(-1, wanted).mean(-1)
    return mean_over(-said, (shown != NOTHING).float())


def grounding_loss(room: Classroom, chosen: Tensor, pointed: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of the patches that the named objects cover, in the share that they cover."""
    coverage = room.coverage[chosen].float()
    wanted = targets.float() @ coverage
    total = wanted.sum(-1, keepdim=True)
    loss = -(wanted / total.clamp(min=1) * pointed.log_softmax(-1)).sum(-1)
    return mean_over(loss, (total[..., 0] > 0).float())


@dataclass(frozen=True)
class Losses:
    """Terms of one step."""

    text: Tensor
    dense: Tensor
    naming: Tensor
    grounding: Tensor

    @property
    def total(self) -> Tensor:
        """The weighted sum."""
        return self.text + DENSE * self.dense + NAMING * self.naming + GROUNDING * self.grounding


def losses_of(student: Student, room: Classroom, chosen: Tensor, lessons: Tensor) -> Losses:
    """Losses of m lessons (B, m) of each of B scenes."""
    features = student.image_tokens(room, chosen)
    rows = chosen[:, None]
    hidden = student.hidden_states(room, chosen, features, room.ids[rows, lessons].long())
    of_image, of_lessons = student.of_image(hidden), student.of_lessons(hidden, lessons.shape[1])
    labels = room.labels[rows, lessons].long()
    logits = student.llava.logits(of_lessons[:, :, :-1])
    text = F.cross_entropy(logits.flatten(0, 2), labels[:, :, 1:].flatten(), ignore_index=IGNORED)
    pointed = student.pointed(of_image, of_lessons, room.starts[rows, lessons])
    return Losses(
        text=text,
        dense=facts_loss(student, room, chosen, features),
        naming=naming_loss(student, room, chosen, of_image),
        grounding=grounding_loss(room, chosen, pointed, room.targets[rows, lessons]),
    )


@torch.no_grad()
def figures(student: Student, room: Classroom, batch: int = 50) -> dict[str, dict[str, float]]:
    """Shares of right answers by kind of lesson, of right facts at patches, and of pointers that hit."""
    student.eval()
    right, asked = torch.zeros(len(LESSON_KINDS)), torch.zeros(len(LESSON_KINDS))
    known, present, hit, pointing = torch.zeros(len(FACTS)), 0.0, 0.0, 0.0
    for chosen in torch.arange(len(room), device=room.views.device).split(batch):
        features = student.image_tokens(room, chosen)
        hidden = student.hidden_states(room, chosen, features, room.ids[chosen].long())
        of_lessons = student.of_lessons(hidden, LESSONS)
        labels = room.labels[chosen].long()[:, :, 1:]
        said = student.llava.logits(of_lessons[:, :, :-1]).argmax(-1)
        whole = ((said == labels) | (labels == IGNORED)).all(-1).float().flatten().cpu()
        kinds = room.kinds[chosen].flatten().cpu()
        right.index_add_(0, kinds, whole)
        asked.index_add_(0, kinds, torch.ones_like(whole))
        shown = room.shown[chosen].long()
        there = (shown != NOTHING).float()
        truth = room.facts[chosen].gather(1, shown.clamp(max=MOST - 1)[..., None].expand(-1, -1, len(FACTS)))
        guesses = torch.stack(
            [each.argmax(-1) for each in student.facts(features).split([*CLASSES, EXTREMES + 1], -1)[:-1]], -1
        )
        known += ((guesses == truth).float() * there[..., None]).sum((0, 1)).cpu()
        present += float(there.sum())
        wanted = room.targets[chosen].float() @ room.coverage[chosen].float()
        best = student.pointed(student.of_image(hidden), of_lessons, room.starts[chosen]).argmax(-1, keepdim=True)
        hit += float((wanted.gather(-1, best) > 25).sum())
        pointing += float((wanted.sum(-1) > 0).sum())
    student.train()
    answers = {kind: float(right[n] / asked[n].clamp(min=1)) for n, kind in enumerate(LESSON_KINDS)}
    facts = {name: float(known[n] / max(present, 1)) for n, name in enumerate(FACTS)}
    return {"answers": answers, "patches": facts, "pointing": {"hit": hit / max(pointing, 1)}}


def train(student: Student, room: Classroom, unseen: Classroom, arguments: argparse.Namespace) -> float:
    """Run all steps that are not done yet; the seconds they took."""
    device = room.views.device
    tables = [student.llava.language_model.embed_tokens.weight, student.llava.lm_head.weight]
    optimizers = Optimizers(student, tables, arguments.matrix_rate, arguments.rate)
    state = arguments.folder.with_name(f"{arguments.folder.name}.state")
    identity = {"steps": arguments.steps, "batch": arguments.batch, "scenes": len(room), "seed": arguments.seed}
    done = load_state(state, student, optimizers, **identity) if arguments.resume else 0
    began = time.perf_counter()
    for step in range(done, min(arguments.steps, arguments.stop_after or arguments.steps)):
        # Drawn on the CPU, the same on every device.
        draw = torch.Generator().manual_seed(arguments.seed * 1_000_003 + step)
        chosen = torch.randint(len(room), (arguments.batch,), generator=draw).to(device, non_blocking=True)
        lessons = (
            torch.rand(arguments.batch, LESSONS, generator=draw).argsort(1)[:, :TAUGHT].to(device, non_blocking=True)
        )
        if step < arguments.tower_steps:
            loss = facts_loss(student, room, chosen, student.image_tokens(room, chosen))
            terms = None
        else:
            terms = losses_of(student, room, chosen, lessons)
            loss = terms.total
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizers.step(step, arguments.steps)
        if (step + 1) % arguments.report == 0 or step + 1 == arguments.steps:
            report(step + 1, time.perf_counter() - began, loss, terms, figures(student, unseen))
            save_state(state, student, optimizers, step + 1, **identity)
    return time.perf_counter() - began


def report(step: int, seconds: float, loss: Tensor, terms: Losses | None, found: dict[str, dict[str, float]]) -> None:
    """Print one block of figures."""
    parts = () if terms is None else ("text", "dense", "naming", "grounding")
    shown = "".join(f", {name} {getattr(terms, name).detach():.3f}" for name in parts)
    print(f"step {step} after {seconds:.0f} s: loss {loss.detach():.3f}{shown}")
    for title, values in found.items():
        print(f"  {title}: " + " ".join(f"{name} {value:.2f}" for name, value in values.items()), flush=True)


def save(student: Student, tokenizer: bytes, folder: Path, dtype: torch.dtype) -> None:
    """Write the folder as a published LLaVA-1.5: transformers' layout, with LLaMA's SentencePiece file."""
    student.llava.network.to(dtype).save_pretrained(folder)
    (folder / "tokenizer.model").write_bytes(tokenizer)


def main(argv: list[str] | None = None) -> None:
    """Draw, train, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the model")
    parser.add_argument("--scenes", type=int, default=80_000, help="drawn to learn from")
    parser.add_argument("--steps", type=int, default=4_000, help="of the optimizer")
    parser.add_argument("--tower_steps", type=int, default=500, help="first steps, in which only CLIP learns")
    parser.add_argument("--batch", type=int, default=192, help="scenes in a step")
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate of AdamW")
    parser.add_argument("--matrix_rate", type=float, default=0.02, help="peak learning rate of Muon")
    parser.add_argument("--unseen", type=int, default=300, help="scenes for the figures")
    parser.add_argument("--report", type=int, default=500, help="steps between figures, and between states")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that draw")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--stop_after", type=int, default=0, help="steps after which a run ends early, to be resumed")
    parser.add_argument("--resume", action="store_true", help="continue from FOLDER.state")
    arguments = parser.parse_args(argv)
    torch.backends.cuda.matmul.allow_tf32 = True
    tokenizer = train_tokenizer()
    seed_torch(arguments.seed, "tiny-llava")
    student = Student(tokenizer).to(arguments.device)
    drawing = {"seed": arguments.seed, "tokenizer": tokenizer, "view": student.view, "workers": arguments.workers}
    began = time.perf_counter()
    room = draw_classroom(arguments.scenes, split="train", **drawing).to(torch.device(arguments.device))
    unseen = draw_classroom(arguments.unseen, split="test", **drawing).to(torch.device(arguments.device))
    drawn = time.perf_counter() - began
    parameters = sum(p.numel() for p in student.llava.parameters())
    print(f"{parameters / 1e6:.2f} M parameters; {len(room)} scenes drawn in {drawn:.0f} s", flush=True)
    seconds = train(student, room, unseen, arguments)
    found = figures(student, unseen)
    save(student, tokenizer, arguments.folder, torch.bfloat16)
    settings = {name: getattr(arguments, name) for name in SETTINGS}
    write_json(
        arguments.folder / "figures.json",
        {**found, "parameters": parameters, "seconds": seconds, "drawing_seconds": drawn, "settings": settings},
    )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
