"""A run ready to train: data prepared, model and optimiser built, the last checkpoint loaded."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from reserve.batch.movable import Movable
from reserve.config import FitConfig, TrainConfig
from reserve.data.loader import BatchSampler, DamageLog, Loader, TrainingSet, shares_of
from reserve.data.loading_processes import DeathLog
from reserve.data.order import ExampleStream
from reserve.fs import remove_partial_files
from reserve.model.initialization import float32_on_cpu, undrawn
from reserve.model.precision import training_dtype
from reserve.model.pretrained import Pretrained
from reserve.model.run_checkpoints import list_checkpoints
from reserve.model.transformer import Transformer
from reserve.tasks.task import ContrastiveTask, HeldOut, Task
from reserve.train.ahead import Finish, beside_the_step
from reserve.train.compilation import compile_layers
from reserve.train.distributed import Ranks
from reserve.train.finite_check import FiniteCheck
from reserve.train.optimizer import make_optimizer
from reserve.train.parallel import LossFunction, Wrapping, check_mode, parallelize
from reserve.train.periodic import PeriodicEvaluation, held_out_data
from reserve.train.resuming import place_in_data, stored_settings, warn_of_other_data
from reserve.train.run_folder import write_run_settings
from reserve.train.state import Progress, restore_checkpoint
from reserve.train.step import VectorsLoss
from reserve.train.storage import remove_partial_checkpoints
from reserve.train.wandb_sink import check_wandb
from reserve.train.watch import Watch
from reserve_kernels import BF16AdamW

logger = logging.getLogger(__name__)


class Plan(NamedTuple):
    """How the steps of a run compute; see `checked`."""

    function: LossFunction
    wrapping: Wrapping
    finish: Finish | None
    held_out: HeldOut | None


@dataclass
class Training:
    """A run at step `step`, counted from 0: what each step needs. `place` is where its batch starts in the data, the
    stream of examples whose identity is `order`; `skipped` counts the damaged samples of before this start,
    `not_finite` the steps that were not finite since the run began; `finish` completes a batch."""

    task: Task[Any, Any]
    run: Path
    config: FitConfig
    ranks: Ranks
    watch: Watch
    dataset: TrainingSet[Any]
    model: Pretrained
    module: nn.Module
    optimizer: BF16AdamW
    step: int
    place: int
    order: str
    skipped: int
    not_finite: int
    finish: Finish | None
    evaluation: PeriodicEvaluation
    finite: FiniteCheck
    loader: Loader[Any, Movable]
    deaths: DeathLog
    damage: DamageLog = field(default_factory=DamageLog)

    @property
    def progress(self) -> Progress:
        """How far it is. Every rank must ask for it together."""
        return Progress(
            self.step,
            self.place,
            len(self.dataset),
            self.config.train.seed,
            self.order,
            self.skipped_examples,
            self.not_finite,
        )

    @property
    def skipped_examples(self) -> int:
        """Damaged samples that were skipped on all ranks since the run began. Every rank must ask for it together."""
        return self.skipped + round(self.ranks.sum([self.damage.count])[0])

    @property
    def whole_loss(self) -> VectorsLoss | None:
        """The loss of all vectors of a batch, with train.grad_cache."""
        task, group = self.task, self.ranks.group
        if not self.config.train.grad_cache:
            return None
        assert isinstance(task, ContrastiveTask)
        return lambda parts: task.vectors_loss(parts, group)

    def batches(self) -> Iterator[Movable]:
        """This rank's micro-batches from the current place on."""
        return self.loader.batches(
            self.sampler(self.place),
            pin_memory=self.ranks.device.type == "cuda",
            damage=self.damage,
            finish=self.finish,
        )

    def sampler(self, place: int) -> BatchSampler:
        """The examples of this rank's micro-batches from `place` on."""
        config, ranks = self.config.train, self.ranks
        return BatchSampler(
            shares_of(self.dataset),
            per_device(config, ranks.world_size),
            seed=config.seed,
            rank=ranks.rank,
            world_size=ranks.world_size,
            accumulate=config.accumulate,
            place=place,
        )


def checked(task: Task[Any, Any], run: Path, config: FitConfig, ranks: Ranks) -> Plan:
    """The plan of a run. Raises where the settings do not fit: before the run's folder changes and before hours of
    preparation."""
    per_device(config.train, ranks.world_size)
    check_wandb(config.train.wandb_project)
    held_out = held_out_data(task, run, config)
    function = _module_function(task, config.train, ranks)
    wrapping = Wrapping.of(config.train, ranks, uses_every_parameter=task.uses_every_parameter)
    check_mode(config.train.parallel, ranks, wrapping)
    return Plan(function, wrapping, _finish(task, config.train, ranks), held_out)


