"""What the finetuned tasks share: where training starts from, the schedule, and prediction over a split (SPEC 10.2)."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import torch

from reserve.batch.movable import Movable
from reserve.checkpoint.official import load_trunk, read_official
from reserve.config import FinetunedConfig, ModelConfig, OptimizerConfig, TrainConfig
from reserve.data.loader import InOrder, TrainingSet, load_batches
from reserve.errors import CheckpointError
from reserve.model.finetuned import FinetunedReserve
from reserve.model.precision import autocast
from reserve.model.pretrained import Pretrained, find_pretrained, stored_config
from reserve.tasks.data_folder import FolderCheck
from reserve.tasks.scores import TaskScores
from reserve.tasks.task import Batch, Example, HeldOut, Task

logger = logging.getLogger(__name__)

BATCH_SIZE = 32
"""Examples of a step, over all devices."""
WARMUP_EPOCHS = 0.5
EVALUATION_BATCH = 8

Result = TypeVar("Result")


@dataclass(frozen=True)
class Finetune(Task[Example, Batch]):
    """Finetuning on a data set's own files.

    `data` is its folder; `weights` are those that training starts from: the folder of a pretrained or finetuned
    model, a Hugging Face hub id, or an official checkpoint; None draws them. `as_released` reproduces the oddities of
    the released code, which each task lists. `tokenizer` is a vocabulary in the released layout, None the shipped one.
    """

    finetuning = True
    shown_metrics: ClassVar[tuple[str, ...]] = ("loss", "accuracy")
    held_out_folder = "predictions"
    epochs: ClassVar[int]
    """Passes over the training set that the task takes by default."""
    learning_rate: ClassVar[float]
    """The default peak."""
    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")

    data: Path = Path()
    weights: str | None = None
    as_released: bool = False
    tokenizer: Path | None = None
    model: FinetunedConfig = field(default_factory=FinetunedConfig)

    @classmethod
    def model_config(cls, sizes: ModelConfig) -> FinetunedConfig:
        """The task's model with the given sizes of the trunk."""
        own = {name: getattr(sizes, name) for name in ModelConfig.__dataclass_fields__}
        return FinetunedConfig(**own)

    def fitted_to_data(self) -> Self:
        """This task with the settings that its data decides, such as the number of classes."""
        return self

    @abstractmethod
    def check(self, splits: Sequence[str]) -> FolderCheck:
        """Checks the data set's folder, within seconds. Raises ImportError for a package that the task needs."""

    @abstractmethod
    def left_out(self, split: str) -> list[str]:
        """What of a split is left out, and why. Raises BadInput where nothing of it can be used."""

    @abstractmethod
    def count_examples(self) -> int:
        """Examples of the training set."""

    def held_out_data(self, run: Path) -> HeldOut:
        """The data set's validation split."""
        return HeldOut((), run / self.held_out_folder, split="val")

    def prepare_held_out(self, held_out: HeldOut, config: TrainConfig) -> None:
        """Warns of what the evaluation leaves out. Raises BadInput where nothing of the split can be used."""
        for note in self.left_out(held_out.split):
            logger.warning("%s", note)

    def evaluate(self, model: FinetunedReserve, held_out: HeldOut, *, config: TrainConfig, step: int) -> TaskScores:
        """Scores and predictions on `held_out.split` of the data set in `held_out.sources`, by default the task's.

        Raises ValueError for an unknown split.
        """
        if held_out.split not in self.splits:
            raise ValueError(f"the split must be one of {', '.join(self.splits)}; got {held_out.split!r:.40}")
        task = replace(self, data=Path(held_out.sources[0])) if held_out.sources else self
        return task.evaluate_split(model, held_out, config=config, step=step)

    @abstractmethod
    def evaluate_split(
        self, model: FinetunedReserve, held_out: HeldOut, *, config: TrainConfig, step: int
    ) -> TaskScores:
        """`evaluate` on this task's own folder."""

    def build_model(self) -> FinetunedReserve:
        return FinetunedReserve(self.model)

    @property
    def has_start(self) -> bool:
        return self.weights is not None

    def load_start(self, model: Pretrained) -> None:
        """Loads what the model has of `weights`. Its head starts at random where they have none of its shape."""
        assert self.weights is not None
        assert isinstance(model, FinetunedReserve)
        if Path(self.weights).is_file():
            if self.tokenizer is None:
                logger.warning(
                    "%s is read with this package's vocabulary; the released weights need --tokenizer", self.weights
                )
            load_trunk(model, read_official(self.weights).arrays)
        else:
            model.load_trunk(_folder_of(self.weights))

    def load_finished(self, model: Pretrained) -> None:
        """Loads `weights`, whose head must fit. Raises CheckpointError if it does not, or if they have none."""
        assert isinstance(model, FinetunedReserve)
        torch.nn.init.constant_(model.proj.weight, torch.nan)
        self.load_start(model)
        if model.proj.weight.isnan().any():
            raise CheckpointError(
                f"{self.weights} has no head of {self.model.outputs} output(s): finetune it on {self.name} first"
            )


def check_scales(minimum: float, maximum: float) -> None:
    """Raises ValueError unless pictures can be resized at random between these factors."""
    if not 0 < minimum <= maximum < math.inf:
        raise ValueError(
            "examples.random_scale_min must be above 0 and at most examples.random_scale_max, both finite; got "
            f"{minimum} and {maximum}"
        )


def stored_sizes(weights: str) -> ModelConfig | None:
    """The sizes of `weights`, None for an official checkpoint, which does not hold them.

    Raises CheckpointError if there are no such weights.
    """
    if Path(weights).is_file():
        return None
    return stored_config(_folder_of(weights))


def _folder_of(weights: str) -> Path:
    folder = find_pretrained(weights, revision=None, cache_dir=None, offline=False)
    if (folder / "checkpoints").is_dir():
        raise CheckpointError(f"{folder} is a run; name one of its checkpoints")
    return folder


def schedule(optimizer: OptimizerConfig, examples: int, batch_size: int, epochs: float) -> OptimizerConfig:
    """The optimiser's settings with the steps of `epochs` passes over the examples; half a pass is warm-up.

    As in the release, a pass counts as examples // batch_size steps, although training also uses the remainder.
    Raises ValueError if the examples do not fill a batch.
    """
    steps = examples // batch_size
    if not steps:
        raise ValueError(
            f"train.batch_size must be at most the {examples} examples of the training set; got {batch_size}"
        )
    total = max(int(epochs * steps), 1)
    return replace(optimizer, num_train_steps=total, num_warmup_steps=min(int(WARMUP_EPOCHS * steps), total))


def finetuning_optimizer(learning_rate: float) -> OptimizerConfig:
    """Finetuning's settings of the optimiser: Adam with bias correction, decay toward the initial weights."""
    return OptimizerConfig(learning_rate=learning_rate, do_bias_correction=True)


@torch.inference_mode()
def predict(
    model: FinetunedReserve,
    dataset: TrainingSet[Any],
    collate: Callable[[Sequence[Any]], Movable],
    answer: Callable[[FinetunedReserve, Any], Result],
    config: TrainConfig,
) -> Iterator[Result]:
    """`answer(model, batch)` for every batch of `dataset`, in order, in the run's precision."""
    model.eval()
    device = model.device
    batches = load_batches(
        dataset,
        InOrder(len(dataset), EVALUATION_BATCH),
        collate,
        num_workers=config.num_workers,
        pin_memory=device.type == "cuda",
    )
    for batch in batches:
        batch = batch.to(device, non_blocking=True)
        with autocast(config, device):
            yield answer(model, batch)
