"""The targets of each op, and whether it meets them. docs/kernels derives each of those on a GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from benchmarks.interleaved import OURS, limit_seconds
from benchmarks.machine import threads_label
from benchmarks.report import steps
from benchmarks.report.results import Case, Machine

NOT_MEASURED = "not measured"
GPU = "H100"
"""The card that the targets on a GPU are for; results of other cards do not count for them."""

Quantity = Callable[[Case, str, str], float | None]
"""(case, implementation, peer) -> the figure, or None if the case does not have it"""


def speed(case: Case, implementation: str, peer: str) -> float:
    return case.faster_than(peer, implementation)


def memory(case: Case, implementation: str, peer: str) -> float | None:
    return case.memory_ratio(peer, implementation)


def fraction_of_limit(case: Case, implementation: str, _: str) -> float | None:
    """The time that the machine's copy and product rates allow over the time taken."""
    limit = limit_seconds(case.facts)
    return None if limit is None else limit / case.timings[implementation].median


def nanoseconds_a_frame(case: Case, implementation: str, _: str) -> float:
    return case.timings[implementation].median / case.facts["frames"] * 1e9


@dataclass(frozen=True)
class Bar:
    """A target: `quantity` of `implementation` in `group` against `peer` is at least `least`, or at most `most`. Those
    that are not `in_summary` are counted there if they are met."""

    op: str
    what: str
    group: str
    peer: str
    quantity: Quantity
    least: float = 0.0
    most: float = float("inf")
    implementation: str = OURS
    in_summary: bool = True

    def value(self, machines: list[Machine]) -> tuple[Machine, float] | None:
        """The value on the first machine that has measured it."""
        for machine in machines:
            for case in machine.cases:
                if case.group == self.group and {self.implementation, self.peer} <= case.timings.keys():
                    value = self.quantity(case, self.implementation, self.peer)
                    if value is not None:
                        return machine, value
        return None

    @property
    def bound(self) -> str:
        return f"at least {self.least:g}" if self.least else f"at most {self.most:g}"

    def met(self, value: float) -> bool:
        return self.least <= value <= self.most


def faster(op: str, group: str, peer: str, least: float, implementation: str = OURS) -> Bar:
    """A target for the speed against a peer."""
    what = "speed" if implementation == OURS else f"speed of {implementation}"
    return Bar(op, f"{what} against {peer}", group, peer, speed, least, implementation=implementation)


def _log_mel() -> list[Bar]:
    op = "log_mel_spectrogram"
    cpu = [
        faster(op, f"{op}, CPU, {threads_label(threads)}, 32 clips of 5 s", peer, least)
        for threads in (1, 2)
        for peer, least in (("torch.stft", 6.0), ("librosa", 10.0))
    ]
    gpu = f"{op}, {GPU}, 4096 clips of 5 s"
    scaling = Bar(op, "speed against one thread", f"{op}, CPU, 2 threads against 1", "reserve, 1 thread", speed, 1.74)
    return [
        *cpu,
        scaling,
        faster(op, gpu, "torchaudio", 4.0),
        Bar(op, "ns a frame", gpu, OURS, nanoseconds_a_frame, most=4.5),
    ]


def _attention() -> list[Bar]:
    op, padded = "rotary_attention", "SDPA, padded and masked"
    joint, audio = (f"{op}, {GPU}, {shape}, forward+backward" for shape in ("joint", "audio"))
    never_slower = [
        replace(faster(op, f"{op}, CPU, {threads_label(n)}, {shape}, {passes}", peer, 1.0), in_summary=False)
        for n in (1, 2)
        for shape in ("joint", "vision", "audio", "span")
        for passes in ("forward", "forward+backward")
        for peer in (padded, "SDPA, loop")
    ]
    return [
        *(faster(op, f"{op}, CPU, {threads_label(n)}, joint, forward+backward", padded, 1.3) for n in (1, 2)),
        *never_slower,
        faster(op, joint, "varlen", 1.5),
        faster(op, joint, "FlexAttention", 1.5),
        faster(op, joint, "varlen, less: no position", 1.2),
        faster(op, joint, "sdpa_cudnn", 1.0),
        faster(op, joint, "flash_attn_3", 1.0),
        faster(op, audio, padded, 1.8),
        Bar(op, "fraction of the copy rate", audio, OURS, fraction_of_limit, 0.65),
    ]


