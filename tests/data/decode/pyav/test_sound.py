"""Sound through PyAV: codecs, gaps and damage beyond what every decoder must handle; spans without a full decode."""

from __future__ import annotations

import struct
import tracemalloc
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest

from reserve.data.decode.protocol import Deadline, MediaLimits
from reserve.data.decode.pyav import PyAVDecoder
from reserve.data.decode.pyav import sound as sound_module
from reserve.data.decode.pyav.container import Container
from reserve.data.decode.pyav.downmix import MonoResampler
from reserve.data.decode.pyav.sound import Pieces, Resampled
from reserve.data.prepare.workers import run_supervised
from reserve.errors import BadInput
from tests.helpers.media_files import Sound, click_track, find_clicks, write_media

RATE = 22050
CLICKS = [0.5, 2.0, 5.5]
TIMES = [index / 10 for index in range(60)]


def soundtrack(path, limits=None, **options):
    with PyAVDecoder().open(path, limits) as media:
        return media.soundtrack(**options)


def opened(path):
    return Container(path, MediaLimits(), Deadline(60))


def assert_clicks(track, expected, tolerance=0.002):
    assert track.waveform.dtype == np.float32
    assert find_clicks(track.waveform, track.sample_rate) == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [("a.mp4", "aac", 8000), ("a.mkv", "pcm_s16le", 22050), ("a.mp4", "libmp3lame", 44100)],
)
def test_clicks_stay_in_place(tmp_path, name, codec, rate):
    sounds = [Sound(click_track(6, CLICKS, rate), rate, codec=codec)]
    assert_clicks(soundtrack(write_media(tmp_path / name, frame_times=TIMES, sounds=sounds)), CLICKS)


def test_late_sound_in_matroska_follows_silence(tmp_path):
    sounds = [Sound(click_track(4, [0.5]), start=1.5)]
    track = soundtrack(write_media(tmp_path / "a.mkv", frame_times=TIMES, sounds=sounds))
    assert_clicks(track, [2.0])
    assert not track.waveform[: int(1.4 * RATE)].any()


def test_both_streams_starting_late_start_at_zero(tmp_path):
    sounds = [Sound(click_track(6, CLICKS), start=3.0, codec="flac")]
    track = soundtrack(write_media(tmp_path / "a.mkv", frame_times=[3 + time for time in TIMES], sounds=sounds))
    assert_clicks(track, CLICKS)


def test_late_sound_in_a_transport_stream_follows_silence(tmp_path):
    """FFmpeg opens the file before it has seen any sound, so it knows neither rate nor channels."""
    sounds = [Sound(click_track(4, [0.5]), start=8.0, codec="mp2")]
    times = [index / 10 for index in range(120)]
    assert_clicks(soundtrack(write_media(tmp_path / "a.ts", frame_times=times, sounds=sounds)), [8.5], tolerance=0.02)


def test_timestamps_that_start_again_are_refused(tmp_path):
    """Matroska has no clock to go on with, and the sound of one part must not lie under the pictures of another."""
    path = write_media(tmp_path / "a.mkv", frame_times=TIMES, sounds=[Sound(click_track(6, CLICKS))])
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(BadInput, match=r"its timestamps start again: 6\.\d s of its sound lie over earlier sound"):
        soundtrack(path)


