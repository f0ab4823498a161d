"""Generation: the model writes its own answers, and the states it wrote them with give the masks.

A query bank costs one step, for its ids are certain once it begins. The image costs one reading, however many questions
are asked about it.

With graphs captured (`AnchorSegModel.capture_graphs`) the same answers come from `graph_decoder`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from anchorseg.inference.grammar import Asked, BankGrammar, Generated
from anchorseg.inference.graph_decoder import answer_with_graphs
from anchorseg.inference.prefix import ImagePrefix, PackedQuestions, prefill_images
from anchorseg.inference.written import segment_written
from anchorseg.method.bank_length import ends, first_latents
from anchorseg.method.modeling import AnchorSegModel
from dataset.batch import PREFIX, Batch


@torch.inference_mode()
def generate(
    model: AnchorSegModel, batch: Batch, *, max_new_tokens: int = 128, answer: Sequence[int] | None = None
) -> Generated:
    """Answer every row of a batch greedily and decode the masks of the targets written.

    Args:
        model: in evaluation mode.
        batch: prompts that end with `ASSISTANT:`, one conversation a row.
        max_new_tokens: most ids an answer may have; an unfinished bank at the end gives no target.
        answer: ids that every row gets instead of the model's choice.
    """
    asked = batch.conversations
    questions = [row[own].tolist() for row, own in zip(asked.input_ids, asked.segments > PREFIX, strict=True)]
    images = prefill_images(model, batch.images, asked.prefixes(len(batch.images)))
    rows = asked.row_images.tolist()
    return answer_questions(model, images, questions, rows, max_new_tokens=max_new_tokens, answer=answer)


@torch.inference_mode()
def answer_questions(
    model: AnchorSegModel,
    images: ImagePrefix,
    questions: Sequence[Sequence[int]],
    rows: Sequence[int],
    *,
    max_new_tokens: int = 128,
    answer: Sequence[int] | None = None,
    targets: bool = True,
    token_maps: bool = False,
) -> Generated:
    """Answer questions about images that are read already, all at once.

    Each question adds keys and values of its own ids only. A step computes its attention over the columns of all
    questions of the image, so ask in groups of some tens.

    Args:
        model: in evaluation mode.
        images: from `prefill_images`; it is not changed and may be used again.
        questions: ids of each question after the image, up to `ASSISTANT:`. Those of a follow-up question begin with
            the dialogue before it, whose targets are not drawn again.
        rows: image of each question, ascending.
        max_new_tokens: most ids an answer may have; an unfinished bank at the end gives no target.
        answer: ids that every question gets instead of the model's choice, to compare with the same answer in a prompt.
        targets: whether the model may choose a query bank.
        token_maps: give the similarity map of every token of a bank, too.
    """
    asked = Asked(
        questions=questions,
        rows=rows,
        max_new_tokens=max_new_tokens,
        answer=answer,
        targets=targets,
        token_maps=token_maps,
    )
    if model.captured is not None and questions:
        return answer_with_graphs(model, model.captured, images, asked)
    eos = model.config.token_ids["eos"]
    grammar = BankGrammar(model.bank_ids, ends_itself=model.bank_rule.chosen, targets=targets)
    packed = PackedQuestions(model, images, rows)
    written: list[list[int]] = [[] for _ in questions]
    pieces: dict[int, Sequence[int]] = dict(enumerate(questions))
    while pieces:
        states = packed.extend(pieces)
        if answer is None:
            chosen = grammar.choose(model.language.logits(states))
            if model.bank_rule.chosen:
                ended = _end_banks(model, packed, pieces, written)
                chosen = [ended.get(question, ids) for question, ids in zip(pieces, chosen, strict=True)]
        else:
            chosen = [grammar.dictate(answer, len(written[question])) for question in pieces]
        cut = {q: ids[: max_new_tokens - len(written[q])] for q, ids in zip(pieces, chosen, strict=True)}
        pieces = {question: ids for question, ids in cut.items() if ids and ids[0] != eos}
        for question, ids in pieces.items():
            written[question] += ids
    in_order, hidden, segments = packed.in_order()
    owners = segments.cpu() - 1
    return segment_written(model, images, asked, written, ids=in_order.cpu(), owners=owners, hidden=hidden)


def _end_banks(
    model: AnchorSegModel, packed: PackedQuestions, pieces: Mapping[int, Sequence[int]], written: list[list[int]]
) -> dict[int, tuple[int, ...]]:
    """Keep of banks whose latents were just read what the model would have written, and say that `<SEG>` follows."""
    ended = {}
    for question, piece in pieces.items():
        if piece[0] == model.bank_ids[0] and written[question]:
            (count,) = first_latents(ends(model.language.logits(packed.states(question)).unsqueeze(0), model.bank_ids))
            packed.take_back(question, len(piece) - count)
            del written[question][len(written[question]) - len(piece) + count :]
            ended[question] = model.bank_ids[-1:]
    return ended
