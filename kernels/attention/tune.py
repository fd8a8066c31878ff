"""Measures every candidate tile of the Triton kernels on the current GPU and stores the fastest of each length class.

    python -m reserve_kernels.attention.tune [CLASS ...]

It takes a few minutes, prints what it measured, and writes `tiles.tuned_file` after each length class; the op reads
the file from then on. There is one for each kind of GPU and version of Triton. Remove it to return to the library's
choices.
"""

from __future__ import annotations

import argparse
import functools
import statistics
from collections.abc import Callable, Sequence

import torch

from reserve_kernels.attention import tiles
from reserve_kernels.attention.packing import Packing
from reserve_kernels.attention.tiles import Chip, Tile

HEADS = 12
# The model's lengths in each class, and enough sequences to fill the chip.
BATCHES = {
    "tiny": [31] * 768,
    "short": [40 + i % 25 for i in range(384)],
    "medium": [241] * 256,
    "long": [303 + i * 37 % 338 for i in range(96)],
}
ROUNDS = 20
CALLS = 4
"""Calls in a captured graph, so that launching the graph costs little beside them."""
MARGIN = 0.98
"""Another tile replaces the library's choice only if it takes less than this fraction of its time."""

Call = Callable[[], object]
Pass = Callable[[dict[str, Tile]], object]
Timer = Callable[[Sequence[Call]], list[float]]
"""Returns the milliseconds that each call takes."""


def milliseconds(calls: Sequence[Call]) -> list[float]:
    """Median time of each call on the current CUDA device, interleaved, in captured graphs: without launch overhead."""
    graphs = []
    for call in calls:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(CALLS):
                call()
        graphs.append(graph)
    events: list[list[tuple[torch.cuda.Event, torch.cuda.Event]]] = [[] for _ in graphs]
    for graph in graphs:
        graph.replay()
    for _ in range(ROUNDS):
        for graph, times in zip(graphs, events, strict=True):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            graph.replay()
            end.record()
            times.append((start, end))
    torch.cuda.synchronize()
    return [statistics.median(start.elapsed_time(end) for start, end in times) / CALLS for times in events]


def make_passes(lengths: Sequence[int], device: torch.device) -> dict[str, Pass]:
    """The forward and the backward pass of a batch, each a function of the tiles to use."""
    from reserve_kernels.attention.triton import attention_triton, attention_triton_backward

    generator = torch.Generator(device).manual_seed(0)
    tokens = sum(lengths)
    qkv = torch.randn(tokens, 3, HEADS, 64, generator=generator, device=device).bfloat16()
    grad = torch.randn(tokens, HEADS, 64, generator=generator, device=device).bfloat16()
    angles = torch.randn(tokens, 16, generator=generator, device=device)
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0).int().to(device)
    packing = Packing(cu_seqlens, max(lengths), angles, None, "reserve", 0.125)
    out, lse = attention_triton(qkv, packing)
    return {
        "forward": lambda chosen: attention_triton(qkv, packing, chosen),
        "backward": lambda chosen: attention_triton_backward(grad, qkv, out, lse, packing, chosen),
    }


def working(run: Pass, choices: dict[Tile, dict[str, Tile]]) -> list[Tile]:
    """The tiles that a pass can run with: some need more shared memory or registers than a chip of the family has.

    Raises RuntimeError if there is none.
    """
    found, reasons = [], []
    for tile, chosen in choices.items():
        try:
            run(chosen)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
        except Exception as error:  # Triton has errors of its own for each resource
            reasons.append(f"{tile}: {type(error).__name__}: {error}")
            print(f"skipped {reasons[-1]}")
        else:
            found.append(tile)
    if not found:
        raise RuntimeError(f"tuning: no tile works: {'; '.join(reasons)}")
    return found


def tune_class(name: str, chips: int, passes: dict[str, Pass], timer: Timer) -> dict[str, Tile]:
    """The fastest tile of each kernel of a length class; the other kernels of the pass keep theirs."""
    chosen = dict(tiles.CHOSEN[chips][name])
    for kernel, default in list(chosen.items()):
        run = passes["forward" if kernel.endswith("forward") else "backward"]
        choices = {
            tile: chosen | {kernel: tile} for tile in tiles.CANDIDATES[chips][kernel] if tiles.holds(kernel, tile, name)
        }
        found = working(run, choices)
        times = dict(zip(found, timer([functools.partial(run, choices[tile]) for tile in found]), strict=True))
        for tile, time in times.items():
            print(f"{name:7} {kernel:15} {tile!s:50} {time:8.3f} ms")
        fastest = min(found, key=lambda tile: times[tile])
        if default not in times or times[fastest] < MARGIN * times[default]:
            chosen[kernel] = fastest
    return chosen


def tune(chip: Chip, device: torch.device, timer: Timer, classes: Sequence[str] = tuple(BATCHES)) -> None:
    """Tunes length classes on `device`, a `chip`. Writes the choices to its `tiles.tuned_file` after each class.

    Classes that are not tuned keep what the file has for them.
    """
    chips, file = tiles.family(chip.architecture), tiles.tuned_file(chip)
    tiles.tuned.cache_clear()
    choices = dict(tiles.tuned(chip))
    for name in classes:
        choices[name] = tune_class(name, chips, make_passes(BATCHES[name], device), timer)
        tiles.write_choices(choices, file)
        print(f"wrote {name} to {file}", flush=True)
    tiles.tuned.cache_clear()


def main(arguments: Sequence[str] | None = None) -> None:
    """Tunes for the current CUDA device. Raises RuntimeError if the Triton kernels cannot run on it."""
    parser = argparse.ArgumentParser(
        prog="python -m reserve_kernels.attention.tune", description="Tunes rotary_attention for this GPU."
    )
    parser.add_argument("classes", nargs="*", metavar="CLASS", help=f"{', '.join(BATCHES)} (default: all)")
    classes = parser.parse_args(arguments).classes
    unknown = [name for name in classes if name not in BATCHES]
    if unknown:
        parser.error(f"no length class {unknown[0]!r}; choose from {', '.join(BATCHES)}")
    from reserve_kernels.attention.availability import triton_unavailable

    if not torch.cuda.is_available():
        raise RuntimeError("tuning needs a CUDA device")
    device = torch.device("cuda", torch.cuda.current_device())
    reason = triton_unavailable(device, torch.bfloat16)
    if reason is not None:
        raise RuntimeError(f"tuning: the Triton kernels cannot run: {reason}")
    properties = torch.cuda.get_device_properties(device)
    chip = Chip(10 * properties.major + properties.minor, properties.name)
    tune(chip, device, milliseconds, classes or tuple(BATCHES))


if __name__ == "__main__":
    main()
