"""Writes a run's checkpoints, beside the training where it can."""

from __future__ import annotations

import logging
import math
import shutil
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch.distributed.checkpoint.metadata import MetadataIndex

from reserve.config import TrainConfig
from reserve.model.pretrained import Pretrained
from reserve.model.run_checkpoints import checkpoint_folder, list_checkpoints
from reserve.train.distributed import Ranks
from reserve.train.retention import Retention
from reserve.train.state import Progress, not_finite, run_state
from reserve.train.storage import Header, Planner, save_state
from reserve_kernels import BF16AdamW

logger = logging.getLogger(__name__)


class CheckpointWriter:
    """Saves the state of a model and its optimiser into a run's folder, on all ranks together.

    With `train.async_checkpoints`, `save` returns once the state is copied to host memory, and a thread writes it. One
    save is written at a time: the next one, `wait` and the end of a `with` block wait for it. A checkpoint is written
    under another name and renamed when it is complete, so a crash at any time leaves the one before.

    A save that fails with an OSError, such as that of a full disk, is logged and counted in `failed`, since the disk
    may have room again at the next one. After train.max_failed_saves in a row `save` raises. What made the last save
    fail, `wait` and the end of the block raise.

    `starting` is called on the first rank before anything is written; what it raises makes the save fail.
    """

    def __init__(
        self,
        run: Path,
        model: Pretrained,
        optimizer: BF16AdamW,
        ranks: Ranks,
        config: TrainConfig,
        starting: Callable[[], None] = lambda: None,
    ) -> None:
        self.failed = 0
        self.last_step: int | None = None
        self._run, self._model, self._optimizer, self._ranks = run, model, optimizer, ranks
        self._retention = Retention(config.keep_checkpoints, config.keep_every, config.keep_best)
        self._asynchronous = config.async_checkpoints
        self._most_in_a_row = config.max_failed_saves
        self._in_a_row = 0
        self._starting = starting
        self._losses: torch.Tensor | None = None
        self._steps = 0
        self._copies: dict[MetadataIndex, torch.Tensor] = {}
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def add_loss(self, loss: torch.Tensor) -> None:
        """Counts a step's loss toward the mean of the next checkpoint. It stays on its device."""
        loss = loss.detach().double()
        self._losses = loss if self._losses is None else self._losses + loss
        self._steps += 1

    def save(self, progress: Progress) -> None:
        """Saves the current state; every rank must call it.

        Raises on every rank: ValueError where a weight is not finite, which could not be loaded again; what made the
        save before fail, an OSError only after too many in a row. Without `train.async_checkpoints` other errors than
        an OSError are raised by their own save.
        """
        self.settle()
        name = not_finite(self._model)
        self._ranks.fail_together(
            ValueError(
                f"the model has diverged and is not saved: after step {progress.step} {name} holds numbers that are "
                "not finite. Resume from the last checkpoint, or start again, with a smaller optimizer.learning_rate"
            )
            if name
            else None
        )
        header = Header(
            asdict(progress),
            self._ranks.world_size,
            self._mean_loss(),
            self._model.config_text(progress.step),
            self._starting,
            self._committed,
        )
        state = run_state(self._model, self._optimizer)
        planner = Planner(state, self._ranks.rank, self._copy if self._asynchronous else None)
        folder = checkpoint_folder(self._run, progress.step)
        self.last_step = progress.step

        def write() -> None:
            try:
                save_state(state, folder, header, planner, self._ranks.saving)
                self._in_a_row = 0
            except OSError as error:
                self._note(error, progress.step)

        def write_beside() -> None:
            try:
                write()
            except BaseException as error:
                self._failure = error

        if not self._asynchronous:
            write()
            return
        if self._ranks.device.type == "cuda":
            torch.cuda.current_stream().synchronize()
        # Not a daemon: the interpreter waits for it before it exits.
        self._thread = threading.Thread(target=write_beside, name="checkpoint", daemon=False)
        self._thread.start()

    def wait(self) -> None:
        """Waits until the last save is written. Raises what made it fail, once."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def settle(self) -> None:
        """Waits until the last save is written. Raises what made it fail unless the run can go on without it."""
        try:
            self.wait()
        except OSError:
            if self._in_a_row >= self._most_in_a_row:
                raise

    def _note(self, failure: OSError, step: int) -> None:
        """Counts a failure of the save of `step`, the same on every rank: save_state raises that of the first one."""
        self._failure = failure
        self.last_step = None
        self.failed += 1
        self._in_a_row += 1
        if self._ranks.is_first:
            logger.error(
                "the checkpoint of step %d could not be saved: %s (%s). The run tries again at its next "
                "checkpoint, and stops after %d failures in a row (train.max_failed_saves)",
                step,
                failure,
                _free(self._run),
                self._most_in_a_row,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.wait()
        except Exception as failure:
            if error is None:
                raise
            logger.error("the last checkpoint could not be saved: %s", failure)

    def _copy(self, index: MetadataIndex, tensor: torch.Tensor) -> torch.Tensor:
        """A copy of a tensor in host memory, which the next save uses again."""
        copy = self._copies.get(index)
        if copy is None:
            pinned = tensor.device.type == "cuda"
            copy = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=pinned)
            self._copies[index] = copy
        return copy.copy_(tensor, non_blocking=True)

    def _mean_loss(self) -> float | None:
        if self._losses is None:
            return None
        mean = float(self._ranks.mean((self._losses / self._steps).float()))
        self._losses, self._steps = None, 0
        return mean if math.isfinite(mean) else None

    def _committed(self) -> None:
        try:
            self._retention.apply([(checkpoint.step, checkpoint.path) for checkpoint in list_checkpoints(self._run)])
        except OSError as error:  # The new one is complete.
            logger.warning("an older checkpoint could not be removed: %s", error)


def _free(folder: Path) -> str:
    try:
        return f"free space: {shutil.disk_usage(folder).free / 1e9:.2f} GB"
    except OSError:
        return "free space: not known"
