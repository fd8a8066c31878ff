"""What a step of each arm costs: processor time, which other work on the machine does not lengthen."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

from benchmarks.learning.arms import ARMS
from reserve.config import Config
from reserve.model.precision import autocast
from reserve.train.optimizer import clip_gradients, make_optimizer

ROUNDS = 8
"""Steps of each arm that are timed, in turn with those of the others; the first is left out."""


def step_times(config: Config, prepared: Path) -> Mapping[str, Mapping[str, float]]:
    """By arm, the median seconds of one core of a `step`, without and for `loading` its examples."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        steps = {name: _steps(name, config, prepared) for name in ARMS}
        timed: dict[str, list[tuple[float, float]]] = {name: [] for name in ARMS}
        for _ in range(ROUNDS):
            for name, step in steps.items():
                timed[name].append(next(step))
    finally:
        torch.set_num_threads(threads)
    medians = {name: np.median(np.array(times[1:]), axis=0) for name, times in timed.items()}
    return {name: {"step": float(step), "loading": float(loading)} for name, (step, loading) in medians.items()}


def _steps(name: str, config: Config, prepared: Path) -> Iterator[tuple[float, float]]:
    """Yields the times of one step after another: (step, loading)."""
    task = ARMS[name](data=config.data, model=config.model, prepared=prepared)
    examples = task.training_set(prepared, config.train)
    model = task.build_model()
    optimizer = make_optimizer(model, task.parameter_groups(model, config.optimizer), config.optimizer)
    device, first = torch.device("cpu"), 0
    while True:
        start = time.process_time()
        batch = task.collate([examples[0, (first + n) % len(examples)] for n in range(config.train.batch_size)])
        loaded = time.process_time()
        with autocast(config.train, device):
            loss = task.loss(model, batch, None)
        loss.total.backward()
        for parameter in model.parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        clip_gradients(optimizer, config.optimizer.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        first += config.train.batch_size
        yield time.process_time() - loaded, loaded - start
