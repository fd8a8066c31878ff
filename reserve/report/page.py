"""report.html: what a run is, does and has learned, on one self-contained page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from reserve.config import FitConfig, ModelConfig
from reserve.fs import write_text_atomic
from reserve.report.curves import chance_losses, held_out_plots, machine_plots, training_plots
from reserve.report.stored import StoredRanking, read_evaluation, read_segments
from reserve.report.templates import render
from reserve.report.troubles import troubles
from reserve.tasks.pretrain.task import Pretrain
from reserve.tasks.task import Task
from reserve.train.evaluate import DETAILS_NAME, EVALUATION_NAME
from reserve.train.metrics import EVALUATIONS_NAME, METRICS_NAME, read_metrics
from reserve.train.run_folder import read_run
from reserve.train.run_state import read_state

NAME = "report.html"
TEMPLATE = "report.html.jinja"
TITLES = {
    "imgs_to_audio": ("Sound or words → frame", "Given a segment's sound or words, which frame was seen?"),
    "text_to_audio": ("Words and frames → sound", "Given the words around it and the frames, which sound was masked?"),
    "stuff_to_span": ("Everything → words", "Given frames, sound or text around them, which words were masked?"),
}

Stored = TypeVar("Stored")


@dataclass(frozen=True)
class Scale:
    """The bars' logarithmic axis from `low` to 1: maps a value to percent of the width."""

    low: float

    def __call__(self, value: float) -> float:
        value = min(max(value, self.low), 1.0) if math.isfinite(value) else self.low
        share = math.log10(value / self.low) / -math.log10(self.low)
        return round(100 * share, 2)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Position and label of every power of ten."""
        decades = range(round(math.log10(self.low)), 1)
        return [(self(10.0**power), f"{10.0 ** (power + 2):g}%") for power in decades]


@dataclass(frozen=True)
class State:
    """How far a run is: `name` is one of running, stopped, finished, failed and killed, empty if that is not known."""

    name: str
    reason: str
    step: int
    total: int

    @property
    def percent(self) -> float:
        return round(100 * min(max(self.step / self.total, 0.0), 1.0), 2)


def write_report(run: Path) -> Path:
    """Writes `run`/report.html from the run's files, whatever its task and however far it is; returns the path.

    What is not there yet is left out, as is a line that is only half written; a damaged evaluation is named on the
    page. The page loads nothing from the network and runs no script; text from the files is escaped. Raises ValueError
    where `run` is not a run's folder.
    """
    task, config = read_run(run)
    lines, evaluations = (_lines(run / name) for name in (METRICS_NAME, EVALUATIONS_NAME))
    damaged: list[str] = []
    evaluation = _readable(read_evaluation, run / EVALUATION_NAME, damaged)
    shown = _readable(read_segments, run / DETAILS_NAME, damaged)
    if shown is not None and (evaluation is None or shown.step != evaluation.step):
        shown = None  # of another evaluation: this one is being written
    chance = chance_losses(task.whole_config(config)) if isinstance(task, Pretrain) else {}
    page = render(
        TEMPLATE,
        {"percent": _percent, "score": _score, "place": _place, "times": _times, "figure": _figure},
        run=run.resolve().name,
        task=task.name,
        state=_state(run, lines, config),
        settings=_settings(task, config),
        evaluation=evaluation,
        damaged=damaged,
        titles=TITLES,
        scale=bar_scale(evaluation.rankings if evaluation else ()),
        curves=training_plots(lines, chance, task.shown_metrics),
        has_chance=bool(chance),
        held_out=held_out_plots(evaluations),
        machine=machine_plots(lines),
        troubles=troubles(lines),
        shown=shown,
    )
    path = run / NAME
    # File names and JSON transcripts can hold characters that are not Unicode.
    write_text_atomic(path, page, errors="replace")
    return path


def bar_scale(rankings: Sequence[StoredRanking]) -> Scale:
    """The scale from the largest power of ten below every chance level up to 1."""
    levels = [ranking.chance_1 for ranking in rankings if 1e-12 < ranking.chance_1 < 1]
    return Scale(10.0 ** math.floor(math.log10(min(levels, default=0.01))))


def _lines(path: Path) -> list[dict[str, float]]:
    return read_metrics(path) if path.is_file() else []


def _readable(read: Callable[[Path], Stored | None], path: Path, damaged: list[str]) -> Stored | None:
    """What `read` makes of a file; None where it is damaged, which is added to `damaged`."""
    try:
        return read(path)
    except (OSError, ValueError) as error:
        damaged.append(f"{error}")
        return None


def _state(run: Path, lines: Sequence[dict[str, float]], config: FitConfig) -> State:
    name, reason = read_state(run)
    step, total = int(lines[-1]["step"]) if lines else 0, config.optimizer.num_train_steps
    if not name and step >= total:
        name = "finished"  # a run of an older version
    return State(name, reason, step, total)


def _settings(task: Task[Any, Any], config: FitConfig) -> list[tuple[str, str]]:
    rows = []
    model, optimizer, train = getattr(task, "model", None), config.optimizer, config.train
    if isinstance(model, ModelConfig):
        layers = (model.vit_num_layers, model.audio_num_layers, model.joint_num_layers, model.span_num_layers)
        height, width = model.image_size
        rows = [
            ("hidden size", f"{model.hidden_size}"),
            ("layers (vision, audio, joint, span)", ", ".join(map(str, layers))),
            ("frames", f"{height} × {width} pixels"),
        ]
    if isinstance(task, Pretrain):
        rows.append(("segments per example", f"{task.data.num_segments} in {task.data.num_segment_groups} groups"))
    return [
        *rows,
        ("steps in all", f"{optimizer.num_train_steps}"),
        ("batch", f"{train.batch_size} examples"),
        ("learning rate", f"{optimizer.learning_rate:g}, warm-up {optimizer.num_warmup_steps}"),
        ("precision", train.precision),
        ("seed", f"{train.seed}"),
    ]


def _percent(value: float) -> str:
    """A fraction in percent; a dash for NaN."""
    return "–" if not math.isfinite(value) else f"{100 * value:.{2 if value < 0.1 else 1}f}%"


def _figure(value: float) -> str:
    """A task's score: a fraction in percent, another number as it is."""
    return _percent(value) if not math.isfinite(value) or 0 <= value <= 1 else f"{value:.4g}"


def _times(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1f}" if value < 10 else f"{value:.0f}"


def _score(value: float) -> str:
    """A cosine; a dash if it is not finite."""
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}") if math.isfinite(value) else "–"


def _place(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:g}"
