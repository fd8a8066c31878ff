"""Pictures of a segment match their data and are self-contained."""

from __future__ import annotations

import base64
import io
import re

import librosa
import numpy as np
import pytest
from PIL import Image

from reserve.tasks.pretrain.pictures import clip_uri, frame_uri, mel_band, spectrogram_uri
from tests.helpers.small_stores import DATA


def decoded(uri: str) -> np.ndarray:
    kind, data = re.fullmatch(r"data:image/(jpeg|png);base64,(.*)", uri).groups()
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.format.lower() == kind
    return np.asarray(image)


def spectrogram(log_mel: np.ndarray, speed: int, masked: np.ndarray) -> str:
    uri = spectrogram_uri(log_mel, speed, np.array([2, 64, 126]), 60, masked, DATA)
    return base64.b64decode(uri.removeprefix("data:image/svg+xml;base64,")).decode()


def test_a_frame_is_the_image():
    image = np.full((32, 48, 3), (200, 40, 90), np.uint8)
    np.testing.assert_allclose(decoded(frame_uri(image)), image, atol=4)


def test_a_clip_has_time_to_the_right_and_low_pitch_at_the_bottom():
    log_mel = np.zeros((60, 64), np.float32)
    log_mel[50:, :8] = 8.0
    brightness = decoded(clip_uri(log_mel)).astype(int).sum(-1)
    assert brightness.shape == (64, 60)
    assert brightness[-8:, 50:].min() > 3 * brightness[:-8].max()
    assert brightness[-8:, 50:].min() > 3 * brightness[:, :50].max()


def test_frequencies_lie_at_the_centres_of_the_frontends_bands():
    centres = librosa.mel_frequencies(n_mels=66, fmin=20, fmax=11025)[1:-1]
    np.testing.assert_allclose([mel_band(frequency, 64) for frequency in centres], np.arange(64), atol=1e-6)


@pytest.mark.parametrize("speed", [1, 2])
def test_a_spectrograms_axes_are_in_seconds_and_hertz(speed):
    svg = spectrogram(np.zeros((188, 64)), speed, np.array([False, True, False]))
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert {"seconds", "Hz (mel scale)", "500", "1k", "2k", "4k", "8k", "0"} <= set(texts)
    assert str(4 * speed) in texts
    assert str(6 * speed) not in texts


def test_a_picture_refers_to_nothing_outside():
    svg = spectrogram(np.ones((188, 64)), 1, np.zeros(3, bool))
    assert not re.findall(r"https?:", re.sub(r'xmlns(:\w+)?="[^"]*"', "", svg))
    assert all(target.startswith(("#", "data:")) for target in re.findall(r'href="([^"]*)"', svg))
    names = set(re.findall(r'\bid="([^"]*)"', svg))
    assert set(re.findall(r'(?:href="|url\()#([^")]*)', svg)) <= names
