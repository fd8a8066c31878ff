"""Held-out evaluation every n steps: what it judges, that it changes nothing, and what it survives."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from reserve.config import Config, OptimizerConfig, TrainConfig
from reserve.errors import BadInput, Stopped
from reserve.model.run_checkpoints import list_checkpoints
from reserve.tasks import TASKS
from reserve.tasks.task import HeldOut
from reserve.tasks.vcr.task import Vcr
from reserve.train.distributed import Ranks
from reserve.train.evaluate import evaluate_run
from reserve.train.fit import fit
from reserve.train.metrics import read_metrics
from reserve.train.periodic import PeriodicEvaluation, _unchanged_generators, held_out_data
from reserve.train.run_folder import read_run
from tests.helpers.classifier_task import ClassifierConfig, Classify
from tests.helpers.ranks import free_ports, run_ranks
from tests.helpers.tiny import tiny
from tests.train.compare_runs import losses_of, tensors_of
from tests.train.test_fit import pretrain

MODEL = ClassifierConfig(**asdict(tiny(vocab_size=32, output_grid=(2, 2), init_scale=5.0)), dropout=0.3)
STEPS, EVERY = 7, 2
CPU = Ranks(0, 1, torch.device("cpu"))


@dataclass(frozen=True)
class Judged(Classify):
    """Judges itself, drawing from every generator. `events` of the class say what is done."""

    name = "classify"
    held_out_inputs = "--questions"
    events = []  # noqa: RUF012

    def held_out_data(self, run):
        return HeldOut((), run / self.held_out_folder)

    def prepare_held_out(self, held_out, config):
        self.events.append("prepare")

    def loss(self, model, batch, group):
        self.events.append("step")
        return super().loss(model, batch, group)

    def evaluate(self, model, held_out, *, config, step):
        self.events.append(f"evaluate {step}" if held_out.prepared else "evaluate unprepared data")
        model.eval()
        torch.rand(3), random.random(), np.random.rand()  # noqa: NPY002
        return super().evaluate(model, held_out, config=config, step=step)


def config(every: int = EVERY, **train) -> Config:
    return Config(
        optimizer=OptimizerConfig(learning_rate=2e-3, num_train_steps=STEPS, num_warmup_steps=1),
        train=TrainConfig(
            batch_size=6,
            device="cpu",
            precision="float32",
            num_workers=0,
            log_every=1,
            keep_checkpoints=99,
            evaluate_every=every,
            **train,
        ),
    )


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(TASKS, "classify", "tests.train.test_periodic:Judged")
    monkeypatch.setattr(Judged, "events", [])


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """The same run without evaluations."""
    folder = tmp_path_factory.mktemp("plain")
    fit(Judged(MODEL), folder, config(0))
    return folder


def evaluations(run: Path) -> list[dict[str, float]]:
    return read_metrics(run / "evaluations.jsonl")


def losses(run: Path) -> list[dict[str, float]]:
    return [losses_of(line) for line in read_metrics(run / "metrics.jsonl")]


def steps(lines: list[dict[str, float]]) -> list[float]:
    return [line["step"] for line in lines]


def assert_same(run: Path, other: Path) -> None:
    assert losses(run) == losses(other)
    expected, found = tensors_of(other), tensors_of(run)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_it_judges_each_nth_checkpoint_and_changes_nothing(plain, tmp_path):
    fit(Judged(MODEL), tmp_path, config())
    assert_same(tmp_path, plain)
    assert [checkpoint.step for checkpoint in list_checkpoints(tmp_path)] == [2, 4, 6, 7]
    assert steps(evaluations(tmp_path)) == [2, 4, 6]
    assert json.loads((tmp_path / "evaluation.json").read_text())["step"] == 6
    # What `reserve evaluate` says of that checkpoint.
    shutil.rmtree(list_checkpoints(tmp_path)[-1].path)
    line = evaluations(tmp_path)[-1]
    assert line.pop("seconds") > 0
    assert line == {"step": 6, "accuracy": pytest.approx(evaluate_run(tmp_path, []).figures()["accuracy"])}


def test_its_time_is_told_and_no_part_of_the_speed(tmp_path):
    fit(Judged(MODEL), tmp_path, config())
    spent = [line["seconds_evaluating"] > 0 for line in read_metrics(tmp_path / "metrics.jsonl")]
    assert spent == [False, False, True, False, True, False, True]


def test_tensorboard_shows_it_beside_the_training(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit(Judged(MODEL), tmp_path, config())
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in board.Scalars("heldout/accuracy")] == [2, 4, 6]


class Killed(BaseException):
    pass


@dataclass(frozen=True)
class DiesJudging(Judged):
    name = "classify"

    def evaluate(self, model, held_out, *, config, step):
        if step == 4:
            raise Killed
        return super().evaluate(model, held_out, config=config, step=step)


def test_killed_while_it_judges_it_is_judged_on_resume_before_the_next_step(plain, tmp_path):
    with pytest.raises(Killed):
        fit(DiesJudging(MODEL), tmp_path, config())
    assert steps(evaluations(tmp_path)) == [2]
    Judged.events.clear()
    fit(Judged(MODEL), tmp_path, config())
    assert Judged.events[:2] == ["prepare", "evaluate 4"]
    assert steps(evaluations(tmp_path)) == [2, 4, 6]
    assert_same(tmp_path, plain)


def test_lines_after_the_resumed_step_are_dropped_and_none_is_repeated(tmp_path):
    fit(Judged(MODEL), tmp_path, config())
    for checkpoint in list_checkpoints(tmp_path)[1:]:
        shutil.rmtree(checkpoint.path)
    Judged.events.clear()
    fit(Judged(MODEL), tmp_path, config())
    assert [event for event in Judged.events if event.startswith("evaluate")] == ["evaluate 4", "evaluate 6"]
    assert steps(evaluations(tmp_path)) == [2, 4, 6]


@dataclass(frozen=True)
class FailsOnce(Judged):
    name = "classify"

    def evaluate(self, model, held_out, *, config, step):
        if step == 2:
            raise BadInput("video.mp4 is damaged")
        return super().evaluate(model, held_out, config=config, step=step)


def test_an_evaluation_that_fails_is_logged_and_counted_and_the_run_goes_on(plain, tmp_path, caplog):
    fit(FailsOnce(MODEL), tmp_path, config())
    assert "the evaluation after step 2 failed: video.mp4 is damaged; the run goes on" in caplog.text
    assert steps(evaluations(tmp_path)) == [4, 6]
    counts = [line.pop("failed_evaluations", 0) for line in read_metrics(tmp_path / "metrics.jsonl")]
    assert counts == [0, 0, 1, 1, 1, 1, 1]
    assert [line["loss"] for line in losses(tmp_path)] == [line["loss"] for line in losses(plain)]


def test_a_checkpoint_that_was_not_saved_is_not_judged(tmp_path, caplog):
    evaluation = PeriodicEvaluation(Judged(MODEL), tmp_path, config(), CPU, HeldOut((), tmp_path))

    class Saved:
        def settle(self):
            pass

    evaluation.evaluate(2, Saved(), None)
    assert "the evaluation after step 2 failed: its checkpoint was not saved" in caplog.text
    assert evaluation.failed == 1


def test_held_out_data_must_be_named(tmp_path):
    with pytest.raises(ValueError, match=r"evaluate_every 2 needs held-out data, which the task classify has none of"):
        fit(Classify(MODEL), tmp_path / "run", config())
    assert not (tmp_path / "run").exists()


def test_held_out_data_without_evaluations_is_told(tmp_path, caplog):
    assert held_out_data(Judged(MODEL), tmp_path, config(0)) is None
    assert "the held-out data is not used: train.evaluate_every is 0" in caplog.text


@dataclass(frozen=True)
class NothingToJudge(Judged):
    name = "classify"

    def prepare_held_out(self, held_out, config):
        raise BadInput("no such folder")


def test_bad_held_out_data_ends_the_run_before_its_first_step(tmp_path):
    with pytest.raises(BadInput, match="no such folder"):
        fit(NothingToJudge(MODEL), tmp_path, config())
    assert Judged.events == []


@dataclass(frozen=True)
class Stops(Judged):
    """Is asked to stop in its second step."""

    name = "classify"

    def loss(self, model, batch, group):
        if Judged.events.count("step") == 1:
            signal.raise_signal(signal.SIGTERM)
        return super().loss(model, batch, group)


def test_a_run_that_is_asked_to_stop_is_judged_when_it_is_resumed(tmp_path):
    with pytest.raises(Stopped):
        fit(Stops(MODEL), tmp_path, config())
    assert list_checkpoints(tmp_path)[-1].step == 2
    assert not (tmp_path / "evaluations.jsonl").exists()
    fit(Judged(MODEL), tmp_path, config())
    assert steps(evaluations(tmp_path)) == [2, 4, 6]


def test_every_generator_is_put_back():
    def drawn():
        return torch.rand(1).item(), random.random(), np.random.rand()  # noqa: NPY002

    def seed():
        torch.manual_seed(0), random.seed(0), np.random.seed(0)  # noqa: NPY002

    def fail():
        with _unchanged_generators(torch.device("cpu")):
            drawn()
            raise BadInput("damaged")

    seed()
    expected = drawn()
    seed()
    with pytest.raises(BadInput):
        fail()
    assert drawn() == expected


def _train(rank: int, ports: list[int], folder: Path, mode: str) -> None:
    """The run with and without evaluations, on two ranks."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    torch.set_num_threads(1)
    TASKS["classify"] = "tests.train.test_periodic:Judged"
    for port, name, every in zip(ports, ("judged", "plain"), (EVERY, 0), strict=True):
        os.environ["MASTER_PORT"] = str(port)
        fit(Judged(MODEL), folder / name, config(every, parallel=mode))
    assert [event for event in Judged.events if "evaluate" in event] == (
        ["evaluate 2", "evaluate 4", "evaluate 6"] if rank == 0 else []
    )


