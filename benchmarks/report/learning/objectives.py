"""The section and the plot of objectives: recall of hidden spans by objective, over steps and over time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.learning.arms import ARMS, AUDIO_OFF, CONTRASTIVE, MASK_LM
from benchmarks.learning.intervals import Interval, Outcomes, verdict
from benchmarks.report.plots import FAINT, INK, OURS_COLOUR, figure, save
from reserve_kernels.bench.report import markdown

COLOURS = {CONTRASTIVE: OURS_COLOUR, MASK_LM: "#c2410c", AUDIO_OFF: "#0f766e"}
TEXT = """## Objectives

Three ways to pretrain the same model on the same videos, with the same batches, steps, optimiser and seeds:

- *contrastive span*: the objective of the paper. A masked span of text is one MASK, whose output is matched with the
  encoded spans of the whole batch; frames are matched with sound or words, masked sounds with their context.
- *mask LM*: each token of a masked span has a MASK of its own and is predicted by a softmax over the vocabulary (the
  token embedding and a bias, as in BERT; the bias starts at the frequencies of the training words). Frames and sounds
  are matched as before. Sequences grow by the further MASKs and lose none of their words, so this arm sees the same
  context and is told the lengths of spans.
- *audio off*: contrastive spans without sound. The stream that has sound in the other arms has words here, with the
  same targets masked; frames are matched with words only.

The question is the same for all: some words of a held-out video are hidden, given are its other words and its frames,
no sound. Which is it, of the spans of the same number of tokens that are hidden somewhere in held-out videos? The
contrastive arms choose by cosine, mask LM by the sum of the tokens' log-probabilities. Since all candidates have the
length of the hidden span, knowing it helps no arm. Spans of the same tokens are one candidate. The question is closest
to what audio off is trained on: it sees words and frames without sound twice as often as the other arms. Learning rate,
temperature, initial weights, clipping and batch were set by some twenty runs of the first arm, judged on the same
held-out videos, and tuned for no other."""


@dataclass(frozen=True)
class Arm:
    """The runs of one objective: `outcomes` at each of the `steps`, and what a step costs."""

    steps: tuple[int, ...]
    outcomes: tuple[Outcomes, ...]
    seconds_per_step: float
    seconds_loading: float
    flops_per_step: float

    @property
    def last(self) -> Outcomes:
        return self.outcomes[-1]

    def at(self, step: float) -> Outcomes:
        """The outcomes at a step between two evaluations, in proportion; those of the first one before it."""
        place = float(np.interp(step, self.steps, range(len(self.steps))))
        low = int(place)
        high, share = min(low + 1, len(self.steps) - 1), place - low
        right = (1 - share) * self.outcomes[low].right + share * self.outcomes[high].right
        return Outcomes(right, self.last.asked)

    def first_step_above(self, recall: float) -> float | None:
        """The first step, between evaluations in proportion, at which the recall of all runs is `recall`."""
        values = [one.value for one in self.outcomes]
        if values[0] >= recall:
            return float(self.steps[0])
        for (a, b), (low, high) in zip(pairwise(self.steps), pairwise(values), strict=True):
            if low < recall <= high:
                return a + (b - a) * (recall - low) / (high - low)
        return None


def arms_of(found: Mapping[str, Any]) -> dict[str, Arm]:
    """The arms of a stored result, in their order."""
    arms = {}
    for name in ARMS:
        runs = [run for run in found["runs"] if run["settings"]["arm"] == name]
        if runs:
            points = range(len(runs[0]["steps"]))
            arms[name] = Arm(
                tuple(runs[0]["steps"]),
                tuple(Outcomes.of([run["right"][point] for run in runs], runs[0]["asked"]) for point in points),
                found["step_times"][name]["step"],
                found["step_times"][name]["loading"],
                float(np.median([run["flops_per_step"] for run in runs])),
            )
    return arms


def percent(interval: Interval) -> str:
    """A fraction and its interval in percent."""
    if not interval.is_known:
        return f"{interval.value:.1%} (interval unknown)"
    return f"{interval.value:.1%} ({interval.low:.1%} to {interval.high:.1%})"


def points(interval: Interval) -> str:
    """A difference of two fractions in percentage points, with its interval."""
    if not interval.is_known:
        return f"{100 * interval.value:+.1f} points (interval unknown)".replace("-", "−")
    value, low, high = (f"{100 * one:+.1f}".replace("-", "−") for one in interval)
    return f"{value} points ({low} to {high})"


def section(machine: str, found: Mapping[str, Any]) -> str:
    arms, runs = arms_of(found), found["runs"]
    first, settings = runs[0], runs[0]["settings"]
    seeds = len({run["settings"]["seed"] for run in runs})
    asked, videos = sum(first["asked"]), sum(n > 0 for n in first["asked"])
    candidates = ", ".join(f"{count} of {length}" for length, count in first["candidates"].items())
    setup = f"""Seeds of each arm: {seeds}. Each run has {settings["steps"]} steps of {settings["batch_size"]} examples
