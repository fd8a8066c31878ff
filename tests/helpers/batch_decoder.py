"""A decoder that takes batches of files, for tests of the code around such decoders: PyAV's frames in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from reserve.data.decode.protocol import BatchDecoder, FrameRequest
from reserve.data.decode.pyav import PyAVDecoder


class PyAVInBatches(BatchDecoder):
    """Records the file names of every batch in `batches`."""

    name = "pyav-in-batches"

    def __init__(self, batch_size: int = 2) -> None:
        self.batch_size = batch_size
        self.batches: list[list[str]] = []

    def unavailable(self) -> str | None:
        return None

    def frames_of(self, requests: Sequence[FrameRequest]) -> Iterator[Iterator[np.ndarray]]:
        self.batches.append([request.path.name for request in requests])
        for request in requests:
            yield self.frames(request)

    def frames(self, request: FrameRequest) -> Iterator[np.ndarray]:
        with PyAVDecoder().open(request.path, request.limits) as media:
            yield from media.frames(request.times)