def test_gap_is_silence_and_later_sound_keeps_its_time(tmp_path):
    path = write_media(tmp_path / "a.ts", frame_times=TIMES, sounds=[Sound(click_track(6, CLICKS))])
    content = path.read_bytes()
    packets = [content[first : first + 188] for first in range(0, len(content), 188)]
    kept = packets[: len(packets) * 45 // 100] + packets[len(packets) * 60 // 100 :]
    path.write_bytes(b"".join(kept))
    container = opened(path)
    shift = container.raw.streams.audio[0].start_time / 90000 - container.origin
    container.close()
    # MPEG-TS cannot say that the encoder's first samples are priming, so they come as sound.
    delay = 1024 / 44100
    assert_clicks(soundtrack(path), [click + shift + delay for click in CLICKS])


def test_media_end_ignores_what_the_header_claims(tmp_path):
    path = write_media(
        tmp_path / "a.mp4", frame_times=TIMES, sounds=[Sound(click_track(6, CLICKS))], options={"movflags": "faststart"}
    )
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    container = opened(path)
    assert container.raw.duration == pytest.approx(6_000_000, abs=50_000)
    container.close()
    assert 0.5 < soundtrack(path).media_end < 5


def test_not_a_number_becomes_silence(tmp_path):
    samples = click_track(2, [0.5, 1.5])
    samples[44100:44200] = np.nan
    track = soundtrack(
        write_media(tmp_path / "a.mkv", frame_times=TIMES[:20], sounds=[Sound(samples, codec="pcm_f32le")])
    )
    assert np.isfinite(track.waveform).all()


@pytest.mark.parametrize(
    "tag", [122 << 16 | 6, 123 << 16 | 6, 124 << 16 | 6], ids=["L R Ls Rs C", "L C R Ls Rs", "C L R Ls Rs"]
)
def test_order_of_channels_that_is_not_that_of_ffmpeg(tmp_path, tag):
    """PyAV frees the memory of such a layout twice, so this test runs in a process that may die."""
    path = tmp_path / "a.mov"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("pcm_s16le", rate=RATE, layout="5.1")
        samples = np.repeat(click_track(2, [0.5], RATE), 6)[None] * 32767
        frame = av.AudioFrame.from_ndarray(samples.astype(np.int16), format="s16", layout="5.1")
        frame.rate = RATE
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            file.mux(packet)
    content = bytearray(path.read_bytes())
    place = content.index(b"chan") + 8
    content[place : place + 4] = struct.pack(">I", tag)
    path.write_bytes(content)
    ((_, track),) = run_supervised(soundtrack, [path], workers=1, timeout=600)
    assert_clicks(track, [0.5])
    assert np.abs(track.waveform).max() == pytest.approx(0.8, abs=0.05)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_span_decodes_its_surroundings_alone(tmp_path, name, monkeypatch):
    sounds = [Sound(click_track(60, [2.0, 50.5]))]
    path = write_media(tmp_path / name, frame_times=[index / 2 for index in range(120)], sounds=sounds, gop=4)
    whole = soundtrack(path).waveform
    decoded = []
    original = Container.decode
    monkeypatch.setattr(Container, "decode", lambda self, packet: decoded.append(packet) or original(self, packet))
    with PyAVDecoder().open(path) as media:
        sound = media.sound(50, 51)
    # 60 s have about 2600 packets, a span of 1 s with its margins and one group of pictures about 180.
    assert len(decoded) < 400
    np.testing.assert_allclose(find_clicks(sound, RATE), find_clicks(whole[50 * RATE :], RATE), atol=0.002)


def test_span_begins_with_settled_sound(tmp_path):
    tone = np.sin(2 * np.pi * 440 * np.arange(6 * 44100) / 44100).astype(np.float32) / 2
    path = write_media(tmp_path / "a.mp4", sounds=[Sound(tone)])
    whole = soundtrack(path).waveform
    with PyAVDecoder().open(path) as media:
        np.testing.assert_allclose(media.sound(3, 3.5), whole[3 * RATE : round(3.5 * RATE)], atol=0.01)


def test_span_survives_a_seek_that_lands_late(tmp_path, monkeypatch):
    path = write_media(tmp_path / "a.mp4", sounds=[Sound(click_track(6, CLICKS))])
    with PyAVDecoder().open(path) as media:
        expected = media.sound(5, 6)

    # A seek that lands after the span's click.
    monkeypatch.setattr("reserve.data.decode.pyav.sound.math", SimpleNamespace(floor=lambda _: 5_900_000))
    with PyAVDecoder().open(path) as media:
        assert find_clicks(media.sound(5, 6), RATE) == pytest.approx(find_clicks(expected, RATE), abs=0.002)


@pytest.mark.parametrize("in_memory", [0, 1000, 50_000])
def test_long_tracks_on_disk_are_those_in_memory(tmp_path, monkeypatch, in_memory):
    """With a late start, a gap and sound over earlier sound."""
    sounds = [Sound(click_track(4, [0.5, 3.0]), start=1.5), Sound(click_track(6, CLICKS))]
    path = write_media(tmp_path / "a.mkv", frame_times=TIMES, sounds=sounds)
    expected = [soundtrack(path, track=track) for track in (0, 1)]
    assert all(track.mapping is None for track in expected)
    monkeypatch.setattr("reserve.data.decode.pyav.sound._IN_MEMORY", in_memory)
    for track, before in enumerate(expected):
        found = soundtrack(path, track=track)
        assert found.mapping is not None
        np.testing.assert_array_equal(found.waveform, before.waveform)
        assert (found.media_end, found.peak()) == (before.media_end, before.peak())
        found.release()
        np.testing.assert_array_equal(found.waveform, before.waveform)


def test_a_long_span_on_disk_is_the_one_in_memory(tmp_path, monkeypatch):
    path = write_media(tmp_path / "a.mp4", sounds=[Sound(click_track(6, CLICKS))])
    with PyAVDecoder().open(path) as media:
        expected = media.sound(0.5, 8)
        monkeypatch.setattr("reserve.data.decode.pyav.sound._IN_MEMORY", 1000)
        found = media.sound(0.5, 8)
    assert found.any()
    np.testing.assert_array_equal(found, expected)
    assert found.flags.writeable


def test_pieces_on_disk_lie_over_each_other_as_in_memory(monkeypatch):
    rng = np.random.default_rng(0)
    parts = [(int(start), rng.standard_normal(700).astype(np.float32)) for start in rng.integers(0, 5000, 40)]
    parts[7][1][5] = np.nan
    plain, spooled = Pieces(100, 5200), Pieces(100, 5200)
    plain.extend(iter(parts))
    monkeypatch.setattr("reserve.data.decode.pyav.sound._IN_MEMORY", 1500)
    spooled.extend(iter(parts))
    assert spooled.file is not None
    (expected, _), (found, mapping) = plain.mapped(), spooled.mapped()
    assert mapping is not None
    np.testing.assert_array_equal(found, expected)
    assert (plain.end, plain.overlap) == (spooled.end, spooled.overlap)


def test_memory_does_not_grow_with_the_length_of_a_track(tmp_path, monkeypatch):
    monkeypatch.setattr("reserve.data.decode.pyav.sound._IN_MEMORY", 2**14)
    peaks = []
    for seconds in (5, 60, 120):
        path = write_media(tmp_path / f"{seconds}.mkv", sounds=[Sound(click_track(seconds, [1.0]), codec="flac")])
        tracemalloc.start()
        track = soundtrack(path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(track.waveform) == pytest.approx(seconds * RATE, abs=RATE / 10)
    # Two minutes are 10.6 MB.
    assert max(peaks[1:]) < peaks[0] + 2**20


def test_frames_are_resampled_in_blocks_of_a_second(tmp_path, monkeypatch):
    """A call for each frame of 23 ms took more time than its samples."""
    calls = []
    original = MonoResampler.resample
    monkeypatch.setattr(MonoResampler, "resample", lambda self, frame: calls.append(frame) or original(self, frame))
    assert_clicks(soundtrack(write_media(tmp_path / "a.mp4", sounds=[Sound(click_track(6, CLICKS))])), CLICKS)
    assert len(calls) <= 8


def tenth_of_a_second(pts, value=0.5):
    """A mono frame of a constant value."""
    frame = av.AudioFrame.from_ndarray(np.full((1, 2205), value, np.float32), format="fltp", layout="mono")
    frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), pts
    return frame


def resampled(frames):
    """The waveform that frames of up to 10 s give."""
    runs = Resampled(RATE, 0.0)
    pieces = Pieces(0, 10 * RATE)
    for frame in frames:
        pieces.extend(runs.push(frame))
    pieces.extend(runs.flush())
    return pieces.mapped()[0]


@pytest.mark.parametrize("gap", [0.1, 0.7, 1.3])
def test_gap_within_a_block(gap):
    """Joined frames end where the time jumps."""
    frames = (tenth_of_a_second(index * 2205 + (round(gap * RATE) if index >= 33 else 0)) for index in range(60))
    waveform = resampled(frames)
    silent = np.flatnonzero(np.abs(waveform) < 0.25)
    assert silent[0] == 33 * 2205
    assert len(silent) == silent[-1] - silent[0] + 1 == round(gap * RATE)


def test_a_frame_that_cannot_be_joined_costs_itself_alone(monkeypatch):
    """Up to a second of good frames waits when it comes."""

    class Fifo:
        samples = property(lambda self: self.fifo.samples)

        def __init__(self):
            self.fifo = av.AudioFifo()
            self.read = self.fifo.read

        def write(self, frame):
            if not frame.to_ndarray().any():
                raise ValueError("impossible")
            self.fifo.write(frame)

    monkeypatch.setattr(sound_module, "import_av", lambda: SimpleNamespace(AudioFifo=Fifo))
    frames = [tenth_of_a_second(index * 2205, 0.0 if index == 7 else 0.5) for index in range(12)]
    waveform = resampled(frames)
    silent = np.flatnonzero(np.abs(waveform) < 0.25)
    assert silent[0] == 7 * 2205
    assert silent[-1] == 8 * 2205 - 1


def test_many_channels_are_joined_in_short_blocks(monkeypatch):
    """A second of 64 channels of 768 kHz would be 200 MB."""
    lengths = []
    original = MonoResampler.resample

    def resample(self, frame):
        lengths.append(0 if frame is None else frame.samples)
        return original(self, frame)

    monkeypatch.setattr(MonoResampler, "resample", resample)
    runs = Resampled(RATE, 0.0)
    frames = av.AudioFrame.from_ndarray(np.zeros((1, 8 * 4096), np.float32), format="flt", layout="7.1")
    frames.sample_rate, frames.time_base = 384_000, Fraction(1, 384_000)
    for index in range(40):
        frames.pts = index * 4096
        runs.push(frames)
    assert lengths == [16 * 4096] * 2