@pytest.mark.parametrize("mode", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_ranks_wait_for_the_first_and_are_not_changed(mode, tmp_path):
    run_ranks(_train, free_ports(2), tmp_path, mode)
    assert_same(tmp_path / "judged", tmp_path / "plain")
    assert steps(evaluations(tmp_path / "judged")) == [2, 4, 6]


@pytest.fixture(scope="module")
def pretrained(narrated_videos, tmp_path_factory) -> tuple[Path, Path]:
    """Pretraining on videos with and without evaluations."""
    folders = tmp_path_factory.mktemp("judged"), tmp_path_factory.mktemp("plain")
    arguments = ["--optimizer.num_train_steps=3", "--train.keep_checkpoints=9"]
    judged = ["--train.evaluate_every=2", "--held_out", str(narrated_videos / "heldout")]
    assert pretrain(narrated_videos / "train", folders[0], *arguments, *judged) == 0
    shutil.copytree(folders[0] / "prepared", folders[1] / "prepared")
    assert pretrain(narrated_videos / "train", folders[1], *arguments) == 0
    return folders


def test_pretraining_is_judged_on_the_videos_it_is_given(pretrained, narrated_videos):
    judged, plain = pretrained
    assert losses(judged) == losses(plain)
    (line,) = evaluations(judged)
    assert line["step"] == 2
    assert line["stuff_to_span_chance_at_1"] < 0.5
    assert read_run(judged)[0].held_out == (narrated_videos / "heldout",)
    assert (judged / "validation" / "files.jsonl").is_file()


def test_pretraining_with_videos_that_are_not_there_ends_before_the_training_videos_are_prepared(
    narrated_videos, tmp_path, capsys
):
    judged = ["--train.evaluate_every=2", "--held_out", str(tmp_path / "none")]
    assert pretrain(narrated_videos / "train", tmp_path / "run", *judged) == 1
    assert str(tmp_path / "none") in capsys.readouterr().err
    assert not (tmp_path / "run" / "files.jsonl").exists()


def test_pretraining_says_which_inputs_an_evaluation_needs(narrated_videos, tmp_path, capsys):
    assert pretrain(narrated_videos / "train", tmp_path / "run", "--train.evaluate_every=2") == 1
    assert "needs held-out data: give --held_out or --held_out_shards" in capsys.readouterr().err


def test_a_finetuned_task_is_judged_on_its_validation_split(task_data_sets, tmp_path):
    task = Vcr(data=task_data_sets / "vcr")
    held_out = task.held_out_data(tmp_path)
    assert (held_out.split, held_out.folder) == ("val", tmp_path / "predictions")
    task.prepare_held_out(held_out, TrainConfig())
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput):
        Vcr(data=tmp_path / "empty").prepare_held_out(held_out, TrainConfig())
