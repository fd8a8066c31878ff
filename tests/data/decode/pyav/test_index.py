"""The table of timestamps and key frames leads to the pictures that decoding the whole file gives, bit by bit."""

from __future__ import annotations

import av
import numpy as np
import pytest

from reserve.data.decode.dali.request import make_request
from reserve.data.decode.protocol import Deadline, MediaLimits
from reserve.data.decode.pyav import PyAVDecoder
from reserve.data.decode.pyav.container import Container
from reserve.data.decode.pyav.index import frame_table
from reserve.errors import BadInput, Unsuited
from tests.helpers.coded_videos import VP9, frames_of_pieces, write_coded
from tests.helpers.media_files import SIZE, Sound, click_track, number_picture, write_media

REGULAR = [index / 10 for index in range(72)]
IRREGULAR = np.cumsum(np.random.default_rng(3).uniform(0.01, 0.3, 72)).tolist()
B_FRAMES = {"crf": "20", "bf": "4", "b-pyramid": "normal", "preset": "fast"}
OPEN = {**B_FRAMES, "x264-params": "open-gop=1:keyint=24:min-keyint=1"}
HEVC_OPEN = {"preset": "ultrafast", "x265-params": "keyint=24:min-keyint=24:bframes=4:open-gop=1:log-level=none"}


def table_of(path, limits=None):
    container = Container(path, limits or MediaLimits(), Deadline(1e9))
    try:
        return frame_table(container)
    finally:
        container.close()


def request(path, times):
    return make_request(path, times, MediaLimits(), lambda stream: "cpu")


@pytest.mark.parametrize(
    ("name", "codec", "times", "options"),
    [
        ("b.mp4", "libx264", REGULAR, B_FRAMES),
        ("b.mkv", "libx264", IRREGULAR, B_FRAMES),
        ("b.ts", "libx264", REGULAR, B_FRAMES),
        ("late.mkv", "libx264", [7 + time for time in IRREGULAR], B_FRAMES),
        ("open.mp4", "libx264", REGULAR, OPEN),
        ("open_hevc.mkv", "libx265", REGULAR, HEVC_OPEN),
        ("alternate.webm", "libvpx-vp9", IRREGULAR, VP9),
        ("vp8.webm", "libvpx", IRREGULAR, {"deadline": "realtime"}),
        ("motion.avi", "mjpeg", REGULAR, {}),
    ],
)
def test_same_pictures(tmp_path, name, codec, times, options):
    pixel_format = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = write_coded(tmp_path / name, codec, times, options=options, pixel_format=pixel_format)
    asked = np.sort(np.random.default_rng(0).uniform(0, times[-1] - times[0] + 0.5, 30)).tolist()
    asked = sorted([0, 0, *asked, asked[7], times[20] - times[0]])
    with PyAVDecoder().open(path) as media:
        expected = list(media.frames(asked))
    for found, right in zip(frames_of_pieces(request(path, asked)), expected, strict=True):
        np.testing.assert_array_equal(found, right)


def test_pieces_begin_at_key_frames_and_are_shared(tmp_path):
    path = write_media(tmp_path / "a.webm", frame_times=REGULAR, video_codec="libvpx-vp9", gop=12)
    pieces = request(path, [0.0, 0.35, 0.35, 1.15, 2.45]).pieces
    assert [(piece.pts, piece.packets, piece.numbers) for piece in pieces] == [
        (0, 12, (0, 3, 3, 11)),
        (2400, 1, (0,)),
    ]


def test_pieces_of_few_pictures(tmp_path):
    """A piece that would take too much memory is cut into several from the same key frame."""
    path = write_media(tmp_path / "a.webm", frame_times=REGULAR, video_codec="libvpx-vp9", gop=12)
    pieces = table_of(path).pieces([0.0, 0.15, 0.15, 0.25, 1.3], most=2)
    assert [piece.numbers for piece in pieces] == [(0, 1, 1), (2,), (1,)]


def test_pictures_of_an_open_group_belong_to_the_key_frame_before(tmp_path):
    path = write_coded(tmp_path / "a.mkv", "libx265", REGULAR, options=HEVC_OPEN)
    table = table_of(path)
    (key,) = (place for place in np.flatnonzero(table.keys)[1:2])
    leading = np.flatnonzero(table.pts[key:] < table.pts[key]) + key
    assert len(leading)
    for place in leading:
        (piece,) = table.pieces([float(table.pts[place] * table.tick - table.origin)], most=9)
        assert piece.pts == table.pts[0]


