"""Saving: beside the training, complete or not at all, with every failure reported."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from reserve.config import TrainConfig
from reserve.model.manifest import read_manifest
from reserve.model.run_checkpoints import list_checkpoints
from reserve.train import storage
from reserve.train.distributed import Ranks, joined_ranks
from reserve.train.saving import CheckpointWriter
from reserve.train.state import Progress, restore_checkpoint
from tests.helpers.ranks import free_ports, run_ranks
from tests.helpers.trained_models import new_model, new_optimizer, same_bits, train_a_step, trained, whole_state

ALONE = Ranks(0, 1, torch.device("cpu"))
FILES = ("model.safetensors", "optimizer.safetensors", "config.json", "checkpoint.json")


def writer(run: Path, model, optimizer, ranks: Ranks = ALONE, **settings) -> CheckpointWriter:
    return CheckpointWriter(run, model, optimizer, ranks, TrainConfig(**settings))


def steps(run: Path) -> list[int]:
    return [checkpoint.step for checkpoint in list_checkpoints(run)]


def loaded(run: Path) -> dict[str, torch.Tensor]:
    """The state in the run's last checkpoint."""
    model = new_model(seed=9)
    optimizer = new_optimizer(model)
    restore_checkpoint(run, model, optimizer, ALONE)
    return whole_state(model, optimizer)


@pytest.fixture
def held_writes(monkeypatch):
    """Writing waits until this event is set."""
    event, original = threading.Event(), storage.write_tensors

    def write(*arguments):
        event.wait()
        return original(*arguments)

    monkeypatch.setattr(storage, "write_tensors", write)
    yield event
    event.set()


def test_what_is_written_is_the_state_of_the_save_whatever_training_does_meanwhile(tmp_path, held_writes):
    model, optimizer = trained()
    before = whole_state(model, optimizer)
    with writer(tmp_path, model, optimizer) as checkpoints:
        checkpoints.save(Progress(1))
        train_a_step(model, optimizer, seed=1)
        assert not same_bits(whole_state(model, optimizer), before)
        assert steps(tmp_path) == []
        held_writes.set()
    assert same_bits(loaded(tmp_path), before)


def test_the_copies_of_one_save_are_not_those_of_the_next(tmp_path):
    """They are in the same memory: the second save must not change what the first is still writing."""
    model, optimizer = trained()
    with writer(tmp_path, model, optimizer) as checkpoints:
        states = []
        for step in (1, 2):
            states.append(whole_state(model, optimizer))
            checkpoints.save(Progress(step))
            train_a_step(model, optimizer, seed=step)
    assert same_bits(loaded(tmp_path), states[1])
    shutil.rmtree(list_checkpoints(tmp_path)[-1].path)
    assert same_bits(loaded(tmp_path), states[0])


def test_one_save_is_written_at_a_time(tmp_path, monkeypatch):
    active, most, original = [], [], storage.save_state

    def save_state(*arguments):
        active.append(1)
        most.append(len(active))
        threading.Event().wait(0.05)
        original(*arguments)
        active.pop()

    monkeypatch.setattr("reserve.train.saving.save_state", save_state)
    with writer(tmp_path, *trained()) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(Progress(step))
    assert most == [1, 1, 1]
    assert steps(tmp_path) == [1, 2, 3]


def test_without_async_checkpoints_it_is_written_when_save_returns(tmp_path):
    with writer(tmp_path, *trained(), async_checkpoints=False) as checkpoints:
        checkpoints.save(Progress(1))
        assert steps(tmp_path) == [1]


