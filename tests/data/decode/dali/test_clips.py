"""Which pieces are decoded together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reserve.data.decode.dali import clips
from reserve.data.decode.dali.clips import Clips, _batches, _reason
from reserve.data.decode.dali.pipeline import MAX_PIECES, Clip, PipelineFailure, Variant
from reserve.data.decode.dali.proof import Proof
from reserve.data.decode.dali.request import ClipRequest, Look
from reserve.data.decode.protocol import MediaLimits
from reserve.data.decode.pyav.index import Piece
from reserve.errors import BadInput, EnvironmentFailure


def request(pieces, *, frames=1, size=(48, 64), device="cpu", colours=None):
    look = Look(size, size, colours, None)
    rows = tuple(Piece(i, 1, tuple(range(frames)), 10) for i in range(pieces))
    return ClipRequest(Path("a"), (), MediaLimits(), rows, look, "vp9", device)


def sizes(*requests):
    return [[place for place, _ in batch.pieces] for batch in _batches(requests)]


def test_pieces_of_several_files_share_a_batch():
    assert sizes(request(3), request(MAX_PIECES - 3), request(1)) == [[0] * 3 + [1] * (MAX_PIECES - 3), [2]]


def test_requests_that_failed_have_no_pieces():
    assert sizes(request(1), BadInput("x"), request(1)) == [[0, 2]]


def test_other_devices_and_colours_do_not():
    mended = request(1, colours=np.eye(3))
    assert sizes(request(1), request(1, device="mixed"), mended, request(1)) == [[0], [1], [2], [3]]


def test_memory_bounds_a_batch(monkeypatch):
    monkeypatch.setattr(clips, "_BATCH_BYTES", 5 * 48 * 64 * 3)
    assert sizes(request(3, frames=2)) == [[0, 0], [0]]
    assert sizes(request(2, frames=9)) == [[0], [0]]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "Critical error in pipeline:\nError in CPU operator\nencountered:\nframe 7 is out\nC++ context: [a]\n",
            "frame 7 is out",
        ),
        ("Critical error", "Critical error"),
        ("", "no reason given"),
    ],
)
def test_reason(text, reason):
    assert _reason(PipelineFailure(text)) == reason


def test_a_machine_without_memory_blames_no_file():
    """Each piece is tried alone first; files and their stores must not be lost for it."""
    tried = []

    class Full:
        def decode(self, variant, clips):
            tried.append(len(clips))
            raise PipelineFailure("Critical error\nencountered:\nCan't allocate 123 bytes: out of memory\n")

    clip = Clip(np.zeros(4, np.uint8), (0,), (48, 64), None)
    decoding = Clips([], Full(), Proof())
    with decoding, pytest.raises(EnvironmentFailure, match=r"DALI cannot decode on this machine: .*out of memory"):
        decoding._decode(Variant("cpu", False, False), [clip, clip])
    assert tried == [2, 1]
