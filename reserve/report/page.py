"""report.html: training curves and held-out results of a run on one self-contained page."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from reserve.config import Config
from reserve.fs import write_text_atomic
from reserve.report.held_out import SegmentLookup, choose_segments
from reserve.report.pictures import curves_svg
from reserve.report.templates import render
from reserve.tasks.pretrain.ranking import Evaluation, Ranking
from reserve.train.metrics import read_metrics

NAME = "report.html"
TEMPLATE = "report.html.jinja"
TITLES = {
    "imgs_to_audio": ("Sound or words → frame", "Given a segment's sound or words, which frame was seen?"),
    "text_to_audio": ("Words and frames → sound", "Given the words around it and the frames, which sound was masked?"),
    "stuff_to_span": ("Everything → words", "Given frames, sound or text around them, which words were masked?"),
}
CURVES = (
    ("Total loss", {"total": "loss"}),
    ("The three problems", {name: name for name in TITLES}),
    (
        "Words, by the stream they were masked in",
        {name: f"span_{name}" for name in ("text2audio", "audio2text", "random_text")},
    ),
)
"""Title of each plot, and the metric of each of its lines by label."""


@dataclass(frozen=True)
class Scale:
    """The bars' logarithmic axis from `low` to 1: maps a value to percent of the width."""

    low: float

    def __call__(self, value: float) -> float:
        share = math.log10(max(value, self.low) / self.low) / -math.log10(self.low)
        return round(100 * share, 2)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Position and label of every power of ten."""
        decades = range(round(math.log10(self.low)), 1)
        return [(self(10.0**power), f"{10.0 ** (power + 2):g}%") for power in decades]


def write_report(run: Path, config: Config, evaluation: Evaluation) -> Path:
    """Writes `run`/report.html from an evaluation of the run, with the curves of its metrics.jsonl if it exists.

    The page loads nothing from the network and runs no script; text from videos is escaped. Returns the path.
    """
    dataset = evaluation.dataset
    held_out = SegmentLookup(dataset, evaluation)
    page = render(
        TEMPLATE,
        {"percent": _percent, "score": _score, "place": _place, "times": _times},
        run=run.resolve().name,
        evaluation=evaluation,
        videos=dataset.plans.num_videos,
        settings=_settings(config),
        titles=TITLES,
        scale=bar_scale(evaluation.rankings),
        curves=_curves(run / "metrics.jsonl", config),
        segments=[
            held_out.segment(example, segment)
            for example, segment in choose_segments(evaluation, config.data.num_audio_subsegments)
        ],
    )
    path = run / NAME
    # File names and JSON transcripts can hold characters that are not Unicode.
    write_text_atomic(path, page, errors="replace")
    return path


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


def bar_scale(rankings: list[Ranking]) -> Scale:
    """The scale from the largest power of ten below every chance level up to 1."""
    levels = [level for ranking in rankings if 0 < (level := ranking.chance(1)) < 1]
    return Scale(10.0 ** math.floor(math.log10(min(levels, default=0.01))))


def _curves(path: Path, config: Config) -> list[tuple[str, Markup]]:
    lines = read_metrics(path) if path.is_file() else []
    if not lines:
        return []
    chance = chance_losses(config)
    steps = [line["step"] for line in lines]
    plots = []
    for title, metrics in CURVES:
        values = {label: [line.get(key, math.nan) for line in lines] for label, key in metrics.items()}
        levels = {label: chance[key] for label, key in metrics.items()}
        plots.append((title, curves_svg(title, steps, values, levels)))
    return plots


def _settings(config: Config) -> list[tuple[str, str]]:
    data, model, optimizer, train = config.data, config.model, config.optimizer, config.train
    layers = (model.vit_num_layers, model.audio_num_layers, model.joint_num_layers, model.span_num_layers)
    height, width = model.image_size
    return [
        ("hidden size", f"{model.hidden_size}"),
        ("layers (vision, audio, joint, span)", ", ".join(map(str, layers))),
        ("frames", f"{height} × {width} pixels"),
        ("segments per example", f"{data.num_segments} in {data.num_segment_groups} groups"),
        ("steps in all", f"{optimizer.num_train_steps}"),
        ("batch", f"{train.batch_size} examples"),
        ("learning rate", f"{optimizer.learning_rate:g}, warm-up {optimizer.num_warmup_steps}"),
        ("precision", train.precision),
        ("seed", f"{train.seed}"),
    ]


def _percent(value: float) -> str:
    """A fraction in percent; a dash for NaN."""
    return "–" if math.isnan(value) else f"{100 * value:.{2 if value < 0.1 else 1}f}%"


def _times(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def _score(value: float) -> str:
    """A cosine; a dash if it is not finite."""
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}") if math.isfinite(value) else "–"


def _place(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:g}"
