"""Stored log-mels: the factor, the errors of a JPEG, and damage. test_sound.py of TVQA compares with the reference."""

from __future__ import annotations

import numpy as np
import pytest

from reserve.errors import BadInput
from reserve.tasks.stored_sound import decode_log_mel, encode_log_mel, subsegments, to_bytes


def test_loud_values_are_cut_and_quiet_examples_are_not_blown_up():
    loud = np.full((1, 180, 65), 2, np.float32)
    loud[0, 0, 0] = 100

    values, factor = to_bytes(loud)

    assert factor == 127.5
    assert values[0, 0, 0] == 255
    assert values[0, 1, 1] == 255
    assert to_bytes(np.full((1, 180, 65), 0.01, np.float32))[1] == 255


def test_values_are_truncated():
    values, _ = to_bytes(np.full((2, 180, 65), 0.999 / 255, np.float32))

    assert not values.any()


def test_smooth_sound_survives_storing():
    wave = 3 + np.sin(np.linspace(0, 9, 180 * 65)).reshape(1, 180, 65).astype(np.float32)
    values, factor = to_bytes(wave)

    read = decode_log_mel(encode_log_mel(values[0]), factor)

    assert np.abs(read - np.minimum(wave[0], 255 / factor))[:, :-1].mean() < 0.05
    assert (read[:, -1] == 1).all()


def test_subsegments_are_thirds():
    parts = subsegments(np.arange(2 * 180 * 65).reshape(2, 180, 65))

    assert parts.shape == (2, 3, 60, 65)
    assert parts[1, 2, 0, 0] == (180 + 120) * 65


def test_a_damaged_spectrogram_is_refused():
    jpeg = encode_log_mel(np.zeros((180, 65), np.uint8))

    with pytest.raises(BadInput, match="not a complete JPEG"):
        decode_log_mel(jpeg[:100], 1.0)
    with pytest.raises(BadInput, match="180 x 65; it is 10 x 65"):
        decode_log_mel(encode_log_mel(np.zeros((10, 65), np.uint8)), 1.0)
