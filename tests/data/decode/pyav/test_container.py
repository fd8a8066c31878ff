"""Reading packets from an open container."""

from __future__ import annotations

from reserve.data.decode.protocol import Deadline, MediaLimits
from reserve.data.decode.pyav.container import Container
from tests.helpers.media_files import write_media


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
