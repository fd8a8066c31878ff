"""The command `reserve prepare`."""

from __future__ import annotations

import json
import signal
from contextlib import contextmanager

import pytest

from reserve.cli import prepare as prepare_module
from reserve.cli.app import main
from reserve.cli.prepare import _ending_workers
from reserve.data import decode
from reserve.data.decode.pyav import PyAVDecoder
from reserve.data.shards.read import ShardSet
from tests.helpers.shard_videos import make_video, make_videos


class ForNothing(PyAVDecoder):
    name = "for-nothing"

    def unsuited(self, info):
        return f"{info.video.codec} is not for it"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_videos(tmp_path_factory.mktemp("prepare") / "videos", 3)


def test_prepares_in_folds_and_says_what_is_done_and_left(source, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--videos_per_shard=2", "--workers=1", "--folds=2", "--data.languages=[en]"]
    assert main(["prepare", str(source), str(out), *options, "--fold=1"]) == 0
    assert "1 shard is left to other folds" in capsys.readouterr().out
    assert main(["prepare", str(source), str(out), *options]) == 0
    printed = capsys.readouterr()
    assert f"{out} is finished: 3 videos with 6 segments in 2 shards" in printed.out
    assert ShardSet.open(out).manifest.videos == 3
    assert main(["prepare", str(source), str(out), *options]) == 0
    assert "skipped" not in capsys.readouterr().err  # it was said when the file was tried


def test_a_skipped_file_is_a_line_and_counted_by_its_reason(source, tmp_path, capsys):
    assert main(["prepare", str(source), str(tmp_path / "out"), "--workers=1"]) == 0
    printed = capsys.readouterr()
    assert f"skipped {source / 'noise.mp4'}: not a media file" in printed.err
    assert "1 skipped (1 not a media file that can be decoded)" in printed.out


def test_videos_are_counted_by_the_decoder_of_their_frames(source, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(decode, "DECODERS", (ForNothing(), PyAVDecoder()))
    for _ in range(2):  # the second time from the records
        assert main(["prepare", str(source), str(tmp_path / "out"), "--workers=1", "--decoder=for-nothing"]) == 0
        assert "; frames by pyav: 3 (for-nothing: h264 is not for it); 1 skipped" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fold=2", "--folds=2"], "--fold must be from 0 to 1 with --folds 2; got 2"),
        (["--fold=-1"], "--fold must be from 0 to 0 with --folds 1; got -1"),
        (["--folds=0"], "--folds must be at least 1; got 0"),
        (["--videos_per_shard=0"], "--videos_per_shard must be at least 1; got 0"),
        (["--workers=0"], "--workers must be at least 1; got 0"),
        (["--seed=-1"], "--seed must be at least 0; got -1"),
        (["--seed=9223372036854775808"], "--seed must be at most 2^63 - 1"),
        (["--audio_track=-1"], "--audio_track must be at least 0; got -1"),
        (["--ray_address=x:1"], "--ray_address needs --engine ray"),
        (["--engine=spark"], "spark"),
        (["--sound=mp3"], "mp3"),
        (["--filter.min_words=3"], "filter.min_words is not known. Did you mean"),
        (["--filters.static=3"], "there is no section filters. Did you mean filter?"),
        (["--filter.max_static_share=2"], "filter.max_static_share must be in [0, 1]; got 2"),
        (["--data.num_segments=15"], "data.num_segments must be a multiple"),
        (["--config=tyni"], "there is no configuration tyni. Did you mean tiny?"),
    ],
)
def test_wrong_values_are_named(tmp_path, capsys, options, message):
    assert main(["prepare", str(tmp_path), str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--decoder=x"], "decoder must be 'auto' or one of 'dali', 'torchcodec', 'pyav'; got 'x'"),
        (["--data.languages=[klingonish]"], "klingonish"),
        (["--filter.languages=[klingonish]"], "klingonish"),
    ],
)
def test_names_that_are_none(source, tmp_path, capsys, options, message):
    assert main(["prepare", str(source), str(tmp_path / "out"), *options]) == 1
    assert message in capsys.readouterr().err


def test_a_source_that_is_not_there(tmp_path, capsys):
    assert main(["prepare", str(tmp_path / "none"), str(tmp_path / "out")]) == 1
    assert "none: no such file or folder" in capsys.readouterr().err


def test_several_sources_and_a_configuration(source, tmp_path, capsys):
    other = make_video(tmp_path / "more" / "another.mp4", 9)
    config = tmp_path / "config.yaml"
    config.write_text("data: {languages: [de]}\nfilter: {duplicates: false}\ntrain: {seed: 3}\n")
    command = ["prepare", str(source), str(other), str(tmp_path / "out"), f"--config={config}", "--workers=1"]
    assert main(command) == 0
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert settings["data"]["languages"] == ["de"]
    assert settings["filter"]["duplicates"] is False
    assert ShardSet.open(tmp_path / "out").manifest.videos == 4
    assert main([*command, "--filter.duplicates=true"]) == 1
    assert "filter.duplicates was False, is True now" in capsys.readouterr().err


@contextmanager
def other_exit():
    try:
        yield
    except SystemExit:
        raise SystemExit(1) from None


def test_sigterm_has_its_status_whatever_a_library_makes_of_it(capsys):
    """Ray's calls turn the exit of a signal handler into one of their own."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped, _ending_workers(), other_exit():
        signal.raise_signal(signal.SIGTERM)
    assert stopped.value.code == 143
    assert "run the command again to resume" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_has_its_status_while_the_engine_starts_too(source, tmp_path, monkeypatch, capsys):
    """A Ray cluster takes seconds to start and to stop."""

    @contextmanager
    def slow_engine(_):
        signal.raise_signal(signal.SIGTERM)
        raise RuntimeError("SIGTERM did nothing")
        yield

    monkeypatch.setattr(prepare_module, "_engine", slow_engine)
    before = signal.signal(signal.SIGTERM, lambda number, _: None)
    try:
        with pytest.raises(SystemExit) as stopped:
            main(["prepare", str(source), str(tmp_path / "out")])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert stopped.value.code == 143
    assert "run the command again to resume" in capsys.readouterr().err
