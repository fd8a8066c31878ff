"""The sound of a scene: the shape sets timbre and rhythm, the colour sets the pitch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from reserve.synthetic.story import COLOURS, SHAPES, Scene

LOWEST_PITCH, HIGHEST_PITCH = 400.0, 5200.0
"""Hz. The ten colours are spaced between them at equal ratios (1.33), at least two mel bands apart."""
LOUDNESS = 0.11
"""RMS of every scene's sound, relative to full scale: a little louder than the speech mixed into it."""
FADE_SECONDS = 0.03


def pitch_of(colour: str) -> float:
    """Centre frequency of a colour's sound in Hz."""
    position = list(COLOURS).index(colour) / (len(COLOURS) - 1)
    return LOWEST_PITCH * (HIGHEST_PITCH / LOWEST_PITCH) ** position


def scene_sound(scene: Scene, seconds: float, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """`seconds` of the sound of `scene`: float32 [round(seconds * sample_rate)]."""
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    sound = TIMBRES[scene.shape](time, pitch_of(scene.colour), rng)
    sound *= LOUDNESS / max(float(np.sqrt(np.mean(sound**2))), 1e-9)
    fade = np.minimum(1, np.minimum(time, time[-1] - time) / FADE_SECONDS)
    return (sound * fade).astype(np.float32)


def _sine(phase: np.ndarray) -> np.ndarray:
    """Sine of a phase counted in periods."""
    return np.sin(2 * np.pi * phase)


def _strikes(time: np.ndarray, rate: float, decay: float) -> np.ndarray:
    """Envelope of something struck `rate` times a second, with the time constant `decay` in seconds."""
    return np.exp(-((time * rate) % 1) / rate / decay)


def _band_noise(time: np.ndarray, pitch: float, width: float, rng: np.random.Generator) -> np.ndarray:
    """Noise of bandwidth `width` * `pitch` around `pitch`: a carrier modulated by slow noise."""
    spacing = 1 / (pitch * width)
    knots = np.arange(0, time[-1] + 2 * spacing, spacing) if time.size else np.zeros(1)
    in_phase, quadrature = (np.interp(time, knots, rng.standard_normal(len(knots))) for _ in range(2))
    return in_phase * _sine(time * pitch) + quadrature * _sine(time * pitch + 0.25)


def _hum(time: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    return _sine(time * pitch) + 0.15 * _sine(time * pitch * 2)


def _drum(time: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    return _band_noise(time, pitch, 0.5, rng) * _strikes(time, 2.5, 0.07)


def _chime(time: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    partials = ((1.0, 1.0, 0.5), (1.5, 0.5, 0.35), (2.1, 0.35, 0.2))
    return sum(
        (gain * _sine(time * pitch * ratio) * _strikes(time, 1.4, decay) for ratio, gain, decay in partials),
        start=np.zeros_like(time),
    )


def _chirp(time: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    rate, length = 4.0, 0.6  # chirps a second; fraction of each that is audible
    position = (time * rate) % 1
    phase = pitch * (0.8 * position + 0.35 * position**2) / rate  # from 0.8 to 1.22 times the pitch
    return _sine(phase) * np.sin(np.pi * np.minimum(position / length, 1))


def _thump(time: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    """Two beats, then a rest, like a heart."""
    position = (time * 1.2) % 1
    beats = np.exp(-(((position - 0.1) / 0.06) ** 2)) + np.exp(-(((position - 0.38) / 0.06) ** 2))
    return _sine(time * pitch) * beats


def _wail(time: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    rate, depth = 0.9, 0.22
    return _sine(time * pitch - depth * pitch * np.cos(2 * np.pi * rate * time) / (2 * np.pi * rate))


def _buzz(time: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    """A dense comb of tones 90 Hz apart around the pitch, beating as one."""
    return _sine(time * pitch) * (1 + sum(np.cos(2 * np.pi * 90 * k * time) for k in range(1, 4)))


def _trill(time: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    high = (time * 3) % 1 >= 0.5
    return np.where(high, _sine(time * pitch * 1.19), _sine(time * pitch / 1.19))


def _hiss(time: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    return _band_noise(time, pitch, 0.35, rng) * (1 + 0.3 * _sine(time * 0.5))


def _tick(time: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    return _sine(time * pitch) * _strikes(time, 7.0, 0.012)


TIMBRES: dict[str, Callable[[np.ndarray, float, np.random.Generator], np.ndarray]] = dict(
    zip(SHAPES, (_hum, _drum, _chime, _chirp, _thump, _wail, _buzz, _trill, _hiss, _tick), strict=True)
)
"""Timbre of each shape. All have most of their energy around the pitch."""
