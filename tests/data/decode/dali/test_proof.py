"""What is compared with PyAV's pictures, and what is not believed."""

from __future__ import annotations

import numpy as np
import pytest

from reserve.data.decode.dali.pieces import PieceCutter
from reserve.data.decode.dali.pipeline import Clip
from reserve.data.decode.dali.proof import PIECES, Proof
from reserve.data.decode.dali.request import make_request
from reserve.data.decode.protocol import Deadline, MediaLimits
from reserve.data.decode.pyav.container import Container
from reserve.errors import BadInput
from tests.helpers.coded_videos import frames_of_pieces
from tests.helpers.media_files import write_media


@pytest.fixture
def clip(tmp_path):
    """Three frames of an H.264 piece, and what they are."""
    path = write_media(tmp_path / "a.mp4", frame_times=[index / 10 for index in range(12)])
    request = make_request(path, [0.05, 0.75, 0.75], MediaLimits(), lambda stream: "mixed")
    container = Container(path, MediaLimits(), Deadline(1e9))
    (piece,), cutter = request.pieces, PieceCutter(container)
    found = Clip(cutter.cut(piece), piece.numbers, request.look.size, None)
    cutter.close()
    return found, np.stack(frames_of_pieces(request))


def test_right_pictures(clip):
    proof = Proof()
    for _ in range(PIECES):
        proof.check("h264", *clip)
    proof.check("h264", clip[0], np.zeros_like(clip[1]))  # enough has been seen


def test_another_picture_is_not_believed(clip):
    proof = Proof()
    for _ in range(PIECES + 1):
        with pytest.raises(BadInput, match="the GPU's pictures of h264 differ from PyAV's by"):
            proof.check("h264", clip[0], clip[1][[0, 0, 1]])


def test_piece_that_is_too_short(clip):
    short = Clip(clip[0].file, (0, 99), clip[0].size, None)
    with pytest.raises(BadInput, match="PyAV decodes 1 of 2 pictures"):
        Proof().check("h264", short, clip[1][:2])
