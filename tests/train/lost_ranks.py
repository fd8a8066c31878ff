"""Runs of several ranks, one of which has trouble: each rank is a process with a log of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from reserve.config import Config, OptimizerConfig, TrainConfig
from reserve.errors import RankLost
from reserve.train import watch
from reserve.train.fit import fit
from tests.helpers.classifier_task import ClassifierConfig, Classify, Questions
from tests.helpers.ranks import PRELOADED, free_ports
from tests.helpers.tiny import tiny

PATIENCE = 300.0
"""Seconds until a rank counts as hanging: far more than the slowest machine takes, and far fewer than the timeouts that
a test does not wait for."""
STEPS = 12
TROUBLE_AT = 5
"""The step, counted from 0, before which a rank's trouble comes."""
BATCH = 6


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def hang() -> None:
    print("process", os.getpid(), "hangs", flush=True)
    threading.Event().wait()


def jump() -> None:
    """The clock of the host is set to another century."""
    time.time = lambda: 9e9  # type: ignore[assignment]


def fail() -> None:
    raise ValueError("the disk is on fire")


class Troubled(Questions):
    """Examples of which the first one of step TROUBLE_AT is trouble."""

    trouble: Callable[[], None] | None = None
    left: int

    def __getitem__(self, key):
        if self.left == 0 and self.trouble is not None:
            self.trouble()
        self.left -= 1
        return super().__getitem__(key)


class ClassifyTroubled(Classify):
    trouble: Callable[[], None] | None = None
    world_size = 1

    def training_set(self, run, config):
        dataset = Troubled(super().training_set(run, config))
        dataset.trouble = type(self).trouble
        dataset.left = BATCH // self.world_size * TROUBLE_AT
        return dataset


def train(run: Path, trouble: Callable[[], None] | None, world_size: int, **settings: float) -> None:
    """Fits the smallest task, without dropout, in this process, with one checkpoint every other step."""
    ClassifyTroubled.trouble, ClassifyTroubled.world_size = staticmethod(trouble) if trouble else None, world_size
    config = TrainConfig(
        batch_size=BATCH,
        device="cpu",
        precision="float32",
        log_every=1,
        checkpoint_every=2,
        **{"num_workers": 0, **settings},  # type: ignore[arg-type]
    )
    optimizer = OptimizerConfig(num_train_steps=STEPS, num_warmup_steps=0)
    model = ClassifierConfig(**asdict(tiny(vocab_size=32, output_grid=(2, 2))))
    fit(ClassifyTroubled(model), run, Config(optimizer=optimizer, train=config))


def _rank(
    rank: int, world_size: int, port: int, run: Path, trouble: Callable[[], None] | None, settings: dict[str, float]
) -> None:
    with log_of(run, rank).open("wb") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    torch.set_num_threads(1)
    watch.GRACE = 1.0
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world_size), "LOCAL_RANK": str(rank)}
    try:
        train(run, trouble, world_size, **settings)
    except RankLost as error:
        print("RankLost:", error, flush=True)
        sys.exit(75)


def log_of(run: Path, rank: int) -> Path:
    """What a rank printed."""
    return run / f"rank{rank}.log"


def die_once() -> None:
    """In the first start by torchrun only."""
    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        die()


def main() -> None:
    """A rank that torchrun has started, of which the one that the environment names dies once."""
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(1)
    train(Path(sys.argv[1]), die_once if sys.argv[2] == str(rank) else None, world_size)


def start_ranks(
    run: Path, world_size: int, trouble: Callable[[], None], at: int, **settings: float
) -> list[BaseProcess]:
    """Starts the ranks of a run, of which the one numbered `at` has trouble."""
    run.mkdir()
    multiprocessing.set_forkserver_preload(PRELOADED)
    context, (port,) = multiprocessing.get_context("forkserver"), free_ports(1)
    processes = []
    for rank in range(world_size):
        trouble_here = trouble if rank == at else None
        process = context.Process(target=_rank, args=(rank, world_size, port, run, trouble_here, settings))
        process.start()
        processes.append(process)
    return processes


def wait_for(run: Path, processes: list[BaseProcess], *ranks: int) -> dict[int, tuple[int | None, str]]:
    """The exit status of each of these ranks, None if it hangs, and what it printed."""
    for rank in ranks:
        processes[rank].join(PATIENCE)
    return {rank: (processes[rank].exitcode, log_of(run, rank).read_text("utf-8", "replace")) for rank in ranks}


if __name__ == "__main__":
    main()
