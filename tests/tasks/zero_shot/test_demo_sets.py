"""The data sets of `reserve demo-tasks` run end to end."""

from __future__ import annotations

import json

import pytest

import reserve
from reserve.tasks.zero_shot.epic_kitchens import EpicKitchens
from reserve.tasks.zero_shot.lsmdc import Lsmdc
from reserve.tasks.zero_shot.msrvtt_qa import MsrvttQA
from reserve.tasks.zero_shot.star import Star
from reserve.tasks.zero_shot.task import answer_questions
from tests.tasks.zero_shot.small_sets import small_model

# Questions without an answer: LSMDC's rows without a blank.
CASES = {Star: 0, EpicKitchens: 0, Lsmdc: 1, MsrvttQA: 0}


@pytest.mark.parametrize("task_class", CASES)
def test_a_demo_set_runs_end_to_end(task_class, task_data_sets):
    task = task_class(task_data_sets / task_class.name)
    check = task.check_folder()
    assert not check.problems, str(check)
    found = answer_questions(task, small_model(), reserve.Tokenizer.load())
    answers = [found[number] for number in range(len(task.questions))]
    assert sum(answer.logits is None for answer in answers) == CASES[task_class]
    scores = task.scores(answers)
    assert scores.scores
    assert max(score.count for score in scores.scores) == len(task.questions)
    json.dumps([task.predictions(answers), scores.to_json()], allow_nan=False)


@pytest.mark.parametrize("task_class", CASES)
def test_the_test_split_of_a_demo_set_loads(task_class, task_data_sets):
    task = task_class(task_data_sets / task_class.name, split="test")
    assert not task.check_folder().problems
    assert len(task.questions) == 6