on one core ({machine}). {asked:,} questions about {videos} held-out videos, from {first["maskings"]} maskings of each;
candidates by tokens: {candidates}. Guessing is right in {first["chance"]:.1%}, the dotted line of the plot.
Intervals, the plot's bands: 95%, for other seeds and other videos, by Student's t with Satterthwaite's degrees of
freedom, so few seeds that differ make a wide one. Thin lines are single seeds. Times are processor time."""
    return (
        "\n\n".join([TEXT, setup, _table(arms), "\n".join(_verdicts(arms, first["chance"])), _equal_time(arms)]) + "\n"
    )


def _table(arms: Mapping[str, Arm]) -> str:
    rows = [
        (
            name,
            percent(arm.last.interval()),
            ", ".join(f"{value:.1%}" for value in arm.last.by_run),
            f"{arm.seconds_per_step:.2f} s",
            f"{arm.seconds_loading:.2f} s",
            f"{arm.flops_per_step / 1e9:.1f} GFLOP",
        )
        for name, arm in arms.items()
    ]
    return markdown(("objective", "recall@1", "by seed", "a step", "its loading", "its matrix products"), rows)


def _verdicts(arms: Mapping[str, Arm], chance: float) -> list[str]:
    if CONTRASTIVE not in arms:
        return []
    ours, lines = arms[CONTRASTIVE], []
    for name, other in arms.items():
        if name == CONTRASTIVE:
            continue
        difference = ours.last.minus(other.last)
        line = f"- {CONTRASTIVE} {_phrase(verdict(difference), name)} after the same steps: {points(difference)}."
        if verdict(difference) == "beats" and (step := ours.first_step_above(other.last.value)) is not None:
            line += f" It reaches the other's last recall by step {step:.0f} of {ours.steps[-1]}."
        lines.append(line)
    for name, arm in arms.items():
        lows = arm.last.lows_by_run()
        guess = [f"{value:.1%}" for value, low in zip(arm.last.by_run, lows, strict=True) if low <= chance]
        if guess:
            lines.append(
                f"- {name}: {len(guess)} of the runs did not learn to answer at this budget ({', '.join(guess)}, not "
                "above chance over the videos). That says little of the objective."
            )
    return lines


def _phrase(found: str, other: str) -> str:
    return f"against {other}: {found}" if found == "no difference shown" else f"{found} {other}"


def _equal_time(arms: Mapping[str, Arm]) -> str:
    """Recalls where each arm has had the time that the one with the cheapest run takes in all."""
    time = min(arm.steps[-1] * arm.seconds_per_step for arm in arms.values())
    at = {name: arm.at(time / arm.seconds_per_step) for name, arm in arms.items()}
    rows = [
        (name, f"{min(time / arms[name].seconds_per_step, arms[name].steps[-1]):.0f}", percent(outcomes.interval()))
        for name, outcomes in at.items()
    ]
    lines = [
        f"- {CONTRASTIVE} {_phrase(verdict(difference), name)} after the same time: {points(difference)}."
        for name, outcomes in at.items()
        if CONTRASTIVE in at and name != CONTRASTIVE
        for difference in [at[CONTRASTIVE].minus(outcomes)]
    ]
    text = f"""Steps do not cost the same. After the {time:.0f} s of one core that the cheapest arm takes, loading left
out (between two evaluations in proportion; the other arms have not lowered their learning rates to the end then):"""
    return "\n\n".join([text, markdown(("objective", "steps", "recall@1"), rows), "\n".join(lines)])


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Recall over steps and over seconds: a band for the interval, a thin line a seed."""
    drawn, (by_step, by_time) = figure(7.4, 3.4, columns=2)
    for name, arm in arms_of(found).items():
        intervals = [outcomes.interval() for outcomes in arm.outcomes]
        low, high = ([100 * one[end] if one.is_known else np.nan for one in intervals] for end in (1, 2))
        for axes, scale in ((by_step, 1.0), (by_time, arm.seconds_per_step)):
            at = [step * scale for step in arm.steps]
            axes.fill_between(at, low, high, color=COLOURS[name], alpha=0.15, linewidth=0)
            for run in range(len(arm.last.right)):
                values = [100 * outcomes.by_run[run] for outcomes in arm.outcomes]
                axes.plot(at, values, color=COLOURS[name], linewidth=0.6, alpha=0.6)
            label = name if axes is by_step else None
            axes.plot(at, [100 * one.value for one in intervals], "o-", color=COLOURS[name], label=label, markersize=3)
    for axes, label in ((by_step, "steps"), (by_time, "seconds of one core, without loading")):
        axes.axhline(100 * found["runs"][0]["chance"], color=INK, linewidth=0.8, linestyle=":")
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.set_xlabel(label)
        axes.grid(color=FAINT, linewidth=0.5)
    by_step.set_ylabel("recall@1 of hidden spans, %")
    drawn.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=7.5)
    save(drawn, path)