def set_up(task: Task[Any, Any], run: Path, config: FitConfig, ranks: Ranks, watch: Watch, plan: Plan) -> Training:
    """Prepares the data, builds the model and loads the run's last checkpoint, if it has one."""
    resuming = bool(list_checkpoints(run))
    stored = stored_settings(run) if resuming else {}
    if ranks.is_first:
        # What a run that was killed left.
        remove_partial_files(run)
        remove_partial_checkpoints(run / "checkpoints")
        if not resuming:
            write_run_settings(run, task, config)
    watch.phase("preparing", patient=True)
    _prepare(task, run, config, ranks, plan.held_out)
    watch.phase("setting up", patient=True)
    dataset = task.training_set(run, config.train)
    deaths = DeathLog()
    # Its processes start while the model is built.
    loader = Loader(dataset, task.collate, num_workers=config.train.num_workers, deaths=deaths)
    torch.manual_seed(config.train.seed)
    with undrawn() if resuming or task.has_start else nullcontext(), float32_on_cpu():
        model = task.build_model()
    if task.has_start and not resuming:
        task.load_start(model)
    model.to(ranks.device)
    compile_layers(model, config.train.compile, ranks.device)
    for module in model.modules():
        if isinstance(module, Transformer):
            module.recompute = config.train.recompute_layers
    # Before the optimiser, since a mode that shards replaces the parameters.
    module = parallelize(model, plan.function, ranks, mode=config.train.parallel, wrapping=plan.wrapping)
    groups = task.parameter_groups(model, config.optimizer)
    optimizer = make_optimizer(model, groups, config.optimizer, decay_to_start=task.finetuning)
    progress = restore_checkpoint(run, model, optimizer, ranks)
    stream = ExampleStream(shares_of(dataset), config.train.seed)
    place = place_in_data(progress, stored, stream, config)
    warn_of_other_data(stored, task, config)
    logger.info(
        "%d examples, %.1f M parameters, %d device(s) of type %s in %s%s, steps %d to %d",
        len(dataset),
        sum(p.numel() for p in model.parameters()) / 1e6,
        ranks.world_size,
        ranks.device.type,
        str(training_dtype(config.train, ranks.device)).removeprefix("torch."),
        f" with {config.train.parallel.replace('auto', 'ddp')}" if ranks.world_size > 1 else "",
        progress.step,
        config.optimizer.num_train_steps,
    )
    _warn_of_spinning_threads(config, ranks)
    return Training(
        task,
        run,
        config,
        ranks,
        watch,
        dataset,
        model,
        module,
        optimizer,
        progress.step,
        place,
        stream.identity,
        progress.skipped,
        progress.not_finite,
        plan.finish,
        PeriodicEvaluation(task, run, config, ranks, plan.held_out),
        FiniteCheck(ranks),
        loader,
        deaths,
    )


def _module_function(task: Task[Any, Any], config: TrainConfig, ranks: Ranks) -> LossFunction:
    """What the module computes for a batch: its loss, or with train.grad_cache the vectors that the loss compares."""
    if not config.grad_cache:
        return lambda model, batch: task.loss(model, batch, ranks.group)
    if not isinstance(task, ContrastiveTask):
        raise ValueError(f"train.grad_cache is for contrastive losses, which {task.name} does not have")
    return task.vectors


def _finish(task: Task[Any, Any], config: TrainConfig, ranks: Ranks) -> Finish | None:
    """What completes the task's batches. Raises ValueError or RuntimeError where they cannot be completed here."""
    finish = task.finish(config, ranks.device)
    if finish is not None:
        return beside_the_step(finish, ranks.device)
    if config.decode_on == "device":
        raise ValueError(f"train.decode_on device is for pretraining; the task {task.name} decodes in its loader")
    return None


def _prepare(task: Task[Any, Any], run: Path, config: FitConfig, ranks: Ranks, held_out: HeldOut | None = None) -> None:
    """Prepares the data on the first rank; all ranks wait, and all raise if it fails."""
    failure: Exception | None = None
    if ranks.is_first:
        try:
            if held_out is not None:
                # First: it is the smaller part, and what is wrong with it shows before hours of preparation.
                task.prepare_held_out(held_out, config.train)
            task.prepare(run, config.train)
        except Exception as error:
            failure = error
    if ranks.any(failure is not None):
        raise failure or RuntimeError("the first rank could not prepare the data; its own message says why")


def _warn_of_spinning_threads(config: FitConfig, ranks: Ranks) -> None:
    """Warns if OpenMP threads that spin at barriers will compete with loading processes or other ranks for cores.

    OpenMP reads its policy when torch is loaded, so only the environment of the program can set it.
    """
    shared = config.train.num_workers > 0 or ranks.world_size > 1
    if ranks.device.type == "cpu" and shared and torch.get_num_threads() > 1 and "OMP_WAIT_POLICY" not in os.environ:
        logger.warning(
            "training on a CPU beside loading processes is faster with OMP_WAIT_POLICY=PASSIVE in the environment, set "
            "before torch is imported (docs/training.md)"
        )


def per_device(config: TrainConfig, world_size: int) -> int:
    """The examples of each device in a step."""
    if config.batch_size % (world_size * config.accumulate):
        parts = f" times train.accumulate {config.accumulate}" if config.accumulate > 1 else ""
        raise ValueError(
            f"train.batch_size must be a multiple of the {world_size} devices{parts}; got {config.batch_size}"
        )
    return config.batch_size // world_size
