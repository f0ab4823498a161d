"""What the host does for a GPU: operators that it launches, results that it awaits: `python -m benchmarks.launches`.

Counted on a CPU, with real values: a model with all layers, heads and image tokens of the 7B model and narrow ones, for
which the same operators are launched. A graph counts as one launch; what is in it is counted apart. Attention is one
operator here, and may be a few kernels on a GPU.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from anchorseg.inference.answering import Answerer, PromptedQuestion
from anchorseg.inference.collate import make_collator
from anchorseg.inference.generation import answer_questions
from anchorseg.inference.inputs import Asking
from anchorseg.inference.prefix import ImagePrefix, prefill_images
from anchorseg.method.modeling import AnchorSegModel
from anchorseg.method.objective import Objective
from anchorseg.method.options import LossWeights
from benchmarks.counting import tensors_in
from benchmarks.workload import WordRegistry, answer_ids, build, collate, questions_of, samples
from dataset.batch import Batch, Sequences, converted
from model.fused_norms import FusedRMSNorm
from model.sam_attention import SamAttention
from utils.cuda_graphs import Recording

T = TypeVar("T")
READS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal", "aten::is_nonzero"}
"""Operators whose result, or its shape, the host must know before it goes on."""
NO_KERNEL = {"aten::_unsafe_view", "aten::_reshape_alias", "aten::lift_fresh", "aten::empty", "aten::empty_strided"}
NO_KERNEL |= {"aten::new_empty", "aten::new_empty_strided", "aten::empty_like", "aten::is_pinned"}


@dataclass
class Counts:
    """Launches by the host, operators within graphs, and times that the host waits for what it has launched."""

    launches: int = 0
    in_graphs: int = 0
    waits: int = 0


class HostWork(TorchDispatchMode):
    """Counts as if some tensors, and all that is made of them, were on a GPU.

    Args:
        on_device: weights, inputs.
    """

    def __init__(self, on_device: Iterable[Tensor]) -> None:
        super().__init__()
        self.counts = Counts()
        self._there = WeakIdKeyDictionary()
        self._in_graph = 0
        for tensor in on_device:
            self._there[tensor] = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator."""
        kwargs = kwargs or {}
        given = list(tensors_in((args, kwargs)))
        there = any(tensor in self._there for tensor in given)
        name = func.name().partition(".")[0]
        to_host = name == "aten::copy_" and args[0] not in self._there
        self.counts.waits += there and (to_host or is_read(func, args))
        if (there or not given) and not func.is_view and name not in NO_KERNEL:
            self._launch()
        result = func(*args, **kwargs)
        if there and not to_host:
            for tensor in tensors_in(result):
                self._there[tensor] = True
        return result

    def _launch(self) -> None:
        if self._in_graph:
            self.counts.in_graphs += 1
        else:
            self.counts.launches += 1

    def record(self, function: Callable[[], T]) -> Recording[T]:
        """Record as CUDA graphs are, to be counted as one launch."""
        outputs = function()

        def replay() -> None:
            self._launch()
            self._in_graph += 1
            made = function()
            self._in_graph -= 1
            for own, new in zip(tensors_in(outputs), tensors_in(made), strict=True):
                own.copy_(new)

        return Recording(replay, outputs)

    @contextmanager
    def counting(self) -> Iterator[Counts]:
        """Count anew, `Tensor.cpu` and `Tensor.tolist` included, which no operator shows on a CPU."""
        self.counts = Counts()
        cpu, tolist = Tensor.cpu, Tensor.tolist

        def copied(tensor: Tensor) -> Tensor:
            if tensor not in self._there:
                return cpu(tensor)
            self.counts.waits += 1
            copy = tensor.clone()
            del self._there[copy]
            return copy

        def listed(tensor: Tensor) -> Any:
            self.counts.waits += tensor in self._there
            return tolist(tensor)

        Tensor.cpu, Tensor.tolist = copied, listed  # type: ignore[method-assign, assignment]
        try:
            with self:
                yield self.counts
        finally:
            Tensor.cpu, Tensor.tolist = cpu, tolist  # type: ignore[method-assign]


@contextmanager
def as_on_gpu() -> Iterator[None]:
    """Within, what has a form for a GPU takes it on a CPU."""
    attention, norm = SamAttention.forward, FusedRMSNorm.forward
    SamAttention.forward = SamAttention.attend_on_gpu  # type: ignore[method-assign]
    FusedRMSNorm.forward = FusedRMSNorm.fused  # type: ignore[method-assign]
    try:
        yield
    finally:
        SamAttention.forward, FusedRMSNorm.forward = attention, norm  # type: ignore[method-assign]


