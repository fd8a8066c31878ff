"""torchcodec's pictures are PyAV's, and it knows when they would not be."""

from __future__ import annotations

import pickle
from fractions import Fraction

import av
import numpy as np
import pytest

from reserve.data.decode import torchcodec as torchcodec_decoder
from reserve.data.decode.pyav import PyAVDecoder
from reserve.data.decode.torchcodec import TorchCodecDecoder
from reserve.data.decode.torchcodec import frames as frames_module
from reserve.data.decode.torchcodec.frames import _open as open_pictures
from reserve.data.decode.torchcodec.packets import read_packets
from tests.helpers.coded_videos import CASES, VP9, write_case, write_coded
from tests.helpers.decoder_cases import SOUND, TIMES
from tests.helpers.media_files import Sound, click_track, number_picture, write_media

DECODER = TorchCodecDecoder()
pytestmark = pytest.mark.skipif(DECODER.unavailable() is not None, reason=str(DECODER.unavailable()))
MEAN, MOST = 0.5, 4
"""Levels of 255. With the same FFmpeg there is a difference only in pictures with odd sides."""


def decode(path, times=(0.0, 0.95, 2.0, 5.95)):
    """The pictures and sound of both decoders, and why torchcodec left some to PyAV."""
    found = []
    for decoder in (PyAVDecoder(), DECODER):
        with decoder.open(path) as media:
            waveform = media.soundtrack().waveform if media.info.audio else np.zeros(0)
            frames = list(media.frames(times)) if media.info.video else []
            found.append((frames, waveform))
            fallbacks = {part: fallback.reason for part, fallback in media.fallbacks.items()}
    return *found, fallbacks


def check_equal(expected, found):
    for ours, theirs in zip(expected[0], found[0], strict=True):
        assert ours.shape == theirs.shape
        difference = np.abs(ours.astype(int) - theirs)
        assert difference.mean() <= MEAN
        assert difference.max() <= MOST
    np.testing.assert_allclose(found[1], expected[1], atol=1e-5)


def noise_picture(size):
    noise = np.random.default_rng(0).integers(0, 40, (*size, 3), dtype=np.uint8)
    return lambda number: number_picture(number, size) // 2 + noise


@pytest.mark.parametrize(
    ("name", "codec", "size"),
    [
        ("a.mp4", "libx264", (48, 64)),
        ("a.mkv", "libx264", (50, 72)),
        ("a.mp4", "libx265", (144, 160)),
        ("a.webm", "libvpx", (50, 72)),
        ("a.webm", "libvpx-vp9", (48, 64)),
        ("a.mkv", "libsvtav1", (128, 192)),
        ("a.mp4", "mpeg4", (48, 64)),
    ],
)
def test_pictures_and_sound_are_those_of_pyav(tmp_path, name, codec, size):
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    sounds = [Sound(click_track(6, [0.5, 4.0], 48000), 48000, codec="libopus" if name.endswith("webm") else "aac")]
    path = write_media(
        tmp_path / name, frame_times=TIMES, picture=noise_picture(size), video_codec=codec, sounds=sounds
    )
    expected, found, fallbacks = decode(path)
    assert "pictures" not in fallbacks
    check_equal(expected, found)


@pytest.mark.parametrize("name", CASES)
def test_strong_colours(tmp_path, name):
    expected, found, fallbacks = decode(write_case(tmp_path, name), (0, 0.14, 0.14, 1.05, 2.3, 3.9, 9))
    left = {"motion.avi": "files of the format avi are left to PyAV", "full.webm": "its colours have full range"}
    assert fallbacks.get("pictures") == left.get(name)
    check_equal(expected, found)


def test_variable_frame_rate(tmp_path):
    path = write_media(tmp_path / "a.mp4", frame_times=[0, 0.03, 0.5, 2.0, 2.04, 5.0])
    expected, found, fallbacks = decode(path, (0.02, 0.04, 1.99, 2.03, 4.99, 9.0))
    assert "pictures" not in fallbacks
    check_equal(expected, found)


def anamorphic(folder):
    return write_media(folder / "a.mkv", frame_times=TIMES, pixel_aspect=Fraction(64, 45), sounds=[SOUND])


