"""Frames: the picture on screen at a time, in every container, and nothing but BadInput from bad files."""

from __future__ import annotations

import os
import struct
from types import SimpleNamespace

import numpy as np
import pytest

from reserve.data import media as media_module
from reserve.data.decode.deadline import Deadline
from reserve.data.decode.pyav import MediaFile, MediaLimits, demux
from reserve.data.images import encode_jpeg
from reserve.errors import BadInput
from tests.helpers.media_files import SIZE, ExpiresAfter, Sound, click_track, number_picture, read_number, write_media

TIMES = [index / 10 for index in range(60)]


def numbers_at(path, times):
    with MediaFile(path) as media:
        return [read_number(frame) for frame in media.frames(times)]


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("h264.mp4", "libx264"),
        ("h264.mkv", "libx264"),
        ("mpeg4.avi", "mpeg4"),  # no presentation times in the container
        ("vp9.webm", "libvpx-vp9"),
    ],
)
def test_frame_on_screen(tmp_path, name, codec):
    path = write_media(tmp_path / name, frame_times=TIMES, video_codec=codec)
    # Between frames, exactly on one, before the next by a hair, the last one, and after the end.
    assert numbers_at(path, [0, 0.05, 0.1, 2.0, 2.05, 2.099, 5.9, 9]) == [0, 0, 1, 20, 20, 20, 59, 59]


def test_variable_frame_rate(tmp_path):
    path = write_media(tmp_path / "a.mp4", frame_times=[0, 0.03, 0.5, 2.0, 2.04, 5.0, 5.5])
    assert numbers_at(path, [0.02, 0.04, 0.499, 1.99, 2.03, 4.99, 5.2, 5.5]) == [0, 1, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("name", ["a.mkv", "a.ts"])
def test_time_zero_is_where_the_file_starts(tmp_path, name):
    path = write_media(tmp_path / name, frame_times=[7 + time for time in TIMES])
    assert numbers_at(path, [0.05, 3.05]) == [0, 30]


def test_before_a_late_first_frame_it_is_that_frame(tmp_path):
    sounds = [Sound(click_track(4, [1]))]
    path = write_media(tmp_path / "a.mkv", frame_times=[2 + time for time in TIMES], sounds=sounds)
    assert numbers_at(path, [0.5, 2.05, 3.05]) == [0, 0, 10]


def test_without_duration_and_index(tmp_path):
    path = write_media(tmp_path / "a.mkv", frame_times=TIMES, options={"live": "1"})
    with MediaFile(path) as media:
        assert media.container.duration is None
        assert [read_number(frame) for frame in media.frames([1.05, 4.05])] == [10, 40]


def test_single_frame(tmp_path):
    assert numbers_at(write_media(tmp_path / "a.mp4", frame_times=[0]), [0, 3]) == [0, 0]


def test_one_frame_decodes_one_group_of_pictures(tmp_path, monkeypatch):
    path = write_media(tmp_path / "a.mp4", frame_times=[index / 10 for index in range(250)], gop=20)
    decoded = []
    original = media_module.decode_packet
    monkeypatch.setattr(media_module, "decode_packet", lambda *args: decoded.append(args) or original(*args))
    assert numbers_at(path, [20.05]) == [200]
    # Up to a group, and what the decoder's threads take in ahead.
    assert len(decoded) < 60


def test_distant_key_frames_are_not_decoded_again_and_again(tmp_path, monkeypatch):
    path = write_media(tmp_path / "a.mp4", frame_times=[index / 10 for index in range(250)], gop=250)
    decoded = []
    original = media_module.decode_packet
    monkeypatch.setattr(media_module, "decode_packet", lambda *args: decoded.append(args) or original(*args))
    assert numbers_at(path, [2.5, 7.5, 12.5, 17.5, 22.5]) == [25, 75, 125, 175, 225]
    assert len(decoded) < 2 * 250


def test_rotation_metadata(tmp_path):
    def corner(_):
        picture = np.zeros((*SIZE, 3), dtype=np.uint8)
        picture[:16, :16] = 255
        return picture

    path = write_media(tmp_path / "a.mp4", frame_times=TIMES[:5], picture=corner)
    content = bytearray(path.read_bytes())
    # The matrix of a phone held upright: shown turned by 90 degrees clockwise.
    matrix = content.index(b"tkhd") + 44
    content[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, SIZE[0] << 16, 0, 1 << 30)
    path.write_bytes(content)
    with MediaFile(path) as media:
        frame = next(media.frames([0]))
    assert frame.shape == (SIZE[1], SIZE[0], 3)
    assert frame[:12, -12:].mean() > 200
    assert frame[:12, :12].mean() < 50
    assert frame[20:].mean() < 50


def test_damage_in_the_middle_spoils_only_its_surroundings(tmp_path):
    path = write_media(tmp_path / "a.ts", frame_times=TIMES, gop=5)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = np.random.default_rng(0).bytes(3000)
    path.write_bytes(content)
    assert numbers_at(path, [0.55, 5.85]) == [5, 58]


def test_truncated_stream_keeps_its_last_frame(tmp_path):
    path = write_media(tmp_path / "a.mkv", frame_times=TIMES)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    first, last = numbers_at(path, [0.55, 5.85])
    assert first == 5
    assert 10 < last < 50


def test_stream_that_appears_midway_does_not_stop_reading():
    class Container:
        """Raises what PyAV does at a packet of a stream it has not seen when it opened the file."""

        def __init__(self):
            self.left = [1, IndexError("list index out of range"), 2, 3]

        def demux(self, *_):
            while self.left:
                packet = self.left.pop(0)
                if isinstance(packet, Exception):
                    raise packet
                yield packet

    media = SimpleNamespace(container=Container(), deadline=Deadline(60))
    assert list(demux(media)) == [1, 2, 3]


def test_times_must_not_decrease(tmp_path):
    path = write_media(tmp_path / "a.mp4", frame_times=TIMES[:5])
    with MediaFile(path) as media, pytest.raises(ValueError, match="must not decrease"):
        list(media.frames([1, 0.5]))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.mp4", b"", "empty file"),
        ("noise.mp4", np.random.default_rng(0).bytes(20_000), "not a media file"),
        ("script.mp4", b"#!/bin/sh\nrm -rf /\n" * 100, "not a media file"),
        (
            "playlist.mp4",
            b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\ngood.ts\n#EXT-X-ENDLIST\n",
            "not a media file",
        ),
        ("concat.mp4", b"ffconcat version 1.0\nfile good.ts\n", "not a media file"),
        ("huge.y4m", b"YUV4MPEG2 W9000 H9000 F25:1 Ip C420\nFRAME\n" + bytes(500_000), "9000x9000"),
    ],
)
def test_bad_file(tmp_path, name, content, reason):
    write_media(tmp_path / "good.ts", frame_times=TIMES[:5])
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=reason), MediaFile(tmp_path / name) as media:
        list(media.frames([0]))


