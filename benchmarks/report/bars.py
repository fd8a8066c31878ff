"""The targets of each op, and whether it meets them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.interleaved import OURS
from benchmarks.machine import threads_label
from benchmarks.report.results import Case, Machine

NOT_MEASURED = "not measured"
BEST_PEER, BEST_LESSER_PEER = "the fastest peer", "the fastest peer doing less"


@dataclass(frozen=True)
class Bar:
    """A target: `quantity` of our op in `group` against `peer` is at least `least`, or at most `most`."""

    op: str
    what: str
    group: str
    peer: str
    quantity: Callable[[Case, str], float | None]
    least: float = 0.0
    most: float = float("inf")

    def value(self, machines: list[Machine]) -> tuple[Machine, float] | None:
        """The value on the first machine that has measured it."""
        for machine in machines:
            for case in machine.cases:
                if case.group == self.group and (peer := self._peer(case)) is not None:
                    value = self.quantity(case, peer)
                    if value is not None:
                        return machine, value
        return None

    def _peer(self, case: Case) -> str | None:
        less = self.peer == BEST_LESSER_PEER
        if self.peer in (BEST_PEER, BEST_LESSER_PEER):
            return next((name for name in case.timings if name != OURS and (", less" in name) == less), None)
        return self.peer if self.peer in case.timings else None

    @property
    def bound(self) -> str:
        return f"at least {self.least:g}" if self.least else f"at most {self.most:g}"

    def met(self, value: float) -> bool:
        return self.least <= value <= self.most


def speed(case: Case, peer: str) -> float:
    return case.faster_than(peer)


def memory(case: Case, peer: str) -> float | None:
    return case.memory_ratio(peer)


def nanoseconds_a_frame(case: Case, _: str) -> float:
    return case.timings[OURS].median / case.facts["frames"] * 1e9


def _log_mel() -> list[Bar]:
    op = "log_mel_spectrogram"
    cpu = [
        Bar(op, f"speed against {peer}", f"{op}, CPU, {threads_label(threads)}, 32 clips of 5 s", peer, speed, least)
        for threads in (1, 2)
        for peer, least in (("torch.stft", 6.0), ("librosa", 10.0))
    ]
    cuda = f"{op}, CUDA, 4096 clips of 5 s"
    scaling = Bar(op, "speed against one thread", f"{op}, CPU, 2 threads against 1", "reserve, 1 thread", speed, 1.74)
    return [
        *cpu,
        scaling,
        Bar(op, "speed against torchaudio", cuda, "torchaudio", speed, 8.0),
        Bar(op, "ns a frame", cuda, OURS, nanoseconds_a_frame, most=3.0),
    ]


def _attention() -> list[Bar]:
    op = "rotary_attention"
    peer = "SDPA, padded and masked"
    cuda = f"{op}, CUDA, {{}}, forward+backward"
    return [
        Bar(op, f"speed against {peer}", f"{op}, CPU, {threads_label(n)}, joint, forward+backward", peer, speed, 1.3)
        for n in (1, 2)
    ] + [
        Bar(op, f"speed against {BEST_PEER}", cuda.format("joint"), BEST_PEER, speed, 1.5),
        Bar(op, f"speed against {BEST_LESSER_PEER}", cuda.format("joint"), BEST_LESSER_PEER, speed, 1.0),
        Bar(op, f"speed against {peer}", cuda.format("audio"), peer, speed, 3.0),
    ]


def _contrastive() -> list[Bar]:
    op, dense, compiled = "contrastive_loss", "dense PyTorch", "dense PyTorch, compiled"
    cpu = f"{op}, CPU, {{}}, 8192 x 8192 x 768"
    cuda = f"{op}, CUDA, 6144 x 49152 x 768"
    return [
        *(
            Bar(op, f"speed against {dense}", cpu.format(threads_label(threads)), dense, speed, 1.0)
            for threads in (1, 2)
        ),
        Bar(op, f"memory of {dense} over ours", cpu.format(threads_label(1)), dense, memory, 10.0),
        Bar(op, f"speed against {compiled}", cuda, compiled, speed, 1.5),
        Bar(op, f"memory of {compiled} over ours", cuda, compiled, memory, 8.0),
    ]


BARS = [*_attention(), *_contrastive(), *_log_mel()]


def table(machines: list[Machine], op: str | None = None) -> str:
    """Every target with the measured value, or those of one op."""
    return _rows([bar for bar in BARS if op in (None, bar.op)], machines)


def measured_table(machines: list[Machine]) -> str:
    """The targets that were measured, and a line that names the others."""
    measured = [bar for bar in BARS if bar.value(machines) is not None]
    cases: dict[str, list[str]] = {}
    for bar in BARS:
        if bar not in measured and _case(bar) not in cases.setdefault(bar.op, []):
            cases[bar.op].append(_case(bar))
    others = ", ".join(f"{op} ({'; '.join(named)})" for op, named in cases.items() if named)
    return _rows(measured, machines) + (f"\n\nNot measured: {others}." if others else "")


def _rows(bars: list[Bar], machines: list[Machine]) -> str:
    rows = ["| op | case | figure | bar | measured | |", "| --- | --- | --- | --- | --- | --- |"]
    for bar in bars:
        found = bar.value(machines)
        measured = NOT_MEASURED if found is None else f"{found[1]:.3g}"
        verdict = "" if found is None else "met" if bar.met(found[1]) else "**missed**"
        rows.append(f"| {bar.op} | {_case(bar)} | {bar.what} | {bar.bound} | {measured} | {verdict} |")
    return "\n".join(rows)


def _case(bar: Bar) -> str:
    return bar.group.removeprefix(f"{bar.op}, ").replace("CUDA", "H200")