def test_what_an_editor_cut_off_is_decoded_but_not_shown(tmp_path):
    path = write_media(tmp_path / "a.mp4", frame_times=REGULAR, gop=50)
    content = bytearray(path.read_bytes())
    place = content.index(b"elst") + 8
    with av.open(str(path)) as container:
        ticks = round(2.3 / container.streams.video[0].time_base)
    start = int.from_bytes(content[place + 8 : place + 12], "big") + ticks
    content[place + 8 : place + 12] = start.to_bytes(4, "big")
    path.write_bytes(content)
    asked = [0.05, 1.05, 2.75]
    with PyAVDecoder().open(path) as media:
        expected = list(media.frames(asked))
    for found, right in zip(frames_of_pieces(request(path, asked)), expected, strict=True):
        np.testing.assert_array_equal(found, right)
    table = table_of(path)
    assert table.counted[0]
    assert not table.shown[0]


class TestRefusals:
    def test_no_presentation_times(self, tmp_path):
        path = write_coded(tmp_path / "a.avi", "libx264", REGULAR, options=B_FRAMES)
        with pytest.raises(Unsuited, match="no presentation times"):
            table_of(path)

    def test_unknown_codec(self, tmp_path):
        path = write_media(tmp_path / "a.avi", frame_times=REGULAR, video_codec="mpeg4")
        with pytest.raises(Unsuited, match="no table of frames for mpeg4"):
            table_of(path)

    def test_clock_that_breaks(self, tmp_path):
        parts = [
            write_media(tmp_path / f"{start}.ts", frame_times=[start + time for time in REGULAR]) for start in (0, 90)
        ]
        path = tmp_path / "joined.ts"
        path.write_bytes(b"".join(part.read_bytes() for part in parts))
        with pytest.raises(Unsuited, match="its clock breaks"):
            table_of(path)

    def test_start_without_a_key_frame(self, tmp_path):
        path = write_media(tmp_path / "a.ts", frame_times=REGULAR, gop=24)
        with av.open(str(path)) as container:
            positions = [packet.pos for packet in container.demux(video=0) if packet.size]
        (tmp_path / "cut.ts").write_bytes(path.read_bytes()[: 188 * 2] + path.read_bytes()[positions[30] :])
        with pytest.raises(Unsuited, match="does not begin with a key frame"):
            table_of(tmp_path / "cut.ts")

    @pytest.mark.parametrize("codec", ["libvpx-vp9", "libvpx"])
    def test_size_that_changes(self, tmp_path, codec):
        path, last, stream = tmp_path / "a.mkv", 0, None
        with av.open(str(path), "w") as joined:
            for number, size in enumerate([SIZE, (64, 96)]):
                part = write_media(
                    tmp_path / f"{number}.mkv",
                    frame_times=REGULAR,
                    picture=lambda number, size=size: number_picture(number, size),
                    video_codec=codec,
                )
                with av.open(str(part)) as container:
                    stream = stream or joined.add_stream_from_template(container.streams.video[0])
                    for packet in container.demux(video=0):
                        if packet.size:
                            packet.stream = stream
                            packet.pts = packet.dts = last = last + 100
                            joined.mux(packet)
        with pytest.raises(Unsuited, match="its format changes midway"):
            table_of(path)

    def test_no_pictures(self, tmp_path):
        with pytest.raises(BadInput, match="no video stream"):
            table_of(write_media(tmp_path / "a.mp4", sounds=[Sound(click_track(1, [0.5]))]))


def test_reads_no_further_than_the_longest_video(tmp_path):
    path = write_media(tmp_path / "a.webm", frame_times=REGULAR, video_codec="libvpx-vp9", gop=12)
    table = table_of(path, MediaLimits(max_duration=2.0))
    assert len(table.pts) < 45
    assert table.pieces([2.0], 8)
    with pytest.raises(Unsuited, match="a time after the limit of its duration"):
        table.pieces([0.5, 2.1], 8)
