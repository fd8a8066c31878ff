"""Any layout of channels to mono at one sample rate, through FFmpeg's resampler."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import numpy as np

from reserve.data.decode.pyav.container import decoding_failures, import_av

_UNKNOWN_LAYOUT = re.compile(r"\d+ channels")
_PROBE_RATE = 48_000
_PROBE_SAMPLES = 1024


class MonoResampler:
    """Resamples frames of one channel layout to mono float32.

    The weights of the channels are FFmpeg's, scaled to a sum of 1, as `ffmpeg -ac 1` does for integer samples: equal
    channels keep their level, and nothing clips. Channels without a layout weigh the same. Of an ambisonic track, the
    omnidirectional channel is taken.
    """

    def __init__(self, layout: str, sample_rate: int) -> None:
        gain = _mono_gain(layout)
        self._scale = None if gain is None else np.float32(1 / max(gain, 1.0))
        self._takes_first = layout.startswith("ambisonic")
        into = layout if gain is None else "mono"
        self._resampler = import_av().AudioResampler(format="flt", layout=into, rate=sample_rate)

    def resample(self, frame: Any) -> list[np.ndarray]:
        """Float32 samples that `frame` completes; None for what is left at the end."""
        parts = []
        for part in self._resampler.resample(frame):
            # Packed samples: PyAV crashes on more than eight planes.
            samples = part.to_ndarray().reshape(part.samples, -1)
            if self._scale is not None:
                parts.append(samples[:, 0] * self._scale)
            else:
                parts.append(samples[:, 0] if self._takes_first else samples.mean(axis=1))
        return parts


@cache
def _mono_gain(layout: str) -> float | None:
    """The sum of the weights with which FFmpeg mixes `layout` to mono, or None if the layout says too little for it."""
    av = import_av()
    unknown = _UNKNOWN_LAYOUT.fullmatch(layout)
    if layout.startswith("ambisonic") or (unknown and int(layout.split()[0]) > 2):
        return None
    try:
        channels = av.AudioLayout(layout).nb_channels
        ones = av.AudioFrame(format="flt", layout=layout, samples=_PROBE_SAMPLES)
        ones.rate = _PROBE_RATE
        ones.planes[0].update(np.ones(_PROBE_SAMPLES * channels, dtype=np.float32).tobytes())
        mixed = av.AudioResampler(format="flt", layout="mono", rate=_PROBE_RATE).resample(ones)
    except decoding_failures():
        return None
    return float(mixed[0].to_ndarray().max())
