"""Reading packets from an open container."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np

from reserve.data.decode.protocol import Deadline, MediaLimits
from reserve.data.decode.pyav import PyAVDecoder
from reserve.data.decode.pyav.container import Container
from tests.helpers.media_files import Sound, audio_packets, click_track, number_picture, read_number, write_media


def test_stream_that_appears_midway_does_not_stop_reading(tmp_path):
    class Packets:
        """Raises what PyAV does at a packet of a stream that was not there when it opened the file."""

        def __init__(self):
            self.left = [1, IndexError("list index out of range"), 2, 3]

        def demux(self, *_):
            while self.left:
                packet = self.left.pop(0)
                if isinstance(packet, Exception):
                    raise packet
                yield packet

    path = write_media(tmp_path / "a.mp4", frame_times=[0])
    container = Container(path, MediaLimits(), Deadline(60))
    container.close()
    container.raw = Packets()
    assert list(container.demux()) == [1, 2, 3]


def test_default_video_stream(tmp_path):
    """Pictures and the end of the video come from the stream that players choose, not from the first."""
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as file:
        streams = [file.add_stream("libx264", rate=10) for _ in range(2)]
        packets = []
        for number, (stream, frames) in enumerate(zip(streams, [10, 40], strict=True)):
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            stream.disposition = av.stream.Disposition(number)
            for index in range(frames):
                picture = number_picture(100 * number + index)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
                frame.pts, frame.time_base = index, Fraction(1, 10)
                packets += stream.encode(frame)
            packets += stream.encode(None)
        sound = file.add_stream("flac", rate=44100, layout="mono")
        packets += audio_packets(Sound(click_track(1, [0.5])), sound)
        for packet in sorted(packets, key=lambda packet: float(packet.dts * packet.time_base)):
            file.mux(packet)
    with PyAVDecoder().open(path) as media:
        assert [read_number(frame) for frame in media.frames([0.55, 3.05])] == [105, 130]
        assert media.soundtrack().media_end > 3.9


def test_a_file_that_has_not_been_read_is_not_opened_again(tmp_path, monkeypatch):
    path = write_media(tmp_path / "a.mp4", frame_times=[0, 0.1, 0.2], sounds=[Sound(click_track(1, [0.5]))])
    opened = []
    original = Container._open
    monkeypatch.setattr(Container, "_open", lambda self: opened.append(1) or original(self))
    with PyAVDecoder().open(path) as media:
        first = list(media.frames([0.2]))
        assert len(opened) == 1
        media.soundtrack()
        second = list(media.frames([0.2]))
    assert len(opened) == 3
    np.testing.assert_array_equal(first, second)
