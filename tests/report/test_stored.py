"""Files of evaluations come back as they were stored, and damaged or hostile ones are refused by name."""

from __future__ import annotations

import json
import math

import pytest

from reserve.report import stored
from reserve.report.stored import read_evaluation, read_segments
from reserve.tasks.pretrain.shown_segments import shown_segments
from reserve.tasks.task import Figures
from reserve.train.evaluate import store_evaluation


@pytest.fixture
def folder(tmp_path, evaluation):
    store_evaluation(tmp_path, evaluation)
    return tmp_path


def test_segments_come_back_as_they_were(folder, evaluation):
    assert read_segments(folder / "evaluation_details.json") == shown_segments(
        250, evaluation.dataset, evaluation.rankings
    )


def test_rankings_come_back_as_they_were(folder, evaluation):
    found = read_evaluation(folder / "evaluation.json")
    assert (found.step, found.examples) == (250, 6)
    for ranking, expected in zip(found.rankings, evaluation.rankings, strict=True):
        assert (ranking.name, ranking.queries) == (expected.name, expected.queries)
        assert (ranking.low, ranking.high) == expected.interval(1)
        assert (ranking.recall_1, ranking.chance_5) == (expected.recall(1), expected.chance(5))


def test_a_figure_that_is_not_known_is_nan(tmp_path):
    (tmp_path / "evaluation.json").write_text('{"step": 1, "accuracy": null}')
    (score,) = read_evaluation(tmp_path / "evaluation.json").scores
    assert math.isnan(score.value)


def test_what_is_not_there_is_none(tmp_path):
    store_evaluation(tmp_path, Figures(1, {"accuracy": 0.5}))
    assert read_segments(tmp_path / "evaluation_details.json") is None
    assert read_evaluation(tmp_path / "none.json") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "evaluation.json is not JSON"),
        ("[" * 100_000, "evaluation.json is not JSON"),
        ("[1]", r"evaluation.json must be a map; got \[1\]"),
        ("{}", "evaluation.json lacks step"),
        ('{"step": "<b>"}', "evaluation.json: step must be int; got '<b>'"),
        ('{"step": 1, "accuracy": "x"}', "evaluation.json: accuracy must be float; got 'x'"),
        ('{"step": 1, "scores": {}}', "evaluation.json: scores must be a list"),
        ('{"step": 1, "scores": [{}]}', r"evaluation.json: scores\[0\] is not complete"),
        ('{"step": 1, "scores": [{"name": "a", "value": 1, "x": 1}]}', r"scores\[0\] has no x"),
        ('{"step": 1, "examples": 2, "rankings": {"a": {}}}', "evaluation.json: a lacks queries"),
        ('{"step": 1, "accuracy": 1' + "0" * 400 + "}", "evaluation.json: accuracy is too large"),
    ],
)
def test_a_damaged_evaluation_is_named(tmp_path, text, message):
    (tmp_path / "evaluation.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_evaluation(tmp_path / "evaluation.json")


@pytest.mark.parametrize(
    "picture",
    [
        "http://example.org/x.png",
        "data:text/html;base64,PGI+",
        "javascript:alert(1)",
        'data:image/png;base64,AA=="><script>',
        "",
    ],
)
def test_a_picture_must_be_embedded(folder, picture):
    path = folder / "evaluation_details.json"
    details = json.loads(path.read_text())
    details["segments"][-1]["frame"] = picture
    path.write_text(json.dumps(details))
    with pytest.raises(ValueError, match=r"evaluation_details.json: a picture is not embedded in the file"):
        read_segments(path)


def test_a_guesss_picture_must_be_embedded_too(folder):
    path = folder / "evaluation_details.json"
    details = json.loads(path.read_text())
    details["segments"][0]["frame_answer"]["guesses"][0]["picture"] = "http://example.org/x.png"
    path.write_text(json.dumps(details))
    with pytest.raises(ValueError, match="a picture is not embedded"):
        read_segments(path)


def test_a_huge_file_is_not_read(folder, monkeypatch):
    monkeypatch.setattr(stored, "MOST_BYTES", 100)
    with pytest.raises(ValueError, match=r"evaluation_details.json must have at most 100 bytes"):
        read_segments(folder / "evaluation_details.json")
