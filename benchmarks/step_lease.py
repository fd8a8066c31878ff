"""Compares ways to run the same training step within a few minutes of a GPU; see `--help`.

Each variant has its own guard: one that fails or runs out of memory is recorded, and the next one runs. The results go
to FOLDER/step.json after each variant, so that a run that is killed keeps what it has measured; tables of kernels go to
FOLDER/profile-*.txt. All variants see the same weights. It needs torch, triton, numpy,
einops and pytest only.
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch._dynamo.utils import counters
from torch.nn import functional as F

import reserve_kernels
from benchmarks.cuda import EventClock, cuda_limits
from benchmarks.interleaved import Missing, WallClock, largest_relative_difference
from benchmarks.machine import cpu_limits, describe
from benchmarks.padded_model import PaddedModel, padded_batch
from benchmarks.step_cases import BASE, LARGE, SMALL, Step, comparable, random_batch
from benchmarks.step_profile import host_wait_places, kernel_table
from reserve.config import Config
from reserve.model.transformer import Mlp, Transformer
from reserve.train.compilation import compile_layers

CONFIGS = {"small": SMALL, "base": BASE, "large": LARGE}
WARM_UP, ROUNDS, FEWEST_ROUNDS = 3, 8, 3
QUEUED_STEPS = 5
SECONDS_FOR_A_VARIANT = 8.0
"""With less time left, the remaining variants are skipped."""


class Bench:
    """The model and two random batches, which differ in their token counts."""

    def __init__(self, config: Config, examples: int, device: str) -> None:
        self.config, self.examples, self.device = comparable(config), examples, torch.device(device)
        self.batches = [random_batch(self.config, examples, seed=seed) for seed in (0, 1)]
        self.step = Step(self.config, self.batches[0], self.device)
        self.clock = EventClock(flush=False) if self.on_cuda else WallClock()

    @property
    def on_cuda(self) -> bool:
        return self.device.type == "cuda"

    def synchronize(self) -> None:
        if self.on_cuda:
            torch.cuda.synchronize()

    def facts(self) -> dict[str, Any]:
        limits = cuda_limits() if self.on_cuda else cpu_limits(torch.get_num_threads())
        return {
            "machine": describe(),
            "examples": self.examples,
            "tokens": [_tokens(batch) for batch in self.batches],
            "flops": self.step.flops,
            **limits,
        }


def _tokens(batch: Any) -> dict[str, int]:
    """Tokens of the sequences that packing shortens."""
    return {"joint": len(batch.joint.order), "span": len(batch.spans.token_ids)}


def _ours(bench: Bench, _: ExitStack) -> list[Step]:
    if not hasattr(reserve_kernels, "bias_quick_gelu"):
        raise Missing("reserve_kernels has no bias_quick_gelu")
    return [bench.step.variant(bench.step.loss, batch) for batch in bench.batches]


def _plain_gelu(bench: Bench, stack: ExitStack) -> list[Step]:
    """Quick GELU as three PyTorch ops."""

    def forward(mlp: Mlp, x: torch.Tensor) -> torch.Tensor:
        hidden = F.linear(x, mlp.intermediate.weight, mlp.intermediate.bias)
        return mlp.out(hidden * torch.sigmoid(1.702 * hidden))

    stack.enter_context(mock.patch.object(Mlp, "forward", forward))
    return [bench.step.variant(bench.step.loss, batch) for batch in bench.batches]


def _compiled(make: Callable[[Bench, ExitStack], list[Step]], bench: Bench, stack: ExitStack) -> list[Step]:
    """`make`'s steps with each layer compiled for any number of tokens."""
    steps = make(bench, stack)
    stack.enter_context(_compiled_layers(bench.step.model))
    return steps


def _recomputed(bench: Bench, stack: ExitStack) -> list[Step]:
    """`_compiled` steps whose backward pass runs the layers again: train.recompute_layers."""
    for module in bench.step.model.modules():
        if isinstance(module, Transformer):
            stack.enter_context(mock.patch.object(module, "recompute", True))
    return _compiled(_plain_gelu, bench, stack)


@contextmanager
def _compiled_layers(model: torch.nn.Module) -> Iterator[None]:
    """The trainer's train.compile, undone at the end."""
    compile_layers(model, "layers", next(model.parameters()).device)
    try:
        yield
    finally:
        for module in model.modules():
            vars(module).pop("forward", None)


def _padded(bench: Bench, _: ExitStack, *, compiled: bool = False) -> list[Step]:
    model = PaddedModel(bench.step.model)
    if compiled:
        model.compile_layers()
    return [
        bench.step.variant(model.loss, padded_batch(batch, bench.config, bench.step.dtype)) for batch in bench.batches
    ]


