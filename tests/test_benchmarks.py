"""Benchmarks run at their smallest setting; both ways give one loss; operations at real sizes stay within bounds."""

import json

import cv2
import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import backbones, flops, gpu, inference, launches, memory, naive, scaling, train_step
from benchmarks.counting import Counter, on_meta
from benchmarks.workload import build, collate, samples


@pytest.fixture(scope="module")
def seven_billion():
    return build("7b", dtype=flops.DTYPE, device="meta")


def last_line(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_train_step_runs_and_both_ways_give_one_loss(capsys):
    train_step.main(["--size", "tiny", "--images", "1", "--conversations", "2", "--repeats", "1"])
    printed = last_line(capsys)
    assert printed["loss"]["ours"] == pytest.approx(printed["loss"]["naive"], rel=1e-5)
    assert printed["operations"]["ours"] < printed["operations"]["naive"]
    assert all(cost["seconds"] > 0 and cost["peak_bytes"] > 2**20 for cost in printed["costs"].values())


def test_train_step_takes_the_options_that_save_memory(capsys):
    saving = ["--gradient_checkpointing", "on", "--train_embeddings", "new"]
    train_step.main(["--size", "tiny", "--images", "1", "--conversations", "1", "--repeats", "1", *saving])
    printed = last_line(capsys)
    assert printed["loss"]["ours"] == pytest.approx(printed["loss"]["naive"], rel=1e-5)


def test_both_ways_give_the_same_gradients():
    model, registry = build("tiny")
    steps = train_step.Steps(model, registry, samples(2, 2))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with naive.published(model):
        steps.plain_loss().backward()
    plain = [parameter.grad.clone() for parameter in trained if parameter.grad is not None]
    model.zero_grad()
    steps.loss(steps.stored).backward()
    ours = [parameter.grad for parameter in trained if parameter.grad is not None]
    assert len(ours) == len(plain) > 0
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_the_published_encoder_has_this_models_weights():
    model, _ = build("tiny")
    image = torch.randn(1, 3, 192, 192)
    mine, own = model.sam.image_encoder, model.sam.image_features(image)
    with naive.published(model):
        assert model.sam.image_encoder is not mine
        torch.testing.assert_close(model.sam.image_features(image), own, rtol=1e-4, atol=1e-5)
    assert model.sam.image_encoder is mine


def test_inference_and_scaling_run(capsys):
    inference.main(["--size", "tiny", "--images", "2", "--questions", "2", "--repeats", "1"])
    printed = last_line(capsys)
    assert set(printed["costs"]) == {"forced", "written"}
    read, write = (set(printed["parts"][name]) for name in ("read", "write"))
    assert read == {flops.VISION, flops.FORWARD, flops.MASK_ENCODER, "rest"} and write == {flops.FORWARD, "rest"}
    assert all(seconds > 0 for parts in printed["parts"].values() for seconds in parts.values())
    scaling.main(["--size", "tiny", "--counts", "1", "--heights", "60", "--ranks", "--repeats", "1"])
    assert set(last_line(capsys)["series"]) == {"conversations", "image height", "questions"}


def test_flops_runs_and_draws(tmp_path, capsys):
    picture = tmp_path / "operations.png"
    flops.main(["--size", "tiny", "--images", "1", "--conversations", "1", "2", "--plot", str(picture)])
    printed = last_line(capsys)
    assert printed["training"]["2"]["ratio_cached"] < printed["training"]["2"]["ratio"] < 1
    assert printed["answers"]["2"]["written"]["ratio"] < printed["answers"]["1"]["written"]["ratio"]
    assert cv2.imread(str(picture)).std() > 0


def test_linear_layers_and_attention_are_counted(seven_billion):
    model, registry = seven_billion
    batch = on_meta(collate(model, registry, samples(1, 1), share_prefix=True), flops.DTYPE)
    counter = Counter()
    with counter.watch(flops.large_modules(model)):
        model(batch)
    length, width, mlp, rank = batch.conversations.input_ids.shape[1], 4096, 11008, 8
    products = 4 * width**2 + 3 * width * mlp + 2 * 2 * rank * width
    attention = 2 * length * width
    assert counter.modules[flops.FORWARD] == 32 * 2 * length * (products + attention)


# At three conversations SAM's encoder is a fifth of what is left, so that 0.304 is reached and not the 0.30 aimed at.
@pytest.mark.parametrize(("conversations", "bound", "cached"), [(3, 0.30, 0.26), (9, 0.15, 0.13)])
def test_operations_of_a_7b_step(seven_billion, conversations, bound, cached):
    ratios = flops.summary(flops.training(*seven_billion, 2, conversations))
    assert ratios["ratio"] < bound
    assert ratios["ratio_cached"] < cached


QWEN = pytest.mark.parametrize("language_model", ["qwen3-vl", "qwen2.5-vl"])


def test_backbones_are_counted_side_by_side(capsys):
    backbones.main(["--size", "tiny", "--presets", "7b", "qwen3-vl-8b", "--mask_models", "sam2.1-large"])
    large = last_line(capsys)["counts"]["sam2.1-large"]
    for found in large.values():
        assert set(found["step"]) == set(flops.PARTS) and found["trained"] == sum(found["groups"].values())
        assert found["forced"]["1"] < found["forced"]["3"] < sum(found["step"].values())
    assert large["qwen3-vl-8b"]["groups"]["embeddings and head"] < large["7b"]["groups"]["embeddings and head"]
    assert large["qwen3-vl-8b"]["image_tokens"] == 6 * 9


@QWEN
def test_image_tokens_of_other_grids_are_counted_as_real_ones(language_model):
    counted = {}
    for device in ("meta", "cpu"):
        model, registry = build("tiny", device=device, language_model=language_model, mask_model="sam2.1-large")
        batch = collate(model, registry, samples(2, 1, height=120, width=300), share_prefix=True)
        images = (on_meta(batch, torch.float32) if device == "meta" else batch).images
        counter = Counter() if device == "meta" else FlopCounterMode(display=False)
        with counter.watch() if device == "meta" else counter, sdpa_kernel(SDPBackend.MATH):
            grids = tuple(frame.grid for frame in images.language_frames)
            features = model.language.image_features(images.language_pixels, images.patch_valid, grids)
        counted[device] = counter.total if device == "meta" else counter.get_total_flops()
    assert features.shape[:2] == (2, grids[0][0] * grids[0][1])
    assert counted["meta"] == counted["cpu"] > 0


def test_sizes_of_the_benchmarks_alone_are_of_llava():
    with pytest.raises(ValueError, match="mid is one of LLaVA's, not of qwen3-vl"):
        build("mid", device="meta", language_model="qwen3-vl")


def tiny_activations(device, *, checkpointing=False, **options):
    """Counted activations of a float32 step, and the bytes that autograd itself says that it saved."""
    model, registry = build("tiny", device=device, **options)
    batch = collate(model, registry, samples(2, 2, height=120, width=160), share_prefix=True)
    if device == "meta":
        batch = on_meta(batch, torch.float32)
    if checkpointing:
        model.language.adapted.activation_checkpointing_enable({"use_reentrant": False})
    saved = {}
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            saved[storage._cdata] = storage  # held, so that no other takes its place
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with sdpa_kernel(SDPBackend.MATH), hooks:
        counted = memory.activations(model, batch, memory.settings_of("tiny"))
    return counted, sum(storage.nbytes() for storage in saved.values())


@pytest.fixture(scope="module")
def counted_on_meta():
    return tiny_activations("meta")[0]


def test_activations_on_meta_are_those_of_real_tensors(counted_on_meta):
    counted, saved = tiny_activations("cpu")
    assert counted == counted_on_meta
    assert saved <= counted.kept < 1.1 * saved
    assert counted.kept < min(counted.forward, counted.backward)


@QWEN
def test_activations_of_qwen_on_meta_are_those_of_real_tensors(language_model):
    options = {"rows": "new", "language_model": language_model, "mask_model": "sam2.1-large"}
    counted, saved = tiny_activations("cpu", **options)
    on_meta_alone, _ = tiny_activations("meta", **options)
    assert on_meta_alone.kept == pytest.approx(counted.kept, rel=0.01)
    assert on_meta_alone.backward == pytest.approx(counted.backward, rel=0.01)
    assert saved <= counted.kept


def test_checkpointing_keeps_less(counted_on_meta):
    assert tiny_activations("meta", checkpointing=True)[0].kept < 0.9 * counted_on_meta.kept


def test_attention_keeps_no_scores():
    query, key, value = (torch.empty(1, 4, 50, 8, device="meta", requires_grad=True) for _ in range(3))
    live = memory.LiveBytes(iter([query, key, value]))
    with memory.cuda_kernels(), live:
        F.scaled_dot_product_attention(
            query, key, value, attn_mask=query.new_ones(1, 1, 50, 50).bool()
        ).sum().backward()
    scores = 4 * 4 * 50 * 50
    assert 4 * 50 * 64 < live.peak < scores + 4 * 4 * 50 * 8 * 4


def test_optimizer_bytes_are_those_of_the_optimizer():
    sizes = [5000, 301]
    flat = torch.zeros(5302, requires_grad=True)
    optimizer = torch.optim.AdamW([flat])
    flat.sum().backward()
    optimizer.step()
    state = sum(value.nbytes for value in optimizer.state[flat].values() if value.ndim)
    plain = memory.trained_bytes(memory.settings_of("7b"), sizes)
    assert plain.optimizer == flat.nbytes + state
    assert plain.step >= flat.grad.nbytes + 2 * 5302
    small = memory.trained_bytes(memory.settings_of("7b", optimizer="adamw8bit"), sizes)
    assert small.optimizer == flat.nbytes + 2 * (5302 + 4 * 21)
    assert memory.trained_bytes(memory.settings_of("7b", optimizer="adamw8bit"), [4000]).optimizer == 12 * 4000


def test_quantized_weights_of_7b():
    model, _ = memory.build_meta(memory.settings_of("7b"), "7b", trains=False)
    projections = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    full, eight, four = (memory.weight_bytes(model, kind) for kind in memory.QUANTISATIONS)
    assert full - eight == projections - 32 * 4 * (6 * 4096 + 2 * 11008 - 4096)
    assert full - four == pytest.approx(projections * (1.5 - 1 / 64 - 4 / (64 * 256)), rel=1e-6)


def test_memory_runs(capsys):
    memory.main(["--size", "tiny", "--images", "1", "--conversations", "2", "--height", "60", "--width", "80"])
    printed = last_line(capsys)
    rows = printed["training"]
    assert len(rows) == 12
    for row in rows.values():
        assert row["peak"] == max(row["forward"], row["backward"], row["step"]) > row["weights"] + row["optimizer"]
    peak = {name: row["peak"] for name, row in rows.items()}
    assert peak["all, adamw, offload, checkpointing on"] < peak["all, adamw8bit, checkpointing on"]
    assert peak["all, adamw8bit, checkpointing on"] < peak["all, adamw, checkpointing on"]
    assert printed["inference"]["4bit"]["peak"] < printed["inference"]["none"]["peak"]


def test_a_card_keeps_its_reserve():
    assert memory.fits(24 * 2**30 - memory.RESERVE) == 24
    assert memory.fits(24 * 2**30 - memory.RESERVE + 1) == 40
    assert memory.fits(80 * 2**30) is None


def test_graphs_leave_few_launches_and_waits_to_the_host(capsys):
    launches.main(["--size", "tiny", "--questions", "1", "3"])
    rows = {(row["work"], row["way"]): row for row in last_line(capsys)["rows"]}
    for work in ("1, written", "1, chosen", "3, written"):
        alone, graphs = rows[work, "launched one by one"], rows[work, "graphs"]
        assert 4 * graphs["launches"] <= alone["launches"] and graphs["in_graphs"] > graphs["launches"]
        assert graphs["waits"] <= alone["waits"] and graphs["waits"] <= 5
    assert rows["1, chosen", "launched one by one"]["waits"] >= 6, "one for each id that the model chooses"
    assert rows["micro-step of 2 images x 3", "forward and backward"]["waits"] == 0


def test_one_command_measures_a_card(capsys):
    gpu.main(["--size", "tiny", "--device", "cpu", "--repeats", "1", "--questions", "1"])
    found = last_line(capsys)
    assert set(found) == {"size", "card", "answers", "encoder", "training", "calculated"}
    assert {"1, forced", "1, written", "parts"} == set(found["answers"])
    assert found["training"]["default"]["costs"]["ours"]["seconds"] > 0
    assert found["training"]["deterministic"]["deterministic"]["seconds"] > 0
