"""The finetuned tasks on the data sets of `reserve demo-tasks`, end to end from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from reserve.cli import main
from reserve.cli.finetune import TASKS
from reserve.data.tokenizer import Tokenizer
from reserve.model.merlot_reserve import MerlotReserve
from reserve.tasks import find_task
from tests.helpers.tiny import tiny

SCORES = {
    "vcr": ["Q->A", "QA->R", "Q->AR"],
    "tvqa": ["audio accuracy", "text accuracy", "joint accuracy"],
    "kinetics600": ["top-1", "top-5"],
}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained model that has learnt nothing."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("pretrained")
    MerlotReserve(tiny(vocab_size=Tokenizer.load().vocab_size, vit_patch_size=16)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", TASKS)
def test_a_folder_passes_its_check(name: str, task_data_sets: Path) -> None:
    task = find_task(name)(data=task_data_sets / name)  # type: ignore[call-arg]
    report = task.check(["train", "val", "test"])  # type: ignore[attr-defined]
    assert report.lines
    # Few synthetic clips show all classes in every split.
    assert not [problem for problem in report.problems if "class" not in problem]


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_finetuned_evaluated_and_predicted(
    name: str, task_data_sets: Path, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["batch_size=2", "num_workers=0", "device=cpu", "precision=float32", "compile=none", "log_every=1"]
    run = tmp_path / "run"
    paths = [f"--data={task_data_sets / name}", f"--weights={pretrained}", f"--out={run}"]
    steps = ["--optimizer.num_train_steps=2", "--optimizer.num_warmup_steps=1"]
    assert main(["finetune", name, *paths, *steps, *(f"--train.{setting}" for setting in settings)]) == 0
    assert "questions" in capsys.readouterr().out
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert [score["name"] for score in evaluation["scores"]] == SCORES[name]
    assert all(score["count"] > 0 and 0 <= score["value"] <= 1 for score in evaluation["scores"])
    assert main(["evaluate", str(run), "--split=test"]) == 0
    assert json.loads((run / "evaluation_test.json").read_text())["split"] == "test"
    assert any(path.is_file() for path in (run / "predictions").rglob("*test*"))
