from __future__ import annotations

import json

import pytest

from reserve.cli.app import main
from tests.tasks.zero_shot.small_sets import small_model, write_video


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    small_model().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("video") / "video.mp4", 50.4)


def test_answers_are_ranked(video, weights, capsys):
    arguments = ["ask", str(video), "what is a man doing?", "--answers", "running", "a red ball", "the end"]
    assert main([*arguments, f"--weights={weights}", "--device=cpu", "--precision=float32"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "a man is<|MASK|>.  (0:00 to 0:50 in 2 windows, seen and heard)"
    assert lines[1].split() == ["answer", "probability", "fits", "best"]
    assert [line.split()[0] for line in lines[2:]] == ["1", "2", "3"]


def test_json_is_for_programs(video, weights, capsys):
    arguments = ["ask", str(video), "a man is _", "--answers", "running", "a red ball", "--start=5", "--stop=20"]
    assert main([*arguments, f"--weights={weights}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["video"], found["windows"], found["heard"]) == (str(video), [[5, 20]], True)
    assert sum(answer["probability"] for answer in found["answers"]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answers": ["one"]}, "ask needs --answers, two or more"),
        ({"options": ["--start=9", "--stop=9"]}, "--start must be at least 0 and --stop after it; got 9.0 and 9.0"),
        ({"weights": []}, "name the model with --weights"),
        ({"question": "red?"}, "the question must have exactly one <|MASK|>"),
        ({"answers": ["red", "RED"]}, "answers must differ"),
        ({"options": ["--sizes=base"]}, "leave out --sizes"),
    ],
)
def test_wrong_usage_is_named_with_status_2(video, weights, capsys, changes, message):
    given = {"question": "_ is red", "answers": ["one", "two"], "weights": [f"--weights={weights}"], "options": []}
    given |= changes
    arguments = ["ask", str(video), given["question"], "--answers", *given["answers"], *given["weights"]]
    assert main([*arguments, *given["options"]]) == 2
    assert message in capsys.readouterr().err


def test_files_that_cannot_be_used_are_named_with_status_1(video, weights, tmp_path, capsys):
    (tmp_path / "noise.mp4").write_bytes(b"noise")
    rest = ["_ is red", "--answers", "one", "two"]
    assert main(["ask", str(tmp_path / "noise.mp4"), *rest, f"--weights={weights}"]) == 1
    assert "noise.mp4" in capsys.readouterr().err
    assert main(["ask", str(video), *rest, f"--weights={tmp_path}"]) == 1
    assert "neither a model's folder nor a run's" in capsys.readouterr().err
