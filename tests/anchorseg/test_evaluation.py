"""The evaluator with a small model: every scoring under every protocol, any number of ranks and of rows at once."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

import eval_reasonseg
from anchorseg.evaluation.evaluator import Evaluator
from anchorseg.evaluation.pictures import FixedPictures, Gallery
from anchorseg.evaluation.predictions import Recorder
from anchorseg.evaluation.protocols import Responder, answer_protocol, slot_counts
from anchorseg.evaluation.rejection import one_pass, two_passes
from anchorseg.evaluation.scoring import SCORINGS
from anchorseg.inference.collate import make_collator
from anchorseg.method.modeling import AnchorSegModel
from anchorseg.weights.folder import save_model
from dataset.drawn.writer import write_scenes
from dataset.sample import Conversation, Question, RejectSlot, TargetSlot, Turn
from tests.conftest import make_batch, make_model, make_sample
from tests.parity import gres
from utils import metrics
from utils.distributed import is_main
from utils.errors import DataError, exit_on_error

ROOT = Path(__file__).parents[2]
PHRASES = ("the red thing", "the ghost", "the blue thing")
ANSWERS = {"the red thing": TargetSlot(0), "the ghost": RejectSlot(), "the blue thing": TargetSlot(1)}
PROTOCOLS = {
    "reason": ("forced", "generate"),
    "refer": ("forced", "generate"),
    "gres": ("forced", "symmetric", "generate"),
    "zom": ("forced", "symmetric", "generate"),
    "muse": ("forced", "generate"),
    "see": ("generate",),
}
SCORES = {
    "reason": ["giou", "ciou"],
    "refer": ["giou", "ciou", "see_acc", "p_box_0.5", "mean_box_iou", "p_0.5", "p_0.6", "p_0.7", "p_0.8", "p_0.9"],
    "gres": ["giou", "ciou", "giou_rela", "ciou_rela", "n_acc", "t_acc"],
    "zom": ["giou", "ciou", "giou_rela", "ciou_rela", "n_acc", "t_acc"],
    "muse": ["giou", "ciou"],
    "see": ["giou", "ciou", "see_acc"],
}


def replies(responder, sample, protocol, scoring):
    way = answer_protocol(protocol, SCORINGS[scoring])
    with torch.inference_mode():
        return way.replies(responder, sample, way.prepare(responder.collator, sample))


def alone(phrase, answer):
    return Conversation((Turn(f"What is {phrase} in this image?", answer),))


def listed(phrases, slots):
    """One conversation with a slot for each phrase."""
    named = [part for phrase, slot in zip(phrases, slots, strict=True) for part in (f"{phrase}:", slot)]
    return Conversation((Turn(f"What are {', '.join(phrases)} in this image?", ("Sure,", *named, ".")),))


class Source:
    """Images of noise with two boxes, asked about the phrases; a MUSE question means both boxes."""

    def __init__(self, scoring, count=2):
        self.scoring, self.protocols, self.count = scoring, PROTOCOLS[scoring], count
        self.phrases = {"reason": PHRASES[:1], "refer": PHRASES[::2], "muse": PHRASES[:2]}.get(scoring, PHRASES)

    def __len__(self):
        return self.count

    def evaluation_sample(self, index, *, protocol):
        base = make_sample(index, size=(60, 80) if index % 2 else (48, 64))
        red, blue = base.masks
        both = self.scoring == "muse"
        truth = {"the red thing": (red, (0, 2)) if both else (red, (0,)), "the blue thing": (blue, (2,))}
        masks = [truth.get(phrase, (np.zeros_like(red), ()))[0] for phrase in self.phrases]
        masks += [np.zeros_like(red)] * (3 - len(masks))
        masks[2] = blue
        places = {phrase: 2 if phrase == "the blue thing" else number for number, phrase in enumerate(self.phrases)}
        questions = [Question(phrase, truth.get(phrase, (None, ()))[1]) for phrase in self.phrases]
        slots = [
            RejectSlot() if protocol == "forced" and not q.targets and not both else TargetSlot(places[q.text])
            for q in questions
        ]
        if protocol == "generate":
            conversations = [alone(phrase, None) for phrase in self.phrases]
        elif both:
            given = [[TargetSlot(mask) for mask in q.targets or (places[q.text],)] for q in questions]
            conversations = [alone(p, ("It is", *some, ".")) for p, some in zip(self.phrases, given, strict=True)]
        else:
            conversations = [listed(self.phrases, slots)]
        return dataclasses.replace(
            base, masks=np.stack(masks), conversations=tuple(conversations), questions=tuple(questions)
        )


def learn(model, registry, steps=60):
    """Teach the model by heart which phrases have a target."""
    taught = [alone(phrase, ("It is", slot, ".")) for phrase, slot in ANSWERS.items()]
    taught += [listed(PHRASES, [ANSWERS[phrase] for phrase in PHRASES])]
    samples = [dataclasses.replace(make_sample(seed), conversations=tuple(taught)) for seed in range(2)]
    batch = make_batch(model, registry, samples)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        output = model(batch)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(output.logits, output.labels).backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def trained():
    model, registry = make_model()
    return learn(model, registry), registry


def evaluator(model, registry, **limits):
    collator = make_collator(model.config, registry, max_length=2048)
    return Evaluator(model, registry, collator, max_new_tokens=20, **limits)


CASES = [(scoring, protocol) for scoring, protocols in PROTOCOLS.items() for protocol in protocols]


@pytest.mark.parametrize(("scoring", "protocol"), CASES)
def test_every_scoring_under_every_protocol(trained, scoring, protocol):
    source = Source(scoring)
    result = evaluator(*trained).evaluate(source, name="set", protocol=protocol)
    assert [(row.index, row.question) for row in result.rows] == [
        (index, number) for index in range(2) for number in range(len(source.phrases))
    ]
    assert [row.query for row in result.rows] == [*source.phrases] * 2
    assert list(result.scores) == SCORES[scoring]
    empty = {"see_acc"} if (scoring, protocol) == ("refer", "forced") else set()
    assert {name for name, value in result.scores.items() if value is None} == empty
    assert all(0 <= value <= 1 for value in result.scores.values() if value is not None)
    assert (result.giou, result.ciou) == (result.scores["giou"], result.scores["ciou"])
    assert result.leaks == (protocol == "forced" and scoring in ("gres", "zom"))
    assert all((row.answer is None) == (protocol != "generate") for row in result.rows)
    asked = protocol != "forced" or scoring in ("gres", "zom")
    assert all(row.found == (row.has_target if asked else True) for row in result.rows)
    written = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert (written["num_samples"], written["num_questions"]) == (2, len(result.rows))


def test_forced_masks_are_those_of_the_questions_own_slots(trained):
    model, registry = trained
    result = evaluator(model, registry).evaluate(Source("refer"), name="set", protocol="forced")
    sample = Source("refer").evaluation_sample(1, protocol="forced")
    with torch.inference_mode():
        masks = model(make_batch(model, registry, [sample])).segmentation.masks[0] > 0
    expected = [
        metrics.intersection_and_union(mask, sample.masks[question.targets[0]])
        for mask, question in zip(masks, sample.questions, strict=True)
    ]
    assert [row.pairs for row in result.rows[2:]] == [(pair,) for pair in expected]


def test_a_muse_question_takes_as_many_slots_as_it_has_targets(trained):
    result = evaluator(*trained).evaluate(Source("muse"), name="set", protocol="forced")
    assert [row.num_masks for row in result.rows] == [2, 1] * 2
    assert [len(row.pairs) for row in result.rows] == [2, 1] * 2


def test_several_rows_at_once_equal_one_at_a_time(trained, monkeypatch):
    """Other shapes sum in another order: logits agree within a tolerance, masks but for pixels whose logit is in it."""
    segment, seen = AnchorSegModel.segment, []

    def recorded(self, *arguments):
        segmentation = segment(self, *arguments)
        seen.extend(segmentation.masks[0])
        return segmentation

    monkeypatch.setattr(AnchorSegModel, "segment", recorded)
    runs = []
    for rows in (1, 2, 8):
        result = evaluator(*trained, max_rows=rows).evaluate(Source("see"), name="set", protocol="generate")
        runs.append((result.rows, [*seen]))
        seen.clear()
    (rows, logits), *others = runs
    assert [row.found for row in rows] == [True, False, True] * 2 and len(logits) == 4
    for other_rows, other_logits in others:
        unsure = []
        for found, wanted in zip(other_logits, logits, strict=True):
            tolerance = 1e-5 * float(wanted.abs().max())
            assert (found - wanted).abs().max() <= tolerance
            unsure.append(int((wanted.abs() <= tolerance).sum()))
        for found, wanted in zip(other_rows, rows, strict=True):
            assert dataclasses.replace(found, pairs=(), box_iou=None) == dataclasses.replace(
                wanted, pairs=(), box_iou=None
            )
            counts = np.abs(np.subtract(found.pairs, wanted.pairs))
            assert counts.max(initial=0) <= max(unsure)


@pytest.mark.parametrize("protocol", ["forced", "generate"])
def test_images_read_ahead_give_the_same_rows(trained, protocol):
    here, ahead = (
        evaluator(*trained, workers=workers).evaluate(Source("refer"), name="set", protocol=protocol)
        for workers in (0, 2)
    )
    assert here.rows == ahead.rows


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sample_that_cannot_be_read_is_named(trained, workers):
    class Broken(Source):
        def evaluation_sample(self, index, *, protocol):
            raise DataError("photo.jpg", "it is not a picture")

    with pytest.raises(DataError, match=r"photo\.jpg: it is not a picture"):
        evaluator(*trained, workers=workers).evaluate(Broken("refer"), name="set", protocol="forced")


@pytest.mark.parametrize("change", ["a slot less", "a slot more", "a conversation more"])
def test_slots_are_never_paired_with_questions_by_position_alone(trained, change):
    sample = Source("refer").evaluation_sample(0, protocol="forced")
    slots = {"a slot less": [PHRASES[0]], "a slot more": PHRASES}.get(change, [])
    conversations = [listed(slots, [TargetSlot(0)] * len(slots))] if slots else [*sample.conversations] * 2
    sample = dataclasses.replace(sample, conversations=tuple(conversations))
    with pytest.raises(DataError, match=r"sample 0: its conversations have .* slot"):
        slot_counts(sample, rejections=False)
    model, registry = trained
    responder = Responder(model, registry, make_collator(model.config, registry, max_length=2048))
    for protocol in ("forced", "symmetric"):
        with pytest.raises(DataError, match="sample 0"):
            replies(responder, sample, protocol, "refer")
    asked = dataclasses.replace(sample, conversations=(alone(PHRASES[0], None),))
    with pytest.raises(DataError, match=r"1 conversation\(s\) for 2 question\(s\)"):
        replies(responder, asked, "generate", "refer")


def test_a_rejection_has_a_mask_in_the_published_protocol_alone():
    sample = Source("gres").evaluation_sample(0, protocol="forced")
    assert slot_counts(sample, rejections=True) == [1, 1, 1]
    with pytest.raises(DataError, match=r"have \[2\] slot\(s\) for masks, but its questions need \[1, 1, 1\]"):
        slot_counts(sample, rejections=False)


def test_two_passes_decide_as_full_logits_do_and_draw_every_slot(trained):
    model, registry = trained
    batch = make_batch(model, registry, [Source("gres").evaluation_sample(0, protocol="forced")])
    segment_id, reject_id = registry.segment_id, registry.reject_id
    with torch.inference_mode():
        predicted = two_passes(model, batch)
        ids, hidden = batch.conversations.input_ids, model.prefill(batch.images, batch.conversations)
        refused = gres.rejected(ids, model.llava.logits(hidden), segment_id, reject_id)
    slots = (ids == segment_id) | (ids == reject_id)
    assert predicted.rejected.tolist() == refused[slots].tolist() == [False, True, False]
    assert predicted.segmentation.masks[0].shape == (3, 48, 64)


def test_the_symmetric_decision_does_not_see_the_truth(trained):
    model, registry = trained
    responder = Responder(model, registry, make_collator(model.config, registry, max_length=2048))
    sample = Source("gres").evaluation_sample(0, protocol="symmetric")
    other = dataclasses.replace(
        sample, masks=~sample.masks, questions=tuple(Question(phrase, ()) for phrase in PHRASES)
    )
    first, second = (replies(responder, each, "symmetric", "gres") for each in (sample, other))
    assert [reply.found for reply in first] == [reply.found for reply in second] == [True, False, True]
    assert all((a.masks == b.masks).all() for a, b in zip(first, second, strict=True))


def test_the_symmetric_decision_is_taken_before_the_bank(trained):
    model, registry = trained
    first = Source("gres").evaluation_sample(0, protocol="symmetric")
    # The same prompt up to the ghost's bank: what follows may not change the decision.
    short = dataclasses.replace(
        first, conversations=(Conversation((dataclasses.replace(
            first.conversations[0].turns[0], answer=first.conversations[0].turns[0].answer[:5]),)),)
    )  # fmt: skip
    with torch.inference_mode():
        long_, short_ = (one_pass(model, make_batch(model, registry, [sample])) for sample in (first, short))
        batch = make_batch(model, registry, [short])
        start = (batch.conversations.input_ids[0] == registry.bank_ids[0]).nonzero()[-1].item()
        choice = model.llava.logits(model.prefill(batch.images, batch.conversations))[0, start - 1].argmax().item()
    assert choice == registry.reject_id
    assert short_.rejected.tolist() == long_.rejected.tolist()[:2] == [False, True]


def test_only_the_published_protocol_of_rejections_counts_a_logit_of_zero(trained):
    model, registry = make_model()
    model.eval()
    for network in model.sam.mask_decoder.output_hypernetworks_mlps:
        torch.nn.init.zeros_(network.layers[-1].weight)
        torch.nn.init.zeros_(network.layers[-1].bias)
    responder = Responder(model, registry, make_collator(model.config, registry, max_length=2048))

    def drawn(scoring, protocol):
        sample = Source(scoring).evaluation_sample(0, protocol=protocol)
        return {bool(reply.masks.all()) for reply in replies(responder, sample, protocol, scoring)}

    assert drawn("gres", "forced") == drawn("zom", "forced") == {True}
    assert drawn("gres", "symmetric") == drawn("refer", "forced") == drawn("muse", "forced") == {False}


def test_a_baseline_without_latents_is_evaluated_alike():
    from tests.anchorseg.test_modeling import LISA

    model, registry = make_model(LISA)
    learn(model, registry)
    for protocol in PROTOCOLS["gres"]:
        result = evaluator(model, registry).evaluate(Source("gres"), name="set", protocol=protocol)
        assert [row.found for row in result.rows] == [True, False, True] * 2


RANK = """
import sys, torch, torch.distributed as dist
from tests.anchorseg.test_evaluation import untrained_rows
dist.init_process_group("gloo")
rows = untrained_rows()
if dist.get_rank() == 0:
    open(sys.argv[1], "w").write(rows)