def test_every_file_is_on_the_disk_before_the_checkpoint_counts(tmp_path, monkeypatch):
    written, fsync = [], os.fsync

    def record(number):
        written.append((os.fstat(number).st_ino, steps(tmp_path)))
        fsync(number)

    monkeypatch.setattr(os, "fsync", record)
    with writer(tmp_path, *trained()) as checkpoints:
        checkpoints.save(Progress(1))
    (checkpoint,) = list_checkpoints(tmp_path)
    assert {path.name for path in checkpoint.path.iterdir()} == set(FILES)
    before = {inode for inode, counted in written if not counted}
    assert {path.stat().st_ino for path in (checkpoint.path, *checkpoint.path.iterdir())} <= before
    assert (checkpoint.path.parent.stat().st_ino, [1]) in written


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", [2, 1], ids=["next step", "same step"])
def test_a_kill_at_any_instant_leaves_the_last_good_checkpoint(tmp_path, monkeypatch, step):
    """Every operation on the disk is once the last: the state is that of the save before or of this one."""
    model, optimizer = trained()
    states = [whole_state(model, optimizer)]
    with writer(tmp_path / "start", model, optimizer) as checkpoints:
        checkpoints.save(Progress(1))
    train_a_step(model, optimizer, seed=1)
    states.append(whole_state(model, optimizer))
    outcomes = []
    for last in range(200):
        run = tmp_path / str(last)
        shutil.copytree(tmp_path / "start", run)
        left = [last]

        def counted(function, left=left):
            def call(*arguments, **options):
                if not left[0]:
                    raise Killed
                left[0] -= 1
                return function(*arguments, **options)

            return call

        killed = False
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", counted(os.fsync))
            patched.setattr(shutil, "rmtree", counted(shutil.rmtree))
            for name in ("mkdir", "replace", "open"):
                patched.setattr(Path, name, counted(getattr(Path, name)))
            checkpoints = writer(run, model, optimizer, keep_checkpoints=1, async_checkpoints=False)
            try:
                checkpoints.save(Progress(step))
            except Killed:
                killed = True
        found = loaded(run)
        outcomes.append([same_bits(found, state) for state in states].index(True))
        # The next save removes what is left.
        writer(run, model, optimizer, keep_checkpoints=1, async_checkpoints=False).save(Progress(3))
        assert [path.name for path in (run / "checkpoints").iterdir()] == ["step_00000003"]
        if not killed:
            break
        shutil.rmtree(run)
    assert outcomes[0] == 0
    assert outcomes[-1] == 1
    assert outcomes == sorted(outcomes)
    assert len(outcomes) > 10


def test_a_diverged_model_replaces_no_checkpoint(tmp_path):
    """It could not be loaded again; a few of them would push out all that can."""
    model, optimizer = trained()
    with writer(tmp_path, model, optimizer, keep_checkpoints=1) as checkpoints:
        checkpoints.save(Progress(1))
        with torch.no_grad():
            model.head.weight[0, 0] = torch.nan
        with pytest.raises(ValueError, match=r"diverged .* after step 2 head.weight holds numbers that are not finite"):
            checkpoints.save(Progress(2))
    assert steps(tmp_path) == [1]


def test_weights_whose_sum_overflows_are_finite(tmp_path):
    model, optimizer = trained()
    with torch.no_grad():
        model.head.weight.fill_(3e38)
    with writer(tmp_path, model, optimizer) as checkpoints:
        checkpoints.save(Progress(1))
    assert steps(tmp_path) == [1]


EXITS = """
import sys
from pathlib import Path
from tests.train.test_saving import Progress, storage, trained, writer
import threading
original = storage.write_tensors
def write(*arguments):
    threading.Event().wait(0.2)
    return original(*arguments)
storage.write_tensors = write
writer(Path(sys.argv[1]), *trained()).save(Progress(1))
sys.exit(3)
"""


def test_an_interpreter_that_exits_completes_the_save(tmp_path):
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", EXITS, str(tmp_path)], cwd=root, timeout=600, check=False)
    assert done.returncode == 3
    assert same_bits(loaded(tmp_path), whole_state(*trained()))


