"""The cases in which an implementation that does the whole job is faster than what `auto` takes, and why."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.interleaved import OURS
from benchmarks.report.results import Case, Machine

NOISE = 0.95
"""The least speed of ours, relative to the fastest, that does not count as slower: two runs may differ as much."""
NO_REASON = "not explained"


@dataclass(frozen=True)
class Reason:
    """Why ours takes longer than `peer` in cases of `op` whose label contains `case`."""

    op: str
    case: str
    peer: str
    why: str


_OF_PACKETS = "ours reads the picture's packets too, for where the video ends, and checks each packet's time, in Python"
REASONS = (
    Reason(
        "contrastive_loss",
        "H100, 4096",
        "dense PyTorch, compiled",
        "measured before logits were stored; launches took most of the time of all",
    ),
    Reason(
        "contrastive_loss",
        "thread, sigmoid, 16 x 16",
        "open_clip",
        "checks of the arguments take longer than the work",
    ),
    Reason(
        "training step",
        "before its redesign",
        "ours, compiled layers",
        "a slow run: the quartiles of both overlap, and the later version has no difference",
    ),
    *(Reason("decoding", case, "torchcodec", _OF_PACKETS) for case in ("sound", "demo")),
    Reason(
        "small ops",
        "add + layer norm",
        "torch.compile",
        "three ops of PyTorch instead of one; whole layers gain little from being compiled on a CPU",
    ),
    Reason("small ops", "patchify", "torch.compile", "two passes instead of one, once a step"),
    Reason(
        "training step",
        "2 threads, demo",
        "reserve, compiled layers",
        "the trainer does not compile on a CPU unless told to: that takes some seconds, and gains at most 10%",
    ),
)


def does_less(name: str) -> bool:
    """Whether an implementation skips a part of the job, as its name says."""
    return ", less" in name


def fastest(case: Case) -> str:
    """The fastest implementation that does the whole job, ours included."""
    whole = [name for name in case.timings if not does_less(name)]
    return min(whole, key=lambda name: case.timings[name].median)


def slower_cases(machines: list[Machine]) -> list[tuple[Case, str]]:
    """The cases in which ours is slower than the fastest by more than the noise, and that one."""
    found = [(case, fastest(case)) for machine in machines for case in machine.cases]
    return [(case, name) for case, name in found if name != OURS and case.faster_than(name) < NOISE]


def reason(case: Case, peer: str) -> str:
    for known in REASONS:
        if known.op == case.op and known.peer == peer and known.case in case.label:
            return known.why
    return NO_REASON


def table(machines: list[Machine]) -> str:
    """A row for each such case, or a sentence that there is none."""
    found = slower_cases(machines)
    if not found:
        return "None."
    titles = {machine.name: machine.title for machine in machines}
    rows = ["| machine | op | case | fastest | ours against it | why |", "| --- " * 6 + "|"]
    for case, peer in found:
        rows.append(
            f"| {titles[case.machine]} | {case.op} | {case.label} | {peer} | {case.faster_than(peer):.2f}x "
            f"| {reason(case, peer)} |"
        )
    return "\n".join(rows)
