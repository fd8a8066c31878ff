"""Where the time of a step goes: its kernels by name and by kind, and the places where the host waits for the GPU."""

from __future__ import annotations

import re
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

ROOT = Path(__file__).parent.parent
KINDS = {
    "compiled": r"^triton_(poi|red|per|tem)|^graph_.*kernel",
    "GELU": r"gelu",
    "attention": r"attention|attn|sdpa|flash|fmha|rotary|^(forward|dq|dkv|place)_kernel|^short_(forward|backward)",
    "optimiser": r"adam|multi_tensor",
    "loss": r"contrastive|logsumexp|cross_entropy|nll_loss|^(scale|scale_backward|weights)_kernel",
    "GEMM": r"gemm|nvjet|cutlass|cublas|splitk|aten::(add)?b?mm$|aten::addmm|mkl|wgmma",
    "norm": r"layer_?norm|gamma_?beta|native_layer_norm",
    "copy": r"memcpy|memset|copy|\bcat|CatArray|aten::(fill_|zero_)",
    "index": r"index|gather|scatter|embedding|sort|radix",
    "reduction": r"reduce|aten::sum|aten::mean|softmax",
    "elementwise": r"elementwise|vectorized|aten::(add|sub|mul|div|sigmoid|where|silu|pow|sqrt|rsqrt)",
}
"""Kernels by what their names contain, the first that fits; for the CPU, PyTorch's operators."""
LONGEST_NAME = 110


def kind_of(kernel: str) -> str:
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, kernel, re.IGNORECASE)), "other")


def kernel_table(call: Callable[[], object], device: str, rows: int = 40) -> tuple[str, dict[str, float]]:
    """Profiles one call: a table of its longest kernels, and the milliseconds of each kind.

    On a CPU, operators take the place of kernels, each without those that it calls.
    """
    on_cuda = device == "cuda"
    # Recording of the host's side would add to the time and to the tables.
    with profile(activities=[ProfilerActivity.CUDA if on_cuda else ProfilerActivity.CPU]) as profiled:
        call()
        if on_cuda:
            torch.cuda.synchronize()
    seconds: defaultdict[str, float] = defaultdict(float)
    calls: Counter[str] = Counter()
    for event in profiled.events() or ():
        if (event.device_type == DeviceType.CUDA) == on_cuda and not event.is_user_annotation:
            seconds[event.name] += (event.time_range.elapsed_us() if on_cuda else event.self_cpu_time_total) / 1e6
            calls[event.name] += 1
    kinds: defaultdict[str, float] = defaultdict(float)
    for name, time in seconds.items():
        kinds[kind_of(name)] += 1e3 * time
    total = sum(kinds.values())
    lines = [f"{total:.2f} ms in {sum(calls.values())} kernels", "", f"{'kind':<14} {'ms':>9} {'share':>6}"]
    lines += [
        f"{kind:<14} {ms:9.3f} {ms / max(total, 1e-9):6.1%}" for kind, ms in sorted(kinds.items(), key=lambda k: -k[1])
    ]
    lines += ["", f"{'ms':>9} {'share':>6} {'calls':>6} {'µs each':>9}  {'kind':<12} name"]
    for name, time in sorted(seconds.items(), key=lambda item: -item[1])[:rows]:
        share, each = 1e3 * time / max(total, 1e-9), 1e6 * time / calls[name]
        short = name if len(name) <= LONGEST_NAME else name[:LONGEST_NAME] + "…"
        lines.append(f"{1e3 * time:9.3f} {share:6.1%} {calls[name]:6} {each:9.1f}  {kind_of(name):<12} {short}")
    return "\n".join(lines) + "\n", dict(kinds)


def host_wait_places(call: Callable[[], object]) -> list[str]:
    """The places where `call` makes the host wait for the GPU, as far as PyTorch detects them, with how often.

    Each is the innermost frames of this repository. Waits of the backward pass have no frame of their own.
    """
    places: Counter[str] = Counter()

    def record(message: Any, category: type[Warning], filename: str, lineno: int, *_: object) -> None:
        if "synchroniz" not in str(message):
            return
        frames = [f for f in traceback.extract_stack() if Path(f.filename).is_relative_to(ROOT) and f.name != "record"]
        inner = " < ".join(f"{Path(f.filename).relative_to(ROOT)}:{f.lineno} {f.name}" for f in reversed(frames[-4:]))
        places[f"{filename}:{lineno} < {inner}"] += 1

    torch.cuda.synchronize()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = record  # type: ignore[assignment]
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return [f"{count}x {place}" for place, count in places.items()]
