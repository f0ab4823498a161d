"""Seconds for ten questions about one image, as the predictor answers them and without sharing anything:
`python -m benchmarks.generation --size tiny`.

The model learns one answer by heart first: two words, one query bank, a full stop. `tiny` is the preset; `mid` has the
7B model's number of image tokens and a language model of 26 million parameters, so that matrix products dominate.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from transformers import CLIPVisionConfig, DynamicCache, LlamaConfig, LlavaConfig

from anchorseg.inference.generation import BankGrammar, Generated
from anchorseg.inference.predictor import AnchorSegPredictor, Answer
from anchorseg.method.modeling import AnchorSegModel, visibility
from anchorseg.method.options import Method
from anchorseg.method.query_bank import locate_banks
from anchorseg.method.tokens import TokenRegistry, TokenStrings
from anchorseg.weights.folder import tiny_tokenizer_model
from anchorseg.weights.presets import preset_config
from benchmarks.naive import clip_features
from dataset.batch import Batch
from dataset.collator import Collator
from dataset.sample import AnswerPart, Conversation, Sample, TargetSlot, Turn
from utils.seeding import generator_for, seed_torch

QUERIES = tuple(f"What is the {'very ' * count}red thing in this image?" for count in range(10))
MAX_NEW_TOKENS = 20
LESSONS = 30


@torch.inference_mode()
def one_by_one(
    model: AnchorSegModel, batch: Batch, *, max_new_tokens: int = 128, answer: list[int] | None = None
) -> Generated:
    """The plain way, as reference: one question in its whole prompt, every id a step of its own.

    Args:
        model: in evaluation mode.
        batch: one image with one question.
        max_new_tokens: most ids the answer may have.
        answer: ids instead of the model's choice.
    """
    eos, llava = model.config.token_ids["eos"], model.llava
    following = dict(itertools.pairwise(model.bank_ids))
    images, asked = batch.images, batch.conversations
    valid = model.token_valid(asked, images.patch_valid)
    visible = visibility(asked.segments, valid, zero_padding=model.method.padding_attention == "zero")
    cache = DynamicCache(config=llava.language_model.config)
    features = clip_features(model, images.language_pixels, images.patch_valid)
    embeddings = llava.embed(asked.input_ids, features, asked.image_start)
    states = [llava.hidden_states(embeddings, asked.positions, visible, cache)]
    ids: list[int] = []
    for step in range(max_new_tokens):
        if answer is not None:
            chosen = answer[step] if step < len(answer) else eos
        elif ids and ids[-1] in following:
            chosen = following[ids[-1]]
        else:
            (piece,) = BankGrammar(model.bank_ids).choose(llava.logits(states[-1][:, -1]))
            chosen = piece[0]
        if chosen == eos:
            break
        ids.append(chosen)
        token = torch.tensor([[chosen]], device=valid.device)
        valid = torch.cat([valid, torch.ones_like(valid[:, :1])], dim=1)
        position = asked.positions[:, -1:] + len(ids)
        states.append(
            llava.hidden_states(llava.language_model.embed_tokens(token), position, valid.unsqueeze(1), cache)
        )
    sequence = torch.cat([asked.input_ids, asked.input_ids.new_tensor([ids])], dim=1)
    positions = locate_banks(sequence, model.bank_ids)
    context = model.image_context(images, asked, states[0])
    segmentation = model.segment(torch.cat(states, dim=1), positions, context)
    return Generated([ids], segmentation, positions.rows)


def build(size: str) -> tuple[AnchorSegModel, TokenRegistry]:
    """A random model of size `tiny` or `mid`."""
    method = Method()
    registry = TokenRegistry.create(tiny_tokenizer_model(), TokenStrings.for_bank(method.num_latents))
    config = preset_config("tiny", method, registry)
    if size == "mid":
        text = LlamaConfig(
            **{"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8, "num_attention_heads": 8},
            vocab_size=len(registry),
            pad_token_id=None,
        )
        vision = CLIPVisionConfig(**{**config.language_config.vision_config.to_dict(), "image_size": 288})
        config.language_config = LlavaConfig(
            vision_config=vision, text_config=text, vision_feature_layer=-1, image_seq_length=24**2
        )
    seed_torch("generation", size)
    return AnchorSegModel(config), registry


def photograph(seed: int) -> np.ndarray:
    """An image of noise, (60, 80, 3) uint8."""
    return generator_for("generation", seed).integers(0, 256, (60, 80, 3)).astype(np.uint8)


def sample(image: np.ndarray, queries: Sequence[str], answer: tuple[AnswerPart, ...] | None) -> Sample:
    """Questions about an image, each a conversation with the same answer."""
    return Sample(
        record="noise",
        image=image,
        conversations=tuple(Conversation((Turn(query, answer),)) for query in queries),
        masks=np.ones((1, *image.shape[:2]), dtype=bool),
    )


def teach(model: AnchorSegModel, collator: Collator) -> None:
    """Let the model learn to answer every query with one target."""
    batch = collator([sample(photograph(0), QUERIES[::3], ("It is", TargetSlot(0), "."))])
    optimizer = torch.optim.AdamW(model.llava.language_model.parameters(), lr=1e-3)
    for _ in range(LESSONS):
        output = model(batch)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(output.logits, output.labels).backward()
        optimizer.step()
    model.eval()


def median_seconds(call: Callable[[], object], repeats: int) -> float:
    """Median time of some calls, after one that is not counted."""
    call()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def main() -> None:
    """Teach a model, then print the seconds of the three ways and their share of the plain one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=["tiny", "mid"], default="tiny")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    model, registry = build(arguments.size)
    predictor = AnchorSegPredictor(model, registry)
    teach(model, predictor.collator)
    image = photograph(1)

    def plain() -> list[list[int]]:
        batches = [predictor.collator([sample(image, [query], None)]) for query in QUERIES]
        return [one_by_one(model, batch, max_new_tokens=MAX_NEW_TOKENS).ids[0] for batch in batches]

    def one_image() -> list[Answer]:
        predictor.set_image(image)
        return [predictor.predict(query, raw_prompt=True, max_new_tokens=MAX_NEW_TOKENS) for query in QUERIES]

    def at_once() -> list[Answer]:
        predictor.set_image(image)
        return predictor.predict_batch(QUERIES, raw_prompt=True, max_new_tokens=MAX_NEW_TOKENS)

    texts = [registry.decode(ids) for ids in plain()]
    assert texts == [answer.text for answer in one_image()] == [answer.text for answer in at_once()]
    print(f"{arguments.size}: {len(QUERIES)} questions, first answer {texts[0]!r}")
    reference = median_seconds(plain, arguments.repeats)
    print(f"each by itself   {reference:7.3f} s")
    for name, way in (("predict", one_image), ("predict_batch", at_once)):
        seconds = median_seconds(way, arguments.repeats)
        print(f"{name:16} {seconds:7.3f} s  {seconds / reference:.3f}")


if __name__ == "__main__":
    main()
