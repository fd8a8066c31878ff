from __future__ import annotations

import numpy as np
import pytest

from reserve.data.video_sound import TimeSpan, normalized, segment_clips, segment_sound

RATE = 22050


def test_clips_are_the_references(shared_dir):
    with np.load(shared_dir / "golden/zero_shot.npz") as golden:
        track = normalized(golden["track"].astype(np.float32) / 32768)
        spans = [TimeSpan(*times) for times in golden["audio_times"].tolist()]
        clips = segment_clips(track, spans)
        np.testing.assert_allclose(clips, golden["audio_spectrograms"], rtol=1e-5, atol=1e-5)
        assert (clips[..., -1] == 1).all()


@pytest.mark.parametrize(
    ("span", "first", "last"),
    [
        (TimeSpan(2.0, 4.0, 3.0), 1.5, 3.5),  # in the middle of 5 s
        (TimeSpan(1.0, 9.0, 5.0), 0.0, 5.0),  # replaced by 2.5 to 7.5
        (TimeSpan(0.0, 6.0, 1.0), 1.5, 5.0),  # -1.5 to 3.5: silence before the track
        (TimeSpan(9.0, 12.0, 10.5), 1.0, 2.0),  # silence after the track
        (TimeSpan(20.0, 22.0, 21.0), 0.0, 0.0),
        (TimeSpan(3.0, 3.0, 3.0), 0.0, 0.0),
    ],
)
def test_where_a_segment_lies_in_its_five_seconds(span, first, last):
    sound = segment_sound(np.ones(10 * RATE, np.float32), span)
    heard = np.flatnonzero(sound)
    assert sound.shape == (5 * RATE,)
    assert len(heard) == pytest.approx((last - first) * RATE, abs=1)
    if len(heard):
        assert heard[0] == pytest.approx(first * RATE, abs=1)
        assert np.diff(heard).max() == 1


@pytest.mark.parametrize("start", np.round(np.linspace(0, 3, 50), 3).tolist())
def test_five_seconds_are_110250_samples_at_any_time(start):
    sound = segment_sound(np.ones(9 * RATE, np.float32), TimeSpan(start, start + 5, start + 2.5))
    assert (sound != 0).sum() >= 5 * RATE - 1


def test_a_track_is_divided_by_its_peak_and_silence_stays_silent():
    assert normalized(np.array([0.1, -0.5, 0.0], np.float32)).tolist() == pytest.approx([0.2, -1, 0])
    assert not normalized(np.zeros(4, np.float32)).any()
    quiet = normalized(np.full(4, 1e-6, np.float32))
    assert quiet.max() == pytest.approx(1e-6 * 32768)
    assert normalized(np.zeros(0, np.float32)).shape == (0,)


def test_a_track_of_16_bit_integers_is_divided_by_its_peak():
    loud = normalized(np.array([-32768, 16384], np.int16))
    assert loud.tolist() == [-1, 0.5]
    assert loud.dtype == np.float32
    assert normalized(np.array([0, -1], np.int16)).tolist() == [0, -1]
    assert not normalized(np.zeros(3, np.int16)).any()


def test_more_spans_than_are_computed_at_once_keep_their_order(monkeypatch):
    track = np.random.default_rng(0).standard_normal(20 * RATE).astype(np.float32)
    spans = [TimeSpan(i, i + 2, i + 1) for i in range(5)]
    whole = segment_clips(track, spans)
    monkeypatch.setattr("reserve.data.video_sound._BATCH", 2)
    assert np.array_equal(segment_clips(track, spans), whole)
    assert segment_clips(track, []).shape == (0, 3, 60, 65)
