"""The page's curves: losses, held-out figures, speed and memory over the steps of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from reserve.config import Config
from reserve.report.pictures import curves_svg

Lines = Sequence[Mapping[str, float]]
Plot = tuple[str, Markup]

PROBLEMS = ("imgs_to_audio", "text_to_audio", "stuff_to_span")
PRETRAINING = (
    ("Total loss", {"total": "loss"}),
    ("The three problems", {name: name for name in PROBLEMS}),
    (
        "Words, by the stream they were masked in",
        {name: f"span_{name}" for name in ("text2audio", "audio2text", "random_text")},
    ),
)
"""Title of each plot, and the metric of each of its lines by label."""
MACHINE = (
    ("Examples per second", {"examples/s": "examples_per_second"}),
    ("Share of the time spent waiting for data", {"waiting": "share_waiting"}),
    (
        "Memory in GB",
        {
            "GPU, tensors": "memory_gb",
            "GPU, reserved": "reserved_gb",
            "trainer process": "host_memory_gb",
            "loading processes": "loader_memory_gb",
        },
    ),
)


def training_plots(lines: Lines, chance: Mapping[str, float], shown: Sequence[str]) -> list[Plot]:
    """Losses of pretraining, which has `chance` levels; of another task the metrics `shown`."""
    if chance:
        return _plots(PRETRAINING, lines, chance)
    return _plots([(name, {name: name}) for name in shown], lines, {})


def machine_plots(lines: Lines) -> list[Plot]:
    """Speed and memory."""
    return _plots(MACHINE, lines, {}, from_zero=True)


def held_out_plots(lines: Lines) -> list[Plot]:
    """Recall@1 of pretraining with its chance, or each figure of another task."""
    last = lines[-1] if lines else {}
    recall = {name: f"{name}_recall_at_1" for name in PROBLEMS}
    if any(key in last for key in recall.values()):
        chance = {key: last.get(f"{name}_chance_at_1", math.nan) for name, key in recall.items()}
        levels = {key: level for key, level in chance.items() if math.isfinite(level)}
        return _plots([("Recall@1 by problem", recall)], lines, levels)
    names = [name for name in last if name not in ("step", "seconds")]
    return _plots([(name, {name: name}) for name in names], lines, {})


def _plots(
    titles: Sequence[tuple[str, Mapping[str, str]]],
    lines: Lines,
    chance: Mapping[str, float],
    *,
    from_zero: bool = False,
) -> list[Plot]:
    """A picture for each title whose metrics some lines have."""
    steps = [line["step"] for line in lines]
    plots = []
    for title, metrics in titles:
        found = {label: key for label, key in metrics.items() if any(key in line for line in lines)}
        if found:
            values = {label: [line.get(key, math.nan) for line in lines] for label, key in found.items()}
            levels = {label: chance[key] for label, key in found.items() if key in chance}
            plots.append((title, curves_svg(title, steps, values, levels, from_zero=from_zero)))
    return plots


def chance_losses(config: Config) -> dict[str, float]:
    """The losses of a model that cannot tell candidates apart: the mean over both directions of ln(candidates).

    The candidates are those of all devices (SPEC 8); text_to_audio has more of them in one direction.
    """
    data, batch = config.data, config.train.batch_size
    frame = math.log(batch * data.num_segments)
    sound = (math.log(batch * data.num_subsegments) + math.log(batch * data.num_masked_subsegments)) / 2
    span = math.log(batch * data.num_text_spans_to_include)
    sources = dict.fromkeys(("span_text2audio", "span_audio2text", "span_random_text"), span)
    return {
        "loss": frame + sound + span,
        "imgs_to_audio": frame,
        "text_to_audio": sound,
        "stuff_to_span": span,
        **sources,
    }
