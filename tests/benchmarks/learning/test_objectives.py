"""The study of objectives: its runs, their costs and their settings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.learning import objectives
from benchmarks.learning.arms import ARMS
from benchmarks.learning.objectives import PRETRAINED, configuration, flops_per_step, runs_of, train_and_ask
from reserve.config import Config
from reserve.model.pretrained import pretrained_class, pretrained_step
from reserve.train.state import Checkpoint
from tests.helpers.small_stores import DATA, MODEL


def test_the_work_of_a_step_is_its_rate_by_its_time():
    line = {"examples_per_second": 4.0, "tflops": 0.5}
    assert flops_per_step([line, line], 8) == pytest.approx(1e12)


def test_other_settings_or_videos_make_other_runs(tmp_path, monkeypatch):
    def settings():
        return [run.settings for run in runs_of(tmp_path, 40, 1).values()]

    before = settings()
    stores = tmp_path / "prepared" / "train" / "prepared"
    stores.mkdir(parents=True)
    (stores / "one.safetensors").write_text("")
    of_other_videos = settings()
    (tmp_path / "prepared" / "train" / "files.jsonl").write_text("prepared again, nothing changed")
    assert settings() == of_other_videos
    monkeypatch.setattr(objectives, "configuration", lambda steps: replace(configuration(steps), model=MODEL))
    assert before != of_other_videos != settings()


def test_each_arm_and_seed_has_a_folder(tmp_path):
    runs = runs_of(tmp_path, 40, 2)
    assert len({run.folder for run in runs.values()}) == len(runs) == 2 * len(ARMS)
    shared = [{k: v for k, v in run.settings.items() if k not in ("arm", "seed")} for run in runs.values()]
    assert all(one == shared[0] for one in shared)


def test_steps_replace_those_of_the_preset():
    assert configuration(24).optimizer.num_train_steps == 24
    assert configuration(24).train.checkpoint_every == 3
    assert configuration(380).train.checkpoint_every == 48
    assert configuration().optimizer.num_train_steps > 100


@pytest.mark.parametrize("arm", ARMS)
def test_a_run_evaluates_models_on_the_way_and_keeps_the_last(prepared, stores, tmp_path, monkeypatch, arm):
    for module in ("reserve.tasks.pretrain.task", "benchmarks.learning.spans", "benchmarks.learning.arms"):
        monkeypatch.setattr(f"{module}.recorded_stores", lambda folder: stores)
    monkeypatch.setattr("benchmarks.learning.spans.LEAST_CANDIDATES", 2)

    def small(steps, seed) -> Config:
        config = configuration(steps, seed)
        train = replace(config.train, batch_size=2, log_every=1, checkpoint_every=2)
        return replace(config, data=DATA, model=MODEL, train=train)

    monkeypatch.setattr(objectives, "configuration", small)
    settings = {"arm": arm, "seed": 1, "steps": 4, "prepared": str(tmp_path)}
    listed = objectives.list_checkpoints
    # As if it had been stopped after step 3.
    monkeypatch.setattr(
        objectives, "list_checkpoints", lambda run: [*listed(run)[:1], Checkpoint(tmp_path, 3), *listed(run)[1:]]
    )
    found = train_and_ask(tmp_path / "run", settings)
    assert found["steps"] == [2, 4]
    assert len(found["right"]) == 2
    assert all(0 <= right <= asked for right, asked in zip(found["right"][-1], found["asked"], strict=True))
    assert 0 < found["chance"] < 1
    kept = tmp_path / "run" / PRETRAINED
    assert pretrained_step(kept) == 4
    assert pretrained_class(kept) == ("MaskLmReserve" if arm == "mask LM" else None)
    assert not (tmp_path / "run" / "run").exists()