def test_absent_file(tmp_path):
    with pytest.raises(BadInput, match="cannot be opened"):
        MediaFile(tmp_path / "absent.mp4")


def test_pipe_is_not_waited_on(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(BadInput, match="not a regular file"):
        MediaFile(tmp_path / "pipe.mp4")


def test_name_that_looks_like_a_url(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_media(tmp_path / "concat:a.mp4", frame_times=TIMES[:5])
    assert numbers_at("concat:a.mp4", [0.25]) == [2]


def test_frames_beyond_the_limits(tmp_path):
    path = write_media(tmp_path / "a.mp4", frame_times=TIMES[:5])
    with MediaFile(path, MediaLimits(max_pixels=1000)) as media, pytest.raises(BadInput, match="64x48"):
        media.video_stream()


def test_deadline_ends_decoding(tmp_path):
    path = write_media(tmp_path / "a.mp4", frame_times=TIMES)
    with MediaFile(path, deadline=ExpiresAfter(5)) as media, pytest.raises(BadInput, match="expired"):
        list(media.frames([3]))


def test_sound_alone_has_no_video(tmp_path):
    path = write_media(tmp_path / "a.mp4", sounds=[Sound(click_track(1, [0.5]))])
    with MediaFile(path) as media, pytest.raises(BadInput, match="no video stream"):
        media.video_stream()


def test_cover_picture_is_no_video(tmp_path):
    path = write_media(tmp_path / "a.mp3", sounds=[Sound(click_track(2, [0.5]), codec="libmp3lame")])
    picture = b"\0image/jpeg\0\x03\0" + encode_jpeg(number_picture(1))
    frame = b"APIC" + struct.pack(">IH", len(picture), 0) + picture
    size = bytes(len(frame) >> shift & 127 for shift in (21, 14, 7, 0))
    path.write_bytes(b"ID3\x03\0\0" + size + frame + path.read_bytes())
    with MediaFile(path) as media:
        assert len(media.container.streams.video) == 1
        with pytest.raises(BadInput, match="no video stream"):
            media.video_stream()
