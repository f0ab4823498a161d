"""Training: the DeepSpeed engine, one loop of optimizer steps, validation, checkpoints.

The stream of samples, the learning rate and the random state are functions of the step alone, so that a run resumes
exactly, and two ranks see what one rank sees with twice the accumulation.
"""

from __future__ import annotations

import math
import signal
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NoReturn

import deepspeed
import torch
from deepspeed.runtime.engine import DeepSpeedEngine
from torch import Tensor
from torch.utils.data import DataLoader

from anchorseg.evaluation.evaluator import Evaluator, Result, See
from anchorseg.evaluation.pictures import FixedPictures
from anchorseg.inference.collate import make_collator
from anchorseg.inference.feature_cache import open_cache
from anchorseg.method.modeling import AnchorSegModel
from anchorseg.method.objective import Losses, Objective
from anchorseg.method.tokens import TokenRegistry
from anchorseg.training.checkpoints import Checkpoints, Progress
from anchorseg.training.data import build_mixture, data_folder, open_benchmarks, training_batches
from anchorseg.training.engine_config import build_optimizer, deepspeed_config, whole_weights
from anchorseg.training.pace import Clock, Window, peak_memory_gb
from anchorseg.training.settings import TrainSettings
from anchorseg.training.trainable import frozen_weights
from anchorseg.weights.folder import DTYPES
from dataset.batch import Batch
from dataset.mixture import ResumableBatchSampler, SkipCounter
from dataset.source import Benchmark
from utils.distributed import all_gather_objects, is_main, rank, world_size
from utils.errors import DivergedError
from utils.progress import Bar
from utils.run_folder import RunFolder
from utils.seeding import seed_torch
from utils.settings import names_that_may_change, to_dict
from utils.stopping import StopSignals, exit_status


def learning_rate(step: int, *, peak: float, warmup: int, total: int) -> float:
    """Rate of step 1, 2, ...: linear warm-up to `peak` at step `warmup`, then linear decay to 0 after step `total`."""
    if step <= warmup:
        return peak * step / warmup
    return peak * max(0.0, (total - step + 1) / (total - warmup + 1))


@dataclass(frozen=True)
class _Wish:
    """What a rank would do after a step: stop, for a signal that it received, or save."""

    signal: int | None
    save: bool


