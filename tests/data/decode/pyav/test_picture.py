"""What a stream says midway about showing its pictures."""

from __future__ import annotations

import gc
from fractions import Fraction

import av
import numpy as np
import pytest

from reserve.data.decode.pyav import PyAVDecoder
from tests.helpers.media_files import SIZE, number_picture, read_number, write_media

TIMES = [index / 10 for index in range(60)]


def frames_at(path, times):
    with PyAVDecoder().open(path) as media:
        return list(media.frames(times))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        ("rotate=90", lambda frame: np.rot90(frame, -1)),
        ("flip=horizontal", lambda frame: frame[:, ::-1]),
        ("rotate=90:flip=horizontal", lambda frame: np.rot90(frame, -1)[:, ::-1]),
    ],
)
def test_orientation_that_only_key_frames_carry(tmp_path, name, orientation, upright):
    """H.264 can say it in the stream. It holds until the next key frame."""
    source = write_media(tmp_path / f"source{name[1:]}", frame_times=TIMES, gop=len(TIMES))
    with av.open(str(source)) as file, av.open(str(tmp_path / name), "w") as copy:
        stream = file.streams.video[0]
        into = copy.add_stream_from_template(stream)
        insert = av.BitStreamFilterContext(f"h264_metadata=display_orientation=insert:{orientation}", stream)
        for packet in [packet for packet in file.demux(stream) if packet.size] + [None]:
            for changed in insert.filter(packet):
                changed.stream = into
                copy.mux(changed)
    frames = frames_at(tmp_path / name, [0.05, 0.55, 3.05])
    assert [read_number(upright(frame)) for frame in frames] == [0, 5, 30]


@pytest.mark.parametrize("is_seekable", [False, True])
def test_pixel_aspect_that_changes_midway(tmp_path, is_seekable):
    """Broadcasts do this for a film in another format."""
    parts = [
        write_media(
            tmp_path / f"{number}.ts",
            frame_times=[6.1 * number * is_seekable + time for time in TIMES],
            picture=lambda index, first=60 * number: number_picture(first + index),
            pixel_aspect=aspect,
        ).read_bytes()
        for number, aspect in enumerate([Fraction(1), Fraction(4, 3), Fraction(1)])
    ]
    (tmp_path / "a.ts").write_bytes(b"".join(parts))
    with PyAVDecoder().open(tmp_path / "a.ts") as media:
        for times in ([0.55, 5.55, 6.55, 11.55], [6.55], [0.55, 12.55]):
            frames = list(media.frames(times))
            assert [frame.shape[1] for frame in frames] == [85 if 6 < time < 12 else SIZE[1] for time in times]
            assert [read_number(frame) for frame in frames] == pytest.approx([10 * time for time in times], abs=3)


def test_pictures_are_freed_without_collecting_garbage(tmp_path):
    """A cycle of references would keep them until Python counts enough objects: hundreds of pictures, of any size."""
    path = write_media(tmp_path / "a.mp4", frame_times=TIMES, gop=20)

    def pictures():
        # Not isinstance, which asks weak proxies of other tests for what they stood for.
        return sum(issubclass(type(found), av.VideoFrame) for found in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = pictures()
        frames_at(path, [0.5, 2.5, 5.5])
        with PyAVDecoder().open(path) as media:
            media.has_closed_captions()
        assert pictures() == before
    finally:
        gc.enable()
