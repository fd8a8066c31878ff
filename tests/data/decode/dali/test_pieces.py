"""Pieces hold the packets that they were planned with, or none."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest

from reserve.data.decode.dali.pieces import PieceCutter
from reserve.data.decode.protocol import Deadline, MediaLimits
from reserve.data.decode.pyav.container import Container
from reserve.data.decode.pyav.index import frame_table
from reserve.errors import BadInput
from tests.helpers.media_files import read_number, write_media

TIMES = [index / 10 for index in range(40)]


@pytest.fixture
def container(tmp_path):
    path = write_media(tmp_path / "a.mp4", frame_times=TIMES, gop=8)
    opened = Container(path, MediaLimits(), Deadline(1e9))
    yield opened
    opened.close()


@pytest.fixture
def pieces(container):
    return frame_table(container).pieces([0.35, 1.25, 3.95], most=9)


def numbers(piece):
    av = pytest.importorskip("av")
    with av.open(io.BytesIO(piece.tobytes())) as file:
        return [(frame.pts, read_number(frame.to_ndarray(format="rgb24"))) for frame in file.decode(video=0)]


def test_pieces_in_any_order(container, pieces):
    cutter = PieceCutter(container)
    for piece in [*pieces[::-1], *pieces]:
        found = numbers(cutter.cut(piece))
        first = round(piece.pts * float(container.video_stream().time_base) * 10)
        assert found[0][1] == first
        # Frames follow at equal distances, whatever their own timestamps are.
        assert len(set(np.diff([pts for pts, _ in found]))) <= 1


@pytest.mark.parametrize("change", [{"packets": 99}, {"bytes": 5}, {"pts": 1}])
def test_other_packets_than_planned(container, pieces, change):
    with pytest.raises(BadInput, match="not those that it was planned with"):
        PieceCutter(container).cut(replace(pieces[0], **change))


def test_a_seek_that_lands_too_late(container, pieces, monkeypatch):
    """Then the file is read from the start."""
    found = []

    class Late:
        def __getattr__(self, name):
            return getattr(container_raw, name)

        def seek(self, *_, **options):
            found.append(1)
            container_raw.seek(
                round(3.2 / float(options["stream"].time_base)), stream=options["stream"], backward=False
            )

    container_raw = container.raw
    container.raw = Late()
    assert numbers(PieceCutter(container).cut(pieces[0]))[0][1] == 0
    assert len(found) > 1