def _contrastive() -> list[Bar]:
    """No slower than the dense loss that PyTorch compiles, where the logits fit; the memory is that of computing them
    again."""
    op, dense, compiled = "contrastive_loss", "dense PyTorch", "dense PyTorch, compiled"
    recomputing, chunked = "reserve, triton only", "reserve, chunked only"
    cpu = f"{op}, CPU, {{}}, {{}} x {{}} x 768"
    gpu = f"{op}, {GPU}, 6144 x 49152 x 768"
    at_8192 = [faster(op, cpu.format(threads_label(threads), 8192, 8192), compiled, 1.0) for threads in (1, 2)]
    smaller = [
        faster(op, cpu.format(threads_label(threads), n, n), compiled, 1.0)
        for threads in (1, 2)
        for n in (512, 1024, 2048, 4096)
    ]
    case = cpu.format(threads_label(1), 8192, 8192)
    sigmoid = f"{op}, CPU, {{}}, sigmoid, {{}} x {{}} x 768"
    of_sigmoid = [
        faster(op, sigmoid.format(threads_label(threads), n, n), peer, 1.0)
        for threads in (1, 2)
        for n in (512, 1024, 2048, 4096, 8192)
        for peer in ("open_clip", compiled)
    ]
    largest = sigmoid.format(threads_label(1), 8192, 8192)
    return [
        *at_8192,
        *(replace(bar, in_summary=False) for bar in smaller),
        Bar(op, f"memory of {dense} over {chunked}", case, dense, memory, 10.0, implementation=chunked),
        *(replace(bar, in_summary=False) for bar in of_sigmoid),
        Bar(op, "memory of open_clip", largest, "open_clip", memory, 8.0),
        faster(op, gpu, compiled, 1.0),
        faster(op, gpu, compiled, 0.75, recomputing),
        faster(op, gpu, "checkpointed PyTorch", 1.5, recomputing),
        Bar(op, f"memory of {compiled} over {recomputing}", gpu, compiled, memory, 4.0, implementation=recomputing),
    ]


def _decoding() -> list[Bar]:
    """No slower than by hand, within the noise; the rest of the bar is for what the released code does. Where key
    frames are far apart, decoding from one to the frame takes most of the time, and both do that."""
    op, by_hand, noise = "decoding", ("every frame", "seeking"), 0.95
    videos = ("h264 360p", "h264 720p", "vp9 360p", "av1 360p", "demo")
    examples = {video: f"{op}, CPU, example, {video}" for video in videos}
    ours = [(video, OURS) for video in videos] + [(video, f"{OURS} with torchcodec") for video in videos]
    ours.append(("vp9 360p", f"{OURS} with DALI"))
    plain = [
        faster(op, examples[video], f"PyAV and librosa, {way}", noise, name) for video, name in ours for way in by_hand
    ]
    frames = [faster(op, f"{op}, CPU, frames, {video}", f"PyAV, {way}", noise) for video in videos for way in by_hand]
    sound = [
        faster(op, f"{op}, CPU, sound, {video}", "PyAV and librosa", noise, name)
        for video in ("h264 360p", "vp9 360p")
        for name in (OURS, f"{OURS} with torchcodec")
    ]
    released = [faster(op, examples[video], "the released way", 8.0) for video in videos]
    return [*released, *(replace(bar, in_summary=False) for bar in (*plain, *frames, *sound))]


def _optimizer() -> list[Bar]:
    op, base = "BF16AdamW", f"BF16AdamW, {GPU}, base"
    return [
        faster(op, base, "AdamW fused, bfloat16 moments", 1.0),
        Bar(op, "fraction of the copy rate", base, OURS, fraction_of_limit, 0.8),
    ]


