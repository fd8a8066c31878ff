from __future__ import annotations

import json
from pathlib import Path

import pytest

from reserve.cli.app import main
from reserve.tasks.search import MomentIndex
from tests.helpers.shard_videos import make_video, prepare
from tests.tasks.search.small_index import write_videos
from tests.tasks.zero_shot.small_sets import small_model

pytest.importorskip("faiss", reason="searching needs faiss: pip install 'merlot-reserve[search]'")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    small_model().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return write_videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "reserve" / "moments"


def search(capsys, *arguments) -> list[dict]:
    assert main(["search", *map(str, arguments), "--json", "--device=cpu"]) == 0
    return json.loads(capsys.readouterr().out)


def test_moments_are_found_by_text(videos, weights, capsys, caplog, monkeypatch):
    caplog.set_level("INFO")
    monkeypatch.chdir(videos)
    arguments = ["search", str(videos), "a red circle", f"--weights={weights}", "--top=3"]
    assert main([*arguments, "--precision=float32"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["score", "from", "to", "video"]
    assert len(lines) == 4
    assert {line.split()[-1] for line in lines[1:]} <= {"long.mp4", "silent.mp4"}
    assert "39 moments of 2 videos, 2 encoded in" in caplog.text
    assert "1 skipped" in caplog.text


def test_a_second_query_encodes_nothing(videos, weights, capsys, caplog, cache):
    caplog.set_level("INFO")
    first = search(capsys, videos, "red", f"--weights={weights}")
    assert "2 encoded in" in caplog.text
    (index,) = cache.iterdir()
    parts = {path: path.stat().st_mtime_ns for path in (index / "parts").iterdir()}
    caplog.clear()
    assert search(capsys, videos, "red", f"--weights={weights}") == first
    assert "39 moments of 2 videos, 1 skipped" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in (index / "parts").iterdir()} == parts


def test_moments_are_found_by_sound(videos, weights, capsys):
    sound = ["--sound", videos / "long.mp4", "--sound_start=5", "--sound_stop=10"]
    found = search(capsys, videos, *sound, f"--weights={weights}", "--top=2")
    assert {moment["video"] for moment in found} == {str(videos / "long.mp4")}


def test_a_named_index_is_extended_and_searched_without_places(videos, weights, capsys, tmp_path):
    index = f"--index={tmp_path / 'index'}"
    search(capsys, videos / "silent.mp4", "red", f"--weights={weights}", index)
    search(capsys, videos / "long.mp4", "red", f"--weights={weights}", index)
    assert len(MomentIndex.open(tmp_path / "index").videos) == 2
    found = search(capsys, "red", f"--weights={weights}", index, "--top=100", "--gap=0")
    assert len(found) == 39


def test_the_default_index_is_of_just_these_places(weights, capsys, tmp_path):
    folder = write_videos(tmp_path / "videos")
    search(capsys, folder, "red", f"--weights={weights}")
    (folder / "long.mp4").unlink()
    found = search(capsys, folder, "red", f"--weights={weights}", "--top=100")
    assert {Path(moment["video"]).name for moment in found} == {"silent.mp4"}


def test_shards_are_searched(weights, capsys, tmp_path):
    for number in range(2):
        make_video(tmp_path / "videos" / f"{number}.mp4", number)
    prepare(tmp_path / "videos", tmp_path / "set")
    found = search(capsys, tmp_path / "set", "red", f"--weights={weights}", "--top=100")
    assert {(moment["video"], moment["place"]) for moment in found} == {
        (f"{number}.mp4", str(tmp_path / "set")) for number in range(2)
    }
    assert main(["search", str(tmp_path / "set"), "red", f"--weights={weights}"]) == 0
    assert f"{tmp_path / 'set'}: 0.mp4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], 'search needs places and then the text, as in: search videos "a red circle"'),
        (["red"], "search has one argument, 'red': name the videos, and last the text"),
        (["VIDEOS", "VIDEOS/long.mp4"], "the last argument must be the text to search for"),
        (["VIDEOS", "  "], "the text to search for is empty"),
        (["--sound=VIDEOS/long.mp4"], "search needs the places to search, or --index"),
        (["VIDEOS", "red", "--top=0"], "--top must be at least 1; got 0"),
        (["VIDEOS", "red", "--gap=-1"], "--gap must be at least 0; got -1"),
    ],
)
def test_wrong_usage_is_named_with_status_2(videos, weights, capsys, arguments, message):
    given = [argument.replace("VIDEOS", str(videos)) for argument in arguments]
    assert main(["search", *given, f"--weights={weights}"]) == 2
    assert message in capsys.readouterr().err


def test_a_forgotten_text_is_noticed_though_the_file_is_named_without_a_folder(videos, weights, capsys, monkeypatch):
    monkeypatch.chdir(videos)
    assert main(["search", "long.mp4", f"--weights={weights}", "--index=nowhere"]) == 2
    assert "the last argument must be the text to search for; long.mp4 is a file" in capsys.readouterr().err


def test_weights_must_be_named(videos, capsys):
    assert main(["search", str(videos), "red"]) == 2
    assert "name the model with --weights" in capsys.readouterr().err


def test_an_index_of_another_model_is_refused(videos, weights, capsys, tmp_path):
    other = small_model()
    other.head.weight.data.mul_(1.1)
    other.save_pretrained(tmp_path / "other")
    arguments = ["search", str(videos / "silent.mp4"), "red", f"--index={tmp_path / 'index'}"]
    assert main([*arguments, f"--weights={weights}"]) == 0
    assert main([*arguments, f"--weights={tmp_path / 'other'}"]) == 1
    assert "is an index made by another model" in capsys.readouterr().err
