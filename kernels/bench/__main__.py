"""Runs benchmarks of the ops against whatever peers are installed, prints a table and stores it."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
from pathlib import Path

import torch

from reserve_kernels.bench import case as cases
from reserve_kernels.bench import report
from reserve_kernels.bench.interleaved import Missing

BENCHMARKS = {
    "rotary_attention": "attention",
    "contrastive_loss": "contrastive",
    "bias_quick_gelu": "quick_gelu",
    "log_mel_spectrogram": "log_mel",
    "BF16AdamW": "adamw",
    "drop_in": "drop_in",
}
"""Name -> module of this package with a function `cases`."""
ROUNDS, QUICK_ROUNDS = 21, 3


def parser() -> argparse.ArgumentParser:
    listing = "\n".join(f"  {name:<20} {_module(name).__doc__.splitlines()[0]}" for name in BENCHMARKS)
    parser = argparse.ArgumentParser(
        prog="python -m reserve_kernels.bench",
        description="Times the ops and what does the same among the installed libraries, interleaved in one run, after "
        "comparing their results.",
        epilog=f"benchmarks:\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="OP", help="benchmarks to run (default: all)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    parser.add_argument("--threads", type=int, nargs="+", metavar="N", help="on the CPU (default: 1, and all cores)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"times that each is timed (default: {ROUNDS})")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds, to see whether it runs")
    parser.add_argument("--cases", type=_pattern, metavar="REGEX", help="only the cases whose names match")
    parser.add_argument("--peers", type=_pattern, metavar="REGEX", help="only ours and the peers whose names match")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", default=Path("reserve-bench"), help="default: reserve-bench"
    )
    parser.add_argument("--list", action="store_true", help="list the cases and their peers, and stop")
    return parser


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from error


def _module(name: str):
    return importlib.import_module(f"reserve_kernels.bench.{BENCHMARKS[name]}")


def main(arguments: list[str] | None = None) -> int:
    """0 if everything that could run ran and agreed with ours, 1 if not, 2 if nothing was to be run."""
    options = parser().parse_args(arguments)
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser().error(f"no benchmark {unknown[0]!r}; choose from {', '.join(BENCHMARKS)}")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser().error("--device cuda: PyTorch sees no CUDA device")
    if options.rounds < 1 or min(options.threads or [1]) < 1:
        parser().error("--rounds and --threads must be at least 1")
    device = torch.device(options.device)
    ran = [_run(name, device, options) for name in options.names or BENCHMARKS]
    if all(one is None for one in ran):
        print("no case matches; see --list", file=sys.stderr)
        return 2
    return int(any(ran))


def _run(name: str, device: torch.device, options: argparse.Namespace) -> bool | None:
    """Runs and stores one benchmark. Whether a peer failed or computed something else; None if no case was chosen."""
    found: list[report.Row] = []
    wrong: bool | None = None
    everything = sorted({1, torch.get_num_threads()})
    for one in _module(name).cases(device):
        label = f"{one.group}, {one.name}"
        if options.cases is not None and not options.cases.search(label):
            continue
        wrong = bool(wrong)
        if options.list:
            print(f"{name}: {label}: {', '.join(one.builders)}")
            continue
        for threads in options.threads or everything if device.type == "cpu" else [None]:
            rounds = QUICK_ROUNDS if options.quick else options.rounds
            only = None if options.peers is None else options.peers.search
            try:
                measured = cases.run(
                    one, rounds=rounds, threads=threads or torch.get_num_threads(), device=device, only=only
                )
            except Missing as reason:
                print(f"{label}: ours cannot run: {reason}", file=sys.stderr)
                continue
            wrong |= bool(measured.wrong)
            found += report.rows(one.group, one.name, threads, measured)
            print(".", end="", file=sys.stderr, flush=True)
    if found:
        print(file=sys.stderr)
        stored = report.result(name, device, found, cases.loops(device))
        options.out.mkdir(parents=True, exist_ok=True)
        path = options.out / f"{name}-{device.type}.json"
        path.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n", "utf-8")
        print(f"{name} on {report.summary(stored['machine'])}\n\n{report.text(found)}\n\nstored in {path}\n")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
