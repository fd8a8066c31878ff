"""How long a step is held while a checkpoint is saved, beside the training and before it goes on.

`python -m benchmarks.scaling.saves --save` stores it in benchmarks/results; docs/scaling.md shows it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.__main__ import RESULTS, machine_name
from reserve.config import SECTIONS, ModelConfig, TrainConfig
from reserve.config.load import config_file, read_settings
from reserve.model.initialization import float32_on_cpu, undrawn
from reserve.model.merlot_reserve import MerlotReserve
from reserve.train.distributed import Ranks
from reserve.train.saving import CheckpointWriter
from reserve.train.state import Progress
from reserve_kernels import BF16AdamW

FILE = "saves.json"
MODELS = ("tiny", "base")


def measure(name: str, rounds: int, run: Path) -> dict[str, Any]:
    """Median seconds that a save holds the step, and until it is complete, both ways in turn in each round."""
    with undrawn(), float32_on_cpu():
        model = MerlotReserve(read_settings([config_file(name)], SECTIONS, {}).get("model", ModelConfig()))
    optimizer = BF16AdamW(model.parameters())
    for parameter in model.parameters():
        torch.nn.init.uniform_(parameter, -0.1, 0.1)
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    ranks = Ranks(0, 1, torch.device("cpu"))
    config = TrainConfig(keep_checkpoints=1)
    held, complete = defaultdict(list), defaultdict(list)
    writers = {
        way: CheckpointWriter(run, model, optimizer, ranks, replace(config, async_checkpoints=way == "beside"))
        for way in ("before", "beside")
    }
    step = 0
    for _ in range(rounds + 1):  # the first makes the copy that later ones use again
        for way, writer in writers.items():
            step += 1
            start = time.perf_counter()
            writer.save(Progress(step, step, 1, 0))
            held[way].append(time.perf_counter() - start)
            writer.wait()
            complete[way].append(time.perf_counter() - start)
    return {
        "model": name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "rounds": rounds,
        "held": {way: statistics.median(times[1:]) for way, times in held.items()},
        "complete": {way: statistics.median(times[1:]) for way, times in complete.items()},
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling.saves", description=__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS, help="presets")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--save", action="store_true", help="store the result in benchmarks/results/MACHINE")
    options = parser.parse_args(arguments)
    rows = []
    for name in options.models:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(name, options.rounds, Path(folder)))
        print(rows[-1], flush=True)
    if options.save:
        path = RESULTS / machine_name("cpu") / FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"torch": torch.__version__, "rows": rows}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
