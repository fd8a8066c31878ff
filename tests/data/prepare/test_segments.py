"""Cutting, words, spectrograms and stored frames of segments."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reserve.config import DataConfig
from reserve.data.decode.protocol import Soundtrack
from reserve.data.images import decode_jpeg
from reserve.data.prepare.segments import SegmentSound, Window, cut_windows, stored_frames, video_rng, window_words
from reserve.data.types import Word
from reserve.errors import BadInput
from reserve_kernels import log_mel_spectrogram

RATE = 22050


def steady(words_per_second, seconds, start=0.0):
    step = 1 / words_per_second
    return [Word("w", start + i * step, start + (i + 1) * step) for i in range(int(seconds * words_per_second))]


def log_mels(track, windows, config):
    return SegmentSound.of(track, windows, config.sample_rate).log_mels(config)


def cut(words, duration, seed=0):
    return cut_windows(words, duration, np.random.default_rng(seed))


def test_dense_speech_is_cut_at_speed_1_until_the_last_second():
    windows = cut(steady(2, 60), 60)
    assert {window.playback_speed for window in windows} == {1}
    assert windows[0].start == 0
    assert [window.start for window in windows] == [5.0 * i for i in range(11)]


def test_start_lies_up_to_half_a_segment_before_the_first_word():
    starts = [cut(steady(2, 40, start=10), 60, seed)[0].start for seed in range(300)]
    assert min(starts) >= 7.5
    assert max(starts) <= 10
    assert np.mean(starts) == pytest.approx(8.75, abs=0.15)


def test_sparse_speech_is_sped_up_unless_chance_stops_the_search():
    # 3 words in 5 s: 8 are reached at speed 3; before, each speed stops with probability 0.1.
    speeds = np.array([cut(steady(0.6, 100), 100, seed)[0].playback_speed for seed in range(2000)])
    shares = [(speeds == speed).mean() for speed in (1, 2, 3)]
    assert shares == pytest.approx([0.1, 0.09, 0.81], abs=0.03)


def test_dense_stretch_ahead_stops_the_search():
    # Nothing in the first window, 20 words right after it: extending would reach 16 words.
    words = [Word("w", 0.0, 0.1), *steady(4, 5, start=5.2)]
    assert {cut(words, 60, seed)[0].playback_speed for seed in range(50)} == {1}


def test_end_of_the_video_stops_the_search():
    assert {cut(steady(0.6, 11), 11.5, seed)[0].playback_speed for seed in range(50)} == {1, 2}
    assert {cut(steady(0.6, 10), 10.9, seed)[0].playback_speed for seed in range(50)} == {1}


def test_cutting_stops_after_the_last_word():
    assert cut(steady(2, 20), 60)[-1].end == 20


@pytest.mark.parametrize(("words", "duration"), [([], 60), (steady(2, 5), 5.9), (steady(2, 3, start=55), 56)])
def test_too_short(words, duration):
    assert cut(words, duration) == []


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 200), st.floats(0, 2)), min_size=1, max_size=120),
    st.floats(0, 220),
    st.integers(0, 1000),
)
def test_windows_follow_each_other_and_hold_their_words(times, duration, seed):
    words = sorted((Word("w", start, start + length) for start, length in times), key=lambda w: w.start + w.end)
    windows = cut(words, duration, seed)
    for before, after in pairwise(windows):
        assert before.end == after.start
        assert before.words.stop == after.words.start
    for window in windows:
        assert window.end <= duration - 1 + 0.01
        for index in window.words:
            assert (words[index].start + words[index].end) / 2 < window.end + 0.01
    if windows:
        rest = words[windows[-1].words.stop :]
        assert all((word.start + word.end) / 2 >= windows[-1].end - 0.01 for word in rest)


def test_word_times_are_relative_and_divided_by_the_speed():
    words = [Word("a", 1, 2), Word("b", 11.0, 12.0), Word("c", 14.0, 16.0)]
    assert window_words(words, Window(10.0, 2, range(1, 3))) == [Word("b", 0.5, 1.0), Word("c", 2.0, 3.0)]


def test_random_numbers_depend_on_seed_and_id_alone():
    draws = [video_rng(seed, name).uniform() for seed, name in [(1, "a"), (1, "a"), (2, "a"), (1, "b")]]
    assert draws[0] == draws[1]
    assert len(set(draws)) == 3
    assert draws[0] == pytest.approx(0.5, abs=0.5)


@pytest.mark.parametrize("speed", [1, 2, 3])
def test_log_mel_of_a_window(speed):
    waveform = np.random.default_rng(speed).standard_normal(40 * RATE).astype(np.float32)
    window = Window(3.0, speed, range(0))
    (mel,) = log_mels(Soundtrack(waveform, RATE, 40.0), [window], DataConfig())
    clip = waveform[3 * RATE : (3 + 5 * speed) * RATE] / np.abs(waveform).max()
    expected = log_mel_spectrogram(torch.from_numpy(clip), playback_speed=speed)
    assert mel.shape == (188, 64)
    assert mel.dtype == np.float16
    np.testing.assert_allclose(mel, expected, atol=5e-3)


def test_log_mels_keep_the_order_of_windows_of_different_speeds():
    waveform = np.random.default_rng(0).standard_normal(40 * RATE).astype(np.float32)
    track = Soundtrack(waveform, RATE, 40.0)
    windows = [
        Window(0.0, 2, range(0)),
        Window(10.0, 1, range(0)),
        Window(15.0, 2, range(0)),
        Window(25.0, 3, range(0)),
    ]
    together = log_mels(track, windows, DataConfig())
    alone = np.concatenate([log_mels(track, [window], DataConfig()) for window in windows])
    np.testing.assert_allclose(together, alone, atol=5e-3)


def test_loudness_of_the_recording_does_not_matter():
    waveform = np.random.default_rng(0).standard_normal(6 * RATE).astype(np.float32)
    mels = [
        log_mels(Soundtrack(waveform * gain, RATE, 6.0), [Window(0.0, 1, range(0))], DataConfig())
        for gain in (0.25, 1.0)
    ]
    np.testing.assert_allclose(*mels, atol=5e-3)


def test_sound_that_ends_early_is_followed_by_silence():
    waveform = np.random.default_rng(0).standard_normal(6 * RATE).astype(np.float32)
    windows = [Window(3.5, 1, range(0)), Window(8.5, 1, range(0))]
    partly, after = log_mels(Soundtrack(waveform, RATE, 20.0), windows, DataConfig())
    assert partly[:90].min() > 0
    assert np.abs(partly[97:]).max() < 1e-3
    assert np.abs(after).max() < 1e-3


def test_silent_track_is_silence():
    (mel,) = log_mels(Soundtrack(np.zeros(6 * RATE, np.float32), RATE, 6.0), [Window(0.0, 1, range(0))], DataConfig())
    assert np.abs(mel).max() < 1e-3


def test_wrong_spec_size_is_named():
    track = Soundtrack(np.zeros(6 * RATE, np.float32), RATE, 6.0)
    with pytest.raises(ValueError, match=r"data\.spec_size is 100, but .* has 188"):
        log_mels(track, [Window(0.0, 1, range(0))], DataConfig(spec_size=100))


def test_stored_frames_are_bounded_and_without_bars():
    frame = np.zeros((1080, 1920, 3), dtype=np.uint8)
    frame[108:972] = 120
    stored = [decode_jpeg(jpeg) for jpeg in stored_frames(iter([frame, frame // 2]))]
    # 864 of 1080 rows are left: 1920x864 scaled to 512 wide.
    assert [image.shape for image in stored] == [(230, 512, 3)] * 2
    assert stored[0].mean() == pytest.approx(120, abs=3)


def test_frames_that_change_size_midway_are_made_equal():
    frames = [np.full(size, 100, dtype=np.uint8) for size in [(200, 300, 3), (100, 150, 3)]]
    assert [decode_jpeg(jpeg).shape for jpeg in stored_frames(frames)] == [(200, 300, 3)] * 2


def test_frames_compressed_in_threads_are_the_same():
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (40, 60, 3), dtype=np.uint8) for _ in range(9)]
    assert stored_frames(iter(frames), threads=3) == stored_frames(frames)

    def failing():
        yield frames[0]
        raise BadInput("its frames are scrambled")

    with pytest.raises(BadInput, match="scrambled"):
        stored_frames(failing(), threads=3)
