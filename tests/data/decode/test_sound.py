"""Sound: where on the time axis it lands, to within 2 ms, and how damage and absence are met."""

from __future__ import annotations

import numpy as np
import pytest

from reserve.data.decode.pyav import MediaFile, MediaLimits
from reserve.data.decode.sound import read_soundtrack
from reserve.errors import BadInput
from tests.helpers.media_files import ExpiresAfter, Sound, click_track, find_clicks, write_media

RATE = 22050
CLICKS = [0.5, 2.0, 5.5]
TIMES = [index / 10 for index in range(60)]


def soundtrack(path, limits=None, **options):
    with MediaFile(path, limits) as media:
        return read_soundtrack(media, **options)


def assert_clicks(track, expected, tolerance=0.002):
    assert track.waveform.dtype == np.float32
    assert find_clicks(track.waveform, track.sample_rate) == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("a.mp4", "aac", 44100),
        ("a.mp4", "aac", 8000),
        ("a.mkv", "pcm_s16le", 22050),
        ("a.mkv", "flac", 96000),
        ("a.webm", "libopus", 48000),
        ("a.mp4", "libmp3lame", 44100),
    ],
)
def test_clicks_stay_where_they_are(tmp_path, name, codec, rate):
    video_codec = "libvpx-vp9" if name.endswith("webm") else "libx264"
    sounds = [Sound(click_track(6, CLICKS, rate), rate, codec=codec)]
    track = soundtrack(write_media(tmp_path / name, frame_times=TIMES, video_codec=video_codec, sounds=sounds))
    assert track.sample_rate == RATE
    assert_clicks(track, CLICKS)
    assert len(track.waveform) == pytest.approx(6 * RATE, rel=0.01)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_late_sound_is_preceded_by_silence(tmp_path, name):
    sounds = [Sound(click_track(4, [0.5]), start=1.5)]
    track = soundtrack(write_media(tmp_path / name, frame_times=TIMES, sounds=sounds))
    assert_clicks(track, [2.0])
    assert not track.waveform[: int(1.4 * RATE)].any()


def test_both_streams_starting_late_start_at_zero(tmp_path):
    sounds = [Sound(click_track(6, CLICKS), start=3.0, codec="flac")]
    track = soundtrack(write_media(tmp_path / "a.mkv", frame_times=[3 + time for time in TIMES], sounds=sounds))
    assert_clicks(track, CLICKS)


def test_track_choice(tmp_path):
    sounds = [Sound(click_track(6, [1.0])), Sound(click_track(6, [4.0]))]
    path = write_media(tmp_path / "a.mp4", frame_times=TIMES, sounds=sounds)
    assert_clicks(soundtrack(path), [1.0])
    assert_clicks(soundtrack(path, track=1), [4.0])
    with pytest.raises(BadInput, match="no audio track 2"):
        soundtrack(path, track=2)


def test_stereo_is_mixed(tmp_path):
    sounds = [Sound(click_track(6, CLICKS), layout="stereo")]
    assert_clicks(soundtrack(write_media(tmp_path / "a.mp4", frame_times=TIMES, sounds=sounds)), CLICKS)


def test_gap_is_silence_and_later_sound_keeps_its_time(tmp_path):
    path = write_media(tmp_path / "a.ts", frame_times=TIMES, sounds=[Sound(click_track(6, CLICKS))])
    content = path.read_bytes()
    packets = [content[first : first + 188] for first in range(0, len(content), 188)]
    kept = packets[: len(packets) * 45 // 100] + packets[len(packets) * 60 // 100 :]
    path.write_bytes(b"".join(kept))
    with MediaFile(path) as media:
        shift = media.container.streams.audio[0].start_time / 90000 - media.origin
    # MPEG-TS cannot say that the encoder's first samples are priming, so they come as sound.
    delay = 1024 / 44100
    assert_clicks(soundtrack(path), [click + shift + delay for click in CLICKS])


def test_media_end_is_what_is_there_not_what_is_claimed(tmp_path):
    path = write_media(
        tmp_path / "a.mp4", frame_times=TIMES, sounds=[Sound(click_track(6, CLICKS))], options={"movflags": "faststart"}
    )
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with MediaFile(path) as media:
        assert media.container.duration == pytest.approx(6_000_000, abs=50_000)
        assert 0.5 < read_soundtrack(media).media_end < 5


def test_picture_longer_than_sound_sets_the_end(tmp_path):
    track = soundtrack(write_media(tmp_path / "a.mp4", frame_times=TIMES, sounds=[Sound(click_track(2, [0.5]))]))
    assert track.media_end == pytest.approx(6, abs=0.15)
    assert len(track.waveform) / RATE == pytest.approx(2, abs=0.1)


def test_nothing_beyond_the_duration_limit(tmp_path):
    path = write_media(tmp_path / "a.mp4", frame_times=TIMES, sounds=[Sound(click_track(6, CLICKS))])
    track = soundtrack(path, MediaLimits(max_duration=3.0))
    assert track.media_end == 3.0
    assert len(track.waveform) <= 3 * RATE
    assert_clicks(track, CLICKS[:2])


def test_not_a_number_becomes_silence(tmp_path):
    samples = click_track(2, [0.5, 1.5])
    samples[44100:44200] = np.nan
    track = soundtrack(
        write_media(tmp_path / "a.mkv", frame_times=TIMES[:20], sounds=[Sound(samples, codec="pcm_f32le")])
    )
    assert np.isfinite(track.waveform).all()


def test_no_audio(tmp_path):
    with pytest.raises(BadInput, match="no audio track"):
        soundtrack(write_media(tmp_path / "a.mp4", frame_times=TIMES[:5]))


def test_deadline(tmp_path):
    path = write_media(tmp_path / "a.mp4", frame_times=TIMES, sounds=[Sound(click_track(6, CLICKS))])
    with MediaFile(path, deadline=ExpiresAfter(5)) as media, pytest.raises(BadInput, match="expired"):
        read_soundtrack(media)
