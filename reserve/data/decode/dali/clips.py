"""Decodes the pieces of several files in batches, and hands out their frames file by file.

One thread cuts the pieces of the next batch while DALI decodes one, so at most two batches of pieces, and the frames of
one, are in memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from reserve.data.decode.dali.pieces import PieceCutter
from reserve.data.decode.dali.pipeline import MAX_PIECES, Clip, PipelineFailure, Pipelines, Variant
from reserve.data.decode.dali.proof import Proof
from reserve.data.decode.dali.request import ClipRequest
from reserve.data.decode.protocol import Deadline
from reserve.data.decode.pyav.container import Container
from reserve.data.decode.pyav.index import Piece
from reserve.errors import BadInput, EnvironmentFailure

_BATCH_BYTES = 2**28
"""Pixels of a batch before scaling, unless a single piece has more."""
_MACHINE_FAULTS = ("out of memory", "cuda", "alloc")
"""Words in DALI's errors that do not blame a file."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """Pieces that are decoded together, each with the place of its request."""

    variant: Variant
    pieces: list[tuple[int, Piece]]


class Clips:
    """The frames of `requests`, in order; a context manager. A request that is an error raises it."""

    def __init__(self, requests: Sequence[ClipRequest | BadInput], pipelines: Pipelines, proof: Proof) -> None:
        self._requests = requests
        self._pipelines = pipelines
        self._proof = proof
        self._batches = deque(_batches(requests))
        self._cutting: deque[tuple[_Batch, Future[list[Clip | Exception]]]] = deque()
        self._found: deque[tuple[int, np.ndarray | Exception]] = deque()
        """Decoded pieces of requests whose frames are not handed out yet."""
        self._cutter: tuple[int, PieceCutter] | None = None
        self._first_wanted = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cut")

    def __enter__(self) -> Clips:
        return self

    def __exit__(self, *_: object) -> None:
        self._first_wanted = len(self._requests)
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._use_cutter(None)

    def frames(self, place: int) -> Iterator[np.ndarray]:
        """The frames of the request at `place`; what is left of earlier ones is dropped."""
        self._first_wanted = place
        request = self._requests[place]
        if isinstance(request, BadInput):
            raise request
        for piece in request.pieces:
            images = self._decoded(place)
            if isinstance(images, Exception):
                raise images
            if len(images) != len(piece.numbers):
                raise BadInput(f"DALI returned {len(images)} of {len(piece.numbers)} frames")
            yield from map(request.look.picture, images)

    def _decoded(self, place: int) -> np.ndarray | Exception:
        """The next piece of the request at `place`."""
        while True:
            while not self._found:
                self._decode_next()
            owner, images = self._found.popleft()
            if owner == place:
                return images

    def _decode_next(self) -> None:
        """Decodes the next batch, while the one after it is cut."""
        while self._batches and len(self._cutting) < 2:
            batch = self._batches.popleft()
            self._cutting.append((batch, self._thread.submit(self._cut, batch)))
        batch, cut = self._cutting.popleft()
        found = cut.result()
        clips = [clip for clip in found if isinstance(clip, Clip)]
        decoded = iter(self._decode(batch.variant, clips))
        for (place, _), clip in zip(batch.pieces, found, strict=True):
            images = self._proved(place, clip, next(decoded)) if isinstance(clip, Clip) else clip
            self._found.append((place, images))

    def _proved(self, place: int, clip: Clip, images: np.ndarray | Exception) -> np.ndarray | Exception:
        """`images`, or why those of a GPU cannot be right."""
        request = self._requests[place]
        if isinstance(request, ClipRequest) and request.device == "mixed" and isinstance(images, np.ndarray):
            try:
                self._proof.check(request.codec, clip, images)
            except BadInput as error:
                return error
        return images

    def _decode(self, variant: Variant, clips: Sequence[Clip]) -> Sequence[np.ndarray | Exception]:
        """A piece on which DALI fails is a BadInput, and costs the others nothing. Raises EnvironmentFailure if the
        machine fails on a piece by itself, as one without memory does: no file is at fault."""
        if not clips:
            return []
        try:
            return self._pipelines.decode(variant, clips)
        except PipelineFailure as failure:
            if len(clips) == 1 and any(word in str(failure).lower() for word in _MACHINE_FAULTS):
                raise EnvironmentFailure(f"DALI cannot decode on this machine: {_reason(failure)}") from failure
            if len(clips) == 1:
                return [BadInput(f"DALI cannot decode its pictures: {_reason(failure)}")]
        return [found for clip in clips for found in self._decode(variant, [clip])]

    def _cut(self, batch: _Batch) -> list[Clip | Exception]:
        return [self._cut_piece(place, piece) for place, piece in batch.pieces]

    def _cut_piece(self, place: int, piece: Piece) -> Clip | Exception:
        request = self._requests[place]
        assert isinstance(request, ClipRequest)
        if place < self._first_wanted:
            return BadInput("its frames are no longer wanted")
        try:
            if self._cutter is None or self._cutter[0] != place:
                self._use_cutter(place)
            assert self._cutter is not None
            file = self._cutter[1].cut(piece)
        except Exception as error:
            return error
        return Clip(file, piece.numbers, request.look.size, request.look.colours)

    def _use_cutter(self, place: int | None) -> None:
        """Opens the file of the request at `place` and closes the one that was open."""
        if self._cutter is not None:
            self._cutter[1].close()
            self._cutter = None
        if place is not None:
            request = self._requests[place]
            assert isinstance(request, ClipRequest)
            deadline = Deadline(request.limits.max_decode_seconds)
            self._cutter = (place, PieceCutter(Container(request.path, request.limits, deadline)))


def _batches(requests: Sequence[ClipRequest | BadInput]) -> Iterator[_Batch]:
    """All pieces in order, as many together as MAX_PIECES and the memory allow."""
    batch: _Batch | None = None
    size = 0
    for place, request in enumerate(requests):
        if isinstance(request, BadInput):
            continue
        for piece in request.pieces:
            more = request.pixel_bytes(piece)
            is_full = batch is not None and (len(batch.pieces) == MAX_PIECES or size + more > _BATCH_BYTES)
            if batch is None or is_full or batch.variant != request.variant:
                if batch is not None:
                    yield batch
                batch, size = _Batch(request.variant, []), 0
            batch.pieces.append((place, piece))
            size += more
    if batch is not None:
        yield batch


def _reason(failure: PipelineFailure) -> str:
    """DALI's own words, without the traceback of the pipeline's definition."""
    lines = [line for line in str(failure).splitlines() if line.strip()]
    kept = [
        line
        for line in lines
        if not line.startswith((" ", "Critical", "Error in", "which", "encountered", "C++", "Curr"))
    ]
    return (kept or lines or ["no reason given"])[0]
