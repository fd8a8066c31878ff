"""What every decoder must do, whatever library it uses: sound.

Decoders may differ in the rounding of samples, so sounds tell their own time.
"""

from __future__ import annotations

import numpy as np
import pytest

from reserve.data.decode.protocol import MediaLimits
from reserve.errors import BadInput
from tests.helpers.decoder_cases import CLICKS, RATE, TIMES
from tests.helpers.media_files import (
    Sound,
    click_track,
    find_clicks,
    write_media,
    write_wave,
)


class TestSound:
    @pytest.mark.parametrize(
        ("name", "codec", "rate"), [("a.mp4", "aac", 44100), ("a.mkv", "flac", 96000), ("a.webm", "libopus", 48000)]
    )
    def test_clicks_stay_in_place(self, file_decoder, tmp_path, name, codec, rate):
        path = write_media(tmp_path / name, sounds=[Sound(click_track(6, CLICKS, rate), rate, codec=codec)])
        with file_decoder.open(path) as media:
            track = media.soundtrack()
        assert (track.waveform.dtype, track.sample_rate) == (np.float32, RATE)
        assert len(track.waveform) == pytest.approx(6 * RATE, rel=0.01)
        assert find_clicks(track.waveform, RATE) == pytest.approx(CLICKS, abs=0.002)

    def test_late_sound_follows_silence(self, file_decoder, tmp_path):
        sounds = [Sound(click_track(4, [0.5]), start=1.5)]
        with file_decoder.open(write_media(tmp_path / "a.mp4", frame_times=TIMES, sounds=sounds)) as media:
            waveform = media.soundtrack().waveform
        assert find_clicks(waveform, RATE) == pytest.approx([2.0], abs=0.002)
        assert not waveform[: int(1.4 * RATE)].any()

    def test_choice_of_track(self, file_decoder, tmp_path):
        sounds = [Sound(click_track(6, [1.0])), Sound(click_track(6, [4.0]), layout="stereo")]
        with file_decoder.open(write_media(tmp_path / "a.mp4", frame_times=TIMES, sounds=sounds)) as media:
            for track, click in enumerate([1.0, 4.0]):
                assert find_clicks(media.soundtrack(track=track).waveform, RATE) == pytest.approx([click], abs=0.002)
                assert find_clicks(media.sound(0, 6, track=track), RATE) == pytest.approx([click], abs=0.002)
            for decode in (lambda: media.soundtrack(track=2), lambda: media.sound(0, 1, track=2)):
                with pytest.raises(BadInput, match="no audio track 2: it has 2, counted from 0"):
                    decode()

    @pytest.mark.parametrize(
        ("channels", "mask"),
        [(1, 0x4), (2, 0x3), (6, 0x3F), (8, 0x63F), (1, 0), (2, 0), (3, 0), (6, 0), (9, 0), (16, 0), (17, 0)],
    )
    def test_equal_channels_keep_their_level(self, file_decoder, tmp_path, channels, mask):
        """As in the reference, whose FFmpeg mixes integers: nothing gets louder, nothing clips, and a track without a
        layout (mask 0) has sound too."""
        tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
        path = write_wave(tmp_path / "a.wav", np.repeat(tone[:, None], channels, axis=1), RATE, mask)
        with file_decoder.open(path) as media:
            waveform = media.soundtrack().waveform
        # Mixes leave out the channel for low frequencies, which FFmpeg's weights do not count either.
        np.testing.assert_allclose(waveform[1000:-1000], tone[1000:-1000], atol=0.01)

    @pytest.mark.parametrize("channels", [3, 9])
    def test_every_channel_of_an_unknown_layout_is_heard(self, file_decoder, tmp_path, channels):
        """Silence in all but one: a guessed layout could take it for low frequencies and drop it."""
        for speaking in range(channels):
            samples = np.zeros((RATE, channels))
            samples[:, speaking] = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
            path = write_wave(tmp_path / "a.wav", samples, RATE, 0)
            with file_decoder.open(path) as media:
                loudest = np.abs(media.soundtrack().waveform).max()
            assert loudest == pytest.approx(0.5 / channels, rel=0.02)

    def test_sample_rate(self, file_decoder, video):
        with file_decoder.open(video) as media:
            track = media.soundtrack(sample_rate=16000)
            assert len(media.sound(1, 3, sample_rate=16000)) == 32000
        assert track.sample_rate == 16000
        assert find_clicks(track.waveform, 16000) == pytest.approx(CLICKS, abs=0.002)

    def test_media_end(self, file_decoder, tmp_path):
        """The picture is longer than the sound."""
        path = write_media(tmp_path / "a.mp4", frame_times=TIMES, sounds=[Sound(click_track(2, [0.5]))])
        with file_decoder.open(path) as media:
            track = media.soundtrack()
        assert track.media_end == pytest.approx(6, abs=0.15)
        assert len(track.waveform) / RATE == pytest.approx(2, abs=0.1)

    def test_duration_limit(self, file_decoder, video):
        with file_decoder.open(video, MediaLimits(max_duration=3.0)) as media:
            track = media.soundtrack()
            span = media.sound(1, 6)
        assert track.media_end == 3.0
        assert len(track.waveform) <= 3 * RATE
        assert find_clicks(span, RATE) == pytest.approx([1.0], abs=0.002)
        assert not span[2 * RATE :].any()

    @pytest.mark.parametrize(
        ("start", "stop", "clicks"), [(0, 6, CLICKS), (0, 1, [0.5]), (1.25, 5, [2.0]), (5.25, 6, [5.5])]
    )
    def test_span(self, file_decoder, video, start, stop, clicks):
        with file_decoder.open(video) as media:
            sound = media.sound(start, stop)
            whole = media.soundtrack().waveform
        assert (sound.dtype, len(sound)) == (np.float32, round((stop - start) * RATE))
        assert find_clicks(sound, RATE) == pytest.approx([click - start for click in clicks], abs=0.002)
        first = round(start * RATE)
        common = min(len(sound), len(whole) - first)
        np.testing.assert_allclose(sound[:common], whole[first : first + common], atol=0.02)

    def test_span_after_the_end_is_silence(self, file_decoder, video):
        with file_decoder.open(video) as media:
            assert not media.sound(100, 101).any()
            assert len(media.sound(3, 3)) == 0

    @pytest.mark.parametrize(("start", "stop"), [(-1, 2), (2, 1), (0, np.inf), (np.nan, 1)])
    def test_bad_span(self, file_decoder, video, start, stop):
        with file_decoder.open(video) as media, pytest.raises(ValueError, match="0 <= start <= stop"):
            media.sound(start, stop)

    def test_none(self, file_decoder, tmp_path):
        with file_decoder.open(write_media(tmp_path / "a.mp4", frame_times=TIMES[:5])) as media:
            for decode in (media.soundtrack, lambda: media.sound(0, 1)):
                with pytest.raises(BadInput, match="no audio track"):
                    decode()
