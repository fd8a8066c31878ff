"""From the arguments of log_mel_spectrogram, a preset and what overrides it, to checked settings."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from reserve_kernels.checks import FLOATING, check_integer, check_real
from reserve_kernels.log_mel.filters import NORMS, SCALES
from reserve_kernels.log_mel.padding import PAD_MODES
from reserve_kernels.log_mel.presets import DEFAULTS, PRESETS
from reserve_kernels.log_mel.settings import FRAMINGS, LOGS, LogMelSettings
from reserve_kernels.log_mel.windows import GIVEN, WINDOWS

MAX_INT32 = 2**31 - 1
"""The C interface's integers have 32 bits."""
LEAST_LOG, MOST_LOG = 1e-30, 1e30
"""What a logarithm is taken of is at least, and silence at most."""

_CHOICES = {
    "framing": FRAMINGS,
    "pad_mode": PAD_MODES,
    "mel_scale": SCALES,
    "mel_norm": NORMS,
    "log": tuple(LOGS),
}
_FLAGS = ("drop_last", "remove_dc", "relative", "bands_first")
_NUMBERS = ("sample_rate", "sample_scale", "preemphasis", "f_min", "floor", "offset", "out_scale", "out_shift")


def settings_of(
    preset: str, overrides: Mapping[str, Any], playback_speed: int = 1
) -> tuple[LogMelSettings, torch.Tensor | None]:
    """The settings, and the window if it is a tensor.

    Args:
        preset: a name in PRESETS.
        overrides: arguments by name; None for the preset's own.
        playback_speed: multiplies n_fft, hop_length and win_length.

    Raises:
        TypeError, ValueError: as log_mel_spectrogram.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    if not isinstance(preset, str):
        raise TypeError(f"preset must be a name; got {type(preset).__name__}")
    window = given.pop("window", None)
    if not isinstance(window, (str, torch.Tensor, type(None))):
        # NumPy's arrays too: a window belongs on the waveform's device.
        raise TypeError(f"window must be a name or a torch.Tensor; got {type(window).__name__}")
    name = GIVEN if isinstance(window, torch.Tensor) else window
    if isinstance(window, str) and window not in WINDOWS:
        raise ValueError(f"window must be one of {_listed(WINDOWS)} or a torch.Tensor; got {window!r}")
    plain = all(isinstance(value, (str, bool, int, float)) for value in given.values())
    if torch.compiler.is_compiling() or not plain:
        settings = _checked(preset, given, name, playback_speed)
    else:
        # Checking takes as long as the spectrogram of a second. The types count, since 64 and 64.0 are equal.
        types = tuple((key, type(value), value) for key, value in given.items())
        settings = _known(preset, playback_speed, types, name)
    if not isinstance(window, torch.Tensor):
        return settings, None
    _check_window(window, settings.length)
    return settings, window


@functools.lru_cache(maxsize=256, typed=True)
def _known(
    preset: str, playback_speed: int, given: tuple[tuple[str, type, Any], ...], window: str | None
) -> LogMelSettings:
    return _checked(preset, {name: value for name, _, value in given}, window, playback_speed)


def _checked(preset: str, given: Mapping[str, Any], window: str | None, playback_speed: int) -> LogMelSettings:
    """The settings of a preset with what is `given`, and the window's name if it is not the preset's."""
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {_listed(PRESETS)}; got {preset!r}")
    unknown = given.keys() - DEFAULTS.keys()
    if unknown:
        raise TypeError(f"{_listed(sorted(unknown))} is no parameter of a front end; those are {_listed(DEFAULTS)}")
    values = DEFAULTS | dict(PRESETS[preset].arguments) | dict(given) | ({} if window is None else {"window": window})
    if "n_fft" in given and "win_length" not in given and isinstance(values["win_length"], int):
        # A preset's window belongs to its transform.
        raise ValueError(f"win_length must be given with n_fft, since that of preset {preset!r} is its own")
    _check_integers(values, playback_speed)
    if values["win_length"] is None:
        values["win_length"] = values["n_fft"]
    if values["win_length"] > values["n_fft"]:
        raise ValueError(f"win_length must be at most n_fft = {values['n_fft']}; got {values['win_length']}")
    for name, allowed in _CHOICES.items():
        if values[name] not in allowed:
            raise ValueError(f"{name} must be one of {_listed(allowed)}; got {values[name]!r}")
    for name in _FLAGS:
        if not isinstance(values[name], bool):
            raise TypeError(f"{name} must be a bool; got {values[name]!r}")
    _check_numbers(values)
    for name in ("n_fft", "hop_length", "win_length"):
        values[name] = int(values[name]) * int(playback_speed)
    if values["win_length"] == values["n_fft"]:
        values["win_length"] = 0
    for name in (*_NUMBERS, "f_max", "dynamic_range"):
        values[name] = float(values[name])
    return LogMelSettings(**values)


def check_output(settings: LogMelSettings, append_speed: bool, out_dtype: torch.dtype | None) -> None:
    """Raises TypeError or ValueError unless the output can be as asked for."""
    if out_dtype is not None and out_dtype not in FLOATING:
        raise TypeError(f"out_dtype must be a floating-point dtype of 16 to 64 bits; got {out_dtype}")
    if append_speed and settings.bands_first:
        raise ValueError("append_speed must be False with bands_first: it appends a column to each frame")


def _listed(names: Any) -> str:
    return ", ".join(repr(name) for name in names)


def _check_integers(values: dict[str, Any], playback_speed: int) -> None:
    least = {"n_fft": 2, "hop_length": 1, "n_mels": 1}
    if values["win_length"] is not None:
        least["win_length"] = 1
    check_integer("playback_speed", playback_speed, 1, MAX_INT32)
    for name, smallest in least.items():
        check_integer(name, values[name], smallest, MAX_INT32)
    for name in ("n_fft", "hop_length"):
        if values[name] * playback_speed > MAX_INT32:
            raise ValueError(
                f"{name} * playback_speed must be at most {MAX_INT32}; "
                f"got {name}={values[name]}, playback_speed={playback_speed}"
            )
    check_integer("power", values["power"], 1, 2)


def _check_numbers(values: dict[str, Any]) -> None:
    for name in _NUMBERS:
        check_real(name, values[name])
    if values["sample_rate"] <= 0:
        raise ValueError(f"sample_rate must be above 0; got {values['sample_rate']}")
    half = values["sample_rate"] / 2
    if values["f_max"] is None:
        values["f_max"] = half
    check_real("f_max", values["f_max"])
    if not 0 <= values["f_min"] < values["f_max"] <= half:
        raise ValueError(
            f"f_min and f_max must satisfy 0 <= f_min < f_max <= sample_rate / 2 = {half}; "
            f"got f_min={values['f_min']}, f_max={values['f_max']}"
        )
    for name in ("sample_scale", "out_scale"):
        if values[name] == 0:
            raise ValueError(f"{name} must not be 0")
    if not 0 <= values["preemphasis"] <= 1:
        raise ValueError(f"preemphasis must be from 0 to 1; got {values['preemphasis']}")
    if values["log"] == "none":
        values.update(floor=0.0, offset=0.0, relative=False)
    elif values["floor"] < 0 or values["offset"] < 0 or not LEAST_LOG <= values["floor"] + values["offset"] <= MOST_LOG:
        raise ValueError(
            f"offset + floor must be from {LEAST_LOG} to {MOST_LOG}, and neither below 0; "
            f"got offset={values['offset']}, floor={values['floor']}"
        )
    limit = values["dynamic_range"]
    if isinstance(limit, bool) or not isinstance(limit, (int, float, np.integer, np.floating)):
        raise TypeError(f"dynamic_range must be a number; got {limit!r}")
    if not limit > 0:
        raise ValueError(f"dynamic_range must be above 0, or math.inf for no limit; got {limit}")


def _check_window(window: torch.Tensor, length: int) -> None:
    """Raises TypeError or ValueError unless the tensor can be a window of `length` samples."""
    if not window.is_floating_point():
        raise TypeError(f"window must be floating-point; got {str(window.dtype).removeprefix('torch.')}")
    if tuple(window.shape) != (length,):
        raise ValueError(f"window must be [win_length * playback_speed] = [{length}]; got {list(window.shape)}")
    if window.requires_grad:
        raise ValueError("window must not require a gradient: it gets none")
