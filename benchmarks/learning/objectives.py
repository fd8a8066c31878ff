"""Contrastive spans against a softmax over the vocabulary, and against no audio: which span is hidden?

Trains each arm with several seeds on the same videos, and asks models along the way which of all held-out spans of the
same length is hidden, from words and frames: the claim of the paper's ablation (arXiv 2201.02639, Table 1).

`python -m benchmarks.learning.objectives --videos runs/demo/videos --save` stores the result in benchmarks/results;
docs/learning.md shows it. Runs are kept in --out and go on where they were stopped.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.learning.arms import ARMS
from benchmarks.learning.command import show, study_parser
from benchmarks.learning.provenance import provenance
from benchmarks.learning.runs import Run, finish_all, run_one
from benchmarks.learning.spans import MASKINGS, HeldOutSpans
from benchmarks.learning.step_times import step_times
from reserve.config import SECTIONS, Config, FitConfig
from reserve.config.load import config_file, plain_values, read_settings
from reserve.tasks.pretrain.task import Pretrain
from reserve.train.fit import fit
from reserve.train.state import list_checkpoints

FILE = "learning_objectives.json"
MODULE = "benchmarks.learning.objectives"
EVALUATIONS = 8
"""Models of a run that are evaluated, at equal distances, the last one included."""
TRAINED = "objectives"
"""Folder of the runs."""
PREPARED = "prepared"
"""Folder of prepared videos' stores."""
PRETRAINED = "pretrained"
"""Folder of a run's last checkpoint, which other studies start from."""


def configuration(steps: int | None = None, seed: int = 0) -> Config:
    """The demo's settings, for a run that has one core: it loads its data itself."""
    config = Config(**read_settings([config_file("tiny")], SECTIONS, {}))
    steps = steps or config.optimizer.num_train_steps
    warmup = min(config.optimizer.num_warmup_steps, steps)
    every = -(-steps // EVALUATIONS)
    train = replace(
        config.train, seed=seed, num_workers=0, checkpoint_every=every, keep_checkpoints=2 * EVALUATIONS, log_every=10
    )
    return replace(
        config, optimizer=replace(config.optimizer, num_train_steps=steps, num_warmup_steps=warmup), train=train
    )


def prepare(videos: Path, out: Path, config: Config) -> None:
    """Prepares VIDEOS/train and VIDEOS/heldout in `out`; what is prepared already is left alone."""
    for split in ("train", "heldout"):
        folder = out / "prepared" / split
        folder.mkdir(parents=True, exist_ok=True)
        Pretrain.of(config, [videos / split]).prepare(folder, config.train)


def train_and_ask(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Trains one arm with one seed; the right answers of its models by held-out video."""
    config = configuration(settings["steps"], settings["seed"])
    prepared = Path(settings["prepared"])
    task = ARMS[settings["arm"]](data=config.data, model=config.model, prepared=prepared / "train")
    run = folder / "run"
    fit(task, run, FitConfig(optimizer=config.optimizer, train=config.train))
    held_out = HeldOutSpans(prepared / "heldout", config.data, config.model)
    queries, kind = held_out.queries, type(task.build_model())
    # A run that was stopped has a further one, which others do not have.
    every, last = config.train.checkpoint_every, config.optimizer.num_train_steps
    checkpoints = [one for one in list_checkpoints(run) if one.step % every == 0 or one.step == last]
    right = []
    for checkpoint in checkpoints:
        hits = held_out.hits(kind.from_pretrained(checkpoint.path))
        right.append(np.bincount(queries.video, hits).tolist())
    kind.from_pretrained(checkpoints[-1].path).save_pretrained(folder / PRETRAINED, step=checkpoints[-1].step)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    shutil.rmtree(run)
    return {
        "steps": [checkpoint.step for checkpoint in checkpoints],
        "right": right,
        "asked": np.bincount(queries.video).tolist(),
        "chance": float(queries.chance.mean()),
        "candidates": {str(length): len(spans) for length, spans in queries.candidates.items()},
        "maskings": MASKINGS,
        "flops_per_step": flops_per_step(lines, config.train.batch_size),
    }


def flops_per_step(lines: Sequence[dict[str, float]], batch_size: int) -> float:
    """The FLOPs of a step's matrix products."""
    return float(np.mean([batch_size / line["examples_per_second"] * line["tflops"] * 1e12 for line in lines]))


def _digest(prepared: Path) -> str:
    """What tells the prepared videos apart from others at the same place; preparing them again leaves them alone."""
    stores = [file for split in ("train", "heldout") for file in sorted((prepared / split / PREPARED).glob("*"))]
    known = [(file.name, (at := file.stat()).st_size, at.st_mtime_ns) for file in stores]
    return hashlib.sha256(repr(known).encode()).hexdigest()[:16]


def runs_of(out: Path, steps: int | None, seeds: int) -> dict[tuple[str, int], Run]:
    """The run of each arm and seed, those of a seed one after another so that a part of a study is comparable."""
    config = configuration(steps)
    settings = {
        "steps": config.optimizer.num_train_steps,
        "batch_size": config.train.batch_size,
        "learning_rate": config.optimizer.learning_rate,
        "hidden_size": config.model.hidden_size,
        "prepared": str((out / "prepared").resolve()),
        "configuration": {name: plain_values(getattr(config, name)) for name in ("data", "model", "optimizer")},
        "precision": config.train.precision,
        "videos": _digest(out / "prepared"),
    }
    return {
        (arm, seed): Run(out / TRAINED / f"{arm.replace(' ', '-')}-{seed}", settings | {"arm": arm, "seed": seed})
        for seed in range(seeds)
        for arm in ARMS
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study_parser(MODULE, __doc__)
    parser.add_argument("--videos", type=Path, help="a folder that `reserve demo-data` has made")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each arm")
    parser.add_argument("--steps", type=int, help="training steps of a run; by default the preset's")
    options = parser.parse_args(arguments)
    if options.one:
        run_one(options.one, train_and_ask)
        return
    if options.videos is None:
        parser.error("--videos is needed")
    prepare(options.videos, options.out, configuration(options.steps))
    results = finish_all(MODULE, list(runs_of(options.out, options.steps, options.seeds).values()), again=options.again)
    from benchmarks.report.learning.objectives import section

    times = step_times(configuration(options.steps), options.out / "prepared" / "train")
    show({"runs": results, "step_times": times, "provenance": provenance()}, section, FILE, options)


if __name__ == "__main__":
    main()
