"""Compares the first pieces that a GPU decodes with what PyAV makes of them: a fault of a driver must not go unseen."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np

from reserve.data.decode.dali.pipeline import Clip
from reserve.data.decode.pyav.container import decoding_errors, import_av
from reserve.data.images import resize
from reserve.errors import BadInput

PIECES = 4
"""Of each codec, in each process."""
MOST = 12.0
"""Levels of 255 by which the frames of a piece may differ on average: three times `MEAN_DIFFERENCE`, and far below the
difference of two pictures."""


class Proof:
    """Checks PIECES pieces of each codec, and all as long as they are wrong."""

    def __init__(self) -> None:
        self._good: Counter[str] = Counter()

    def check(self, codec: str, clip: Clip, frames: np.ndarray) -> None:
        """Raises BadInput if `frames`, uint8 [frames, height, width, 3], are not those of the clip."""
        if self._good[codec] >= PIECES:
            return
        with (
            decoding_errors("its pictures cannot be decoded"),
            import_av().open(io.BytesIO(clip.file.tobytes())) as file,
        ):
            wanted, last = set(clip.numbers), max(clip.numbers)
            right = {}
            for number, frame in enumerate(file.decode(video=0)):
                if number in wanted:
                    right[number] = resize(frame.to_ndarray(format="rgb24"), *clip.size)
                if number >= last:
                    break
        if len(right) < len(wanted):
            raise BadInput(f"PyAV decodes {len(right)} of {len(wanted)} pictures")
        pairs = zip(clip.numbers, frames, strict=True)
        difference = max(float(np.abs(frame.astype(np.int16) - right[number]).mean()) for number, frame in pairs)
        if difference > MOST:
            raise BadInput(f"the GPU's pictures of {codec} differ from PyAV's by {difference:.0f} of 255 levels")
        self._good[codec] += 1
