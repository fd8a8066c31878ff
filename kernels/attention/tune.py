"""Measures every candidate tile of the Triton kernels on the GPU at hand and keeps the fastest of each length class.

    python -m reserve_kernels.attention.tune

Takes a few minutes, prints what it measured, and writes `tiles.tuned_file`, which the op reads from then on. Remove
the file to go back to the choices that come with the library.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable

import torch

from reserve_kernels.attention import tiles

HEADS = 12
# Lengths that the model has in each class, and enough sequences of them to fill the chip.
BATCHES = {
    "tiny": [31] * 768,
    "short": [40 + i % 25 for i in range(384)],
    "medium": [241] * 256,
    "long": [303 + i * 37 % 338 for i in range(96)],
}
ROUNDS = 20


def milliseconds(call: Callable[[], object]) -> float:
    """Median time of one call on the current CUDA device, in a captured graph, so without its launches."""
    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    times = []
    for _ in range(ROUNDS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def make_calls(lengths: list[int]) -> dict[str, Callable[[], object]]:
    """The forward and the backward pass of a batch, each on its own."""
    from reserve_kernels.attention.triton import attention_triton, attention_triton_backward

    generator = torch.Generator("cuda").manual_seed(0)
    tokens = sum(lengths)
    qkv = torch.randn(tokens, 3, HEADS, 64, generator=generator, device="cuda", dtype=torch.bfloat16)
    grad = torch.randn(tokens, HEADS, 64, generator=generator, device="cuda", dtype=torch.bfloat16)
    angles = torch.randn(tokens, 16, generator=generator, device="cuda")
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0).int().cuda()
    rest = (cu_seqlens, max(lengths), angles, None, "reserve", 0.125)
    out, lse = attention_triton(qkv, *rest)
    return {
        "forward": lambda: attention_triton(qkv, *rest),
        "backward": lambda: attention_triton_backward(grad, qkv, out, lse, *rest),
    }


def tune_class(name: str, chips: int) -> dict[str, tiles.Tile]:
    """The fastest tile of each kernel of a length class; the other kernels of its pass keep theirs meanwhile."""
    calls = make_calls(BATCHES[name])
    chosen = tiles.CHOSEN[chips][name]
    for kernel in list(chosen):
        call = calls["forward" if kernel.endswith("forward") else "backward"]
        times = {}
        for tile in tiles.CANDIDATES[chips][kernel]:
            if kernel in tiles.SHARED and tile.queries < max(BATCHES[name]):
                continue
            chosen[kernel] = tile
            times[tile] = milliseconds(call)
            print(f"{name:7} {kernel:15} {tile!s:50} {times[tile]:8.3f} ms")
        chosen[kernel] = min(times, key=lambda tile: times[tile])
    return chosen


def main() -> None:
    """Tunes for the current CUDA device. Raises RuntimeError where there is none that Triton's kernels run on."""
    from reserve_kernels.attention.availability import triton_unavailable

    if not torch.cuda.is_available():
        raise RuntimeError("tuning needs a CUDA device")
    device = torch.device("cuda")
    reason = triton_unavailable(device, torch.bfloat16)
    if reason is not None:
        raise RuntimeError(f"tuning: the Triton kernels cannot run: {reason}")
    major, minor = torch.cuda.get_device_capability(device)
    architecture = 10 * major + minor
    file = tiles.tuned_file(architecture)
    file.unlink(missing_ok=True)
    tiles.tuned.cache_clear()
    chips = tiles.family(architecture)
    # Own dictionaries, since classes share theirs.
    tiles.CHOSEN[chips] = {name: dict(kernels) for name, kernels in tiles.CHOSEN[chips].items()}
    choices = {name: tune_class(name, chips) for name in BATCHES}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(choices, indent=1) + "\n")
    print(f"written: {file}")


if __name__ == "__main__":
    main()
