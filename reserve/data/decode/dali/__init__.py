"""Decodes the frames of batches of files with NVIDIA's DALI: on a GPU's video decoders, or some codecs on the CPU.

DALI is given pieces of the files, cut at key frames, and the numbers of the frames in them. Which frames those are is
found out beforehand (`pyav/index.py`), in the processes that read the files' sound. `nvidia.dali` is imported when it
is first needed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from reserve.data.decode.dali.clips import Clips
from reserve.data.decode.dali.devices import Devices
from reserve.data.decode.dali.library import import_failure
from reserve.data.decode.dali.pipeline import Pipelines
from reserve.data.decode.dali.proof import Proof
from reserve.data.decode.dali.request import ClipRequest, make_request
from reserve.data.decode.protocol import BatchDecoder, FrameRequest, Media, MediaInfo, MediaLimits
from reserve.errors import BadInput, Unsuited

__all__ = ["MAX_DIFFERENCE", "MEAN_DIFFERENCE", "DaliDecoder"]

MEAN_DIFFERENCE = 4.0
MAX_DIFFERENCE = 64
"""How far DALI's frames may be from PyAV's, of 255 levels: on average over a frame, and for any value.

DALI interpolates colours between their samples; FFmpeg's fast conversion of pictures with even sides repeats them. So
edges between strong colours differ. Colours of BT.709 and other matrices than BT.601 are put right after DALI has
converted them, within the same bounds."""


class DaliDecoder(BatchDecoder):
    """Batches of files, through DALI. Frames come scaled down to `images.waiting_size` where they are larger."""

    name = "dali"
    batch_size = 8

    def __init__(self) -> None:
        self._devices: Devices | None = None
        self._pipelines: Pipelines | None = None
        self._proof = Proof()

    def __getstate__(self) -> dict[str, object]:
        """What the hardware can do travels to other processes, so that none of them asks; pipelines belong to one."""
        return {"_devices": self.devices, "_pipelines": None, "_proof": Proof()}

    def unavailable(self) -> str | None:
        return import_failure()

    def slow_here(self) -> str | None:
        return "it is slower than the others on a CPU, and not measured on a GPU"

    def unsuited(self, info: MediaInfo) -> str | None:
        return None if info.video is None else self.devices.unsuited(info.video)

    @property
    def devices(self) -> Devices:
        """Where this machine can decode what; asks the hardware once."""
        if self._devices is None:
            self._devices = Devices.here()
        return self._devices

    def request(self, media: Media, path: Path, times: Sequence[float], limits: MediaLimits) -> ClipRequest:
        return make_request(path, times, limits, self.devices.choose)

    def frames_of(self, requests: Sequence[FrameRequest]) -> Iterator[Iterator[np.ndarray]]:
        if self._pipelines is None:
            self._pipelines = Pipelines(len(os.sched_getaffinity(0)))
        with Clips([self._planned(request) for request in requests], self._pipelines, self._proof) as clips:
            for place in range(len(requests)):
                yield clips.frames(place)

    def _planned(self, request: FrameRequest) -> ClipRequest | BadInput:
        """The request with its pieces, for callers that have not used `request`, or why there is none."""
        if isinstance(request, ClipRequest):
            return request
        try:
            return make_request(request.path, request.times, request.limits, self.devices.choose)
        except BadInput as error:
            return error
        except Unsuited as error:
            return BadInput(f"not for decoder 'dali': {error}")
