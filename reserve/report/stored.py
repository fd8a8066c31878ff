"""Reads what a run's folder says of its evaluations. Its files may be damaged, or anyone's."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from reserve.tasks.pretrain.shown_segments import ShownSegments

Kind = TypeVar("Kind")

MOST_BYTES = 64 << 20
"""Of a file that is read: far more than a page should hold."""
_MOST = 1e15
"""No figure of an evaluation comes near it."""
_PICTURE = re.compile(r"data:image/(png|jpeg|svg\+xml);base64,[A-Za-z0-9+/]*={0,2}")


@dataclass(frozen=True)
class StoredRanking:
    """A problem of evaluation.json; see `reserve.tasks.pretrain.ranking.Ranking`. NaN is what is not known."""

    name: str
    queries: int
    candidates: int
    recall_1: float
    low: float
    high: float
    chance_1: float
    recall_5: float
    chance_5: float
    median_rank: float
    chance_rank: float


@dataclass(frozen=True)
class StoredScore:
    """A figure of evaluation.json with its 95% interval; NaN is what is not known."""

    name: str
    value: float
    low: float = math.nan
    high: float = math.nan
    count: int | None = None
    chance: float | None = None


@dataclass(frozen=True)
class StoredEvaluation:
    """An evaluation after `step` steps: of pretraining its rankings, of another task its scores."""

    step: int
    examples: int | None = None
    rankings: tuple[StoredRanking, ...] = ()
    scores: tuple[StoredScore, ...] = ()


def read_evaluation(path: Path) -> StoredEvaluation | None:
    """What an evaluation.json holds. None where there is none. Raises ValueError naming the file and what is wrong."""
    stored = _read(path)
    if stored is None:
        return None
    where = path.name
    step = from_json(int, _named(stored, "step", where), f"{where}: step")
    if "rankings" in stored:
        examples = from_json(int, _named(stored, "examples", where), f"{where}: examples")
        rankings = _map(stored["rankings"], f"{where}: rankings")
        found = tuple(_ranking(name, figures, f"{where}: {name:.80}") for name, figures in rankings.items())
        return StoredEvaluation(step, examples, rankings=found)
    if "scores" in stored:
        scores = from_json(list[StoredScore], stored["scores"], f"{where}: scores")
        return StoredEvaluation(step, scores=tuple(scores))
    numbers = {name: value for name, value in stored.items() if name != "step"}
    return StoredEvaluation(
        step, scores=tuple(StoredScore(n, from_json(float, v, f"{where}: {n:.80}")) for n, v in numbers.items())
    )


def read_segments(path: Path) -> ShownSegments | None:
    """What an evaluation_details.json of pretraining holds. None where there is none.

    Raises ValueError naming the file and what is wrong, also for a picture that is not a data URI.
    """
    stored = _read(path)
    if stored is None:
        return None
    shown: ShownSegments = from_json(ShownSegments, stored, path.name)
    for segment in shown.segments:
        answers = [segment.frame_answer, *segment.sound_answers]
        answers += [answer for transcript in segment.transcripts for answer in transcript.answers.values()]
        guesses = [guess for answer in answers if answer for guess in (answer.truth, *answer.guesses)]
        pictures = [segment.frame, segment.spectrogram, *(guess.picture for guess in guesses if guess.picture)]
        if not all(map(_PICTURE.fullmatch, pictures)):
            raise ValueError(f"{path.name}: a picture is not embedded in the file")
    return shown


def from_json(kind: Any, value: Any, where: str) -> Any:
    """A JSON value as a `kind`: str, int, float (null as NaN), bool, a dataclass of such, or a list, a dict by int, or
    one of these or None. Raises ValueError starting with `where`."""
    origin, options = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        (inner,) = (option for option in options if option is not NoneType)
        return None if value is None else from_json(inner, value, where)
    if origin is list:
        if not isinstance(value, list):
            raise ValueError(f"{where} must be a list; got {value!r:.80}")
        return [from_json(options[0], item, f"{where}[{place}]") for place, item in enumerate(value)]
    if origin is dict:
        keys = _map(value, where)
        if not all(key.isdecimal() and len(key) < 10 for key in keys):
            raise ValueError(f"{where} must be a map by number; got {value!r:.80}")
        return {int(key): from_json(options[1], inner, f"{where}[{key}]") for key, inner in keys.items()}
    if is_dataclass(kind):
        return _dataclass(kind, _map(value, where), where)
    if kind is float:
        value = math.nan if value is None else value
        kinds: tuple[type, ...] = (int, float)
    else:
        kinds = (kind,)
    if type(value) not in kinds:
        raise ValueError(f"{where} must be {kind.__name__}; got {value!r:.80}")
    try:
        found = kind(value)
    except OverflowError as error:
        raise ValueError(f"{where} is too large: {error}") from error
    if isinstance(found, int | float) and not (math.isnan(found) or abs(found) < _MOST):
        raise ValueError(f"{where} is too large")
    return found


def _dataclass(kind: Any, values: Mapping[str, Any], where: str) -> Any:
    hints, names = get_type_hints(kind), [field.name for field in fields(kind)]
    if unknown := values.keys() - set(names):
        raise ValueError(f"{where} has no {min(unknown):.80}")
    given = {name: from_json(hints[name], values[name], f"{where}.{name}") for name in names if name in values}
    try:
        return kind(**given)
    except TypeError as error:
        raise ValueError(f"{where} is not complete: {error}") from error


def _ranking(name: str, figures: Any, where: str) -> StoredRanking:
    figures = _map(figures, where)
    interval = from_json(list[float] | None, figures.get("recall@1 95% interval"), f"{where}: recall@1 95% interval")
    if len(interval := interval or [math.nan] * 2) != 2:
        raise ValueError(f"{where}: recall@1 95% interval must have two numbers; got {len(interval)}")
    low, high = (None if math.isnan(end) else end for end in interval)
    named = {
        "queries": "queries",
        "candidates": "candidates",
        "recall_1": "recall@1",
        "chance_1": "chance@1",
        "recall_5": "recall@5",
        "chance_5": "chance@5",
        "median_rank": "median rank",
        "chance_rank": "chance median rank",
    }
    values = {field: _named(figures, key, where) for field, key in named.items()}
    found: StoredRanking = from_json(StoredRanking, {"name": name, "low": low, "high": high, **values}, where)
    return found


def _named(values: Mapping[str, Any], name: str, where: str) -> Any:
    if name not in values:
        raise ValueError(f"{where} lacks {name}")
    return values[name]


def _map(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} must be a map; got {value!r:.80}")
    return value


def _read(path: Path) -> dict[str, Any] | None:
    """The map in a JSON file, None where there is no such file."""
    if not path.is_file():
        return None
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path.name} must have at most {MOST_BYTES} bytes")
    try:
        return _map(json.loads(path.read_text("utf-8")), path.name)
    except (RecursionError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path.name} is not JSON: {error}") from error
