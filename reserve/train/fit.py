"""Training: from a task to a model, one step after another (SPEC 9)."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from reserve.config import FitConfig
from reserve.data.loading_processes import check_main_is_guarded
from reserve.errors import Stopped
from reserve.model.precision import training_dtype
from reserve.model.run_checkpoints import list_checkpoints
from reserve.tasks.task import Task
from reserve.train.distributed import Ranks
from reserve.train.metrics import Metrics, NoMetrics
from reserve.train.not_finite import report_not_finite
from reserve.train.profiling import StepProfiler
from reserve.train.run_folder import run_settings, write_run_settings
from reserve.train.run_state import locked_run, note_loss
from reserve.train.saving import CheckpointWriter
from reserve.train.step import mean_over_ranks, set_learning_rate, train_step
from reserve.train.stopping import StopRequest
from reserve.train.throughput import Throughput
from reserve.train.training import Training, checked, set_up
from reserve.train.wandb_sink import wandb_sinks
from reserve.train.watch import watched_ranks

logger = logging.getLogger(__name__)

Hook = Callable[[Path], None]


def fit(task: Task[Any, Any], run: Path, config: FitConfig, *, on_saved: Hook | None = None) -> Path:
    """Trains until `config.optimizer.num_train_steps`, from the run's last good checkpoint if it has one.

    The first rank calls `on_saved(run)` after each checkpoint and each evaluation. It should return soon, since the
    training waits; what it raises is logged.

    Returns the last checkpoint's folder, which is also a pretrained model. Raises what the task raises for its inputs
    (BadInput, NothingPrepared), ValueError where the settings do not fit them or the checkpoint, RunInUse where another
    process trains in the folder, NotFinite after train.max_not_finite steps, OSError where nothing can be written,
    RankLost where a rank died or hangs, RuntimeError where one failed (where that leaves this process blocked, it
    exits, see `Watch`), and Stopped after Ctrl-C, SIGTERM or SIGUSR1, once it has saved.
    """
    check_main_is_guarded()
    # Token counts differ from step to step, which fragments a GPU's memory without this. PyTorch reads it when it
    # first uses a GPU.
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    with StopRequest(config.train.stop_timeout) as stop:
        try:
            last = _fit(task, run, config, stop, on_saved)
        except RuntimeError as error:
            if error.__cause__ is not None and os.environ.get("RANK", "0") == "0":
                note_loss(run, f"{error}")  # rather than the error of communication that followed
            raise
    if isinstance(last, Stopped):
        raise last
    return last


def _fit(
    task: Task[Any, Any], run: Path, config: FitConfig, stop: StopRequest, on_saved: Hook | None
) -> Path | Stopped:
    """The last checkpoint's folder, or what says that a signal ended the steps. Raises what `fit` raises otherwise."""
    with watched_ranks(config.train, stop.asked.is_set) as (ranks, watch):
        plan = checked(task, run, config, ranks)
        try:
            with _locked(run, ranks):
                training = set_up(task, run, config, ranks, watch, plan)
                stop.training = True
                _train(training, stop, on_saved)
                last = next((checkpoint.path for checkpoint in reversed(list_checkpoints(run))), None)
                if training.step < config.optimizer.num_train_steps:
                    raise Stopped(stop.name or "a signal to another rank", last)
        except Stopped as stopped:
            if not stop.training:
                raise  # The other ranks must not wait for this one.
            return stopped
    assert last is not None
    return last


@contextmanager
def _locked(run: Path, ranks: Ranks) -> Iterator[None]:
    """Holds the lock of the run's folder on the first rank; all raise if it cannot be had."""
    with ExitStack() as held:
        error: Exception | None = None
        if ranks.is_first:
            try:
                held.enter_context(locked_run(run))
            except Exception as caught:
                error = caught
        ranks.fail_together(error)
        yield


