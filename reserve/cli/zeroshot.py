"""Answer a data set's questions about videos without training: scores and predictions."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

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
    parser.add_argument("--weights", type=str, help="a folder, a hub id, or an official checkpoint with --sizes")
    parser.add_argument(
        "--sizes", type=str, help="of official weights: base_resadapt, large_resadapt, base, large or a YAML file"
    )
    parser.add_argument("--tokenizer", type=Path, help="the vocabulary of the weights; by default this package's")
    parser.add_argument("--out", type=Path, help=f"folder for {SCORES}, {PREDICTIONS} and {FAILURES}")
    parser.add_argument("--device", type=Literal["auto", "cpu", "cuda"], default="auto")
    parser.add_argument(
        "--precision",
        type=Literal["auto", "float32", "bfloat16"],
        default="auto",
        help="of activations; auto is bfloat16 where the device has it",
    )
    parser.add_argument("--workers", type=int, help="videos decoded at a time; by default 4 with a GPU, else 1")
    parser.add_argument("--check", action="store_true", help="validate the data set's folder and exit")


def run(options: Namespace) -> int | None:
    from reserve.tasks.zero_shot.weights import check_sizes

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
    try:
        check_sizes(given.weights, given.sizes)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if given.sizes is not None and given.tokenizer is None:
        logger.warning(
            "%s is read with this package's vocabulary; the released weights need --tokenizer", given.weights
        )
    _answer(task, given)
    return None


def _answer(task: ZeroShotTask[Any], given: Namespace) -> None:
    from reserve.config import TrainConfig
    from reserve.data.tokenizer import Tokenizer
    from reserve.tasks.zero_shot.task import Answer, answer_questions
    from reserve.tasks.zero_shot.weights import load_weights
    from reserve.train.distributed import joined_ranks

    config = TrainConfig(device=given.device, precision=given.precision)
    # Fail fast: all that answering and scoring need is read, and the videos are found, before the weights are loaded.
    questions = len(task.questions)
    logger.info("%d questions, %d videos found", questions, len(task.video_files))
    task.scores([Answer(None)] * questions)
    tokenizer = Tokenizer.load(given.tokenizer)
    with joined_ranks(given.device) as ranks:
        model = load_weights(given.weights, given.sizes).to(ranks.device)
        with _progress(task.name, ranks.is_first) as progress:
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


@contextlib.contextmanager
def _progress(name: str, shown: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar of videos on stderr, on the first rank."""
    if not shown:
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bars:
        bar = bars.add_task(f"{name}: videos", total=None)
        yield lambda done, total: bars.update(bar, completed=done, total=total)


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