Make = Callable[[Bench, ExitStack], list[Step]]
VARIANTS: dict[str, Make] = {
    "ours, three-op GELU": _plain_gelu,
    "ours, compiled layers, fused GELU": functools.partial(_compiled, _ours),
    "padded, compiled layers": functools.partial(_padded, compiled=True),
    "ours, compiled layers": functools.partial(_compiled, _plain_gelu),
    "ours, fused GELU": _ours,
    "padded": _padded,
    "ours, compiled and recomputed": _recomputed,
}
"""In order of value."""
BASELINE = "ours, three-op GELU"


def measure(
    bench: Bench, make: Make, ours: list[torch.Tensor] | None, end: float, table: Path
) -> tuple[dict[str, Any], list[torch.Tensor]]:
    """Times the steps of `make`, as many as end before `end`, and profiles one.

    Returns the figures, and the loss and gradient norms to compare others with.
    """
    torch._dynamo.reset()
    counters.clear()
    gc.collect()
    if bench.on_cuda:
        torch.cuda.empty_cache()
    with ExitStack() as stack:
        step, other = make(bench, stack)
        found: dict[str, Any] = {}
        found["first_step_seconds"] = _seconds(bench, step)
        result = [value.cpu() for value in step.loss_and_gradient()]
        found["loss"] = float(result[0])
        if ours is not None:
            found["difference_from_ours"] = largest_relative_difference(result, ours)
        for _ in range(WARM_UP - 1):
            step()
        if bench.on_cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        times: list[float] = []
        while len(times) < ROUNDS and (len(times) < FEWEST_ROUNDS or time.monotonic() < end):
            times.append(bench.clock(step))
        found["seconds"] = times
        found |= _without_waiting(bench, step)
        if bench.on_cuda:
            found["peak_bytes"] = torch.cuda.max_memory_allocated()
            found["reserved_bytes"] = torch.cuda.max_memory_reserved()
        graphs = counters["stats"]["unique_graphs"]
        # A second batch has other token counts; steps that are compiled should not notice.
        found["other_batch_seconds"] = [_seconds(bench, other) for _ in range(3)]
        found["graphs"], found["recompiled"] = graphs, counters["stats"]["unique_graphs"] - graphs
        found["graph_breaks"] = dict(counters["graph_break"])
        inspected, problem = guarded(lambda: inspect(bench, step, table))
        found |= inspected or {"not_inspected": problem}
    return found, result


def _without_waiting(bench: Bench, step: Step) -> dict[str, float]:
    """Seconds of a step among steps that the host queues without waiting, as in a run, and of the host alone.

    The host's time is that until the call returns, the device idle before. A host that is faster than the device can
    still wait for room in the queue of launches, so that it is an upper bound.
    """
    host = []
    for _ in range(QUEUED_STEPS):
        bench.synchronize()
        start = time.perf_counter()
        step()
        host.append(time.perf_counter() - start)
    bench.synchronize()
    start = time.perf_counter()
    for _ in range(QUEUED_STEPS):
        step()
    bench.synchronize()
    queued = (time.perf_counter() - start) / QUEUED_STEPS
    return {"queued_seconds": queued, "host_seconds": statistics.median(host)}


def _seconds(bench: Bench, step: Step) -> float:
    """Wall time of a step, compilation included."""
    bench.synchronize()
    start = time.perf_counter()
    step()
    bench.synchronize()
    return time.perf_counter() - start


COLUMNS = [
    "median",
    "min",
    "queued",
    "host",
    "ex/s",
    "MFU",
    "ratio",
    "GB",
    "first s",
    "graphs",
    "again",
    "other batch",
    "differs",
]


