"""Log-mels of segments and their stored form, against the reference's numbers."""

from __future__ import annotations

import numpy as np
import pytest

from reserve.tasks.stored_sound import decode_log_mel, encode_log_mel, subsegments, to_bytes
from reserve.tasks.tvqa.sound import segment_log_mels, segment_samples


@pytest.fixture(scope="module")
def golden(shared_dir):
    with np.load(shared_dir / "golden" / "tvqa_prep.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("case", range(16))
def test_samples_are_the_references(golden, case):
    np.testing.assert_array_equal(segment_samples(golden[f"{case}/times"]), golden[f"{case}/samples"])


def test_stored_log_mels_are_the_references(golden):
    track = golden["audio/track"].astype(np.float32) / 32768

    log_mels = segment_log_mels(track, golden["audio/segments"])
    stored, factor = to_bytes(log_mels)

    np.testing.assert_allclose(subsegments(log_mels), golden["audio/spectrograms"], rtol=0, atol=1e-5)
    assert factor == pytest.approx(float(golden["audio/magic_number"]), rel=1e-6)
    np.testing.assert_array_equal(stored, golden["audio/uint8"])


def test_a_stored_segment_comes_back_within_the_errors_of_a_jpeg(golden):
    log_mels = segment_log_mels(golden["audio/track"].astype(np.float32) / 32768, golden["audio/segments"])
    stored, factor = to_bytes(log_mels)

    read = decode_log_mel(encode_log_mel(stored[0]), factor)

    assert (read[:, -1] == 1).all()
    difference = np.abs(read - np.minimum(log_mels[0], 255 / factor))[:, :-1]
    assert difference.mean() < 2 / factor
    assert read.dtype == np.float32


def test_a_track_is_divided_by_its_peak_and_followed_by_silence():
    track = np.random.default_rng(0).normal(size=30000).astype(np.float32)
    times = np.array([[0.0, 4.6666667], [4.6666667, 9.3333334]])

    log_mels = segment_log_mels(track, times)

    np.testing.assert_allclose(log_mels, segment_log_mels(track / 7, times), atol=1e-4)
    assert log_mels.shape == (2, 180, 65)
    assert not log_mels[1, :, :-1].any()


def test_a_silent_track_stays_silent():
    log_mels = segment_log_mels(np.zeros(1000, np.float32), np.array([[-1.0, 3.6666667]]))

    assert not log_mels[..., :-1].any()
    assert to_bytes(log_mels)[1] == 255.0


def test_a_segment_before_the_track_is_silent():
    log_mels = segment_log_mels(np.ones(30000, np.float32), np.array([[-12.3333, -7.6667], [-4.6666667, 0.0]]))

    assert log_mels.shape == (2, 180, 65)
    assert not log_mels[..., :-1].any()
