"""Training: from a task to a model, one step after another (SPEC 9)."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reserve.batch.movable import Movable
from reserve.config import FitConfig, TrainConfig
from reserve.data.loader import BatchSampler, DamageLog, TrainingSet, load_batches, shares_of
from reserve.data.order import ExampleStream
from reserve.fs import remove_partial_files
from reserve.model.initialization import float32_on_cpu, undrawn
from reserve.model.precision import training_dtype
from reserve.model.pretrained import Pretrained
from reserve.model.transformer import Transformer
from reserve.tasks.task import ContrastiveTask, Task
from reserve.train.ahead import Finish, beside_the_step
from reserve.train.compilation import compile_layers
from reserve.train.distributed import Ranks
from reserve.train.metrics import Metrics, NoMetrics
from reserve.train.optimizer import make_optimizer
from reserve.train.parallel import LossFunction, Wrapping, check_mode, parallelize
from reserve.train.resuming import place_in_data, stored_settings, warn_of_other_data
from reserve.train.run_folder import write_run_settings
from reserve.train.saving import CheckpointWriter
from reserve.train.state import Progress, list_checkpoints, restore_checkpoint
from reserve.train.step import VectorsLoss, mean_over_ranks, set_learning_rate, train_step
from reserve.train.stopping import StopRequest
from reserve.train.storage import remove_partial_checkpoints
from reserve.train.throughput import Throughput
from reserve.train.watch import Watch, watched_ranks
from reserve_kernels import BF16AdamW

logger = logging.getLogger(__name__)


def fit(task: Task[Any, Any], run: Path, config: FitConfig) -> Path:
    """Trains until `config.optimizer.num_train_steps` or a signal, from the run's last checkpoint if it has one.

    Returns the last checkpoint's folder, which is also a pretrained model. Raises what the task raises for its inputs
    (BadInput, NothingPrepared), ValueError where the settings do not fit them or the checkpoint, RankLost where a rank
    died or hangs and RuntimeError where one failed; where that leaves this process blocked, it exits (`Watch`).
    """
    # Token counts differ from step to step, which fragments a GPU's memory without this. PyTorch reads it when it
    # first uses a GPU.
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    with watched_ranks(config.train) as (ranks, watch):
        _train(_set_up(task, run, config, ranks, watch))
    return list_checkpoints(run)[-1].path


@dataclass
class _Training:
    """A run at step `step`, counted from 0: what each step needs. `place` is where its batch starts in the data, the
    stream of examples whose identity is `order`; `skipped` counts the damaged samples of before this start; `finish`
    completes a batch."""

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
    finish: Finish | None
    damage: DamageLog = field(default_factory=DamageLog)

    @property
    def progress(self) -> Progress:
        """How far it is. Every rank must ask for it together."""
        return Progress(
            self.step, self.place, len(self.dataset), self.config.train.seed, self.order, self.skipped_examples
        )

    @property
    def skipped_examples(self) -> int:
        """Damaged samples that were skipped on all ranks since the run began. Every rank must ask for it together."""
        return self.skipped + round(self.ranks.sum([self.damage.count])[0])


def _set_up(task: Task[Any, Any], run: Path, config: FitConfig, ranks: Ranks, watch: Watch) -> _Training:
    """Prepares the data, builds the model and loads the run's last checkpoint, if it has one."""
    # Settings that do not fit fail before the run's folder changes and before hours of preparation.
    _per_device(config.train, ranks.world_size)
    function = _module_function(task, config.train, ranks)
    wrapping = Wrapping.of(config.train, ranks, uses_every_parameter=task.uses_every_parameter)
    check_mode(config.train.parallel, ranks, wrapping)
    finish = _finish(task, config.train, ranks)
    resuming = bool(list_checkpoints(run))
    stored = stored_settings(run) if resuming else {}
    if ranks.is_first:
        # What a run that was killed left.
        remove_partial_files(run)
        remove_partial_checkpoints(run / "checkpoints")
        if not resuming:
            write_run_settings(run, task, config)
    watch.phase("preparing", patient=True)
    _prepare(task, run, config, ranks)
    watch.phase("setting up", patient=True)
    dataset = task.training_set(run, config.train)
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
    module = parallelize(model, function, ranks, mode=config.train.parallel, wrapping=wrapping)
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
    return _Training(
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
        finish,
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


def _whole_loss(training: _Training) -> VectorsLoss | None:
    task, group = training.task, training.ranks.group
    if not training.config.train.grad_cache:
        return None
    assert isinstance(task, ContrastiveTask)
    return lambda parts: task.vectors_loss(parts, group)


def _prepare(task: Task[Any, Any], run: Path, config: FitConfig, ranks: Ranks) -> None:
    """Prepares the data on the first rank; all ranks wait, and all raise if it fails."""
    failure: Exception | None = None
    if ranks.is_first:
        try:
            task.prepare(run, config.train)
        except Exception as error:
            failure = error
    if ranks.any(failure is not None):
        raise failure or RuntimeError("the first rank could not prepare the data; its own message says why")


def _batches(training: _Training) -> Iterator[Movable]:
    """This rank's micro-batches from the current place on."""
    config, ranks = training.config.train, training.ranks
    sampler = BatchSampler(
        shares_of(training.dataset),
        _per_device(config, ranks.world_size),
        seed=config.seed,
        rank=ranks.rank,
        world_size=ranks.world_size,
        accumulate=config.accumulate,
        place=training.place,
    )
    return load_batches(
        training.dataset,
        sampler,
        training.task.collate,
        num_workers=config.num_workers,
        pin_memory=ranks.device.type == "cuda",
        damage=training.damage,
        finish=training.finish,
    )


def _train(training: _Training) -> None:
    """Steps until the last one or a signal; logs and saves on the way."""
    config, ranks, optimizer, watch = training.config, training.ranks, training.optimizer, training.watch
    total = config.optimizer.num_train_steps
    whole_loss = _whole_loss(training)
    batches, throughput = _batches(training), Throughput(ranks, training_dtype(config.train, ranks.device))
    stopped = False
    with StopRequest() as stop, _metrics(training) as metrics, _checkpoints(training) as checkpoints:
        while training.step < total and not stopped:
            set_learning_rate(optimizer, training.step, config.optimizer, finetuning=training.task.finetuning)
            watch.phase("waiting for data", step=training.step)
            with throughput.waiting():
                micro_batches = list(islice(batches, config.train.accumulate))
            watch.phase("computing")
            throughput.add(map(training.task.workload, micro_batches))
            values = train_step(
                training.module, optimizer, micro_batches, config, ranks, step=training.step, vectors_loss=whole_loss
            )
            training.step += 1
            training.place += config.train.batch_size
            checkpoints.add_loss(values["loss"])
            metrics.advance()
            stopped = ranks.any(stop.name is not None)
            last = stopped or training.step == total
            if last or training.step % config.train.log_every == 0:
                metrics.log(training.step, _line(training, values, throughput))
            if last or training.step % config.train.checkpoint_every == 0:
                if ranks.is_first:
                    # Before the checkpoint: one whose settings config.yaml lacks would be resumed with other settings.
                    # Not at the start: a resume that fails in its first steps leaves the run as it was.
                    write_run_settings(training.run, training.task, config)
                watch.phase("saving")
                checkpoints.save(training.progress)
    if stopped:
        logger.warning("stopped by %s after step %d; resume with --resume %s", stop.name, training.step, training.run)


def _line(training: _Training, values: dict[str, torch.Tensor], throughput: Throughput) -> dict[str, float]:
    """What is logged after a step. It waits for the device, so that the throughput counts finished work."""
    skipped = training.skipped_examples
    return {
        **mean_over_ranks(values, training.ranks),
        "learning_rate": training.optimizer.param_groups[0]["lr"],
        **throughput.since_last(),
        **({"skipped_examples": skipped} if skipped else {}),
    }


def _checkpoints(training: _Training) -> CheckpointWriter:
    return CheckpointWriter(training.run, training.model, training.optimizer, training.ranks, training.config.train)


def _metrics(training: _Training) -> Metrics | NoMetrics:
    if not training.ranks.is_first:
        return NoMetrics()
    return Metrics(
        training.run,
        first_step=training.step,
        total_steps=training.config.optimizer.num_train_steps,
        batch_size=training.config.train.batch_size,
        shown=training.task.shown_metrics,
    )


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


def _per_device(config: TrainConfig, world_size: int) -> int:
    """The examples of each device in a step."""
    if config.batch_size % (world_size * config.accumulate):
        parts = f" times train.accumulate {config.accumulate}" if config.accumulate > 1 else ""
        raise ValueError(
            f"train.batch_size must be a multiple of the {world_size} devices{parts}; got {config.batch_size}"
        )
    return config.batch_size // world_size
