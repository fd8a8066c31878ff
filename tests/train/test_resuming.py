"""A resumed run goes on at the next example, whatever its batches are now, and says what changed about its data."""

from __future__ import annotations

import logging
import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from reserve.batch.vocabulary import MASK
from reserve.config import Config, OptimizerConfig, TrainConfig
from reserve.data.order import epoch_order
from reserve.model.run_checkpoints import list_checkpoints
from reserve.tasks import TASKS
from reserve.train.distributed import Ranks
from reserve.train.fit import fit
from reserve.train.metrics import read_metrics
from reserve.train.optimizer import make_optimizer
from reserve.train.state import restore_checkpoint
from tests.helpers.classifier_task import ClassifierConfig, Classify
from tests.helpers.old_checkpoints import write_old_checkpoint
from tests.helpers.tiny import tiny

MODEL = ClassifierConfig(**asdict(tiny(vocab_size=32, output_grid=(2, 2))))
EXAMPLES = 23


class Recorded(list):
    """Questions, and which of them were asked for."""

    def __getitem__(self, key):
        Counted.seen.append(tuple(key))
        return super().__getitem__(key[1])


@dataclass(frozen=True)
class Words:
    """A section of the task's settings."""

    longest: int = 3


@dataclass(frozen=True)
class Counted(Classify):
    name = "counted"
    seen: ClassVar[list[tuple[int, int]]] = []
    questions: int = EXAMPLES
    words: Words = field(default_factory=Words)

    def training_set(self, run, config):
        words = np.random.default_rng(config.seed).integers(10, 32, (self.questions, self.words.longest))
        return Recorded(np.array([*question, MASK]) for question in words)


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(TASKS, "counted", "tests.train.test_resuming:Counted")


def train(run: Path, steps: int, batch_size: int, task: Counted | None = None, **settings) -> list[tuple[int, int]]:
    """Trains until `steps` and returns the (epoch, index) of the examples used."""
    Counted.seen.clear()
    train = TrainConfig(batch_size=batch_size, device="cpu", precision="float32", num_workers=0, **settings)
    optimizer = OptimizerConfig(num_train_steps=steps, num_warmup_steps=0)
    fit(task or Counted(MODEL), run, Config(optimizer=optimizer, train=train))
    return list(Counted.seen)


def order(epoch: int, examples: int = EXAMPLES, seed: int = 0) -> list[tuple[int, int]]:
    return [(epoch, int(index)) for index in epoch_order(examples, seed, epoch)]


STREAM = [key for epoch in range(5) for key in order(epoch)]


# That every sequence of batch sizes reads one stream is tested in tests/data/test_loader.py.
@pytest.mark.parametrize(("batch_size", "accumulate"), [(4, 2), (1, 1), (5, 1), (8, 4), (23, 1)])
def test_another_batch_size_goes_on_at_the_next_example(batch_size, accumulate, tmp_path):
    assert train(tmp_path, 3, 4) == STREAM[:12]
    assert train(tmp_path, 6, batch_size, accumulate=accumulate) == STREAM[12 : 12 + 3 * batch_size]
    # And again, from a place that the batches do not divide.
    place = 12 + 3 * batch_size
    assert train(tmp_path, 8, 2) == STREAM[place : place + 4]


def test_the_end_of_an_epoch_is_used_before_the_next_one(tmp_path):
    """Five batches of four leave three examples; the sixth batch takes them and one of the next epoch."""
    assert train(tmp_path, 5, 4) == order(0)[:20]
    assert train(tmp_path, 6, 4) == [*order(0)[20:], *order(1)[:1]]
    assert list_checkpoints(tmp_path)[-1].step == 6
    assert train(tmp_path, 7, 5) == order(1)[1:6]


def _make_old(run: Path) -> None:
    """Rewrites the last checkpoint in the layout of older versions, without its place in the data."""
    task, config = Counted(MODEL), OptimizerConfig()
    model = task.build_model()
    groups = task.parameter_groups(model, config)
    optimizer = make_optimizer(model, groups, config, decay_to_start=task.finetuning)
    progress = restore_checkpoint(run, model, optimizer, Ranks(0, 1, torch.device("cpu")))
    folder = list_checkpoints(run)[-1].path
    shutil.rmtree(folder)
    write_old_checkpoint(folder, model, optimizer, progress.step)


