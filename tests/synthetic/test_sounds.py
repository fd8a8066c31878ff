import numpy as np
import pytest

from reserve.synthetic.sounds import LOUDNESS, pitch_of, scene_sound
from reserve.synthetic.story import COLOURS, SHAPES, Scene

RATE = 22050


def sound(colour: str, shape: str, seconds: float = 3.0) -> np.ndarray:
    return scene_sound(Scene(colour, shape, 1, "left", "beach"), seconds, RATE, np.random.default_rng(0))


def spectrum(waveform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.fft.rfftfreq(len(waveform), 1 / RATE), np.abs(np.fft.rfft(waveform)) ** 2


def bands(waveform: np.ndarray) -> np.ndarray:
    """Log power in 24 bands over 90 frames, unit norm: a rough log-mel picture."""
    frames = waveform[: 90 * 735].reshape(90, 735)
    power = np.abs(np.fft.rfft(frames * np.hanning(735))) ** 2
    edges = np.geomspace(6, 360, 25).astype(int)
    picture = np.log(np.add.reduceat(power, edges[:-1], axis=1) + 1e-2)
    return (picture - picture.mean()) / np.linalg.norm(picture - picture.mean())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("colour", ["red", "blue", "white"])
def test_most_energy_lies_around_the_pitch(colour, shape):
    frequency, power = spectrum(sound(colour, shape))
    near = (frequency > pitch_of(colour) / 1.8) & (frequency < pitch_of(colour) * 1.8)
    assert power[near].sum() > 0.7 * power.sum()


def test_pitch_rises_by_equal_ratios_below_the_limit_of_the_mel_bands():
    pitches = np.array([pitch_of(colour) for colour in COLOURS])
    np.testing.assert_allclose(pitches[1:] / pitches[:-1], pitches[1] / pitches[0])
    assert pitches[-1] * 2.1 < RATE / 2  # the highest partial of a chime


@pytest.mark.parametrize("shape", SHAPES)
def test_all_sounds_are_equally_loud_and_last_the_whole_scene(shape):
    waveform = sound("green", shape)
    assert np.sqrt(np.mean(waveform**2)) == pytest.approx(LOUDNESS, rel=0.05)
    seconds = waveform.reshape(3, RATE)
    assert np.sqrt(np.mean(seconds**2, axis=1)).min() > 0.5 * LOUDNESS


def test_sounds_of_different_shapes_and_colours_differ():
    pictures = [bands(sound(colour, shape)) for colour in ("red", "blue", "white") for shape in SHAPES]
    similarity = np.array([[np.sum(a * b) for a in pictures] for b in pictures])
    np.fill_diagonal(similarity, 0)
    assert similarity.max() < 0.95


def test_length_is_rounded_to_samples():
    sound_of_a_moment = sound("red", "moon", 0.1001)
    assert sound_of_a_moment.shape == (2207,)
    assert sound_of_a_moment.dtype == np.float32
