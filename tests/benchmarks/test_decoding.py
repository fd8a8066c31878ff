"""The contenders of the benchmark of decoding, on a short video."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import decoding, decoding_peers
from benchmarks.decoding_videos import NAMES, RATE, SECONDS, made_video
from benchmarks.interleaved import Missing
from reserve.data.decode.pyav import PyAVDecoder

TIMES = (1.5, 4.0)


@pytest.fixture(scope="module")
def path():
    return made_video("h264 360p", 6)


@pytest.fixture
def few_times(monkeypatch):
    monkeypatch.setattr(decoding, "TIMES", TIMES)


def difference_from_ours(example, path):
    return decoding.example_difference(example, decoding.our_example(path))


def test_the_video(path):
    with PyAVDecoder().open(path) as media:
        assert (media.info.video.width, media.info.video.height, media.info.video.codec) == (640, 360, "h264")
        assert media.duration() == pytest.approx(6, abs=0.1)
    assert all(decoding.TIMES[-1] + 2.5 <= SECONDS and (time * RATE).is_integer() for time in decoding.TIMES)
    assert set(decoding.JOBS["sound"][3]) <= set(NAMES)


@pytest.mark.parametrize("decode", [decoding_peers.every_frame, decoding_peers.frames_by_seeking])
def test_plain_decoding_gives_our_frames(path, few_times, decode):
    np.testing.assert_array_equal(decode(path, TIMES), decoding.our_frames(path))


def test_plain_sound_is_ours(path):
    pytest.importorskip("librosa")
    assert decoding.loudness_difference(decoding_peers.librosa_sound(path), decoding.our_sound(path)) < 0.05


def test_the_released_way(path, few_times):
    try:
        example = decoding_peers.released_way(path, TIMES)
    except Missing as reason:
        pytest.skip(str(reason))
    assert difference_from_ours(example, path) < 1


def test_the_released_way_without_its_programs(path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Missing, match="the program ffmpeg is not installed"):
        decoding_peers.released_way(path, TIMES)


def test_another_frame_or_shifted_sound_is_wrong(path, few_times):
    frames, sound = decoding.our_example(path)
    assert difference_from_ours((frames, sound), path) == 0
    assert difference_from_ours((frames[::-1], sound), path) > 1
    assert difference_from_ours((frames, np.roll(sound, 10_000)), path) > 1
    assert difference_from_ours((frames, sound[:-10_000]), path) > 1


def test_decoders_that_cannot_are_missing_with_the_reason(path, monkeypatch):
    def row(name, unavailable=None, unsuited=None):
        found = SimpleNamespace(name=name, unavailable=lambda: unavailable, unsuited=lambda info: unsuited)
        found.by_name = lambda: found
        return found

    rows = (row("absent", "it is not installed"), row("wrong", None, "no H.264 here"), row("right"))
    monkeypatch.setattr(decoding, "DECODERS", rows)
    reasons = {"absent": "it is not installed", "wrong": "no H.264 here", "other": "there is no decoder 'other'"}
    for name, reason in reasons.items():
        with pytest.raises(Missing, match=reason):
            decoding.decoder_named(name, path)
    assert decoding.decoder_named("right", path) is rows[2]


def test_cpu_seconds_of_child_processes_count(path):
    busy = "import time\nwhile time.process_time() < 0.3: pass"

    def decode(_):
        subprocess.run([sys.executable, "-c", busy], check=True)

    contender = decoding.counting_cpu(decode, path)
    contender.call()
    assert contender.details["cpu_seconds"] >= 0.3
