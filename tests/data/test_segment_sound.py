"""Spectrograms of segments from their sound, and from FLAC files of it."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from reserve.config import DataConfig
from reserve.data.segment_sound import clip_length, decode_flac, encode_flac, flac_log_mels, log_mels
from reserve.errors import BadInput

RATE = 22050


def speech_like(speed, seed=0):
    rng = np.random.default_rng(seed)
    time = np.arange(clip_length(speed, RATE)) / RATE
    loudness = np.abs(np.sin(3 * time)) * 0.9
    return (loudness * np.sin(2 * np.pi * 200 * time) + 0.02 * rng.standard_normal(len(time))).clip(-1, 1)


@pytest.mark.parametrize("speed", [1, 2, 3])
def test_flac_keeps_16_bits(speed):
    clip = speech_like(speed)
    found = decode_flac(encode_flac(clip, RATE), speed, RATE)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, clip, atol=0.51 / 32767)


def test_full_scale_and_silence_survive():
    clip = np.zeros(clip_length(1, RATE))
    clip[:4] = 1, -1, 1.5, -1.5
    found = decode_flac(encode_flac(clip, RATE), 1, RATE)
    np.testing.assert_array_equal(found[:5], [1, -1, 1, -1, 0])


def test_spectrograms_from_flac_are_those_of_the_sound_to_what_16_bits_round_off():
    speeds = [1, 3, 2, 1]
    clips = [speech_like(speed, number) for number, speed in enumerate(speeds)]
    exact = log_mels(lambda index: clips[index], speeds, DataConfig()).astype(np.float64)
    found = flac_log_mels([encode_flac(clip, RATE) for clip in clips], speeds, DataConfig()).astype(np.float64)
    assert exact.shape == (4, 188, 64)
    assert np.abs(found - exact).max() < 0.02
    assert exact.std() > 0.5


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "its sound cannot be decoded: Format not recognised.$"),
        (b"fLaC" + bytes(200), "its sound cannot be decoded"),
        (encode_flac(np.zeros(100), RATE), "and 100 samples, not FLAC of 1 channel, 22050 Hz and 110250 samples"),
        (encode_flac(np.zeros(clip_length(1, RATE)), 16000), "16000 Hz and"),
    ],
)
def test_other_files_are_refused(data, message):
    with pytest.raises(BadInput, match=message):
        decode_flac(data, 1, RATE)


def test_other_formats_and_channels_are_refused():
    for options in ({"format": "WAV"}, {"format": "FLAC"}):
        file = io.BytesIO()
        soundfile.write(file, np.zeros((clip_length(1, RATE), 2), np.int16), RATE, **options)
        with pytest.raises(BadInput, match=r"2 channel\(s\)"):
            decode_flac(file.getvalue(), 1, RATE)


def test_a_cut_file_is_refused():
    data = encode_flac(speech_like(1), RATE)
    with pytest.raises(BadInput, match="its sound"):
        decode_flac(data[: len(data) // 2], 1, RATE)
