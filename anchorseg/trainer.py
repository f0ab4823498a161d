"""Training: the DeepSpeed engine, one loop of optimiser steps, validation, checkpoints.

The stream of samples, the learning rate and the random state are functions of the step alone, so that a run resumes
exactly, and two ranks see what one rank sees with twice the accumulation.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import deepspeed
import torch
from deepspeed.runtime.engine import DeepSpeedEngine
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from anchorseg.build import DTYPES
from anchorseg.checkpoints import LATEST, Checkpoints, Progress
from anchorseg.config import Method
from anchorseg.data import build_mixture, data_folder, make_collator, training_batches
from anchorseg.engine_config import build_optimizer, deepspeed_config
from anchorseg.evaluation import Evaluator, Result
from anchorseg.feature_cache import open_cache
from anchorseg.modeling import AnchorSegModel
from anchorseg.objective import Losses, Objective
from anchorseg.settings import TrainSettings
from anchorseg.tokens import TokenRegistry
from dataset.batch import Batch
from dataset.mixture import DrawOrder, SkipCounter
from dataset.registry import SETS, Benchmark, open_benchmark
from utils.distributed import all_gather_objects, is_main, rank, world_size
from utils.errors import DivergedError
from utils.run_folder import RunFolder
from utils.seeding import seed_torch

IDENTITY = (
    "size", "version", "seed", "lora_r", "train_scope", "train_embeddings", "batch_size", "grad_accumulation_steps",
    "optimizer", "zero_stage", "offload", "dataset",
    "sample_rates", "sampling", "custom_data", "explanatory", "num_classes_per_sample", "num_classes_per_question",
    *(f"{family}_data" for family in SETS), "ce_loss_weight", "bce_loss_weight", "dice_loss_weight",
    *(field.name for field in fields(Method)),
)  # fmt: skip
"""Settings that a run and the checkpoint it resumes must share; another number of epochs or rate is allowed."""


def learning_rate(step: int, *, peak: float, warmup: int, total: int) -> float:
    """Rate of step 1, 2, ...: linear warm-up to `peak` at step `warmup`, then linear decay to 0 after step `total`."""
    if step <= warmup:
        return peak * step / warmup
    return peak * max(0.0, (total - step + 1) / (total - warmup + 1))


def peak_memory_gb() -> float:
    """Most memory, in 10^9 bytes, that this rank has held: of its GPU as torch allocates it, or of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


@contextmanager
def whole_weights(engine: DeepSpeedEngine) -> Iterator[None]:
    """All weights on every rank, so that each may call the model, or parts of it, as often as it likes.

    ZeRO stage 3 otherwise gathers them module by module, all ranks together; below it nothing happens. No training
    inside. Uses fields of DeepSpeed 0.19's own.
    """
    if engine.zero_optimization_stage() < 3:
        yield
        return
    offload = engine.optimizer.parameter_offload
    with deepspeed.zero.GatheredParameters(list(engine.module.parameters())):
        # The hooks would give the weights back behind each module's call.
        offload.destroy()
        for parameter in engine.module.parameters():
            # Else DeepSpeed takes it to be in use by a module, and would not divide it again.
            parameter.ds_active_sub_modules.clear()
        # Removed above, but kept in its lists.
        offload.forward_hooks, offload.backward_hooks = [], []
        try:
            yield
        finally:
            offload.setup_zero_stage3_hooks()