dist.destroy_process_group()
"""


def untrained_rows() -> str:
    model, registry = make_model()
    run, made = evaluator(model.eval(), registry), {}
    for scoring, protocol in (CASES[0], CASES[4], CASES[6]):
        gallery, fixed, recorder = Gallery(2), FixedPictures(5, 3), Recorder(scoring, protocol)
        result = run.evaluate(Source(scoring, 5), name=scoring, protocol=protocol, see=[gallery, fixed, recorder])
        shown = {group: [each.order for each in some] for group, some in gallery.of_all_ranks().items()}
        with tempfile.TemporaryDirectory() as folder:
            path = recorder.write(Path(folder))
            written = path.read_text() if is_main() else ""
        more = {"shown": shown, "fixed": list(fixed.of_all_ranks()), "written": written}
        made[f"{scoring} {protocol}"] = {**result.to_dict(), **more}
    return json.dumps(made)


def test_three_ranks_give_the_numbers_of_one_and_every_sample_once(tmp_path):
    ranks = 3
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "WORLD_SIZE": str(ranks)}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-c", RANK, str(tmp_path / "rows.json")]
    started = [
        subprocess.Popen(command, cwd=ROOT, env={**shared, "RANK": str(r)}, stderr=subprocess.PIPE, text=True)
        for r in range(ranks)
    ]
    messages = [process.communicate(timeout=300)[1] for process in started]
    assert [process.returncode for process in started] == [0] * ranks, messages
    written = json.loads((tmp_path / "rows.json").read_text())
    assert written == json.loads(untrained_rows())
    assert {result["num_samples"] for result in written.values()} == {5}
    assert all(len(result["written"].splitlines()) == len(result["rows"]) for result in written.values())
    assert all(result["fixed"] == [0, 2, 4] and any(result["shown"].values()) for result in written.values())


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, counts={"train": 1, "val": 2, "test": 3}, seed=0)
    return folder


def test_a_protocol_that_a_benchmark_does_not_have_is_refused_before_the_model_is_loaded(
    trained, scenes, tmp_path, capsys, monkeypatch
):
    save_model(*trained, tmp_path / "model")
    monkeypatch.setattr(eval_reasonseg, "make_evaluator", lambda *_: pytest.fail("the model was loaded"))
    arguments = ["--version", str(tmp_path / "model"), "--dataset_dir", str(scenes), "--protocol", "symmetric"]
    arguments += ["--output_dir", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as stopped, exit_on_error():
        eval_reasonseg.main(arguments)
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert "ReasonSeg|val: it has no protocol symmetric; allowed: forced, generate" in message


def test_nothing_to_score_is_refused(trained):
    with pytest.raises(DataError, match="empty: it holds no sample"):
        evaluator(*trained).evaluate(Source("reason", 0), name="empty", protocol="forced")


def test_the_script_writes_results_pictures_and_a_table(trained, scenes, tmp_path, capsys):
    save_model(*trained, tmp_path / "model")
    eval_reasonseg.main(
        ["--version", str(tmp_path / "model"), "--dataset_dir", str(scenes), "--protocol", "all", "--max_new_tokens",
         "20", "--val_dataset", "ReasonSeg|val||ReasonSeg|test", "--output_dir", str(tmp_path / "out"),
         "--vis_save_path", str(tmp_path / "pictures"), "--vis_limit", "1"]
    )  # fmt: skip
    results = json.loads((tmp_path / "out" / "results.json").read_text())["benchmarks"]
    assert {name: list(protocols) for name, protocols in results.items()} == {
        "ReasonSeg|val": ["forced", "generate"],
        "ReasonSeg|test": ["forced", "generate"],
    }
    assert results["ReasonSeg|test"]["forced"]["num_samples"] == 3
    assert len(list((tmp_path / "pictures").rglob("0000_0_*.png"))) == 4
    printed = capsys.readouterr().out.splitlines()
    assert (
        sum(line.startswith(("ReasonSeg|val forced: giou ", "ReasonSeg|test generate: giou ")) for line in printed) == 2
    )
    assert printed[-5].split() == ["benchmark", "protocol", "giou", "ciou"]
    assert printed[-1].split()[:2] == ["ReasonSeg|test", "generate"]
