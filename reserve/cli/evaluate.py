"""Evaluate a run on held-out data: videos or shards for pretraining, a split of the data set for a finetuned task."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reserve.errors import UsageError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    parser.add_argument("run", type=Path, help="the folder of a run of `reserve pretrain` or `reserve finetune`")
    parser.add_argument("--videos", type=str, nargs="+", help="pretraining: held-out video files and folders")
    parser.add_argument("--shards", type=str, nargs="+", help="pretraining: held-out sets of shards, folders or URLs")
    parser.add_argument("--data", type=str, help="a finetuned task: the data set's folder, by default the run's own")
    parser.add_argument("--split", type=str, help="a finetuned task: the part of the data set, val by default")
    parser.add_argument("--workers", type=int, default=2, help="pretraining: processes that prepare videos")
    parser.add_argument("--seed", type=int, default=0, help="pretraining: decides the masking")
    parser.add_argument(
        "--times_chance",
        type=float,
        help="fail unless every recall@1 is at least this many times chance and its 95%% interval lies above chance",
    )


def run(options: Namespace) -> int | None:
    from reserve.report import write_report
    from reserve.tasks.pretrain.evaluation import Evaluation
    from reserve.tasks.pretrain.task import Pretrain
    from reserve.train.evaluate import evaluate_run
    from reserve.train.run_folder import read_run

    task, _ = read_run(options.run)
    if options.times_chance is not None and not isinstance(task, Pretrain):
        raise UsageError(f"--times_chance is for pretraining runs; {options.run} is of the task {task.name}")
    pretraining = isinstance(task, Pretrain)
    given = bool(options.videos) + bool(options.shards)
    if given != (1 if pretraining else 0):
        wanted = "needs either --videos or --shards" if pretraining else "takes no --videos or --shards"
        raise UsageError(f"a run of the task {task.name} {wanted}")
    if pretraining and (options.data or options.split):
        raise UsageError("--data and --split are for finetuned tasks")
    evaluation = evaluate_run(
        options.run,
        options.videos or ([options.data] if options.data else []),
        shards=options.shards or (),
        workers=options.workers,
        seed=options.seed,
        split=options.split or "val",
    )
    print(evaluation)
    print(write_report(options.run))
    if options.times_chance is None or not isinstance(evaluation, Evaluation):
        return None
    weak = [ranking.name for ranking in evaluation.rankings if not ranking.beats_chance(options.times_chance)]
    if weak:
        print(f"reserve: recall@1 is below {options.times_chance:g} times chance: {', '.join(weak)}", file=sys.stderr)
    return 1 if weak else 0