class Trainer:
    """One run.

    Args:
        settings: of the run.
        model: with the right parameters trainable.
        registry: its tokenizer.
    """

    def __init__(self, settings: TrainSettings, model: AnchorSegModel, registry: TokenRegistry) -> None:
        self.settings = settings
        self.images_per_step = settings.batch_size * settings.grad_accumulation_steps * world_size()
        self.registry = registry
        self.cache = open_cache(model.masks, settings.cache_features, settings.cache_gigabytes)
        self.collator = make_collator(
            model.config,
            registry,
            max_length=settings.model_max_length,
            store=None if self.cache is None else self.cache.store,
        )
        self.objective = Objective(settings.loss_weights(), model.head)
        self.benchmarks = self._benchmarks()
        self.mixture = build_mixture(settings, self.collator, seed=settings.seed, method=settings.method())
        self.skips = SkipCounter()
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        given, free = to_dict(settings), names_that_may_change(TrainSettings)
        # Of the files of frozen weights not the names must be the same but the weights.
        identity = {name: value for name, value in given.items() if name not in free}
        self.checkpoints = Checkpoints(
            settings.folder / "checkpoints",
            {**identity, "frozen_weights": frozen_weights(model)},
            {name: value for name, value in given.items() if name in free},
        )
        self.engine, self.optimizer, _, _ = deepspeed.initialize(
            model=model,
            optimizer=build_optimizer(settings, parameters),
            config=deepspeed_config(
                settings, sum(parameter.numel() for parameter in parameters), bf16=settings.precision == "bf16"
            ),
        )

        if settings.cuda_graphs:  # now that DeepSpeed has put the weights where they stay
            model.capture_training()

    def _benchmarks(self) -> dict[str, Benchmark]:
        if self.settings.no_eval:
            return {}
        data = data_folder(self.settings.dataset_dir, self.settings.index_dir)
        return open_benchmarks(
            self.settings.val_dataset, data, self.settings.custom_data, workers=self.settings.workers
        )

    def run(self, folder: RunFolder, progress: Progress, stop: StopSignals) -> Progress:
        """Train from `progress` to the last step, validating and saving on the way.

        Raises:
            SystemExit: when a signal asked to stop, with a checkpoint of the step just done.
        """
        settings = self.settings
        if self._validates(progress.step) and progress.validated < progress.step:
            progress = self._validate(folder, progress)  # which a kill or an error has prevented
        batches = iter(self._loader(progress.step))
        bar = Bar(
            total=settings.total_steps, initial=progress.step, disable=not is_main(), unit="step", dynamic_ncols=True
        )
        window, clock = Window(), Clock(settings.save_minutes, progress.step)
        for step in range(progress.step + 1, settings.total_steps + 1):
            values, wish = self._step(step, batches, lambda: _Wish(stop.received, clock.is_due()))
            window.add(values)
            bar.update()
            if step % settings.print_freq == 0 or step == settings.total_steps:
                self._log(folder, bar, step, window)
                window = Window()
            if is_main() and (estimate := clock.estimate(step, settings.total_steps)):
                Bar.write(estimate)
            if wish.save or wish.signal or self._validates(step):
                self.checkpoints.save(self.engine, step)
                progress = replace(progress, step=step)
                clock.saved()
                window.restart_clock()
            if wish.signal:
                self._stopped(step, wish.signal)
            if self._validates(step):
                progress = self._validate(folder, progress)
                window.restart_clock()
        bar.close()
        if self.cache is not None:
            self.cache.finish()
        return progress

    def _validates(self, step: int) -> bool:
        """Whether `step` is followed by a checkpoint and a validation."""
        return step > 0 and (step % self.settings.validation_interval == 0 or step == self.settings.total_steps)

    def _stopped(self, step: int, signal_number: int) -> NoReturn:
        name = signal.Signals(signal_number).name
        if is_main():
            Bar.write(f"{name}: step {step} is saved in {self.checkpoints.folder}; continue with --resume")
        raise SystemExit(exit_status(signal_number))

    def start(self) -> Progress:
        """The beginning, or the latest checkpoint where the run resumes."""
        progress, changed = self.checkpoints.resume(self.engine) if self.settings.resume else (Progress(), [])
        if is_main():
            self.checkpoints.remove_old()
            self._describe(progress, changed)
        return progress

    def _describe(self, progress: Progress, changed: list[str]) -> None:
        """Print what the run will do."""
        settings = self.settings
        if progress.step:
            print(f"resuming at step {progress.step}")
        for sentence in changed:
            print(f"since the checkpoint {sentence}")
        print(
            f"{settings.total_steps - progress.step} steps of {self.images_per_step} images; a checkpoint every "
            f"{settings.save_minutes:g} minutes at most, every {settings.validation_interval} steps with a validation, "
            "and on SIGTERM, SIGINT and SIGUSR1"
        )

    def _loader(self, steps_done: int) -> DataLoader:
        settings = self.settings
        order = ResumableBatchSampler(
            batch_size=settings.batch_size,
            rank=rank(),
            world=world_size(),
            start=steps_done * settings.grad_accumulation_steps,
            stop=settings.total_steps * settings.grad_accumulation_steps,
        )
        return training_batches(self.mixture, self.collator, order, settings.workers)

    def _step(
        self, step: int, batches: Iterator[tuple[Batch, tuple[str, ...]]], wish: Callable[[], _Wish]
    ) -> tuple[dict[str, float], _Wish]:
        settings = self.settings
        rate = learning_rate(step, peak=settings.lr, warmup=settings.warmup_steps, total=settings.total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        sums: defaultdict[str, list[Tensor | float]] = defaultdict(list)
        records: list[str] = []
        for accumulation in range(settings.grad_accumulation_steps):
            batch, skipped = next(batches)
            for entry in self.skips.add(skipped):
                Bar.write(f"skipped a record: {entry}")
            micro = ((step - 1) * settings.grad_accumulation_steps + accumulation) * world_size() + rank()
            batch, hits = self._ready(batch)
            losses = self._micro_step(step, micro, batch)
            records += batch.records
            values: dict[str, Tensor | float] = {"loss": losses.total.detach(), **losses.terms, **hits}
            for name, value in values.items():
                sums[name].append(value)
        self.skips.check(step * settings.grad_accumulation_steps * settings.batch_size)
        means, agreed = self._over_ranks(sums, wish())
        _check_gradients(step, self.engine, records)
        return {**means, "lr": rate}, agreed

    def _ready(self, batch: Batch) -> tuple[Batch, dict[str, float]]:
        """The batch where the model is; with a cache all its SAM features, and the share that was there."""
        batch = batch.to(self.engine.device, DTYPES[self.settings.precision])
        if self.cache is None:
            return batch, {}
        images, hits = self.cache.fill(batch.images)
        return replace(batch, images=images), {"cache_hits": hits}

    def _micro_step(self, step: int, micro: int, batch: Batch) -> Losses:
        seed_torch(self.settings.seed, "dropout", micro)
        losses = self.objective(self.engine(batch), batch)
        self.engine.backward(losses.total)
        # Here, for a GPU has backward to do while the host waits for the loss.
        _check_finite(step, losses, batch)
        self.engine.step()
        return losses

    def _over_ranks(self, sums: dict[str, list[Tensor | float]], wish: _Wish) -> tuple[dict[str, float], _Wish]:
        """Means over all ranks, and what one of them wishes, so that all do the same."""
        mine = _on_host(sums)
        merged: defaultdict[str, list[float]] = defaultdict(list)
        parts = all_gather_objects((mine, wish))
        for part, _ in parts:
            for name, values in part.items():
                merged[name].extend(values)
        signals = [wished.signal for _, wished in parts if wished.signal]
        agreed = _Wish(signals[0] if signals else None, any(wished.save for _, wished in parts))
        return {name: sum(values) / len(values) for name, values in merged.items()}, agreed

    def _log(self, folder: RunFolder, bar: Bar, step: int, window: Window) -> None:
        values = {**window.means(), "images_per_second": self.images_per_step * window.steps_per_second()}
        values["grad_norm"] = float(self.engine.get_global_grad_norm() or 0.0)
        values["peak_memory_gb"] = peak_memory_gb()
        values["skipped"] = sum(self.skips.reasons.values())
        folder.log(step, {f"train/{name}": value for name, value in values.items()})
        if self.cache is not None:
            self.cache.say()
        shown = {name: f"{values[name]:.3f}" for name in ("loss", "ce", "mask_dice", "t2m_dice") if name in values}
        bar.set_postfix(shown | {"img/s": f"{values['images_per_second']:.1f}"})

    def validate(self, looks: Mapping[str, See] | None = None) -> dict[str, Result]:
        """Results of every validation set, by name: forced, or generated where a set cannot be forced.

        Args:
            looks: for a set, what sees its predictions, see `Evaluator.evaluate`.
        """
        model: AnchorSegModel = self.engine.module
        model.eval()
        evaluator = Evaluator(model, self.registry, self.collator, cache=self.cache, workers=self.settings.workers)
        with whole_weights(self.engine):
            results = {
                name: evaluator.evaluate(
                    source,
                    name=name,
                    protocol="forced" if "forced" in source.protocols else "generate",
                    see=[looks[name]] if looks else [],
                )
                for name, source in self.benchmarks.items()
            }
        model.train()
        return results

    def _validate(self, folder: RunFolder, progress: Progress) -> Progress:
        """Score the weights of the latest checkpoint, and keep it as `best` if it is."""
        count = self.settings.val_pictures
        drawn = {name: FixedPictures(len(source), count) for name, source in self.benchmarks.items()}
        step, results = progress.step, self.validate(drawn)
        for name, result in results.items():
            pictures = drawn[name].of_all_ranks()
            folder.show(step, {f"val/{name}/{index}": picture for index, picture in pictures.items()})
            scores = {key: value for key, value in result.scores.items() if value is not None}
            folder.log(step, {f"val/{name}/{key}": value for key, value in scores.items()})
            if is_main():
                Bar.write(f"step {step}: {name} {result.protocol} gIoU {result.giou:.4f} cIoU {result.ciou:.4f}")
        score = getattr(next(iter(results.values())), self.settings.select_by) if results else None
        return self.checkpoints.validated(progress, score)


def _on_host(sums: dict[str, list[Tensor | float]]) -> dict[str, list[float]]:
    """The values that are on the device, read all at once, among those that are not."""
    on_device = [value for values in sums.values() for value in values if isinstance(value, Tensor)]
    read = iter(torch.stack(on_device).tolist())
    return {
        name: [next(read) if isinstance(value, Tensor) else value for value in values] for name, values in sums.items()
    }


def _check_gradients(step: int, engine: DeepSpeedEngine, records: list[str]) -> None:
    """Stop where gradients are not finite; DeepSpeed would leave the step out with a warning, or apply it."""
    norm = engine.get_global_grad_norm()
    if engine.skipped_steps == 0 and (norm is None or math.isfinite(norm)):
        return
    raise DivergedError(
        f"step {step}: the gradients are not finite; images of rank {rank()}: {', '.join(records)}. Lower --lr, or "
        "look at these images; the latest checkpoint is untouched"
    )


def _check_finite(step: int, losses: Losses, batch: Batch) -> None:
    if torch.isfinite(losses.total):
        return
    broken = [name for name, value in losses.terms.items() if not torch.isfinite(value)] or ["total"]
    raise DivergedError(
        f"step {step}: the loss is not finite in {', '.join(broken)}; images: {', '.join(batch.records)}. "
        "Lower --lr, or look at these images; the latest checkpoint is untouched"
    )