def _train(training: Training, stop: StopRequest, on_saved: Hook | None) -> None:
    """Steps until the last one or a signal; logs, saves and evaluates on the way."""
    config, ranks, optimizer, evaluation = training.config, training.ranks, training.optimizer, training.evaluation
    watch = training.watch
    total, resumed_at = config.optimizer.num_train_steps, training.step
    whole_loss, batches = training.whole_loss, training.batches()
    throughput = Throughput(ranks, training_dtype(config.train, ranks.device))
    profiler = StepProfiler(training.run, config.train, ranks)
    values: dict[str, torch.Tensor] = {}
    with _metrics(training) as metrics, _checkpoints(training) as checkpoints, profiler:

        def log() -> None:
            metrics.log(training.step, _line(training, values, throughput, checkpoints))

        def save() -> None:
            report_not_finite(training)  # A checkpoint holds the count.
            watch.phase("saving", step=training.step)
            with throughput.saving():
                checkpoints.save(training.progress)
            _call(on_saved, training)

        def evaluate() -> None:
            watch.phase("evaluating", step=training.step, patient=True)
            with throughput.evaluating():
                evaluation.evaluate(training.step, checkpoints, metrics)
            _call(on_saved, training)

        if evaluation.missing(training.step):
            evaluate()
        while training.step < total:
            profiler.before(training.step)
            set_learning_rate(optimizer, training.step, config.optimizer, finetuning=training.task.finetuning)
            watch.phase("waiting for data", step=training.step)
            with throughput.waiting():
                micro_batches = stop.unless_asked(lambda: list(islice(batches, config.train.accumulate)))
            watch.phase("computing")
            # A signal to any rank stops all of them before the same step.
            if ranks.any(micro_batches is None) or micro_batches is None:
                break
            throughput.add(map(training.task.workload, micro_batches))
            values = train_step(
                training.module, optimizer, micro_batches, config, ranks, step=training.step, vectors_loss=whole_loss
            )
            training.step += 1
            profiler.after(training.step)
            training.place += config.train.batch_size
            training.finite.add(training.step, values["loss"], values["gradient_norm"])
            checkpoints.add_loss(values["loss"])
            metrics.advance()
            last, judged = training.step == total, evaluation.due(training.step)
            if last or training.step % config.train.log_every == 0:
                log()
                values = {}
            if last or judged or training.step % config.train.checkpoint_every == 0:
                save()
            # A run that stops is evaluated when it is resumed: a scheduler does not wait for long.
            if judged and (last or not ranks.any(stop.name is not None)):
                evaluate()
        if values:  # The last step before a signal.
            log()
        if training.step > resumed_at and checkpoints.last_step != training.step:
            save()
        watch.phase("saving", step=training.step)  # The end of the block waits for the last checkpoint.


def _call(on_saved: Hook | None, training: Training) -> None:
    if on_saved is not None and training.ranks.is_first:
        try:
            on_saved(training.run)
        except Exception as error:
            logger.warning("what is to follow a checkpoint failed: %s; the run goes on", error)


def _line(
    training: Training, values: dict[str, torch.Tensor], throughput: Throughput, checkpoints: CheckpointWriter
) -> dict[str, float]:
    """What is logged after a step. It waits for the device, so that the throughput counts finished work."""
    means = mean_over_ranks(values, training.ranks)
    report_not_finite(training)
    counts = {
        "skipped_examples": training.skipped_examples,
        "not_finite_steps": training.not_finite,
        "replaced_workers": round(training.ranks.sum([training.deaths.count])[0]),
        "failed_saves": checkpoints.failed,
        "failed_evaluations": training.evaluation.failed,
    }
    return {
        **means,
        "learning_rate": training.optimizer.param_groups[0]["lr"],
        "epoch": training.place / len(training.dataset),
        **throughput.since_last(),
        **{name: count for name, count in counts.items() if count},
    }


def _checkpoints(training: Training) -> CheckpointWriter:
    def starting() -> None:
        # Before the checkpoint: one whose settings config.yaml lacks would be resumed with other settings. Not at the
        # start: a resume that fails in its first steps leaves the run as it was.
        write_run_settings(training.run, training.task, training.config)

    return CheckpointWriter(
        training.run, training.model, training.optimizer, training.ranks, training.config.train, starting
    )


def _metrics(training: Training) -> Metrics | NoMetrics:
    if not training.ranks.is_first:
        return NoMetrics()
    config = training.config
    return Metrics(
        training.run,
        first_step=training.step,
        total_steps=config.optimizer.num_train_steps,
        batch_size=config.train.batch_size,
        shown=training.task.shown_metrics,
        boards=wandb_sinks(training.run, config.train.wandb_project, run_settings(training.task, config)),
    )