def test_the_mean_loss_is_that_of_the_steps_since_the_checkpoint_before(tmp_path):
    with writer(tmp_path, *trained()) as checkpoints:
        for step, losses in enumerate([[4.0, 2.0], [1.0], [], [torch.inf], [5.0]], 1):
            for loss in losses:
                checkpoints.add_loss(torch.tensor(loss))
            checkpoints.save(Progress(step))
            checkpoints.wait()
            (last,) = list_checkpoints(tmp_path)[-1:]
            assert read_manifest(last.path).mean_loss == [3.0, 1.0, None, None, 5.0][step - 1]


def test_checkpoints_are_kept_by_policy(tmp_path):
    with writer(tmp_path, *trained(), keep_checkpoints=2, keep_every=10, keep_best=1) as checkpoints:
        for step, loss in [(5, 9.0), (10, 8.0), (15, 1.0), (20, 3.0), (25, 4.0), (30, 2.0), (35, 6.0)]:
            checkpoints.add_loss(torch.tensor(loss))
            checkpoints.save(Progress(step))
    assert steps(tmp_path) == [10, 15, 20, 30, 35]


def fail_on_rank(rank: int, port: int, run: Path) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    from torch.distributed.fsdp import fully_shard

    original = storage.write_tensors

    def fail(path, *arguments):
        if rank == 1 and "optimizer" in path.name:
            raise OSError("rank 1 has no disk")
        return original(path, *arguments)

    with joined_ranks("cpu") as ranks:
        model = fully_shard(new_model())
        optimizer = new_optimizer(model)
        train_a_step(model, optimizer)
        with writer(run, model, optimizer, ranks, max_failed_saves=1) as checkpoints:
            checkpoints.add_loss(torch.tensor(1.0 + 2 * rank))
            checkpoints.save(Progress(1))
            checkpoints.wait()
            assert steps(run) == [1]
            storage.write_tensors = fail
            checkpoints.save(Progress(2))
            with pytest.raises(OSError, match="rank 1 has no disk"):
                checkpoints.save(Progress(3))
            storage.write_tensors = original
            # Only one rank's shard is not finite; the others must not wait for it.
            if rank == 1:
                model.head.weight.to_local().detach()[-1, -1] = torch.inf
            with pytest.raises(ValueError, match=r"diverged .* after step 4 head.weight"):
                checkpoints.save(Progress(4))


def test_what_fails_on_one_rank_is_raised_on_every_rank(tmp_path):
    (port,) = free_ports(1)
    run_ranks(fail_on_rank, port, tmp_path)
    (checkpoint,) = list_checkpoints(tmp_path)
    manifest = read_manifest(checkpoint.path)
    assert (checkpoint.step, manifest.world_size, manifest.mean_loss) == (1, 2, 2.0)


def die_on_rank(rank: int, port: int, run: Path) -> None:
    """Rank 1 dies while it writes its shard; what rank 0 raises is written to a file."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    from torch.distributed.fsdp import fully_shard

    with joined_ranks("cpu") as ranks:
        model = fully_shard(new_model())
        checkpoints = writer(run, model, new_optimizer(model), ranks)
        checkpoints.save(Progress(1))
        checkpoints.wait()
        if rank == 1:
            storage.write_tensors = lambda *_: os._exit(9)
        checkpoints.save(Progress(2))
        try:
            checkpoints.wait()
        except RuntimeError as error:
            (run / "raised").write_text(str(error))


def test_the_death_of_one_rank_is_an_error_on_the_others(tmp_path):
    (port,) = free_ports(1)
    context = multiprocessing.get_context("forkserver")
    ranks = [context.Process(target=die_on_rank, args=(rank, port, tmp_path), daemon=True) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(600)  # The ranks' own timeout is days.
    assert ranks[1].exitcode == 9
    assert ranks[0].exitcode is not None, "rank 0 hangs"
    # What rank 0 was doing when the connection ended decides which error it gets.
    assert re.search(r"[Cc]onnection|Broken pipe", (tmp_path / "raised").read_text())
    assert steps(tmp_path) == [1]
