"""Starts training runs in processes of their own, which have the run's folder as working directory."""

from __future__ import annotations

import multiprocessing
import multiprocessing.process
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch

from reserve.config import Config, OptimizerConfig, TrainConfig
from reserve.train.fit import fit
from tests.helpers.classifier_task import ClassifierConfig, Classify
from tests.helpers.ranks import PRELOADED
from tests.helpers.tiny import tiny

STEPS = 12

SETTINGS = [
    "--config=tiny",
    "--train.device=cpu",
    "--train.precision=float32",
    "--train.prepare_workers=1",
    "--train.log_every=1",
    "--train.checkpoint_every=1",
    "--train.keep_checkpoints=2",
    f"--optimizer.num_train_steps={STEPS}",
    "--optimizer.num_warmup_steps=1",
    "--model.hidden_size=64",
    "--model.joint_num_layers=1",
    "--model.vit_num_layers=1",
    "--model.audio_num_layers=1",
]
"""Steps and saves take about as long as each other."""


class Running(Protocol):
    """A run's main process."""

    @property
    def pid(self) -> int | None: ...

    def status(self) -> int | None:
        """Its exit status, None while it runs."""


class Launcher(Protocol):
    """A way to run."""

    @property
    def prepares(self) -> bool:
        """Whether kills may interrupt the preparation of the videos."""

    @property
    def supervised(self) -> bool:
        """Whether the main process only watches over the ranks: they outlive it, so it is not killed alone."""

    def start(self, run: Path, starts: int) -> Running:
        """Starts a run, or resumes it after `starts` starts."""


@dataclass(frozen=True)
class Pretraining:
    """The command line. `workers` are the loading processes of the first start and of each resume, in turn."""

    videos: Path
    ranks: int = 1
    workers: Sequence[int] = (0,)
    prepares: bool = False
    settings: Sequence[str] = ("--train.batch_size=4",)

    @property
    def supervised(self) -> bool:
        return self.ranks > 1

    def start(self, run: Path, starts: int) -> Running:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={self.ranks}"]
        command = [sys.executable, *(launcher if self.ranks > 1 else []), "-m", "reserve", "pretrain"]
        if (run / "config.yaml").exists():
            command += ["--resume", str(run)]
        else:
            command += [*SETTINGS, *self.settings, "--videos", str(self.videos), "--out", str(run)]
        command.append(f"--train.num_workers={self.workers[starts % len(self.workers)]}")
        path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
        with log_of(run).open("ab") as log:
            return Command(subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=run))


@dataclass(frozen=True)
class Command:
    """A run that a command has started."""

    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int | None:
        return self.process.pid

    def status(self) -> int | None:
        return self.process.poll()


@dataclass(frozen=True)
class Forked:
    """`train(run, STEPS)` in a process of the fork server, which has imported torch already."""

    train: Callable[[Path, int], None]
    prepares: bool = False
    supervised: bool = False

    def start(self, run: Path, starts: int) -> Running:
        multiprocessing.set_forkserver_preload(PRELOADED)
        process = multiprocessing.get_context("forkserver").Process(target=_train_in, args=(self.train, run))
        process.start()
        return ForkedProcess(process)


@dataclass(frozen=True)
class ForkedProcess:
    """A run in a process of the fork server."""

    process: multiprocessing.process.BaseProcess

    @property
    def pid(self) -> int | None:
        return self.process.pid

    def status(self) -> int | None:
        return self.process.exitcode


def _train_in(train: Callable[[Path, int], None], run: Path) -> None:
    os.chdir(run)
    torch.set_num_threads(1)
    with log_of(run).open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    train(run, STEPS)


def train_classifier(run: Path, steps: int) -> None:
    """Fits the smallest task, in batches of 6 of its 16 examples, so that some straddle epochs.

    With dropout, so that a resumed run with other random numbers has other losses.
    """
    train = TrainConfig(
        batch_size=6,
        device="cpu",
        precision="float32",
        num_workers=0,
        log_every=1,
        checkpoint_every=1,
        keep_checkpoints=2,
    )
    optimizer = OptimizerConfig(num_train_steps=steps, num_warmup_steps=0)
    model = ClassifierConfig(**asdict(tiny(vocab_size=32, output_grid=(2, 2))), dropout=0.1)
    fit(Classify(model), run, Config(optimizer=optimizer, train=train))


def log_of(run: Path) -> Path:
    """Where the output of a run's processes goes."""
    return run.parent / f"{run.name}.log"


def pretraining_variants(videos: Path) -> dict[str, Pretraining]:
    """The ways to run that are killed, by name."""
    return {
        "one process": Pretraining(videos),
        "loading processes": Pretraining(videos, workers=(1, 2, 0)),
        "from unprepared videos": Pretraining(videos, prepares=True),
        "two ranks, DDP": Pretraining(videos, ranks=2, workers=(0, 1)),
        "two ranks, FSDP": Pretraining(videos, ranks=2, settings=("--train.batch_size=4", "--train.parallel=fsdp")),
    }
