"""Frames through PyAV: containers and damage beyond what every decoder must handle, and no needless decoding."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from reserve.data.decode.protocol import Deadline, MediaLimits
from reserve.data.decode.pyav import PyAVDecoder
from reserve.data.decode.pyav.container import Container
from reserve.data.decode.pyav.frames import _FrameReader
from tests.helpers.media_files import SIZE, read_number, write_media

TIMES = [index / 10 for index in range(60)]


def numbers_at(path, times):
    with PyAVDecoder().open(path) as media:
        return [read_number(frame) for frame in media.frames(times)]


@pytest.fixture
def decoded(monkeypatch):
    """The packets decoded so far."""
    packets = []
    original = Container.decode
    monkeypatch.setattr(Container, "decode", lambda self, packet: packets.append(packet) or original(self, packet))
    return packets


def test_no_presentation_times_in_the_container(tmp_path):
    path = write_media(tmp_path / "a.avi", frame_times=TIMES, video_codec="mpeg4")
    assert numbers_at(path, [0, 0.05, 0.1, 2.0, 2.05, 2.099, 5.9, 9]) == [0, 0, 1, 20, 20, 20, 59, 59]


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
@pytest.mark.parametrize("rate", [Fraction(15), Fraction(24000, 1001), Fraction(30000, 1001)])
def test_time_computed_from_the_number_of_a_frame(tmp_path, name, rate):
    """Matroska rounds times to milliseconds: up for every other frame."""
    path = write_media(tmp_path / name, frame_times=[index / rate for index in range(90)], tick=1 / rate)
    assert numbers_at(path, [index / float(rate) for index in range(90)]) == list(range(90))
    assert numbers_at(path, [max(index / float(rate) - 0.002, 0) for index in range(90)]) == [0, *range(89)]


def test_transport_stream_that_starts_late(tmp_path):
    path = write_media(tmp_path / "a.ts", frame_times=[7 + time for time in TIMES])
    assert numbers_at(path, [0.05, 3.05]) == [0, 30]


def test_without_duration_and_index(tmp_path):
    path = write_media(tmp_path / "a.mkv", frame_times=TIMES, options={"live": "1"})
    container = Container(path, MediaLimits(), Deadline(60))
    assert container.raw.duration is None
    container.close()
    assert numbers_at(path, [1.05, 4.05]) == [10, 40]


def test_one_frame_decodes_one_group_of_pictures(tmp_path, decoded):
    path = write_media(tmp_path / "a.mp4", frame_times=[index / 10 for index in range(250)], gop=20)
    assert numbers_at(path, [20.05]) == [200]
    # Up to a group, and what the decoder's threads read ahead.
    assert len(decoded) < 60


def test_file_that_cannot_seek_is_decoded_once(tmp_path, decoded):
    path = write_media(tmp_path / "a.avi", frame_times=TIMES, tick=Fraction(1, 10))
    assert numbers_at(path, [0.15, 1.95, 5.55]) == [1, 19, 55]
    assert len(decoded) < 80


def test_distant_key_frames_are_not_decoded_again_and_again(tmp_path, decoded):
    path = write_media(tmp_path / "a.mp4", frame_times=[index / 10 for index in range(250)], gop=250)
    assert numbers_at(path, [2.5, 7.5, 12.5, 17.5, 22.5]) == [25, 75, 125, 175, 225]
    assert len(decoded) < 2 * 250


def test_seek_to_a_key_frame_that_the_index_has_before_the_target(tmp_path, decoded):
    """And none to one that has been passed: 2.5 s to 7.5 s is decoded on, 7.5 s to 12.5 s starts at 10 s."""
    path = write_media(tmp_path / "a.mp4", frame_times=[index / 10 for index in range(250)], gop=100)
    assert numbers_at(path, [2.5, 7.5, 12.5, 17.5, 22.5]) == [25, 75, 125, 175, 225]
    assert len(decoded) < 75 + 75 + 25 + 5 * 8


class TestSkippedPictures:
    """H.264 pictures that no other needs."""

    @staticmethod
    def picture(index):
        """Moving noise: every picture differs, and B-frames hold much of it."""
        noise = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
        return np.roll(noise, index, axis=1)

    @staticmethod
    def every_frame(path):
        with av.open(str(path)) as container:
            return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]

    def assert_as_decoded_in_full(self, path, times):
        full = self.every_frame(path)
        right = [[image for start, image in full if start <= time + 1e-6][-1] for time in times]
        with PyAVDecoder().open(path) as media:
            for expected, found in zip(right, media.frames(times), strict=True):
                np.testing.assert_array_equal(found, expected)

    @pytest.mark.parametrize("first", range(5))
    def test_the_others_are_the_same_to_the_last_bit(self, tmp_path, first):
        times = [index / 10 for index in range(100)]
        path = write_media(tmp_path / "a.mp4", frame_times=times, gop=60, picture=self.picture)
        self.assert_as_decoded_in_full(path, times[first::5])

    def test_fewer_are_decoded(self, tmp_path, monkeypatch):
        count = 0
        original = Container.decode

        def counted(container, packet):
            nonlocal count
            frames = original(container, packet)
            count += len(frames)
            return frames

        monkeypatch.setattr(Container, "decode", counted)
        path = write_media(tmp_path / "a.mp4", frame_times=TIMES, gop=60, picture=self.picture)
        with PyAVDecoder().open(path) as media:
            assert len(list(media.frames([5.5]))) == 1
        assert 15 < count < 50

    @pytest.mark.parametrize("last", range(20, 28))
    def test_none_at_the_target_where_frames_are_far_apart(self, tmp_path, last):
        """A picture stays for two seconds, long after it could be skipped."""
        times = [index / 25 + (2 if index > last else 0) for index in range(60)]
        path = write_media(tmp_path / "a.mp4", frame_times=times, gop=60, picture=self.picture)
        self.assert_as_decoded_in_full(path, [0.5, times[last] + 1.5, times[-1]])

    def test_none_of_interlaced_video(self, tmp_path):
        path = tmp_path / "a.mp4"
        with av.open(str(path), "w") as container:
            options = {"x264-params": "tff=1:keyint=60"}
            stream = container.add_stream("libx264", rate=25, options=options)
            stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
            for index in range(60):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(self.picture(index), format="rgb24")))
            container.mux(stream.encode())
        container = Container(path, MediaLimits(), Deadline(60))
        reader = _FrameReader(container)
        assert reader.frame_at(1.0).frame.interlaced_frame
        assert not reader._may_skip
        container.close()
        self.assert_as_decoded_in_full(path, [1.0, 1.52, 2.2])


def test_single_frame(tmp_path):
    assert numbers_at(write_media(tmp_path / "a.mp4", frame_times=[0]), [0, 3]) == [0, 0]


def test_damage_in_the_middle_spoils_only_its_surroundings(tmp_path):
    path = write_media(tmp_path / "a.ts", frame_times=TIMES, gop=5)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = np.random.default_rng(0).bytes(3000)
    path.write_bytes(content)
    assert numbers_at(path, [0.55, 5.85]) == [5, 58]