def transport_stream(folder):
    return write_media(folder / "a.ts", frame_times=TIMES, sounds=[SOUND])


def damaged(folder):
    path = write_media(folder / "a.mkv", frame_times=TIMES, picture=noise_picture((48, 64)), sounds=[SOUND])
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(1)
    for place in rng.integers(len(content) // 4, len(content), 60):
        content[place] ^= int(rng.integers(1, 255))
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (anamorphic, "its pixels are not square"),
        (
            transport_stream,
            "files of the format mpegts are left to PyAV",
        ),
        (damaged, None),
    ],
    ids=["anamorphic", "transport_stream", "damaged"],
)
def test_what_is_left_to_pyav(tmp_path, make, reason):
    path = make(tmp_path)
    expected, found, fallbacks = decode(path)
    assert reason is None or fallbacks["pictures"] == reason
    check_equal(expected, found)


def test_reasons_are_those_of_the_latest_call(tmp_path):
    with DECODER.open(transport_stream(tmp_path)) as media:
        media.soundtrack()
        assert media.fallbacks.keys() == {"sound"}
        list(media.frames([0.0]))
        assert media.fallbacks.keys() == {"sound", "pictures"}


@pytest.fixture
def passes(monkeypatch):
    """The passes over the packets of a file."""
    passes = []
    monkeypatch.setattr(
        torchcodec_decoder, "read_packets", lambda container: passes.append(container) or read_packets(container)
    )
    return passes


def test_a_file_is_read_and_opened_once(tmp_path, passes, monkeypatch):
    opened = []
    monkeypatch.setattr(frames_module, "_open", lambda *parts: opened.append(parts) or open_pictures(*parts))
    path = write_media(tmp_path / "a.mkv", frame_times=TIMES)
    with DECODER.open(path) as media, PyAVDecoder().open(path) as other:
        for times in ([0.05, 2.0], [1.0, 5.0], [0.0], [5.0]):
            check_equal((list(other.frames(times)), np.zeros(0)), (list(media.frames(times)), np.zeros(0)))
        assert not media.fallbacks
    assert (len(passes), len(opened)) == (1, 1)


def test_a_file_that_is_refused_is_read_once(tmp_path, passes):
    path = write_coded(tmp_path / "a.webm", "libvpx-vp9", [i / 10 for i in range(20)], options=VP9, color_range=2)
    with DECODER.open(path) as media:
        for _ in range(3):
            assert len(list(media.frames([0.0, 1.0]))) == 2
            assert media.fallbacks["pictures"].reason == "its colours have full range"
    assert len(passes) == 1


def test_long_ways_from_a_key_frame_are_taken_in_steps(tmp_path, monkeypatch):
    """Between them the deadline is looked at, also on the way to an earlier frame than the last one."""
    monkeypatch.setattr(frames_module, "_MAX_STEP", 8)
    path = write_media(tmp_path / "a.mkv", frame_times=TIMES, gop=1000)
    asked = []
    with DECODER.open(path) as media:
        list(media.frames([0.0]))
        original = media._reader._decode
        media._reader._decode = lambda index: asked.append(index) or original(index)
        list(media.frames([TIMES[20] + 0.01]))
        list(media.frames([TIMES[10] + 0.01]))
        list(media.frames([TIMES[15] + 0.01]))
    assert asked == [8, 16, 20, 8, 10, 15]


def test_decoders_can_be_sent_to_processes():
    assert pickle.loads(pickle.dumps(DECODER)).name == "torchcodec"


def test_full_range_that_the_pixel_format_does_not_imply(tmp_path):
    """torchcodec would take it for limited range: every grey 9 levels off on average, without a word."""
    clip = write_coded(
        tmp_path / "a.webm", "libvpx-vp9", [i / 10 for i in range(20)], options=VP9, color_range=2, picture=ramp
    )
    *found, fallbacks = decode(clip, (0.0, 1.0))
    for ours, theirs in zip(found[0][0], found[1][0], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert fallbacks == {"pictures": "its colours have full range"}


def ramp(_number):
    """Every grey, from black to white: uint8 [48, 64, 3]."""
    return np.broadcast_to(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], (48, 64, 3)).copy()
