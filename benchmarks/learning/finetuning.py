"""Whether pretraining helps what comes after it, and which of the objectives helps more.

Finetunes on TVQA and VCR from the models of each objective and from nothing, with the same budget and the best of
several learning rates for each, and asks STAR's questions without training. The data sets are those of `reserve
demo-tasks`, for finetuning cut down to the questions about colours. The rate is chosen on questions about further
held-out videos, which are not shown.

`python -m benchmarks.learning.finetuning --videos runs/demo/videos --save` needs the runs of
`benchmarks.learning.objectives` in --out; docs/learning.md shows the result.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.learning.arms import ARMS, AUDIO_OFF, CONTRASTIVE, MASK_LM
from benchmarks.learning.colours import keep_colours
from benchmarks.learning.command import show, study_parser
from benchmarks.learning.finetuned import STAR, TVQA, VCR, ask_without_training, finetune_and_ask
from benchmarks.learning.objectives import PRETRAINED, TRAINED, configuration
from benchmarks.learning.provenance import provenance
from benchmarks.learning.runs import RESULT, SET_ASIDE, Run, finish_all, run_one
from reserve.config.load import plain_values
from reserve.model.sharded import WEIGHTS
from reserve.synthetic.datasets import make_data_set

FILE = "learning_finetuning.json"
MODULE = "benchmarks.learning.finetuning"
SCRATCH = "from scratch"
STARTS = (CONTRASTIVE, AUDIO_OFF, SCRATCH)
RATES = {TVQA: (2e-4,), VCR: (1e-4, 3e-4, 1e-3, 3e-3)}
"""Peaks of the learning rate tried from each start with the first seed; the best is used with the others."""
STEPS = {TVQA: 200, VCR: 300}
"""Steps of a finetuning, some minutes of one core."""
BATCH_SIZES = {TVQA: 16, VCR: 32}
FOLDER = "finetuning"
DATA_SETS = "finetuning_data"
"""Folder of this study's data sets, which is made anew when the videos change."""
SHOWN, TUNING = "shown", "tuning"
"""Folders in it: data sets whose questions are shown, and those whose questions choose the rate."""
VIDEOS, MADE = "videos", "made.json"
"""Folder in it of links to the videos of both, and what says that they are complete and from which videos."""


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


def link_videos(videos: Path, folder: Path) -> None:
    """Links videos into SHOWN and TUNING of a new folder: those of VIDEOS/train, and of VIDEOS/heldout, for TUNING
    without the first.

    A data set has questions about every second held-out video in its validation split. Those of the two are therefore
    about different videos, of which neither pretraining nor finetuning has seen any. Raises SystemExit where there are
    fewer than two.
    """
    train, held_out = (sorted((videos / split).glob("*.mp4")) for split in ("train", "heldout"))
    if len(held_out) < 2:
        raise SystemExit(f"{videos / 'heldout'} must have 2 videos or more; it has {len(held_out)}")
    for data, splits in (
        (SHOWN, {"train": train, "heldout": held_out}),
        (TUNING, {"train": train[:1], "heldout": held_out[1:]}),  # nothing is trained on these
    ):
        for split, chosen in splits.items():
            (folder / data / split).mkdir(parents=True)
            for video in chosen:
                for file in video.parent.glob(f"{video.stem}.*"):
                    (folder / data / split / file.name).symlink_to(file.resolve())


def prepare(videos: Path, out: Path, questions: int) -> None:
    """Makes the data sets below `out`, unless they are there with this number of questions."""
    folder = out / DATA_SETS
    done = folder / MADE
    files = [file for split in ("train", "heldout") for file in sorted((videos / split).iterdir()) if file.is_file()]
    made = {
        "videos": [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files],
        "questions": questions,
    }
    if done.exists() and json.loads(done.read_text("utf-8")) == made:
        return
    # Frames of other videos would be taken for those of the new ones.
    shutil.rmtree(folder, ignore_errors=True)
    link_videos(videos, folder / VIDEOS)
    for kind, tasks in ((SHOWN, (TVQA, VCR, STAR)), (TUNING, (TVQA, VCR))):
        for task in tasks:
            make_data_set(task, folder / VIDEOS / kind, folder / kind / task, questions=questions)
            if task != STAR:
                keep_colours(task, folder / kind / task)
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
        "batch_size": BATCH_SIZES[task],
        "questions": questions,
        "model": plain_values(configuration().model),
        "data": str((out / DATA_SETS / SHOWN / task).resolve()),
        "tuning": str((out / DATA_SETS / TUNING / task).resolve()) if seed == 0 else None,
        "data_made": (out / DATA_SETS / MADE).stat().st_mtime_ns,
        "cache": str((out / "cache").resolve()),
    }
    return Run(out / FOLDER / name, settings)


def accuracy(result: Mapping[str, Any]) -> float:
    """The mean accuracy over its kinds of answers in the questions that choose the learning rate."""
    answers = result["tuning"]
    return float(np.mean([sum(right) / sum(answers["asked"]) for right in answers["right"].values()]))


def chosen_rate(results: Sequence[Mapping[str, Any]]) -> float:
    """The learning rate of the best first run, of several that are alike the lowest."""
    rates = {result["settings"]["learning_rate"]: accuracy(result) for result in results if "tuning" in result}
    return max(sorted(rates), key=rates.__getitem__)


def finetune_all(out: Path, models: Mapping[tuple[str, int], Path], seeds: int, questions: int, again: bool) -> Any:
    """The results of all finetunings: every rate with the first seed, then the best of each start with the others."""

    def run(task: str, start: str, seed: int, rate: float) -> Run:
        return finetuning_run(out, task, start, seed, rate, models.get((start, seed)), questions)

    cases = [(task, start) for task in (TVQA, VCR) for start in STARTS]
    first = [(*case, 0, rate) for case in cases for rate in RATES[case[0]]]
    found = finish_all(MODULE, [run(*each) for each in first], again=again)
    best = {
        case: chosen_rate([one for (*key, _, _), one in zip(first, found, strict=True) if (*key,) == case])
        for case in cases
    }
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
                "data_made": (out / DATA_SETS / MADE).stat().st_mtime_ns,
                "data": str((out / DATA_SETS / SHOWN / STAR).resolve()),
            },
        )
        for (arm, seed), weights in models.items()
        if arm != MASK_LM and seed < seeds
    ]
    return finish_all(MODULE, runs, again=again)


def work(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    return (ask_without_training if settings["task"] == STAR else finetune_and_ask)(folder, settings)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study_parser(MODULE, __doc__)
    parser.add_argument("--videos", type=Path, help="a folder that `reserve demo-data` has made")
    parser.add_argument("--seeds", type=int, default=3, help="runs from each start, one a pretrained model")
    parser.add_argument("--questions", type=int, default=60, help="questions about each video, before the cut")
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

    show(found, section, FILE, options)


if __name__ == "__main__":
    main()
