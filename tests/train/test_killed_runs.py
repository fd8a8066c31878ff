"""Runs killed with SIGKILL at random instants resume to the same losses and weights; `make kill-test` kills more."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from reserve.tasks import TASKS
from tests.train.compare_runs import Comparison, files_of
from tests.train.kill_runs import kill_runs
from tests.train.start_runs import Forked, pretraining_variants, train_classifier

pytestmark = pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="finds processes in /proc")


@pytest.fixture(autouse=True, scope="module")
def _registered():
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(TASKS, "classify", "tests.helpers.classifier_task:Classify")
        yield


def test_killed_runs_of_the_smallest_task_are_the_same(tmp_path):
    outcome = kill_runs("classifier", Forked(train_classifier), 4, tmp_path / "runs", random.Random(0))
    assert outcome.kills.total() == 4
    assert outcome.comparison.losses >= 12
    assert outcome.comparison.tensors > 100
    assert outcome.comparison.differences == []


@pytest.mark.slow
@pytest.mark.parametrize("name", pretraining_variants(Path()))
def test_killed_runs_of_the_command_are_the_same(narrated_videos, tmp_path, name):
    launcher = pretraining_variants(narrated_videos / "train")[name]
    outcome = kill_runs(name, launcher, 3, tmp_path / "runs", random.Random(1))
    assert outcome.kills.total() == 3
    assert outcome.comparison.differences == []


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    """A short run of the smallest task."""
    run = tmp_path_factory.mktemp("reference") / "run"
    train_classifier(run, 3)
    return run


@pytest.fixture
def comparison(reference) -> Comparison:
    return Comparison(reference)


@pytest.fixture
def copy(reference, tmp_path) -> Path:
    return shutil.copytree(reference, tmp_path / "copy")


def test_a_copy_is_the_same(comparison, copy):
    comparison.compare_finished(copy)
    assert comparison.differences == []
    assert comparison.losses == 3


def test_a_loss_that_differs_in_the_last_bit_is_found(comparison, copy):
    lines = [json.loads(line) for line in (copy / "metrics.jsonl").read_text().splitlines()]
    loss = torch.tensor(lines[1]["loss"])
    lines[1]["loss"] = float(f"{float(torch.nextafter(loss, torch.tensor(9.0))):.9g}")
    (copy / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    comparison.compare_losses(copy)
    (difference,) = comparison.differences
    assert difference.startswith("copy: step 2 has {")


@pytest.mark.parametrize("change", [lambda lines: lines[:-1], lambda lines: [*lines, lines[-1]]])
def test_a_step_that_is_missing_or_logged_twice_is_found(comparison, copy, change):
    lines = (copy / "metrics.jsonl").read_text().splitlines(keepends=True)
    (copy / "metrics.jsonl").write_text("".join(change(lines)))
    comparison.compare_finished(copy)
    (difference,) = comparison.differences
    assert "the steps of metrics.jsonl" in difference


def test_a_step_that_tensorboard_lacks_is_found(comparison, copy):
    shutil.rmtree(copy / "tensorboard")
    shutil.copytree(comparison.reference / "tensorboard", copy / "tensorboard")
    (file,) = (copy / "tensorboard").iterdir()
    file.write_bytes(file.read_bytes()[:-600])
    comparison.compare_finished(copy)
    (difference,) = comparison.differences
    assert "the steps of TensorBoard" in difference


@pytest.mark.parametrize("name", [".metrics.jsonl.1-2.partial", "checkpoints/step_00000003.partial/x"])
def test_a_file_left_half_written_is_found(comparison, copy, name):
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / name).write_text("")
    comparison.compare_finished(copy)
    (difference,) = comparison.differences
    assert "the files" in difference


def test_another_state_is_found(comparison, copy):
    """A run of four steps is compared with one of three: every weight and moment differs."""
    train_classifier(copy, 4)
    comparison.compare_finished(copy)
    assert any("model/classifier.weight differs" in difference for difference in comparison.differences)
    assert any("optimizer/classifier.weight.m differs" in difference for difference in comparison.differences)
    assert "copy: place differs" in comparison.differences


def test_what_a_killed_run_left_half_done_is_removed_at_the_next_start(reference, tmp_path):
    """Also where the run was complete but for its last clean-up, and no step is left."""
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    run = shutil.copytree(reference, tmp_path / "run")
    left = [run / f".{name}.{killed.pid}-1.partial" for name in ("config.yaml", "metrics.jsonl")]
    left += [run / "checkpoints" / name for name in ("step_00000001.old.partial/x", "step_00000003.partial/x")]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.write_text("half")
    train_classifier(run, 3)
    assert not [path for path in left if path.exists()]
    assert files_of(run) == files_of(reference)
