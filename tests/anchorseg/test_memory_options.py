import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from anchorseg.training.build import build_for_training
from anchorseg.training.engine_config import build_optimizer, checkpoints_gradients, deepspeed_config
from anchorseg.training.merging import max_difference, read_run_settings
from anchorseg.training.settings import SMALL, OptimizationSettings, TrainSettings
from anchorseg.weights.folder import load_model, save_model
from model.backbone_names import LANGUAGE_BACKBONES
from utils.errors import SettingsError
from utils.settings import to_dict

ROOT = Path(__file__).parents[2]
HAS_BITSANDBYTES = importlib.util.find_spec("bitsandbytes") is not None
with_bitsandbytes = pytest.mark.skipif(not HAS_BITSANDBYTES, reason="bitsandbytes is not installed")
without_bitsandbytes = pytest.mark.skipif(HAS_BITSANDBYTES, reason="bitsandbytes is installed")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    command = [sys.executable, "-m", "scripts.make_scenes", str(folder), "--train", "8", "--val", "2", "--test", "2"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


def command(scenes: Path, runs: Path, name: str, *extra: str) -> list[str]:
    return [
        sys.executable, "train_ds.py", "--preset", "scratch", "--dataset_dir", str(scenes), "--log_base_dir", str(runs),
        "--exp_name", name, "--epochs", "1", "--steps_per_epoch", "4", "--batch_size", "2", "--print_freq", "1",
        "--workers", "0", "--warmup_steps", "2", "--num_classes_per_sample", "2", "--lora_dropout", "0.1",
        "--eval_interval", "2", *extra,
    ]  # fmt: skip


def run(arguments: list[str], *, check: bool = True) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def logged(runs: Path, name: str, tag: str = "train/loss") -> list[float]:
    lines = [json.loads(line) for line in (runs / name / "metrics.jsonl").read_text().splitlines()]
    return [line[tag] for line in lines if tag in line]


NEW_ROWS = ("--train_scope", "paper", "--train_embeddings", "new")


@pytest.fixture(scope="module")
def trained(scenes, tmp_path_factory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    run(command(scenes, runs, "rows", *NEW_ROWS))
    return runs


def test_peak_memory_is_logged_and_never_falls(trained):
    peaks = logged(trained, "rows", "train/peak_memory_gb")
    assert len(peaks) == 4 and peaks[0] > 0.1 and peaks == sorted(peaks)


@pytest.mark.slow
def test_a_run_of_new_rows_resumes_exactly(scenes, trained):
    arguments = command(scenes, trained, "killed", *NEW_ROWS)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = subprocess.Popen(
        arguments, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    latest = trained / "killed" / "checkpoints" / "latest"
    while not latest.exists():
        assert started.poll() is None
        time.sleep(0.02)
    started.send_signal(signal.SIGKILL)
    started.wait()
    assert latest.read_text() == "step_00000002"
    run([*arguments, "--resume"])
    assert logged(trained, "killed") == logged(trained, "rows")


def test_checkpoints_hold_rows_and_not_tables(trained):
    folder = trained / "rows" / "checkpoints"
    file = folder / (folder / "latest").read_text() / "mp_rank_00_model_states.pt"
    shapes = {name: value.shape for name, value in torch.load(file, weights_only=False)["module"].items()}
    rows = [shape for name, shape in shapes.items() if "trainable_tokens_delta" in name]
    assert [tuple(shape) for shape in rows] == [(11, 128), (11, 128)]
    assert not any("base_layer.weight" in name for name in shapes)


def test_a_run_of_new_rows_merges_to_whole_tables(trained, tmp_path):
    model = tmp_path / "model"
    arguments = [sys.executable, "merge_lora_weights.py", "--run", str(trained / "rows"), "--save_path", str(model)]
    run([*arguments, "--checkpoint", "latest"])
    assert json.loads((model / "merge.json").read_text())["max_relative_difference"] < 1e-5
    merged, registry = load_model(model)
    assert merged.llava.lm_head.weight.shape == merged.llava.language_model.embed_tokens.weight.shape
    assert len(merged.llava.lm_head.weight) == len(registry)


@pytest.mark.parametrize("stage", ["1"])
def test_stages_give_the_same_losses(scenes, trained, stage):
    run(command(scenes, trained, f"stage{stage}", *NEW_ROWS, "--zero_stage", stage, "--no_eval"))
    assert logged(trained, f"stage{stage}") == pytest.approx(logged(trained, "rows"), rel=1e-4)


@pytest.mark.parametrize("extra", [("--train_scope", "paper"), (*NEW_ROWS, "--zero_stage", "1")])
def test_other_memory_settings_are_not_resumed(scenes, trained, extra):
    done = run([*command(scenes, trained, "rows", *extra), "--resume"], check=False)
    assert done.returncode == 2 and "was written with" in done.stderr


@pytest.mark.slow
def test_an_offloaded_optimizer_gives_the_same_losses(scenes, trained):
    run(command(scenes, trained, "offload", *NEW_ROWS, "--offload", "optimizer"))
    assert logged(trained, "offload") == pytest.approx(logged(trained, "rows"), rel=1e-3)


@with_bitsandbytes
@pytest.mark.parametrize("optimizer", ["adamw8bit", "paged_adamw8bit"])
def test_8_bit_state_trains_much_the_same(scenes, trained, optimizer):
    run(command(scenes, trained, optimizer, *NEW_ROWS, "--optimizer", optimizer))
    assert logged(trained, optimizer) == pytest.approx(logged(trained, "rows"), rel=0.02)


@without_bitsandbytes
def test_what_needs_bitsandbytes_says_so(tmp_path):
    settings = OptimizationSettings(optimizer="adamw8bit")
    with pytest.raises(SettingsError, match="--optimizer adamw8bit needs bitsandbytes"):
        build_optimizer(settings, [torch.nn.Parameter(torch.zeros(1))])
    with pytest.raises(SettingsError, match="quantization 4bit needs bitsandbytes"):
        load_model(tmp_path, quantization="4bit")


@with_bitsandbytes
@pytest.mark.parametrize(
    ("quantization", "kind", "tolerance"), [("8bit", "Int8Params", 0.05), ("4bit", "Params4bit", 0.4)]
)
def test_only_the_language_model_is_quantized(tmp_path, quantization, kind, tolerance):
    model, registry = build_for_training(TrainSettings(size="tiny", lora_r=0))
    save_model(model, registry, tmp_path)
    loaded, _ = load_model(tmp_path, quantization=quantization)
    names = [name for name, p in loaded.named_parameters() if type(p).__name__ == kind]
    assert len(names) == 7 * model.config.language_config.text_config.num_hidden_layers
    assert all(name.startswith("llava.network.model.language_model.layers.") for name in names)
    assert 0 < max_difference(model.eval(), loaded, registry)[1] < tolerance


def test_the_configuration_names_stage_and_place():
    plain = deepspeed_config(OptimizationSettings(zero_stage=1), 1000)
    assert plain["zero_optimization"]["stage"] == 1 and "offload_optimizer" not in plain["zero_optimization"]
    assert not plain["zero_allow_untested_optimizer"]
    offloaded = deepspeed_config(OptimizationSettings(offload="optimizer"), 1000)
    assert offloaded["zero_optimization"]["offload_optimizer"]["device"] == "cpu"
    assert deepspeed_config(OptimizationSettings(optimizer="adamw8bit"), 1000)["zero_allow_untested_optimizer"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"zero_stage": 0}, "zero_stage"),
        ({"offload": "optimizer", "optimizer": "adamw8bit"}, "does not go with --optimizer adamw8bit"),
        ({"zero_stage": 3, "compile_sam": True}, "--compile_sam does not go with --zero_stage 3"),
        ({"zero_stage": 3, "cache_features": "features"}, "--cache_features does not go with --zero_stage 3"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        TrainSettings(size="tiny", **options)


def test_activations_are_recomputed_where_asked_and_auto_keeps_them_without_a_gpu():
    choices = {choice: OptimizationSettings(gradient_checkpointing=choice) for choice in ("on", "off")}
    chosen = {choice: checkpoints_gradients(settings, "7b") for choice, settings in choices.items()}
    assert chosen == {"on": True, "off": False}
    if not torch.cuda.is_available():
        assert not checkpoints_gradients(OptimizationSettings(), "7b")


@pytest.mark.parametrize("size", sorted({size for entry in LANGUAGE_BACKBONES.values() for size in entry.sizes}))
def test_auto_knows_every_size_of_every_backbone(monkeypatch, size):
    gigabytes = iter((200, 8, 80))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=next(gigabytes) * 1e9)
    )
    large, small = (checkpoints_gradients(OptimizationSettings(), size) for _ in range(2))
    assert not large and small == (size not in SMALL)
    assert checkpoints_gradients(OptimizationSettings(), size, 5_000_000_000), "optimizers need memory too"


@pytest.mark.parametrize(("written", "read"), [(True, "on"), (False, "off"), ("auto", "auto")])
def test_runs_with_a_switch_for_checkpointing_are_still_read(tmp_path, written, read):
    values = {**to_dict(TrainSettings(size="tiny")), "gradient_checkpointing": written}
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert read_run_settings(tmp_path).gradient_checkpointing == read


def test_what_stays_whole_when_quantized_follows_from_the_parts(scenes):
    """The names given to bitsandbytes are those of modules, and leave the language model's projections alone."""
    model, _ = build_for_training(TrainSettings(size="tiny", precision="fp32", lora_r=0))
    modules = dict(model.named_modules())
    assert all(name in modules for name in model.kept_unquantized)
    linear = [name for name, module in modules.items() if isinstance(module, torch.nn.Linear)]
    rest = [name for name in linear if not name.startswith(tuple(f"{kept}." for kept in model.kept_unquantized))]
    rest = [name for name in rest if name not in model.kept_unquantized]
    assert rest and all(".language_model.layers." in name for name in rest)
