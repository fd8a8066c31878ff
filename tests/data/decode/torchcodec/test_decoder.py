"""torchcodec's pictures and sound are PyAV's, and it knows when they would not be."""

from __future__ import annotations

import pickle
from fractions import Fraction

import av
import numpy as np
import pytest

from reserve.data.decode.protocol import MediaLimits
from reserve.data.decode.pyav import PyAVDecoder
from reserve.data.decode.torchcodec import TorchCodecDecoder, sound
from tests.helpers.decoder_cases import SOUND, TIMES
from tests.helpers.media_files import Sound, click_track, number_picture, write_media

DECODER = TorchCodecDecoder()
pytestmark = pytest.mark.skipif(DECODER.unavailable() is not None, reason=str(DECODER.unavailable()))
# The mean difference of a colour. With the same FFmpeg there is none; another one may scale otherwise.
TOLERANCE = 2.0


def decode(path, times=(0.0, 0.95, 2.0, 5.95)):
    """The pictures and sound of both decoders, and why torchcodec left some to PyAV."""
    found = []
    for decoder in (PyAVDecoder(), DECODER):
        with decoder.open(path) as media:
            waveform = media.soundtrack().waveform if media.info.audio else np.zeros(0)
            frames = list(media.frames(times)) if media.info.video else []
            found.append((frames, waveform))
            fallbacks = dict(media.fallbacks)
    return *found, fallbacks


def check_equal(expected, found):
    for ours, theirs in zip(expected[0], found[0], strict=True):
        assert ours.shape == theirs.shape
        assert np.abs(ours.astype(int) - theirs).mean() <= TOLERANCE
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
    assert fallbacks == {}
    check_equal(expected, found)


def test_variable_frame_rate_and_late_sound(tmp_path):
    late = Sound(click_track(4, [0.5]), start=1.5, layout="stereo")
    path = write_media(tmp_path / "a.mp4", frame_times=[0, 0.03, 0.5, 2.0, 2.04, 5.0], sounds=[late])
    expected, found, fallbacks = decode(path, (0.02, 0.04, 1.99, 2.03, 4.99, 9.0))
    assert fallbacks == {}
    check_equal(expected, found)


def test_sound_in_many_stretches(tmp_path, monkeypatch):
    """The resampler goes on from one to the next."""
    monkeypatch.setattr(sound, "_STRETCH", 5000)
    track = np.sin(2 * np.pi * 440 * np.arange(44100 * 5) / 44100).astype(np.float32) * 0.5
    for name, codec in (("a.mp4", "aac"), ("b.mkv", "aac"), ("c.mkv", "flac"), ("d.mkv", "libmp3lame")):
        expected, found, fallbacks = decode(write_media(tmp_path / name, sounds=[Sound(track, codec=codec)]))
        assert fallbacks == {}
        check_equal(expected, found)


def test_sound_up_to_the_limit(video):
    limits = MediaLimits(max_duration=3.0)
    waveforms = []
    for decoder in (PyAVDecoder(), DECODER):
        with decoder.open(video, limits) as media:
            waveforms.append(media.soundtrack().waveform)
            assert media.fallbacks == {}
    np.testing.assert_allclose(*waveforms, atol=1e-5)


def gap(path):
    """Sound with a second of nothing in it."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("flac", rate=44100, layout="mono")
        for number in range(80):
            samples = np.full((1, 4410), 1000 * (number % 9), dtype=np.int16)
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.rate, frame.time_base = 44100, Fraction(1, 44100)
            frame.pts = 4410 * (number + (10 if number > 40 else 0))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_gaps_are_silence(tmp_path):
    expected, found, _ = decode(gap(tmp_path / "a.mkv"))
    assert len(found[1]) > 8.9 * 22050
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
    ("make", "fallbacks"),
    [
        (anamorphic, {"pictures": "its pixels are not square"}),
        (
            transport_stream,
            dict.fromkeys(("sound", "pictures"), "files of the format mpegts are left to PyAV"),
        ),
        (damaged, None),
    ],
    ids=["anamorphic", "transport_stream", "damaged"],
)
def test_what_is_left_to_pyav(tmp_path, make, fallbacks):
    path = make(tmp_path)
    expected, found, reasons = decode(path)
    assert fallbacks is None or reasons == fallbacks
    check_equal(expected, found)


def test_reasons_are_those_of_the_latest_call(tmp_path):
    with DECODER.open(transport_stream(tmp_path)) as media:
        media.soundtrack()
        assert media.fallbacks.keys() == {"sound"}
        list(media.frames([0.0]))
        assert media.fallbacks.keys() == {"sound", "pictures"}


def test_decoders_can_be_sent_to_processes():
    assert pickle.loads(pickle.dumps(DECODER)).name == "torchcodec"