class _Window:
    """Means and speed of the steps since the last logged line."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}
        self._timed = 0
        self._began = time.perf_counter()

    def add(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._values.setdefault(name, []).append(value)
        self._timed += 1

    def restart_clock(self) -> None:
        """Leave validation out of the speed."""
        self._timed, self._began = 0, time.perf_counter()

    def means(self) -> dict[str, float]:
        return {name: sum(values) / len(values) for name, values in self._values.items()}

    def steps_per_second(self) -> float:
        return self._timed / (time.perf_counter() - self._began)


class Trainer:
    """One run.

    Args:
        settings: of the run.
        model: with the right parameters trainable.
        registry: its tokenizer.
    """

    def __init__(self, settings: TrainSettings, model: AnchorSegModel, registry: TokenRegistry) -> None:
        self.settings = settings
        self.registry = registry
        self.cache = open_cache(model.sam, settings.cache_features, settings.cache_gigabytes)
        self.collator = make_collator(
            model.config,
            registry,
            max_length=settings.model_max_length,
            store=None if self.cache is None else self.cache.store,
        )
        self.objective = Objective(settings.loss_weights(), model.method, model.config.clip_side)
        self.benchmarks = self._benchmarks()
        self.mixture = build_mixture(settings, self.collator)
        self.skips = SkipCounter()
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.engine, self.optimizer, _, _ = deepspeed.initialize(
            model=model,
            optimizer=build_optimizer(settings, parameters),
            config=deepspeed_config(settings, sum(parameter.numel() for parameter in parameters)),
        )
        self.checkpoints = Checkpoints(
            Path(settings.log_base_dir) / settings.exp_name / "checkpoints",
            {key: getattr(settings, key) for key in IDENTITY},
        )

    def _benchmarks(self) -> dict[str, Benchmark]:
        if self.settings.no_eval:
            return {}
        names = self.settings.val_dataset.split("||")
        data = data_folder(self.settings.dataset_dir, self.settings.index_dir)
        return {name: open_benchmark(name, data, self.settings.custom_data) for name in names}

    def run(self, folder: RunFolder, progress: Progress) -> Progress:
        """Train from `progress` to the last step, validating and saving on the way."""
        settings = self.settings
        batches = iter(self._loader(progress.step))
        bar = tqdm(
            total=settings.total_steps, initial=progress.step, disable=not is_main(), unit="step", dynamic_ncols=True
        )
        window = _Window()
        for step in range(progress.step + 1, settings.total_steps + 1):
            window.add(self._step(step, batches))
            bar.update()
            last = step == settings.total_steps
            if step % settings.print_freq == 0 or last:
                self._log(folder, bar, step, window)
                window = _Window()
            if step % settings.validation_interval == 0 or last:
                progress = self._validate_and_save(folder, step, progress)
                window.restart_clock()
        bar.close()
        if self.cache is not None:
            self.cache.finish()
        return progress

    def start(self) -> Progress:
        """The beginning, or the latest checkpoint where the run resumes."""
        if self.settings.resume and self.checkpoints.named(LATEST) is not None:
            return self.checkpoints.resume(self.engine)
        return Progress(step=0, world=world_size())

    def _loader(self, steps_done: int) -> DataLoader:
        settings = self.settings
        order = DrawOrder(
            batch_size=settings.batch_size,
            rank=rank(),
            world=world_size(),
            start=steps_done * settings.grad_accumulation_steps,
            stop=settings.total_steps * settings.grad_accumulation_steps,
        )
        return training_batches(self.mixture, self.collator, order, settings.workers)

    def _step(self, step: int, batches: Iterator[tuple[Batch, tuple[str, ...]]]) -> dict[str, float]:
        settings = self.settings
        rate = learning_rate(step, peak=settings.lr, warmup=settings.warmup_steps, total=settings.total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        sums: dict[str, list[Tensor]] = {}
        for accumulation in range(settings.grad_accumulation_steps):
            batch, skipped = next(batches)
            for entry in self.skips.add(skipped):
                tqdm.write(f"skipped a record: {entry}")
            micro = ((step - 1) * settings.grad_accumulation_steps + accumulation) * world_size() + rank()
            batch, hits = self._ready(batch)
            losses = self._micro_step(step, micro, batch)
            for name, value in {"loss": losses.total.detach(), **losses.terms, **hits}.items():
                sums.setdefault(name, []).append(value)
        self.skips.check(step * settings.grad_accumulation_steps * settings.batch_size)
        return {**self._mean_over_ranks(sums), "lr": rate}

    def _ready(self, batch: Batch) -> tuple[Batch, dict[str, Tensor]]:
        """The batch where the model is; with a cache all its SAM features, and the share that was there."""
        batch = batch.to(self.engine.device, DTYPES[self.settings.precision])
        if self.cache is None:
            return batch, {}
        batch, hits = self.cache.fill(batch)
        return batch, {"cache_hits": torch.tensor(hits)}

    def _micro_step(self, step: int, micro: int, batch: Batch) -> Losses:
        seed_torch(self.settings.seed, "dropout", micro)
        losses = self.objective(self.engine(batch), batch)
        _check_finite(step, losses, batch)
        self.engine.backward(losses.total)
        self.engine.step()
        return losses

    def _mean_over_ranks(self, sums: dict[str, list[Tensor]]) -> dict[str, float]:
        mine = {name: [float(value) for value in values] for name, values in sums.items()}
        merged: dict[str, list[float]] = {}
        for part in all_gather_objects(mine):
            for name, values in part.items():
                merged.setdefault(name, []).extend(values)
        return {name: sum(values) / len(values) for name, values in merged.items()}

    def _log(self, folder: RunFolder, bar: tqdm, step: int, window: _Window) -> None:
        settings = self.settings
        images = settings.batch_size * settings.grad_accumulation_steps * world_size()
        values = {**window.means(), "images_per_second": images * window.steps_per_second()}
        values["grad_norm"] = float(self.engine.get_global_grad_norm() or 0.0)
        values["peak_memory_gb"] = peak_memory_gb()
        values["skipped"] = sum(self.skips.reasons.values())
        folder.log(step, {f"train/{name}": value for name, value in values.items()})
        if self.cache is not None:
            self.cache.say()
        shown = {
            name: f"{value:.3f}" for name, value in values.items() if name in ("loss", "ce", "mask_dice", "t2m_dice")
        }
        bar.set_postfix({**shown, "img/s": f"{values['images_per_second']:.1f}"})

    def validate(self) -> dict[str, Result]:
        """Results of every validation set, by name: forced, or generated where a set cannot be forced."""
        model: AnchorSegModel = self.engine.module
        model.eval()
        evaluator = Evaluator(model, self.registry, self.collator, cache=self.cache, workers=self.settings.workers)
        with whole_weights(self.engine):
            results = {
                name: evaluator.evaluate(
                    source, name=name, protocol="forced" if "forced" in source.protocols else "generate"
                )
                for name, source in self.benchmarks.items()
            }
        model.train()
        return results

    def _validate_and_save(self, folder: RunFolder, step: int, progress: Progress) -> Progress:
        results = self.validate()
        for name, result in results.items():
            scores = {key: value for key, value in result.scores.items() if value is not None}
            folder.log(step, {f"val/{name}/{key}": value for key, value in scores.items()})
            if is_main():
                tqdm.write(f"step {step}: {name} {result.protocol} gIoU {result.giou:.4f} cIoU {result.ciou:.4f}")
        score = getattr(next(iter(results.values())), self.settings.select_by) if results else None
        is_best = score is not None and (progress.best_score is None or score > progress.best_score)
        best = score if is_best else progress.best_score
        progress = Progress(step=step, world=world_size(), best_score=best)
        self.checkpoints.save(self.engine, progress, is_best=is_best)
        return progress


def _check_finite(step: int, losses: Losses, batch: Batch) -> None:
    if torch.isfinite(losses.total):
        return
    broken = [name for name, value in losses.terms.items() if not torch.isfinite(value)] or ["total"]
    raise DivergedError(
        f"step {step}: the loss is not finite in {', '.join(broken)}; images: {', '.join(batch.records)}. "
        "Lower --lr, or look at these images; the latest checkpoint is untouched"
    )
