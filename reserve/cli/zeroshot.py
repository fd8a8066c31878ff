"""Answer a data set's questions about videos without training: scores and predictions."""

from __future__ import annotations

import importlib
import json
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reserve.cli.asked_model import add_model_arguments, check_model_arguments
from reserve.cli.counting import counted
from reserve.cli.settings import add_task_commands
from reserve.errors import UsageError
from reserve.fs import write_text_atomic

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from reserve.tasks.zero_shot.task import Answer, ZeroShotTask

TASKS = {
    "star": "reserve.tasks.zero_shot.star:Star",
    "epic-kitchens": "reserve.tasks.zero_shot.epic_kitchens:EpicKitchens",
    "lsmdc": "reserve.tasks.zero_shot.lsmdc:Lsmdc",
    "msrvtt-qa": "reserve.tasks.zero_shot.msrvtt_qa:MsrvttQA",
}
SCORES, PREDICTIONS, FAILURES = "scores.json", "predictions.json", "failures.json"

logger = logging.getLogger(__name__)


def add_arguments(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    add_task_commands(parser, arguments, TASKS, _task, _add_task_arguments)


def _add_task_arguments(parser: ArgumentParser, task: type[ZeroShotTask[Any]], arguments: Sequence[str]) -> None:
    parser.add_class_arguments(task, skip={"as_released"})
    parser.add_argument("--as_released", action="store_true", help="reproduce the oddities of the released code")
    add_model_arguments(parser)
    parser.add_argument("--out", type=Path, help=f"folder for {SCORES}, {PREDICTIONS} and {FAILURES}")
    parser.add_argument("--workers", type=int, help="videos decoded at a time; by default 4 with a GPU, else 1")
    parser.add_argument("--check", action="store_true", help="validate the data set's folder and exit")


def run(options: Namespace) -> int | None:
    given = options[options.task]
    task_class = _task(options.task)
    try:
        task = task_class(**{name: given[name] for name in (field.name for field in fields(task_class))})
    except ValueError as error:
        raise UsageError(f"--{error}") from error
    if given.check:
        report = task.check_folder()
        print(report)
        return 1 if report.problems else 0
    if given.workers is not None and given.workers < 1:
        raise UsageError(f"--workers must be at least 1; got {given.workers}")
    if given.weights is None or given.out is None:
        raise UsageError(f"zeroshot {options.task} needs --weights and --out")
    _make_folder(given.out)
    check_model_arguments(given)
    _answer(task, given)
    return None


def _answer(task: ZeroShotTask[Any], given: Namespace) -> None:
    from reserve.config import TrainConfig
    from reserve.tasks.zero_shot.task import Answer, answer_questions
    from reserve.tasks.zero_shot.weights import load_vocabulary, load_weights
    from reserve.train.distributed import joined_ranks

    config = TrainConfig(device=given.device, precision=given.precision)
    # Fail fast: all that answering and scoring need is read, and the videos are found, before the weights are loaded.
    questions = len(task.questions)
    logger.info("%d questions, %d videos found", questions, len(task.video_files))
    task.scores([Answer(None)] * questions)
    tokenizer = load_vocabulary(given.weights, given.tokenizer)
    with joined_ranks(given.device) as ranks:
        model = load_weights(given.weights, given.sizes).to(ranks.device)
        with counted(f"{task.name}: videos", shown=ranks.is_first) as progress:
            own = answer_questions(
                task,
                model,
                tokenizer,
                config=config,
                workers=given.workers or (4 if ranks.device.type == "cuda" else 1),
                rank=ranks.rank,
                world_size=ranks.world_size,
                progress=progress,
            )
        gathered = ranks.gather(own)
        if ranks.is_first:
            found = {number: answer for part in gathered for number, answer in part.items()}
            _write(task, [found[number] for number in range(questions)], given.out)


def _make_folder(out: Path) -> None:
    """Makes the folder of the results. Raises UsageError if it cannot be written to."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise UsageError(f"--out must be a folder that can be written to; {out}: {error.strerror}") from error


def _write(task: ZeroShotTask[Any], answers: Sequence[Answer], out: Path) -> None:
    scores = task.scores(answers)
    failures = {
        question.key: answer.failure
        for question, answer in zip(task.questions, answers, strict=True)
        if answer.logits is None
    }
    _write_json(out / PREDICTIONS, task.predictions(answers), indent=None)  # EPIC's has five million numbers
    _write_json(out / FAILURES, failures)
    _write_json(out / SCORES, scores.to_json())
    print(scores)


def _write_json(path: Path, content: Any, indent: int | None = 1) -> None:
    write_text_atomic(path, json.dumps(content, indent=indent, allow_nan=False) + "\n")


def _task(name: str) -> type[ZeroShotTask[Any]]:
    module, _, attribute = TASKS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
