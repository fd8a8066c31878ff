"""One model finetuned, or asked as it is, and its right answers."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.learning import finetuned
from benchmarks.learning.finetuned import TVQA, VCR, ask_without_training, finetune_and_ask
from reserve.model.merlot_reserve import MerlotReserve
from reserve.tasks.zero_shot.star import TYPES
from reserve.tasks.zero_shot.task import Answer
from tests.helpers.small_stores import MODEL

LABELS = {TVQA: Path("tvqa_qa_release/tvqa_val.jsonl"), VCR: Path("val.jsonl")}


@pytest.mark.parametrize("task", [TVQA, VCR])
def test_questions_of_both_data_sets_are_counted(task_data_sets, tmp_path, task):
    data, tuning = task_data_sets / task, tmp_path / "tuning" / task
    shutil.copytree(data, tuning)
    lines = (tuning / LABELS[task]).read_text("utf-8").splitlines(keepends=True)
    (tuning / LABELS[task]).write_text("".join(lines[:2]), "utf-8")
    settings = {
        "task": task,
        "weights": None,
        "seed": 1,
        "learning_rate": 1e-3,
        "batch_size": 2,
        "steps": 2,
        "data": str(data),
        "tuning": str(tuning),
        "cache": str(tmp_path / "cache"),
    }
    found = finetune_and_ask(tmp_path / "run", settings)
    assert found["asked"] == [len(lines)]
    assert found["tuning"]["asked"] == [2]
    for counted in (found, found["tuning"]):
        assert counted["right"]
        assert all(0 <= right[0] <= counted["asked"][0] for right in counted["right"].values())
    assert found["steps"] == 2
    assert found["examples"] == 2 * len(lines)  # two videos to train on, one held out
    assert not (tmp_path / "run" / "run").exists()


def test_a_pretrained_start_is_where_training_starts(task_data_sets, tmp_path, monkeypatch):
    """Without a step's worth of learning rate the finetuned trunk is still the pretrained one."""
    pretrained = MerlotReserve(finetuned.configuration().model)
    pretrained.save_pretrained(tmp_path / "weights", step=3)
    seen = []
    listed = finetuned.list_checkpoints

    def remembering(run):
        found = listed(run)
        model = finetuned._task(settings, task_data_sets / VCR).build_model()
        model.restore(found[-1].path)
        seen.append(model)
        return found

    monkeypatch.setattr(finetuned, "list_checkpoints", remembering)
    settings = {
        "task": VCR,
        "weights": str(tmp_path / "weights"),
        "seed": 1,
        "learning_rate": 1e-12,
        "batch_size": 2,
        "steps": 1,
        "data": str(task_data_sets / VCR),
        "tuning": None,
    }
    assert "tuning" not in finetune_and_ask(tmp_path / "run", settings)
    expected = dict(pretrained.joint_transformer.named_parameters())
    for name, value in seen[0].joint_transformer.named_parameters():
        assert np.allclose(value.detach(), expected[name].detach(), atol=1e-6), name


def test_a_question_is_right_where_the_right_choice_has_the_largest_logit(task_data_sets, tmp_path, monkeypatch):
    MerlotReserve(MODEL).save_pretrained(tmp_path)

    def answers(task, model, tokenizer):
        found = {}
        for number, question in enumerate(task.questions):
            logits = np.zeros(len(question.choices), np.float32)
            # Every third is right, every third wrong, and the others have no answer.
            logits[question.right if number % 3 == 0 else question.right - 1] = 1
            found[number] = Answer(None, "cannot be read") if number % 3 == 2 else Answer(logits)
        return found

    monkeypatch.setattr(finetuned, "answer_questions", answers)
    found = ask_without_training(tmp_path, {"data": str(task_data_sets / "star"), "weights": str(tmp_path)})
    asked, right = sum(found["asked"]), sum(found["right"]["all"])
    assert right == -(-asked // 3)
    assert found["chance"] == pytest.approx(1 / 4)
    assert set(found["by_type"]) == set(TYPES)
    assert sum(sum(one["asked"]) for one in found["by_type"].values()) == asked
    assert sum(sum(one["right"][kind]) for kind, one in found["by_type"].items()) == right
