"""Pictures match their data and are self-contained."""

from __future__ import annotations

import base64
import io
import re

import librosa
import numpy as np
import pytest
from PIL import Image

from reserve.report.pictures import MAX_POINTS, clip_uri, curves_svg, frame_uri, mel_band, spectrogram_svg, thinned
from tests.helpers.small_stores import DATA


def decoded(uri: str) -> np.ndarray:
    kind, data = re.fullmatch(r"data:image/(jpeg|png);base64,(.*)", uri).groups()
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.format.lower() == kind
    return np.asarray(image)


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
    svg = spectrogram_svg(np.zeros((188, 64)), speed, np.array([2, 64, 126]), 60, np.array([False, True, False]), DATA)
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert {"seconds", "Hz (mel scale)", "500", "1k", "2k", "4k", "8k", "0"} <= set(texts)
    assert str(4 * speed) in texts
    assert str(6 * speed) not in texts


def test_lines_are_named_and_each_chance_level_is_drawn():
    lines = {"a <b>": [2.0, 1.0, 0.5], "c": [3.0, float("nan"), 1.0]}
    svg = curves_svg("A “title” & more", [1, 2, 3], lines, {"a <b>": 2.5, "c": 3.5})
    assert "a &lt;b&gt;" in svg
    assert 'aria-label="A “title” &amp; more"' in svg
    assert svg.count("stroke-dasharray") >= 2 + 1
    assert "chance" in svg


@pytest.mark.parametrize("steps", [[], [5]], ids=["no step", "one step"])
def test_few_steps_are_drawn_too(steps):
    assert curves_svg("few", steps, {"loss": [1.0] * len(steps)}, {}).startswith("<svg")


def test_a_picture_refers_to_nothing_outside():
    svg = spectrogram_svg(np.ones((188, 64)), 1, np.array([2, 64, 126]), 60, np.zeros(3, bool), DATA)
    assert "http" not in svg
    assert "xmlns" not in svg
    assert all(target.startswith(("#", "data:")) for target in re.findall(r'href="([^"]*)"', svg))
    names = set(re.findall(r'\bid="([^"]*)"', svg))
    assert set(re.findall(r'(?:href="|url\()#([^")]*)', svg)) <= names


def test_the_same_picture_is_the_same_text():
    one, two = (curves_svg("t", [1, 2], {"loss": [2.0, 1.0]}, {"loss": 3.0}) for _ in range(2))
    assert one == two


def test_long_curves_are_averaged_and_short_ones_kept():
    x = np.arange(4 * MAX_POINTS + 1.0)
    thin_x, thin_y = thinned(x, 2 * x)
    assert len(thin_x) <= MAX_POINTS
    np.testing.assert_allclose(thin_y, 2 * thin_x)
    assert thin_x[0] == x[:5].mean()
    assert thin_x[-1] == x[-1]
    np.testing.assert_array_equal(thinned(x[:MAX_POINTS], x[:MAX_POINTS])[0], x[:MAX_POINTS])
