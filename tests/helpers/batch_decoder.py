"""A decoder that takes batches of files, for tests of the code around such decoders: PyAV's frames in batches."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

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


class FailsOn(PyAVInBatches):
    """Fails in some way after the first frame of the file `name`; each time it hangs leaves a file in `marks`."""

    def __init__(self, name: str, way: str, marks: Path, batch_size: int = 3) -> None:
        super().__init__(batch_size)
        self.file_name, self.way, self.marks = name, way, marks

    def frames(self, request: FrameRequest) -> Iterator[np.ndarray]:
        for frame in super().frames(request):
            yield frame
            if request.path.name == self.file_name:
                self.fail()

    def fail(self) -> None:
        if self.way == "hang":
            (self.marks / str(os.getpid())).touch()
            time.sleep(3600)
        if self.way == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.way == "terminate":
            os.kill(os.getpid(), signal.SIGTERM)
        raise MemoryError("out of device memory")
