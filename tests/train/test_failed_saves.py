"""Saves that fail: survived for a while, named, and never mistaken for saves."""

from __future__ import annotations

import errno
import logging
import os
import resource
import signal
import threading

import pytest
import torch

from reserve.config import TrainConfig
from reserve.train import storage
from reserve.train.saving import CheckpointWriter
from reserve.train.state import Progress
from tests.helpers.trained_models import trained
from tests.train.test_saving import ALONE, steps, writer


@pytest.fixture
def small_disk():
    """Files that the test writes may have `limit` bytes; writing more fails as on a full disk."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("asynchronous", [True, False])
@pytest.mark.parametrize(("limit", "name"), [(10_000, "model.safetensors"), (2_000_000, "optimizer.safetensors")])
def test_a_full_disk_is_an_error_that_names_the_file(tmp_path, small_disk, limit, name, asynchronous):
    model, optimizer = trained()
    for state in optimizer.state.values():  # larger than the weights
        state["m"] = torch.zeros(2_000_000 // len(optimizer.state), dtype=torch.bfloat16)
    small_disk(limit)
    checkpoints = writer(tmp_path, model, optimizer, async_checkpoints=asynchronous)

    def save():
        checkpoints.save(Progress(1))
        checkpoints.wait()

    with pytest.raises(OSError, match=f"cannot write .*step_00000001.partial/{name}: File too large"):
        save()
    assert steps(tmp_path) == []
    # It is reported once, and the writer can go on.
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    save()
    assert steps(tmp_path) == [1]


@pytest.fixture
def no_disk(monkeypatch):
    """Writing fails while the list holds something."""
    failing, original = [True], storage.write_tensors

    def write(*arguments):
        if failing:
            raise OSError("no disk")
        return original(*arguments)

    monkeypatch.setattr(storage, "write_tensors", write)
    return failing


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_run_survives_saves_that_fail_but_not_too_many_in_a_row(tmp_path, no_disk, caplog, asynchronous):
    checkpoints = writer(tmp_path, *trained(), max_failed_saves=2, async_checkpoints=asynchronous)
    checkpoints.save(Progress(1))
    for thread in threading.enumerate():
        if thread.name == "checkpoint":
            thread.join()
    no_disk.clear()
    checkpoints.save(Progress(2))
    checkpoints.wait()
    assert (steps(tmp_path), checkpoints.failed) == ([2], 1)
    assert "the checkpoint of step 1 could not be saved: no disk" in caplog.text
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000002"]
    no_disk.append(True)
    checkpoints.save(Progress(3))
    checkpoints.save(Progress(4))
    with pytest.raises(OSError, match="no disk"):
        checkpoints.save(Progress(5))
    assert (steps(tmp_path), checkpoints.failed) == ([2], 3)


def test_an_older_checkpoint_that_cannot_be_removed_fails_no_save(tmp_path, monkeypatch, caplog):
    def busy(*_):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr("reserve.train.retention.remove_checkpoint", busy)
    with writer(tmp_path, *trained(), keep_checkpoints=1) as checkpoints:
        for step in (1, 2):
            checkpoints.save(Progress(step))
    assert (steps(tmp_path), checkpoints.failed) == ([1, 2], 0)
    assert "an older checkpoint could not be removed" in caplog.text


def test_a_last_save_that_fails_is_an_error(tmp_path, no_disk):
    def save_once() -> None:
        with writer(tmp_path, *trained(), max_failed_saves=2) as checkpoints:
            checkpoints.save(Progress(1))

    with pytest.raises(OSError, match="no disk"):
        save_once()


def test_what_must_be_written_before_is_part_of_the_save(tmp_path):
    """A configuration that cannot be written must not leave a checkpoint that would resume with another one."""

    def starting() -> None:
        raise OSError("no configuration")

    checkpoints = CheckpointWriter(tmp_path, *trained(), ALONE, TrainConfig(), starting)
    checkpoints.save(Progress(1))
    with pytest.raises(OSError, match="no configuration"):
        checkpoints.wait()
    assert steps(tmp_path) == []


def test_an_exception_waits_for_the_save_and_is_not_replaced_by_its_failure(tmp_path, monkeypatch, caplog):
    def stop_in_a_block() -> None:
        with writer(tmp_path, *trained()) as checkpoints:
            checkpoints.save(Progress(1))
            raise KeyError("the training's")

    with pytest.raises(KeyError, match="the training's"):
        stop_in_a_block()
    assert steps(tmp_path) == [1]

    def fail(*_):
        raise OSError("no disk")

    monkeypatch.setattr(storage, "write_tensors", fail)
    with caplog.at_level(logging.ERROR), pytest.raises(KeyError, match="the training's"):
        stop_in_a_block()
    assert "the last checkpoint could not be saved: no disk" in caplog.text
