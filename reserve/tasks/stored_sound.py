"""Log-mels of an example as they are stored: grey JPEGs (SPEC 10.8)."""

from __future__ import annotations

import io

import numpy as np

from reserve.config import MEL_CHANNELS
from reserve.errors import BadInput

SUBSEGMENTS = 3
SUBSEGMENT_FRAMES = 60
SEGMENT_FRAMES = SUBSEGMENTS * SUBSEGMENT_FRAMES
"""Mel frames of a segment: those of its three subsegments in a row."""
JPEG_QUALITY = 95
_MAX_BYTE = 255
_LOUDEST_PERCENTILE = 99


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