class Results:
    """What was found, written to step.json whenever it changes."""

    def __init__(self, out: Path, facts: dict[str, Any]) -> None:
        self.out, self.facts = out, facts
        self.variants: dict[str, dict[str, Any]] = {}

    def write(self) -> None:
        content = {"facts": self.facts, "variants": self.variants}
        # Whole at any time: a run may be killed while it writes.
        unfinished = self.out / "step.json.tmp"
        unfinished.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
        unfinished.replace(self.out / "step.json")

    def row(self, name: str) -> str:
        found = self.variants[name]
        if "seconds" not in found:
            return f"{name:<34} {found['missing']}"
        cells = self._cells(found)
        return f"{name:<34} " + " ".join(f"{cells[column]:>{max(7, len(column))}}" for column in COLUMNS)

    def _cells(self, found: dict[str, Any]) -> dict[str, str]:
        median, best, examples = statistics.median(found["seconds"]), min(found["seconds"]), self.facts["examples"]
        base = self.variants.get(BASELINE, {}).get("seconds")
        return {
            "median": f"{1e3 * median:.1f}",
            "min": f"{1e3 * best:.1f}",
            "queued": f"{1e3 * found['queued_seconds']:.1f}",
            "host": f"{1e3 * found['host_seconds']:.1f}",
            "ex/s": f"{examples / median:.1f}",
            "MFU": f"{self.facts['flops'] / median / self.facts['matmul_flops_per_s']:.1%}",
            "ratio": f"{statistics.median(base) / median:.2f}x" if base else "-",
            "GB": f"{found['peak_bytes'] / 1e9:.1f}" if "peak_bytes" in found else "-",
            "first s": f"{found['first_step_seconds']:.1f}",
            "graphs": f"{found['graphs']}",
            "again": f"{found['recompiled']}",
            "other batch": f"{1e3 * found['other_batch_seconds'][-1]:.1f}",
            "differs": f"{found.get('difference_from_ours', 0.0):.1e}",
        }

    def table(self) -> str:
        head = " ".join(f"{column:>{max(7, len(column))}}" for column in COLUMNS)
        return "\n".join([f"{'milliseconds a step':<34} {head}", *(self.row(name) for name in self.variants)])

    def summary(self) -> str:
        """The table, the milliseconds of each kind of kernel, and where the host waits."""
        lines = [self.table()]
        for name, found in self.variants.items():
            kinds = sorted(found.get("kinds_ms", {}).items(), key=lambda kind: -kind[1])
            if kinds:
                lines.append(f"{name}, ms: {', '.join(f'{kind} {ms:.1f}' for kind, ms in kinds)}")
            lines += [f"{name}: the host waits {place}" for place in found.get("host_waits", ())]
        return "\n".join(lines)


def guarded(what: Callable[[], Any]) -> tuple[Any, str]:
    """The result of `what`, or None and why there is none."""
    try:
        return what(), ""
    except Missing as reason:
        return None, str(reason)
    except torch.OutOfMemoryError:
        return None, "out of memory"
    except Exception as error:
        traceback.print_exc()
        return None, f"{type(error).__name__}: {error}".splitlines()[0][:300]


def fitting_bench(config: Config, examples: int, device: str) -> Bench:
    """A bench of `examples`, or of fewer if a step of so many runs out of memory."""
    for count in (examples, examples * 3 // 4, examples // 2):
        bench = Bench(config, count, device)
        with ExitStack() as stack:
            step = _plain_gelu(bench, stack)[0]
            _, problem = guarded(step)
        if problem != "out of memory":
            return bench
        print(f"{count} examples: {problem}", flush=True)
        del bench, step
        gc.collect()
        torch.cuda.empty_cache()
    raise SystemExit(f"{examples // 2} examples do not fit in memory")


def inspect(bench: Bench, step: Step, table: Path) -> dict[str, Any]:
    """Profiles a step, and looks for places where the host waits for the GPU."""
    text, kinds = kernel_table(step, bench.device.type)
    table.write_text(text, "utf-8")
    if not bench.on_cuda:
        return {"kinds_ms": kinds}
    # As the trainer's step gets it: in pinned memory.
    pinned = step.variant(step.loss, step.batch)
    pinned.batch = step.batch.to("cpu").pin_memory()
    pinned()
    return {"kinds_ms": kinds, "host_waits": host_wait_places(pinned)}


def measure_all(bench: Bench, names: Iterable[str], results: Results, end: float) -> None:
    """Measures the variants while there is time, and stores each."""
    ours: list[torch.Tensor] | None = None
    start = time.monotonic()
    for name in names:
        if time.monotonic() + SECONDS_FOR_A_VARIANT > end:
            results.variants[name] = {"missing": "no time left"}
        else:
            table = results.out / f"profile-{name.replace(',', '').replace(' ', '-')}.txt"
            measured, problem = guarded(functools.partial(measure, bench, VARIANTS[name], ours, end, table))
            results.variants[name] = {"missing": problem} if measured is None else measured[0]
            if ours is None and measured is not None:
                ours = measured[1]
        results.write()
        print(f"after {time.monotonic() - start:.0f} s: {results.row(name)}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step_lease", description=__doc__)
    parser.add_argument("--config", choices=CONFIGS, default="base")
    parser.add_argument("--examples", type=int, default=16)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--seconds", type=float, default=90.0, help="when to skip what remains (default: 90)")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, metavar="VARIANT", help=f"of {', '.join(VARIANTS)}")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    options = parser.parse_args(arguments)
    end = time.monotonic() + options.seconds
    # Token counts change from step to step, which fragments memory without this.
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    options.out.mkdir(parents=True, exist_ok=True)
    bench = fitting_bench(CONFIGS[options.config], options.examples, options.device)
    results = Results(options.out, bench.facts())
    results.write()
    print(json.dumps(results.facts), flush=True)
    # An interrupt, as at the end of a lease, ends the measuring and not the summary.
    with suppress(KeyboardInterrupt):
        measure_all(bench, options.only or VARIANTS, results, end)
    print(results.summary())
    return int(all("missing" in found for found in results.variants.values()))


if __name__ == "__main__":
    sys.exit(main())
