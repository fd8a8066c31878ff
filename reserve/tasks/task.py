"""The contract between a task and the trainer: what to train on, which loss to lower, how to judge the result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, Self, TypeVar, get_type_hints

import torch
import torch.distributed as dist

from reserve.batch.movable import Movable
from reserve.config import OptimizerConfig, TrainConfig
from reserve.config.load import build_section, plain_values
from reserve.data.loader import TrainingSet
from reserve.model.flops import Workload
from reserve.model.pretrained import Pretrained
from reserve.tasks.decay import parameter_groups

Example = TypeVar("Example")
Batch = TypeVar("Batch", bound=Movable)


class Loss(NamedTuple):
    """`total` is what training lowers, logged as "loss"; `metrics` are other scalars to log, detached, by name.

    A tuple, since FSDP of torch 2.11 looks for the tensors that start a backward pass in tuples, lists and dicts only.
    """

    total: torch.Tensor
    metrics: Mapping[str, torch.Tensor] = MappingProxyType({})


@dataclass(frozen=True)
class HeldOut:
    """What to evaluate on: `sources` are files and folders, `folder` is where prepared data and predictions go.

    `workers` processes may prepare it; `seed` seeds the evaluation's random choices; `split` is the part of a data set
    that has several. `shards` are sets of prepared videos, folders or URLs, instead of sources. `prepared` says that
    `Task.prepare_held_out` has been called for it.
    """

    sources: Sequence[str]
    folder: Path
    workers: int = 2
    seed: int = 0
    split: str = "val"
    shards: Sequence[str] = ()
    prepared: bool = False


class Evaluation(Protocol):
    """What an evaluation found: `str` prints it, `to_json` is kept in evaluation.json."""

    def figures(self) -> dict[str, float]:
        """The figures to plot over the steps, by name; NaN for one that is not known."""
        ...

    def to_json(self) -> dict[str, Any]:
        """What evaluation.json holds."""
        ...

    def details(self) -> dict[str, Any] | None:
        """More to look at, such as examples with their answers: what evaluation_details.json holds. None if nothing."""
        ...


@dataclass(frozen=True)
class Figures:
    """An evaluation that is a few numbers by name, of a model trained for `step` steps."""

    step: int
    values: Mapping[str, float]

    def figures(self) -> dict[str, float]:
        """The numbers by name."""
        return dict(self.values)

    def details(self) -> None:
        """There is no more to look at."""
        return

    def to_json(self) -> dict[str, Any]:
        """The step and the numbers by name."""
        return {"step": self.step, **self.values}

    def __str__(self) -> str:
        return "\n".join(f"{name}: {value:.4g}" for name, value in self.values.items())


class Task(ABC, Generic[Example, Batch]):
    """What a model is trained for. Subclasses are frozen dataclasses: their fields are the task's settings.

    A field is a config section (a dataclass) or an input (a path, a number, text). `config.yaml` of a run holds them,
    and `from_settings` rebuilds the task from it. The trainer (`reserve.train.fit`) knows nothing beyond this
    class; it runs the forward pass and the loss in one call, under its autocast and inside whatever wraps the model.
    """

    name: ClassVar[str]
    finetuning: ClassVar[bool] = False
    """Whether finetuning's rules hold (SPEC 9): after the warm-up the learning rate decays linearly to zero, and weight
    decay pulls tensors of more than 4096 numbers toward their initial values, not toward zero."""
    uses_every_parameter: ClassVar[bool] = False
    """Whether the loss of every batch depends on every parameter, which saves a search on several ranks."""
    shown_metrics: ClassVar[tuple[str, ...]] = ("loss",)
    """Metrics of the progress line; all are in metrics.jsonl."""
    held_out_folder: ClassVar[str] = "heldout"
    """Folder of a run for what its evaluation prepares and predicts."""
    held_out_inputs: ClassVar[str] = ""
    """The inputs that name held-out data for train.evaluate_every, for messages; empty if the task takes none."""

    @abstractmethod
    def build_model(self) -> Pretrained:
        """The model to train, on the CPU, its weights drawn from torch's default generator."""

    @property
    def has_start(self) -> bool:
        """Whether training starts from weights that `load_start` loads. Then the trunk is not drawn first."""
        return False

    def load_start(self, model: Pretrained) -> None:
        """Loads the weights that training starts from into a model of `build_model`. A resumed run does not call it."""

    def load_finished(self, model: Pretrained) -> None:
        """Like `load_start`, for weights that are evaluated without training: they must have the task's own parts."""
        self.load_start(model)

    def prepare(self, run: Path, config: TrainConfig) -> None:
        """Checks the inputs and prepares what the data set needs in the folder `run`. Called on the first rank only."""

    @abstractmethod
    def training_set(self, run: Path, config: TrainConfig) -> TrainingSet[Example]:
        """The examples, on every rank, after `prepare`. Must be picklable, for the loading processes."""

    @abstractmethod
    def collate(self, examples: Sequence[Example]) -> Any:
        """A batch of examples, on the CPU: a Batch, or what `finish` makes one of."""

    def finish(self, config: TrainConfig, device: torch.device) -> Callable[[Any], Batch] | None:
        """What completes a batch of `collate` on the training device, such as decoding its pictures there.

        None, the default, where `collate` leaves nothing to do. It is called once a batch, in a thread of its own.
        """
        return None

    @abstractmethod
    def loss(self, model: Any, batch: Batch, group: dist.ProcessGroup | None) -> Loss:
        """The loss of this rank's batch. `group` are the ranks whose candidates count, None for this one alone."""

    def workload(self, batch: Batch) -> Workload | None:
        """What a training step on `batch`, still on the CPU, computes; see `reserve.model.flops`.

        None, the default, leaves tokens per second and FLOPs out of the metrics.
        """
        return None

    def parameter_groups(self, model: Pretrained, config: OptimizerConfig) -> list[dict[str, Any]]:
        """Which parameters decay, as the optimiser's groups; together they must hold every trainable parameter."""
        return parameter_groups(model, config.weight_decay_rate, finetuning=self.finetuning)

    def held_out_data(self, run: Path) -> HeldOut | None:
        """What train.evaluate_every evaluates the run in the folder `run` on, None if there is nothing."""
        return None

    def prepare_held_out(self, held_out: HeldOut, config: TrainConfig) -> None:
        """Checks held-out data and prepares it in its folder. Called at the start, on the first rank only."""

    @abstractmethod
    def evaluate(self, model: Any, held_out: HeldOut, *, config: TrainConfig, step: int) -> Evaluation:
        """Judges a model trained for `step` steps on held-out data. The model is on its device."""

    def settings(self) -> dict[str, Any]:
        """The fields as config.yaml holds them: sections as maps, paths absolute."""
        return {field.name: plain_values(getattr(self, field.name)) for field in fields(self)}  # type: ignore[arg-type]

    @classmethod
    def sections(cls) -> dict[str, type]:
        """The fields that are config sections, by name."""
        hints = get_type_hints(cls)
        kinds = {field.name: hints[field.name] for field in fields(cls)}  # type: ignore[arg-type]
        return {name: kind for name, kind in kinds.items() if is_dataclass(kind) and isinstance(kind, type)}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], where: str) -> Self:
        """The task of a config.yaml's settings. Raises ValueError naming `where` and the setting that is wrong."""
        names = [field.name for field in fields(cls)]  # type: ignore[arg-type]
        return build_section(cls, {name: settings[name] for name in names if name in settings}, where)


class ContrastiveTask(Task[Example, Batch]):
    """A task whose loss compares vectors of the whole batch with each other.

    Subclasses give the loss in two parts, so that train.grad_cache can compare the vectors of all micro-batches.
    """

    @abstractmethod
    def vectors(self, model: Any, batch: Batch) -> dict[str, torch.Tensor]:
        """All that the loss needs of a micro-batch, by name: outputs of the model, temperatures, labels.

        The floating-point ones get gradients. Return a clone of a parameter, not the parameter itself.
        """

    @abstractmethod
    def vectors_loss(self, parts: Sequence[Mapping[str, torch.Tensor]], group: dist.ProcessGroup | None) -> Loss:
        """The loss of one device's batch from the vectors of its micro-batches: that of the whole batch at once."""

    def loss(self, model: Any, batch: Batch, group: dist.ProcessGroup | None) -> Loss:
        return self.vectors_loss([self.vectors(model, batch)], group)
