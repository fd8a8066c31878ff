"""When the packets of a file's pictures are shown, read by PyAV without decoding."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

from reserve.data.decode.pyav.container import Container

_FORMATS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
"""FFmpeg's names of the containers whose packets all have presentation times and whose key frames a seek finds."""


@dataclass(slots=True)
class PacketTable:
    """The packets of the main video that begin before `MediaLimits.max_duration`, in the order of the file.

    `starts` (presentation times) are in ticks of `tick` seconds on the container's own clock, `keys` says which packets
    are key frames. `problem` is why they do not say which pictures are shown when, and `is_cut` whether the stream goes
    on after the last one.
    """

    tick: float
    starts: array[int] = field(default_factory=lambda: array("q"))
    keys: bytearray = field(default_factory=bytearray)
    problem: str | None = None
    is_cut: bool = False


def unsuited_format(container: Container) -> str | None:
    """Why timestamps of packets do not say when a file's frames are shown; None if they do."""
    name = container.raw.format.name
    return None if name in _FORMATS else f"files of the format {name.split(',')[0]} are left to PyAV"


def read_packets(container: Container) -> PacketTable:
    """Reads the packets of the main video up to the limit of its duration; leaves the container at its end."""
    container.rewind()
    stream = container.video_stream()
    table = PacketTable(float(stream.time_base or 0))
    limit, origin = container.limits.max_duration, container.origin
    for packet in container.demux(stream):
        if not packet.size:
            continue
        if packet.pts is None:
            table.problem = "some of its packets have no presentation time"
        elif packet.pts * table.tick - origin >= limit:
            table.is_cut = True
            break
        elif packet.is_corrupt:
            table.problem = "some of its packets are damaged"
        elif packet.is_discard:
            table.problem = "its edit list hides pictures"
        else:
            table.starts.append(packet.pts)
            table.keys.append(packet.is_keyframe)
    return table
