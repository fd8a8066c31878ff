"""Steps that are not finite are reported with their batch, and too many of them end a run."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from reserve.config import Config, OptimizerConfig, TrainConfig
from reserve.errors import NotFinite
from reserve.model.manifest import read_manifest
from reserve.model.run_checkpoints import list_checkpoints
from reserve.tasks import TASKS
from reserve.tasks.task import Loss
from reserve.train.fit import fit
from reserve.train.metrics import read_metrics
from tests.helpers.classifier_task import ClassifierConfig, Classify
from tests.helpers.tiny import tiny

MODEL = ClassifierConfig(**asdict(tiny(vocab_size=32, output_grid=(2, 2), init_scale=5.0)))


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(TASKS, "classify", "tests.helpers.classifier_task:Classify")


@dataclass(frozen=True)
class Failing(Classify):
    """Its loss is NaN in the steps `bad`, counted from 1 since the start of the process."""

    bad: tuple[int, ...] = ()
    name = "classify"

    def __post_init__(self) -> None:
        object.__setattr__(self, "seen", [])

    def settings(self):
        return {name: value for name, value in super().settings().items() if name != "bad"}

    def loss(self, model, batch, group):
        self.seen.append({"labels": batch.labels.clone(), "images": batch.images.clone()})
        loss = super().loss(model, batch, group)
        return Loss(loss.total * math.nan, loss.metrics) if len(self.seen) in self.bad else loss


def config(steps: int, **train) -> Config:
    settings = {"batch_size": 6, "num_workers": 0, "log_every": 2, "checkpoint_every": 4} | train
    return Config(
        optimizer=OptimizerConfig(num_train_steps=steps, num_warmup_steps=1),
        train=TrainConfig(device="cpu", precision="float32", **settings),
    )


def test_a_run_goes_on_after_steps_that_are_not_finite(tmp_path, caplog):
    task = Failing(MODEL, bad=(3, 6))
    fit(task, tmp_path, config(8))
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line.get("not_finite_steps") for line in lines] == [None, 1, 2, 2]
    assert "the loss or the gradients were not finite in 1 steps since the last line, first in step 3" in caplog.text
    assert list_checkpoints(tmp_path)[-1].step == 8
    # The batch is that of the step, to the bit.
    stored = load_file(tmp_path / "not_finite" / "step_00000003-rank0.safetensors")
    assert torch.equal(stored["0/labels"], task.seen[2]["labels"])
    assert torch.equal(stored["0/images"], task.seen[2]["images"])
    described = json.loads((tmp_path / "not_finite" / "step_00000003-rank0.json").read_text())
    assert (described["step"], described["rank"], len(described["examples"][0])) == (3, 0, 6)
    assert (tmp_path / "not_finite" / "step_00000006-rank0.safetensors").exists()


def test_the_count_survives_a_resume(tmp_path):
    fit(Failing(MODEL, bad=(3,)), tmp_path, config(4))
    fit(Failing(MODEL), tmp_path, config(6))
    assert read_metrics(tmp_path / "metrics.jsonl")[-1]["not_finite_steps"] == 1


def test_a_checkpoint_between_two_lines_holds_the_count(tmp_path):
    fit(Failing(MODEL, bad=(3, 4)), tmp_path, config(4, log_every=100))
    checkpoint = list_checkpoints(tmp_path)[-1].path
    assert read_manifest(checkpoint).progress["not_finite"] == 2


def test_too_many_in_a_row_stop_the_run_and_replace_no_checkpoint(tmp_path):
    with pytest.raises(
        NotFinite, match=r"not finite in 3 steps in a row, since step 6.*step_00000006-rank0.*train.max_not_finite 3"
    ):
        fit(Failing(MODEL, bad=(2, 6, 7, 8, 9, 10)), tmp_path, config(20, max_not_finite=3))
    assert list_checkpoints(tmp_path)[-1].step == 4
    # The line before the end is there, with the loss that is not finite.
    last = read_metrics(tmp_path / "metrics.jsonl")[-1]
    assert last["step"] == 6


def test_a_limit_of_zero_never_stops_it(tmp_path):
    fit(Failing(MODEL, bad=tuple(range(1, 7))), tmp_path, config(6, max_not_finite=0))
    assert read_metrics(tmp_path / "metrics.jsonl")[-1]["not_finite_steps"] == 6


def test_the_batches_of_a_few_steps_are_kept(tmp_path):
    fit(Failing(MODEL, bad=tuple(range(1, 13))), tmp_path, config(12, max_not_finite=0, log_every=1))
    assert len(list((tmp_path / "not_finite").glob("*.json"))) == 10


def test_a_batch_of_several_parts_is_kept_whole(tmp_path):
    settings = config(2, accumulate=2)
    task = Failing(MODEL, bad=(1, 2))
    fit(task, tmp_path, replace(settings, train=replace(settings.train, log_every=1)))
    stored = load_file(Path(tmp_path) / "not_finite" / "step_00000001-rank0.safetensors")
    assert [torch.equal(stored[f"{part}/labels"], task.seen[part]["labels"]) for part in range(2)] == [True, True]


def test_a_batch_that_cannot_be_kept_does_not_end_the_run(tmp_path, caplog):
    (tmp_path / "not_finite").write_text("in the way")
    fit(Failing(MODEL, bad=(1,)), tmp_path, config(2))
    assert "Its batch could not be kept" in caplog.text
    assert list_checkpoints(tmp_path)[-1].step == 2
