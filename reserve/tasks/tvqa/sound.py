"""A clip's sound as log-mels of its segments, and their stored form (TASKS 2)."""

from __future__ import annotations

import io

import numpy as np

from reserve.config import MEL_CHANNELS
from reserve.errors import BadInput

SAMPLE_RATE = 22620
"""Hz. The spectrogram takes these samples for 22050 Hz: a segment of 4.67 s then has the frames of three subsegments
without gaps."""
SEGMENT_FRAMES = 180
SUBSEGMENTS = 3
SUBSEGMENT_FRAMES = SEGMENT_FRAMES // SUBSEGMENTS
JPEG_QUALITY = 95
_MAX_BYTE = 255
_LOUDEST_PERCENTILE = 99


def segment_samples(times: np.ndarray) -> np.ndarray:
    """Where segments lie in a track: int64 [n, 3], the first sample, the one after the last, and the zeros in front.

    `times` [n, 2] seconds. A segment that starts before the track has one zero more than it lacks samples, as released.
    """
    samples = (SAMPLE_RATE * times).astype(np.int64)
    zeros = np.where(samples[:, 0] < 0, 1 - samples[:, 0], 0)
    return np.column_stack((samples, zeros))


def segment_log_mels(waveform: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Log-mels of segments of a track: float32 [n, 180, 65], the last channel 1, the playback speed.

    `waveform` float32 [samples] at SAMPLE_RATE, the whole track in [-1, 1]; it is divided by its peak. `times` [n, 2]
    seconds; beyond the track there is silence.
    """
    import torch

    from reserve_kernels import log_mel_spectrogram

    # The release divides int16 samples by at least 1, so a silent track stays silent.
    peak = max(float(np.abs(waveform).max(initial=0.0)), 1 / 32768)
    clips = [_clip(waveform, *row) / np.float32(peak) for row in segment_samples(times).tolist()]
    lengths = [len(clip) for clip in clips]
    spectrograms = log_mel_spectrogram(
        torch.from_numpy(np.concatenate(clips)),
        offsets=torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int64),
        max_samples=max(lengths),
        append_speed=True,
    )
    return spectrograms.numpy()


def _clip(waveform: np.ndarray, start: int, stop: int, zeros: int) -> np.ndarray:
    sound = waveform[max(start, 0) : max(stop, 0)]
    missing = stop - max(start, 0) - len(sound)
    return np.pad(sound, (zeros, max(missing, 0))).astype(np.float32)


def to_bytes(log_mels: np.ndarray) -> tuple[np.ndarray, float]:
    """An example's log-mels [n, 180, 65] as uint8 of that shape, and the factor that makes them: 255 for the 99th
    percentile of all values, the speed channel included, or for 1 if that is louder."""
    factor = _MAX_BYTE / max(float(np.percentile(log_mels, _LOUDEST_PERCENTILE)), 1.0)
    return np.minimum(log_mels * factor, _MAX_BYTE).astype(np.uint8), factor


def encode_log_mel(values: np.ndarray) -> bytes:
    """One segment's uint8 [180, 65] as a grey JPEG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def decode_log_mel(jpeg: bytes, factor: float) -> np.ndarray:
    """The log-mel of a stored segment: float32 [180, 65], its last channel 1. Raises BadInput if it is damaged."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as image:
            values = np.asarray(image.convert("L"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadInput(f"a stored spectrogram is not a complete JPEG: {error}") from error
    if values.shape != (SEGMENT_FRAMES, MEL_CHANNELS):
        height, width = values.shape
        raise BadInput(f"a stored spectrogram must be {SEGMENT_FRAMES} x {MEL_CHANNELS}; it is {height} x {width}")
    log_mel = values.astype(np.float32) / np.float32(factor)
    log_mel[:, -1] = 1
    return log_mel


def subsegments(log_mels: np.ndarray) -> np.ndarray:
    """Segments [n, 180, 65] as subsegments [n, 3, 60, 65], at frames 0, 60 and 120."""
    return log_mels.reshape(len(log_mels), SUBSEGMENTS, SUBSEGMENT_FRAMES, log_mels.shape[-1])
