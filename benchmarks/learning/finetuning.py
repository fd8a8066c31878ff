"""Whether pretraining helps what comes after it, and which of the objectives helps more.

Finetunes on TVQA and VCR from the models of each objective and from nothing, with the same budget and the best of
several learning rates for each, and asks STAR's questions without training. The data sets are those of `reserve
demo-tasks`.

`python -m benchmarks.learning.finetuning --videos runs/demo/videos --save` needs the runs of
`benchmarks.learning.objectives` in --out; docs/learning.md shows the result.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.learning.arms import ARMS, AUDIO_OFF, CONTRASTIVE, MASK_LM
from benchmarks.learning.finetuned import STAR, TVQA, VCR, ask_without_training, finetune_and_ask
from benchmarks.learning.objectives import OUT, PRETRAINED, TRAINED, configuration
from benchmarks.learning.provenance import provenance, store
from benchmarks.learning.runs import RESULT, SET_ASIDE, Run, finish_all, run_one
from reserve.config.load import plain_values
from reserve.model.sharded import WEIGHTS
from reserve.synthetic.datasets import make_data_set

FILE = "learning_finetuning.json"
MODULE = "benchmarks.learning.finetuning"
SCRATCH = "from scratch"
STARTS = (CONTRASTIVE, AUDIO_OFF, SCRATCH)
RATES = {TVQA: (1e-3,), VCR: (3e-4, 1e-3)}
"""Peaks of the learning rate tried from each start with the first seed; the best is used with the others."""
STEPS = {TVQA: 20, VCR: 150}
"""Steps of a finetuning: about a minute of one core."""
BATCH_SIZE = 32
TRAINING_VIDEOS = 48
"""Videos that training questions are about: a finetuning does not see more of them, and TVQA's frames take time."""
FOLDER = "finetuning"
DATA, MADE = "tasks", "made.json"


def pretrained(out: Path) -> dict[tuple[str, int], Path]:
    """The last checkpoints of the objectives' finished runs, by arm and seed."""
    found, shared = {}, set()
    for result in sorted((out / TRAINED).glob(f"*/{RESULT}")):
        if SET_ASIDE in result.parent.name:
            continue
        settings = json.loads(result.read_text("utf-8"))["settings"]
        found[settings.pop("arm"), settings.pop("seed")] = result.parent / PRETRAINED
        shared.add(json.dumps(settings, sort_keys=True))
    if len(shared) > 1:
        raise SystemExit(
            f"{out / TRAINED} has runs of different settings: finish those of benchmarks.learning.objectives"
        )
    return found


def link_videos(videos: Path, folder: Path, training: int) -> Path:
    """Links the first `training` videos of VIDEOS/train and all of VIDEOS/heldout into `folder`, which is returned."""
    for split, most in (("train", training), ("heldout", None)):
        (folder / split).mkdir(parents=True, exist_ok=True)
        for video in sorted((videos / split).glob("*.mp4"))[:most]:
            for file in video.parent.glob(f"{video.stem}.*"):
                link = folder / split / file.name
                link.unlink(missing_ok=True)
                link.symlink_to(file.resolve())
    return folder


def prepare(videos: Path, out: Path, questions: int) -> None:
    """Makes the data sets below `out`, unless they are there with this number of questions."""
    done = out / DATA / MADE
    files = [file for split in ("train", "heldout") for file in sorted((videos / split).glob("*.mp4"))]
    made = {
        "videos": [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files],
        "questions": questions,
        "training_videos": TRAINING_VIDEOS,
    }
    if done.exists() and json.loads(done.read_text("utf-8")) == made:
        return
    done.unlink(missing_ok=True)
    chosen = link_videos(videos, out / DATA / "videos", TRAINING_VIDEOS)
    for task in (TVQA, VCR, STAR):
        make_data_set(task, chosen, out / DATA / task, questions=questions)
    done.write_text(json.dumps(made), "utf-8")


def start_of(weights: Path | None) -> dict[str, Any]:
    """The settings that name the weights, and tell those of another training apart."""
    if weights is None:
        return {"weights": None}
    return {"weights": str(weights.resolve()), "weights_changed": (weights / WEIGHTS).stat().st_mtime_ns}


