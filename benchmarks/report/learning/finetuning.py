"""The section of finetuning: accuracies on TVQA and VCR by what training started from, and STAR without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.learning.arms import ARMS, AUDIO_OFF, CONTRASTIVE
from benchmarks.learning.finetuned import STAR, TVQA, VCR
from benchmarks.learning.finetuning import SCRATCH, accuracy, chosen_rate
from benchmarks.learning.intervals import Interval, Outcomes, verdict
from benchmarks.report.learning.objectives import percent, points
from reserve.tasks.tvqa.annotations import CHOICES as TVQA_CHOICES
from reserve.tasks.vcr.annotations import CHOICES as VCR_CHOICES
from reserve_kernels.bench.report import markdown

NAMES = {TVQA: "TVQA", VCR: "VCR"}
CHANCE = {TVQA: 1 / TVQA_CHOICES, VCR: 1 / VCR_CHOICES}
KINDS = {"audio": "from sound", "text": "from subtitles", "joint": "from both", "Q->A": "Q→A", "QA->R": "QA→R"}
TEXT = """## What comes after

The models of contrastive spans and of audio off, finetuned on questions about the demo's videos in the formats of TVQA
and VCR (`reserve demo-tasks`), against a model that starts from nothing; mask LM is left out to bound the time. The
questions are those about colours. They were chosen after trials with questions of all kinds, not stored, in which a
few hundred steps taught this model nothing, whatever it started from. All starts have the same steps, batches and
model. Each has the rate of the highest mean accuracy, with the first seed, in questions about further held-out videos,
which are not shown. A seed finetunes the model that was pretrained with it. Accuracies are of held-out videos, with 95%
intervals as above. TVQA's answers come from sound, from subtitles, and from both."""
COMPARED = ((SCRATCH, "pretraining"), (AUDIO_OFF, "audio in pretraining"))
"""What contrastive spans are compared with, and what that says something about."""


def section(machine: str, found: Mapping[str, Any]) -> str:
    runs = found["runs"]
    parts = [TEXT]
    parts += [_task(task, [run for run in runs if run["settings"]["task"] == task]) for task in (TVQA, VCR)]
    parts.append(_star([run for run in runs if run["settings"]["task"] == STAR]))
    return "\n\n".join(parts) + "\n"


def best_runs(runs: list[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """By start, the runs of the rate that was chosen with the first seed."""
    found = {}
    for start in (CONTRASTIVE, AUDIO_OFF, SCRATCH):
        own = [run for run in runs if run["settings"]["start"] == start]
        best = chosen_rate(own)
        found[start] = [run for run in own if run["settings"]["learning_rate"] == best]
    return found


def outcomes(runs: list[Mapping[str, Any]], kind: str) -> Outcomes:
    return Outcomes.of([run["right"][kind] for run in runs], runs[0]["asked"])


def _task(task: str, runs: list[Mapping[str, Any]]) -> str:
    best = best_runs(runs)
    first = runs[0]
    kinds = list(first["right"])
    tried = sorted({run["settings"]["learning_rate"] for run in runs})
    rows = [
        (
            start,
            _rate(own[0]["settings"]["learning_rate"], tried),
            *(percent(outcomes(own, kind).interval()) for kind in kinds),
        )
        for start, own in best.items()
    ]
    seeds = {start: len(own) for start, own in best.items()}
    if len(set(seeds.values())) > 1:
        raise ValueError(f"{task} has other numbers of seeds from each start: {seeds}")
    seconds = sorted(run["training_seconds"] for run in runs)[len(runs) // 2]
    setup = f"""### {NAMES[task]}

{first["examples"]:,} questions to train on, {first["steps"]} steps of {first["settings"]["batch_size"]};
{sum(first["asked"])} held-out questions about {len(first["asked"])} videos; seeds: {seeds[SCRATCH]};
chance {CHANCE[task]:.0%}. Half of the trainings took {seconds:.0f} s or less of one core."""
    table = markdown(("start", "rate", *(KINDS[kind] for kind in kinds)), rows)
    return "\n\n".join([setup, table, "\n".join(_comparisons(best, kinds)), _rates(runs, kinds)])


def _rate(chosen: float, tried: Sequence[float]) -> str:
    """A rate; of one at the end of those tried, that a better one may lie beyond."""
    ends = {tried[0]: "lowest", tried[-1]: "highest"}
    if len(tried) == 1:
        return f"{chosen:g} (only one tried)"
    return f"{chosen:g}" + (f" ({ends[chosen]} tried)" if chosen in ends else "")


def _comparisons(best: Mapping[str, list[Mapping[str, Any]]], kinds: list[str]) -> list[str]:
    lines = []
    for other, subject in COMPARED:
        found = []
        for kind in kinds:
            difference = outcomes(best[CONTRASTIVE], kind).minus(outcomes(best[other], kind))
            found.append(f"{KINDS[kind]} {verdict(difference)}, {points(difference)}")
        lines.append(f"- {subject[0].upper()}{subject[1:]}, {CONTRASTIVE} against {other}: {'; '.join(found)}.")
    return lines


def _rates(runs: list[Mapping[str, Any]], kinds: list[str]) -> str:
    rows = [
        (
            run["settings"]["start"],
            f"{run['settings']['learning_rate']:g}",
            f"{accuracy(run):.1%}",
            *(f"{outcomes([run], kind).value:.1%}" for kind in kinds),
            f"{run['last_loss']:.3f}",
        )
        for run in runs
        if "tuning" in run
    ]
    head = ("start", "rate", "mean that chooses", *(KINDS[kind] for kind in kinds), "last training loss")
    return f"<details><summary>Every rate, first seed</summary>\n\n{markdown(head, rows)}\n\n</details>"


def _star(runs: list[Mapping[str, Any]]) -> str:
    if not runs:
        return "### STAR, without training\n\nNot measured."
    chance, asked = runs[0]["chance"], runs[0]["asked"]
    rows, lines = [], []
    for arm in ARMS:
        own = [run for run in runs if run["settings"]["start"] == arm]
        if not own:
            continue
        overall = outcomes(own, "all").interval()
        types = [outcomes([run["by_type"][kind] for run in own], kind).interval() for kind in own[0]["by_type"]]
        rows.append((arm, percent(overall), *map(percent, types)))
        lines.append(f"- {arm}: {_against(overall, chance)}.")
    setup = f"""### STAR, without training

{sum(asked)} questions about {len(asked)} held-out videos, answered by the pretrained models as they are: the choice
whose encoding is closest to the output at a MASK. Mask LM is not asked: it has no trained encoder of choices, and its
log-probabilities of choices of different lengths do not compare. Audio off is given the sound too, through an encoder
that was not trained, which can only disturb it. Chance is {chance:.0%}."""
    head = ("pretrained by", "all", *runs[0]["by_type"])
    return "\n\n".join([setup, markdown(head, rows), "\n".join(lines)])


def _against(found: Interval, chance: float) -> str:
    if found.low > chance:
        return "above chance"
    return "below chance" if found.high < chance else "no difference from chance shown"
