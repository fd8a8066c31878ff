"""Where the packets of a file's sound and pictures lie in time, read by PyAV without decoding."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from reserve.data.decode.pyav.container import Container
from reserve.data.decode.torchcodec.library import FORMATS


@dataclass(slots=True)
class PacketTable:
    """The packets of one stream before `MediaLimits.max_duration`, in the order of the file.

    `starts` (presentation times) and `durations` are in ticks of `tick` seconds on the container's own clock, `keys`
    says which packets are key frames. `problem` is why they do not say where their sound or pictures are shown, and
    `is_cut` whether the stream goes on after the last one.
    """

    tick: float
    starts: array[int] = field(default_factory=lambda: array("q"))
    durations: array[int] = field(default_factory=lambda: array("q"))
    keys: bytearray = field(default_factory=bytearray)
    problem: str | None = None
    is_cut: bool = False

    def add(self, packet: Any) -> None:
        """Appends a packet that has a presentation time."""
        self.starts.append(packet.pts)
        self.durations.append(packet.duration or 0)
        self.keys.append(packet.is_keyframe)

    def fill_durations(self) -> None:
        """Lets packets without a duration, as Matroska's first one of AAC, last until the next one."""
        for place, (start, later) in enumerate(pairwise(self.starts)):
            if self.durations[place] == 0:
                self.durations[place] = max(later - start, 0)


@dataclass(slots=True)
class FilePackets:
    """The tables of a file's main video and of its audio streams, by their index in the container, and `picture_end`:
    where the last packet of the video ends, in seconds of the presentation axis."""

    tables: dict[int, PacketTable]
    picture_end: float


def unsuited_format(container: Container) -> str | None:
    """Why timestamps of packets do not say when a file's frames are shown; None if they do."""
    name = container.raw.format.name
    return None if name in FORMATS else f"files of the format {name.split(',')[0]} are left to PyAV"


def read_packets(container: Container) -> FilePackets:
    """Reads the packets of a whole file up to the limit of its duration; leaves the container at its end."""
    container.rewind()
    video = container.main_video()
    streams = [*container.raw.streams.audio, *([] if video is None else [video])]
    tables = {stream.index: PacketTable(float(stream.time_base or 0)) for stream in streams}
    picture = None if video is None else video.index
    limit, origin = container.limits.max_duration, container.origin
    found = FilePackets(tables, 0.0)
    packets: Iterable[Any] = container.demux(*streams) if streams else ()
    for packet in packets:
        timestamp = packet.pts if packet.pts is not None else packet.dts
        if timestamp is None or not packet.size:
            continue
        index = packet.stream_index
        table = tables[index]
        start = timestamp * table.tick - origin
        if start >= limit:
            table.is_cut = True
            if all(other.is_cut for other in tables.values()):
                break
            continue
        if index == picture:
            found.picture_end = max(found.picture_end, start + (packet.duration or 0) * table.tick)
        if packet.is_corrupt:
            table.problem = "some of its packets are damaged"
        if packet.pts is None:
            table.problem = "some of its packets have no presentation time"
        elif not packet.is_discard:
            table.add(packet)
        elif index == picture:
            table.problem = "its edit list hides pictures"
    for table in tables.values():
        table.fill_durations()
    return found
