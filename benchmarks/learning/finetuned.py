"""One model finetuned on a data set or asked without training, and how many of its questions it answers."""

from __future__ import annotations

import json
import shutil
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.learning import answers
from benchmarks.learning.objectives import configuration
from reserve.config import FitConfig, TrainConfig
from reserve.data.tokenizer import Tokenizer
from reserve.tasks.finetuning import finetuning_optimizer, schedule
from reserve.tasks.task import HeldOut
from reserve.tasks.tvqa.dataset import TvqaSettings
from reserve.tasks.tvqa.task import Tvqa
from reserve.tasks.vcr.task import Vcr
from reserve.tasks.zero_shot.star import TYPES, Star
from reserve.tasks.zero_shot.task import answer_questions
from reserve.tasks.zero_shot.weights import load_weights
from reserve.train.evaluate import evaluate_checkpoint
from reserve.train.fit import fit
from reserve.train.state import list_checkpoints

TVQA, VCR, STAR = "tvqa", "vcr", "star"


def finetune_and_ask(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Finetunes from `weights`, or from nothing where that is null, and answers the questions of the val split of
    `data`, and those of `tuning` unless that is null."""
    run, task = folder / "run", _task(settings, Path(settings["data"]))
    train = TrainConfig(
        batch_size=settings["batch_size"],
        seed=settings["seed"],
        num_workers=0,
        checkpoint_every=1 << 30,
        log_every=5,
    )
    optimizer = finetuning_optimizer(settings["learning_rate"])
    examples, steps = task.count_examples(), settings["steps"]
    optimizer = schedule(optimizer, examples, train.batch_size, steps / (examples // train.batch_size))
    optimizer = replace(optimizer, num_train_steps=steps, num_warmup_steps=min(optimizer.num_warmup_steps, steps // 5))
    config = FitConfig(optimizer=optimizer, train=train)
    began = time.monotonic()
    fit(task, run, config)
    seconds = time.monotonic() - began
    found = _answers(run, task, config)
    if settings["tuning"] is not None:
        found["tuning"] = _answers(run, _task(settings, Path(settings["tuning"])), config)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    shutil.rmtree(run)
    return found | {
        "examples": examples,
        "steps": steps,
        "training_seconds": seconds,
        "last_loss": statistics.fmean(line["loss"] for line in lines[-3:]),
    }


def _task(settings: dict[str, Any], data: Path) -> Tvqa | Vcr:
    """The task of a run on one of its data sets."""
    sizes = configuration().model
    if settings["task"] == TVQA:
        # Questions of two data sets may have the same name, by which the cache knows them.
        cache = TvqaSettings(cache=Path(settings["cache"]) / data.parent.name)
        return Tvqa(data, settings["weights"], model=Tvqa.model_config(sizes), examples=cache)
    return Vcr(data, settings["weights"], model=Vcr.model_config(sizes))


def _answers(run: Path, task: Tvqa | Vcr, config: FitConfig) -> dict[str, Any]:
    """The right answers of a run's last model to the questions of the val split of the task's data."""
    predictions = run / task.held_out_folder
    shutil.rmtree(predictions, ignore_errors=True)
    held_out = HeldOut((), predictions, split=answers.SPLIT)
    evaluate_checkpoint(task, config, run, list_checkpoints(run)[-1], held_out)
    return (answers.tvqa if isinstance(task, Tvqa) else answers.vcr)(task.data, predictions)


def ask_without_training(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Answers the questions of STAR's val split with a pretrained model: right answers over all, and of each type."""
    task = Star(Path(settings["data"]), split=answers.SPLIT)
    model = load_weights(settings["weights"])
    given = answer_questions(task, model, Tokenizer.load(None))
    right = np.array(
        [
            (logits := given[number].logits) is not None and int(logits.argmax()) == question.right
            for number, question in enumerate(task.questions)
        ]
    )
    videos = [question.video for question in task.questions]
    kinds = {}
    for kind in TYPES:
        own = [number for number, question in enumerate(task.questions) if question.type == kind]
        kinds[kind] = answers.by_group([videos[number] for number in own], {kind: right[own].tolist()})
    chance = float(np.mean([1 / len(question.choices) for question in task.questions]))
    return answers.by_group(videos, {"all": right.tolist()}) | {"by_type": kinds, "chance": chance}