def finetuning_run(
    out: Path, task: str, start: str, seed: int, rate: float, weights: Path | None, questions: int
) -> Run:
    """The run of a task from a start."""
    name = f"{task}-{start.replace(' ', '-')}-{seed}-{rate:g}"
    settings = {
        "task": task,
        "start": start,
        "seed": seed,
        "learning_rate": rate,
        **start_of(weights),
        "steps": STEPS[task],
        "batch_size": BATCH_SIZE,
        "questions": questions,
        "model": plain_values(configuration().model),
        "data": str((out / DATA / task).resolve()),
        "data_made": (out / DATA / MADE).stat().st_mtime_ns,
        "cache": str((out / "cache").resolve()),
    }
    return Run(out / FOLDER / name, settings)


def accuracy(result: Mapping[str, Any]) -> float:
    """The mean accuracy of a result over its kinds of answers: what chooses the learning rate."""
    return float(np.mean([sum(right) / sum(result["asked"]) for right in result["right"].values()]))


def finetune_all(out: Path, models: Mapping[tuple[str, int], Path], seeds: int, questions: int, again: bool) -> Any:
    """The results of all finetunings: every rate with the first seed, then the best of each start with the others."""

    def run(task: str, start: str, seed: int, rate: float) -> Run:
        return finetuning_run(out, task, start, seed, rate, models.get((start, seed)), questions)

    cases = [(task, start) for task in (TVQA, VCR) for start in STARTS]
    first = [(*case, 0, rate) for case in cases for rate in RATES[case[0]]]
    found = finish_all(MODULE, [run(*each) for each in first], again=again)
    best: dict[tuple[str, str], float] = {}
    for case in cases:
        own = [
            (accuracy(result), rate) for (*key, _, rate), result in zip(first, found, strict=True) if (*key,) == case
        ]
        best[case] = max(own)[1]
    others = [run(*case, seed, best[case]) for seed in range(1, seeds) for case in cases]
    found += finish_all(MODULE, others, again=again)
    return found


def ask_star(out: Path, models: Mapping[tuple[str, int], Path], seeds: int, questions: int, again: bool) -> Any:
    """The answers of the models that have a span encoder to STAR's questions."""
    runs = [
        Run(
            out / FOLDER / f"star-{arm.replace(' ', '-')}-{seed}",
            {
                "task": STAR,
                "start": arm,
                "seed": seed,
                **start_of(weights),
                "questions": questions,
                "data": str((out / DATA / STAR).resolve()),
            },
        )
        for (arm, seed), weights in models.items()
        if arm != MASK_LM and seed < seeds
    ]
    return finish_all(MODULE, runs, again=again)


def work(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    return (ask_without_training if settings["task"] == STAR else finetune_and_ask)(folder, settings)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__.split("\n\n")[0])
    parser.add_argument("--videos", type=Path, help="a folder that `reserve demo-data` has made")
    parser.add_argument("--seeds", type=int, default=3, help="runs from each start, one a pretrained model")
    parser.add_argument("--questions", type=int, default=20, help="questions about each video")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the runs, which has those of objectives")
    parser.add_argument("--again", action="store_true", help="repeat runs that are finished")
    parser.add_argument("--save", action="store_true", help="store the result in benchmarks/results/MACHINE")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        run_one(options.one, work)
        return
    if options.videos is None:
        parser.error("--videos is needed")
    models = pretrained(options.out)
    missing = [f"{arm} {seed}" for arm in ARMS for seed in range(options.seeds) if (arm, seed) not in models]
    if missing:
        parser.error(f"{options.out} lacks {', '.join(missing)}: run benchmarks.learning.objectives first")
    prepare(options.videos, options.out, options.questions)
    given = (options.out, models, options.seeds, options.questions, options.again)
    found = {"runs": [*finetune_all(*given), *ask_star(*given)], "provenance": provenance()}
    from benchmarks.report.learning.finetuning import section

    print(section("this machine", found))
    if options.save:
        print(f"stored {store(FILE, found)}")


if __name__ == "__main__":
    main()
