"""Frames through PyAV: containers and damage beyond what every decoder must handle, and no needless decoding."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from reserve.data.decode.protocol import Deadline, MediaLimits
from reserve.data.decode.pyav import PyAVDecoder
from reserve.data.decode.pyav.container import Container
from tests.helpers.media_files import read_number, write_media

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


def test_single_frame(tmp_path):
    assert numbers_at(write_media(tmp_path / "a.mp4", frame_times=[0]), [0, 3]) == [0, 0]


def test_damage_in_the_middle_spoils_only_its_surroundings(tmp_path):
    path = write_media(tmp_path / "a.ts", frame_times=TIMES, gop=5)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = np.random.default_rng(0).bytes(3000)
    path.write_bytes(content)
    assert numbers_at(path, [0.55, 5.85]) == [5, 58]