def _quick_gelu() -> list[Bar]:
    op, peer = "bias_quick_gelu", "torch.compile"
    cpu = (f"{op}, CPU, {threads_label(threads)}, bias + quick GELU" for threads in (1, 2))
    gpu = f"{op}, {GPU}, bias + quick GELU"
    return [
        *(faster(op, case, peer, 1.0) for case in cpu),
        faster(op, gpu, peer, 1.0),
        Bar(op, "fraction of the copy rate", gpu, OURS, fraction_of_limit, 0.85),
    ]


def _training_step() -> list[Bar]:
    op, compiled = steps.OP, "padded, compiled"
    on_gpu = f"{op}, {GPU}, base, 16 examples"
    on_cpu = [
        f"{op}, CPU, {threads_label(threads)}, {case}"
        for case in ("demo, 8 examples", "golden model, 2 examples", "four base layers, 1 example", "base, 1 example")
        for threads in (1, 2)
    ]
    return [
        *(faster(op, case, peer, least) for case in on_cpu for peer, least in (("padded", 1.3), (compiled, 1.15))),
        faster(op, on_gpu, "padded, compiled layers", 1.15),
        # A step's limit is that of its products.
        Bar(op, "MFU", on_gpu, OURS, fraction_of_limit, 0.5),
    ]


BARS = [*_attention(), *_contrastive(), *_decoding(), *_log_mel(), *_optimizer(), *_quick_gelu(), *_training_step()]


def table(machines: list[Machine], op: str | None = None) -> str:
    """Every target with the measured value, or those of one op."""
    return _rows([bar for bar in BARS if op in (None, bar.op)], machines)


def measured_table(machines: list[Machine]) -> str:
    """The measured targets, a row for each op and device, and a line that names the others."""
    found = {bar: value[1] for bar in BARS if (value := bar.value(machines)) is not None}
    measured: dict[tuple[str, str], dict[str, list[str]]] = {}
    counted: Counter[tuple[str, str]] = Counter()
    for bar, figure in found.items():
        device, _, label = _case(bar).partition(", ")
        row = measured.setdefault((bar.op, device), {})
        if not bar.in_summary and bar.met(figure):
            counted[bar.op, device] += 1
            continue
        figure_and_bar = f"{bar.what} {figure:.3g} ({bar.bound}: {_verdict(bar, figure)})"
        row.setdefault(label, []).append(figure_and_bar)
    rows = ["| op | device | measured, and the bar |", "| --- | --- | --- |"]
    for (op, device), cases in measured.items():
        lines = [f"{label}: {', '.join(figures)}" for label, figures in cases.items()]
        if more := counted[op, device]:
            lines.append(f"bars met besides these: {more}" if cases else f"bars met: {more}")
        rows.append(f"| {op} | {device} | {'<br>'.join(lines)} |")
    others: dict[str, dict[str, None]] = {}
    groups = {bar.group for bar in found}
    for bar in BARS:
        if bar not in found:
            name = f"{_case(bar)}: {bar.what}" if bar.group in groups else _case(bar)
            others.setdefault(bar.op, {})[name] = None
    rest = ", ".join(f"{op} ({'; '.join(named)})" for op, named in others.items())
    return "\n".join(rows) + (f"\n\nNot measured: {rest}." if rest else "")


def _rows(bars: list[Bar], machines: list[Machine]) -> str:
    rows = ["| op | case | figure | bar | measured | |", "| --- | --- | --- | --- | --- | --- |"]
    for bar in bars:
        found = bar.value(machines)
        measured = NOT_MEASURED if found is None else f"{found[1]:.3g}"
        verdict = "" if found is None else _verdict(bar, found[1])
        rows.append(f"| {bar.op} | {_case(bar)} | {bar.what} | {bar.bound} | {measured} | {verdict} |")
    return "\n".join(rows)


def _verdict(bar: Bar, value: float) -> str:
    return "met" if bar.met(value) else "**missed**"


def _case(bar: Bar) -> str:
    return bar.group.removeprefix(f"{bar.op}, ")
