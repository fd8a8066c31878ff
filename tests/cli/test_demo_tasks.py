import json

import pytest

from reserve.cli import demo_tasks
from reserve.errors import BadInput, UsageError

jsonargparse = pytest.importorskip("jsonargparse", reason="needs the extra train")


def run(*arguments: object) -> None:
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    demo_tasks.add_arguments(parser, [])
    demo_tasks.run(parser.instantiate(parser.parse_args([str(argument) for argument in arguments])))


def test_it_writes_the_tasks_asked_for_and_says_how_much(narrated_videos, tmp_path, capsys):
    run(narrated_videos, tmp_path, "--tasks", "vcr", "star", "--questions=4", "--seed=5")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["star", "vcr"]
    assert len(json.loads((tmp_path / "star" / "STAR_train.json").read_text())) == 8
    counts = "8 train questions, 4 val questions, 4 test questions"
    assert capsys.readouterr().out == f"{tmp_path / 'vcr'}: {counts}\n{tmp_path / 'star'}: {counts}\n"


def test_an_unknown_task_is_refused_before_any_work(narrated_videos, tmp_path):
    with pytest.raises(UsageError, match=r"--tasks must be of vcr, .*msrvtt-qa; got 'nope'"):
        run(narrated_videos, tmp_path, "--tasks", "vcr", "nope")
    assert not list(tmp_path.iterdir())


def test_a_folder_without_videos_is_named(tmp_path):
    with pytest.raises(BadInput, match="make some with `reserve demo-data"):
        run(tmp_path, tmp_path / "out")