@pytest.mark.parametrize(("steps", "expected"), [(3, order(0)[12:18]), (5, [*order(1)[:6]]), (7, [*order(1)[8:14]])])
def test_an_old_checkpoint_goes_on_where_its_steps_were(steps, expected, tmp_path, caplog):
    """Older versions dropped what did not fill a batch: after five batches of four their epoch was over."""
    train(tmp_path, steps, 4)
    _make_old(tmp_path)
    with caplog.at_level(logging.INFO):
        assert train(tmp_path, steps + 2, 3) == expected
    assert f"does not hold its place in the data; counted from its {steps} steps of 4 examples" in caplog.text


def test_the_same_settings_go_on_without_a_warning(tmp_path, caplog):
    train(tmp_path, 3, 4)
    assert train(tmp_path, 5, 4) == order(0)[12:20]
    assert not [record for record in caplog.records if record.name == "reserve.train.resuming"]
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [3, 5]


def test_another_seed_begins_the_next_epoch_with_a_warning(tmp_path, caplog):
    """Its order of examples is another one, in which the place means nothing."""
    train(tmp_path, 3, 4)
    assert train(tmp_path, 5, 4, seed=7) == order(1, seed=7)[:8]
    assert "(now 7 and 23, before 0 and 23), and with it the order of the examples: starting epoch 2" in caplog.text
    assert "resumes with other data settings: train.seed 7, not 0" in caplog.text


def test_more_examples_begin_the_next_epoch_with_a_warning(tmp_path, caplog):
    train(tmp_path, 3, 4)
    more = replace(Counted(MODEL), questions=40)
    assert train(tmp_path, 5, 4, more) == order(1, examples=40)[:8]
    assert "(now 0 and 40, before 0 and 23), and with it the order of the examples: starting epoch 2" in caplog.text
    assert "resumes with other data settings: questions 40, not 23" in caplog.text
    # From then on it is that data set's place.
    assert train(tmp_path, 6, 4, more) == order(1, examples=40)[8:12]


def test_other_contents_of_the_examples_are_named(tmp_path, caplog):
    train(tmp_path, 3, 4)
    other = replace(Counted(MODEL), words=Words(5))
    assert train(tmp_path, 4, 4, other) == order(0)[12:16]
    assert "resumes with other data settings: words.longest 5, not 3" in caplog.text
    assert "the order of the examples" not in caplog.text


def _crash(run: Path, monkeypatch, **settings) -> None:
    """A resumed run that dies in its first step."""

    def out_of_memory(*_, **__):
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patched:
        patched.setattr("reserve.train.fit.train_step", out_of_memory)
        with pytest.raises(RuntimeError, match="out of memory"):
            train(run, 9, **settings)


def test_a_resume_that_crashed_changes_nothing_for_the_next_one(tmp_path, monkeypatch, caplog):
    train(tmp_path, 3, 4)
    _crash(tmp_path, monkeypatch, batch_size=4, seed=7)
    assert train(tmp_path, 4, 4) == order(0)[12:16]
    _crash(tmp_path, monkeypatch, batch_size=4, seed=7)
    caplog.clear()
    assert train(tmp_path, 5, 4, seed=7) == order(1, seed=7)[:4]
    assert "resumes with other data settings: train.seed 7, not 0" in caplog.text


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_run_killed_while_it_saves_keeps_the_settings_it_was_resumed_with(tmp_path, monkeypatch, asynchronous):
    """A checkpoint made with settings that config.yaml lacks would go on with other ones."""
    train(tmp_path, 3, 4)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("reserve.train.fit.write_run_settings", killed)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, 4, 6, async_checkpoints=asynchronous)
    assert [checkpoint.step for checkpoint in list_checkpoints(tmp_path)] == [3]


def test_a_resume_of_an_old_checkpoint_that_crashed_keeps_its_batch_size(tmp_path, monkeypatch):
    train(tmp_path, 3, 4)
    _make_old(tmp_path)
    _crash(tmp_path, monkeypatch, batch_size=6)
    assert train(tmp_path, 4, 4) == order(0)[12:16]