def is_read(func: Any, args: Any) -> bool:
    """Whether the host waits for a result of an operator, boolean indexing included."""
    name = func.name().partition(".")[0]
    if name in {"aten::index", "aten::index_put", "aten::index_put_"}:
        return any(index is not None and index.dtype == torch.bool for index in args[1])
    return name in READS


def tensors_of(inputs: Batch | Sequences) -> list[Tensor]:
    """The tensors of a batch, or of a part of it."""
    found: list[Tensor] = []

    def add(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    converted(inputs, add)
    return found


class Work:
    """Answers about an image and training steps, counted.

    Args:
        model: of any size.
        registry: its tokenizer.
        questions: about the image.
    """

    def __init__(self, model: AnchorSegModel, registry: WordRegistry, questions: int) -> None:
        self.model, self.registry, self.questions = model.eval(), registry, questions
        self.answerer = Answerer(self.model, registry, make_collator(model.config, registry, max_length=2048))
        self.forced = collate(model, registry, samples(1, questions), share_prefix=True)
        (asked,) = samples(1, questions, answered=False)
        self.image = asked.image
        self.unread = collate(model, registry, [asked], share_prefix=True)
        self.prefixes = self.unread.conversations.prefixes(1)
        self.ids, self.answer = questions_of(model, registry, asked), answer_ids(registry)

    def read_forced(self) -> None:
        """Read answers that are in the prompt, and bring the masks to the host."""
        self.model(self.forced).segmentation.masks[0].gt(0).cpu()

    def write(self) -> None:
        """Read the image, write the given answers, and bring the targets to the host."""
        made = answer_questions(self.model, self._read(), self.ids, [0] * len(self.ids), answer=self.answer)
        asked = [PromptedQuestion(row=0, query="", prompt="", ids=tuple(ids)) for ids in self.ids]
        list(self.answerer.answers(made, asked, [self.image], Asking()))

    def choose(self) -> None:
        """The same for six ids that the model chooses, with no target in them."""
        answer_questions(self.model, self._read(), self.ids, [0] * len(self.ids), max_new_tokens=6)

    def _read(self) -> ImagePrefix:
        return prefill_images(self.model, self.unread.images, self.prefixes)

    def on_device(self) -> Iterator[Tensor]:
        """What is on the device before any work."""
        yield from self.model.parameters()
        yield from self.model.buffers()
        for inputs in (self.forced, self.unread, self.prefixes):
            yield from tensors_of(inputs)

    @torch.inference_mode()
    def counts(self) -> dict[str, dict[str, Counts]]:
        """Of both protocols, without graphs and with, in both cases when all was done before."""
        found: dict[str, dict[str, Counts]] = {}
        for protocol, call in {"forced": self.read_forced, "written": self.write, "chosen": self.choose}.items():
            found[protocol] = {}
            for way in ("launched one by one", "graphs"):
                host = HostWork(self.on_device())
                self.model.captured = None
                if way == "graphs":
                    self.model.capture_graphs(lambda host=host: host.record)
                    with host.counting():
                        call()
                with host.counting():
                    call()
                with host.counting() as counted:
                    call()
                found[protocol][way] = counted
        self.model.captured = None
        return found

    def training(self) -> Counts:
        """Of a micro-step, forward and backward; the trainer reads one value more, to see that the loss is finite."""
        batch = collate(self.model, self.registry, samples(2, self.questions), share_prefix=True)
        objective = Objective(LossWeights(), self.model.head)
        host = HostWork([*self.on_device(), *tensors_of(batch)])
        self.model.train()
        with host.counting() as counted:
            objective(self.model(batch), batch).total.backward()
        self.model.eval()
        return counted


def main(argv: list[str] | None = None) -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=["deep", "tiny", "mini", "mid"], default="deep")
    parser.add_argument("--questions", type=int, nargs="+", default=[1])
    arguments = parser.parse_args(argv)
    model, registry = build(arguments.size)
    rows: list[dict[str, Any]] = []
    with as_on_gpu():
        for questions in arguments.questions:
            found = Work(model, registry, questions).counts()
            rows += [
                {"work": f"{questions}, {protocol}", "way": way, **asdict(count)}
                for protocol, ways in found.items()
                for way, count in ways.items()
            ]
        micro_step = Work(model, registry, 3).training()
    rows.append({"work": "micro-step of 2 images x 3", "way": "forward and backward", **asdict(micro_step)})
    print(f"{'work':<28}{'way':<24}{'launches':>10}{'in graphs':>11}{'waits':>7}")
    for row in rows:
        print(f"{row['work']:<28}{row['way']:<24}{row['launches']:>10}{row['in_graphs']:>11}{row['waits']:>7}")
    print(json.dumps({"size": arguments.size, "rows": rows}))


if __name__ == "__main__":
    main()
