"""Trains the model on random examples for a few minutes, to see whether it runs, learns, and how fast; see `--help`.

It uses the trainer's loader, step and optimiser, and no videos. The examples are few, so that the model memorises them
and the loss must fall. Writes training.jsonl, one line a step, and training.json, the summary.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.cuda import cuda_limits
from benchmarks.machine import cpu_limits, describe
from benchmarks.step_cases import BASE, LARGE, SMALL, made_on
from reserve.config import Config, OptimizerConfig
from reserve.data.loader import BatchSampler, load_batches
from reserve.model.merlot_reserve import MerlotReserve
from reserve.tasks.pretrain.batch import PretrainBatch
from reserve.tasks.pretrain.random_examples import RandomExamples
from reserve.tasks.pretrain.task import Pretrain
from reserve.tasks.task import Loss
from reserve.train.distributed import Ranks, pick_device
from reserve.train.optimizer import make_optimizer
from reserve.train.step import set_learning_rate, train_step

CONFIGS = {"small": SMALL, "base": BASE, "large": LARGE}
WARM_UP = 5
"""Steps that compile and fill caches, excluded from the times."""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_run", description=__doc__)
    parser.add_argument("--config", choices=CONFIGS, default="base")
    parser.add_argument("--minutes", type=float, default=3.0, help="how long to train (default: 3)")
    parser.add_argument("--batch_size", type=int, default=16, help="default: 16; see training_step.CUDA_CASES")
    parser.add_argument("--batches", type=int, default=4, help="number of different batches, repeated (default: 4)")
    parser.add_argument("--learning_rate", type=float, default=1e-4)
    parser.add_argument("--workers", type=int, default=12, help="worker processes of the loader (default: 12)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    return parser


def settings(options: argparse.Namespace, steps: int = 1_000_000) -> Config:
    config = CONFIGS[options.config]
    optimizer = OptimizerConfig(learning_rate=options.learning_rate, num_train_steps=steps, num_warmup_steps=20)
    train = replace(config.train, batch_size=options.batch_size, num_workers=options.workers)
    return replace(config, optimizer=optimizer, train=train)


def timed_steps(
    model: MerlotReserve, batches: Iterator[PretrainBatch], config: Config, device: torch.device, until: float
) -> Iterator[dict[str, float]]:
    """Trains until the time `until`; yields each step's losses, its seconds, and those it waited for its batch."""
    task, ranks = Pretrain.of(config), Ranks(0, 1, device)
    optimizer = make_optimizer(model, task.parameter_groups(model, config.optimizer), config.optimizer)

    def loss(batch: PretrainBatch) -> Loss:
        return task.loss(model, batch, None)

    step = 0
    while time.perf_counter() < until:
        start = time.perf_counter()
        batch = next(batches)
        waited = time.perf_counter() - start
        set_learning_rate(optimizer, step, config.optimizer)
        values = train_step(loss, optimizer, [batch], config, ranks)
        losses = {name: float(value) for name, value in values.items()}  # waits for the device
        step += 1
        yield {"step": step, **losses, "seconds": time.perf_counter() - start, "waited": waited}


def summary(lines: list[dict[str, float]], config: Config, device: torch.device, flops: int) -> dict[str, Any]:
    """The summary of the run; times exclude the first steps."""
    timed = lines[WARM_UP:] or lines
    median = statistics.median(line["seconds"] for line in timed)
    limits = cuda_limits() if device.type == "cuda" else cpu_limits(torch.get_num_threads())
    window = max(1, min(10, len(lines) // 4))
    first, last = (statistics.fmean(line["loss"] for line in part) for part in (lines[:window], lines[-window:]))
    return {
        "steps": len(lines),
        "batch_size": config.train.batch_size,
        "seconds_a_step": median,
        "seconds_a_step_quartiles": statistics.quantiles([line["seconds"] for line in timed], n=4)
        if len(timed) > 1
        else [median] * 3,
        "examples_per_s": config.train.batch_size / median,
        "flops_a_step": flops,
        "fraction_of_matmul_rate": flops / median / limits["matmul_flops_per_s"],
        "waited_for_batches": sum(line["waited"] for line in timed) / sum(line["seconds"] for line in timed),
        "peak_bytes": torch.cuda.max_memory_allocated() if device.type == "cuda" else None,
        "loss_first": first,
        "loss_last": last,
        "all_finite": all(math.isfinite(line["loss"]) for line in lines),
        **limits,
        "machine": describe(),
    }


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 if the loss stayed finite and fell, 1 otherwise."""
    options = parser().parse_args(arguments)
    config, device = settings(options), pick_device(options.device)
    options.out.mkdir(parents=True, exist_ok=True)
    model = made_on(device, config)
    examples = RandomExamples(options.batches * options.batch_size, config.data, config.model)
    sampler = BatchSampler(len(examples), options.batch_size)
    collate = Pretrain.of(config).collate
    loader = load_batches(examples, sampler, collate, num_workers=options.workers, pin_memory=device.type == "cuda")
    batches = iter(loader)
    flops = Pretrain.of(config).workload(next(batches)).flops
    lines = []
    with (options.out / "training.jsonl").open("w", encoding="utf-8") as log:
        for line in timed_steps(model, batches, config, device, time.perf_counter() + 60 * options.minutes):
            lines.append(line)
            log.write(json.dumps(line) + "\n")
            log.flush()
    result = {"config": options.config, **summary(lines, config, device, flops)}
    (options.out / "training.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    printed = (
        "steps",
        "seconds_a_step",
        "examples_per_s",
        "fraction_of_matmul_rate",
        "waited_for_batches",
        "peak_bytes",
    )
    print(*(f"{name}: {result[name]}" for name in (*printed, "loss_first", "loss_last")), sep="\n")
    return 0 if result["all_finite"] and result["loss_last"] < result["loss_first"] else 1


if __name__ == "__main__":
    sys.exit(main())
