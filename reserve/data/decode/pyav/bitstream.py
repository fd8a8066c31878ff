"""What the first bytes of a coded picture say: whether decoding can begin there, whether it is shown, its format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

READABLE = ("vp8", "vp9", "mjpeg", "h264", "hevc")
"""The codecs, by FFmpeg's names, that `reader_of` knows."""
REORDERED = ("h264", "hevc")
"""Those of them whose pictures are not coded in the order in which they are shown."""
_START_CODE = b"\0\0\1"
_H264_IDR, _H264_SPS = 5, 7
_HEVC_RANDOM_ACCESS = range(16, 22)
_HEVC_SPS = 33


@dataclass(frozen=True, slots=True)
class CodedPicture:
    """A packet of a video stream. Decoding can begin at one with `begins`; one that is not `shown` is only used by
    others; one with `repeats` shows a picture that was decoded before. `layout` changes with the size or the kind of
    the pictures; empty where the packet does not say."""

    begins: bool
    shown: bool = True
    repeats: bool = False
    layout: bytes = b""


def reader_of(codec: str, extradata: bytes) -> Callable[[memoryview, bool], CodedPicture]:
    """A function of a packet's bytes and of whether the container calls it a key frame. `codec` is one of READABLE,
    `extradata` is what the container has of the codec's headers."""
    if codec in REORDERED:
        length = _length_size(codec, extradata)
        describe = _h264 if codec == "h264" else _hevc
        return lambda data, is_key: describe(data, length) if is_key else CodedPicture(False)
    return _Vp9Reader() if codec == "vp9" else {"vp8": _vp8, "mjpeg": _mjpeg}[codec]


def _vp8(data: memoryview, is_key: bool) -> CodedPicture:
    first = data[0] if data else 0
    key = len(data) >= 10 and not first & 1
    return CodedPicture(is_key and key, shown=bool(first & 16), layout=bytes(data[6:10]) if key else b"")


class _Vp9Reader:
    """Pictures between key frames may have another size, but not other colours: those of the last key frame."""

    def __init__(self) -> None:
        self._colours = 0

    def __call__(self, data: memoryview, is_key: bool) -> CodedPicture:
        frames = [_Vp9Header.of(data[first:]) for first in _vp9_subframes(data)]
        repeats = any(frame.repeats for frame in frames)
        shown = sum(frame.shown for frame in frames)
        # More than one picture in a packet would upset every count; no encoder does it.
        return CodedPicture(
            is_key and bool(frames) and frames[0].is_key, shown > 0, repeats or shown > 1, self._layout(frames)
        )

    def _layout(self, frames: list[_Vp9Header]) -> bytes:
        """That of the first frame with a size of its own."""
        for frame in frames:
            if frame.is_key:
                self._colours = frame.colours
            if frame.size is not None:
                return bytes([self._colours]) + frame.size.to_bytes(4, "big")
        return b""


@dataclass(frozen=True, slots=True)
class _Vp9Header:
    """`colours` is what a key frame says of its colour space and sampling, `size` the 32 bits of width and height where
    the frame has its own: key frames, and others whose size is not that of a frame that they refer to."""

    is_key: bool = False
    shown: bool = False
    repeats: bool = False
    colours: int = 0
    size: int | None = None

    @classmethod
    def of(cls, data: memoryview) -> _Vp9Header:
        if not data:
            return cls()
        first = data[0]
        profile = first >> 5 & 1 | first >> 3 & 2
        if profile == 3:  # a reserved bit comes first
            first = first << 1
        if first & 8:
            return cls(shown=True, repeats=True)
        is_key, shown = not first & 4, bool(first & 2)
        if is_key:
            # Colour space and range, chroma in profile 1, then width and height: 36 or 39 bits after the start code.
            bits = int.from_bytes(data[4:9], "big") >> (1 if profile == 1 else 4)
            return cls(True, shown, colours=bits >> 32, size=bits & 0xFFFFFFFF)
        return cls(False, shown, size=_vp9_own_size(data, shown, profile) if profile < 2 else None)


def _vp9_own_size(data: memoryview, shown: bool, profile: int) -> int | None:
    """The size of a frame that is no key frame, in profile 0 or 1, where its header has one."""
    bits = "".join(f"{byte:08b}" for byte in data[:12])[7:]
    resilient, place = bits[:1] == "1", 1
    intra_only = not shown and bits[place : place + 1] == "1"
    place += (not shown) + (0 if resilient else 2)
    if intra_only and profile:
        return None  # its colours come first, in as many bits as they need
    if intra_only:
        place += 24 + 8  # start code, frames to refresh
    else:
        place += 8 + 3 * 4  # frames to refresh, and the three that it refers to
        for _ in range(3):
            place += 1
            if bits[place - 1 : place] != "0":
                return None  # the size of one that it refers to, or the end of the data
    size = bits[place : place + 32]
    return int(size, 2) if len(size) == 32 else None


def _vp9_subframes(data: memoryview) -> Iterator[int]:
    """Where each frame of a packet begins: several share one with an index at its end."""
    marker = data[-1] if data else 0
    if marker & 0xE0 == 0xC0:
        count, width = (marker & 7) + 1, (marker >> 3 & 3) + 1
        index = len(data) - 2 - width * count
        if index > 0 and data[index] == marker:
            first = 0
            for number in range(count):
                if first < index:
                    yield first
                at = index + 1 + width * number
                first += int.from_bytes(data[at : at + width], "little")
            return
    yield 0


def _mjpeg(data: memoryview, is_key: bool) -> CodedPicture:
    """The layout is that of the frame header: precision, height, width and sampling."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        kind, length = data[place + 1], data[place + 2] << 8 | data[place + 3]
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            return CodedPicture(is_key, layout=bytes(data[place + 4 : place + 2 + length]))
        place += 1 if kind == 0xFF else 2 + length
    return CodedPicture(is_key)


def _length_size(codec: str, extradata: bytes) -> int:
    """Bytes of the length before each unit of a packet; 0 where start codes separate them."""
    place = 4 if codec == "h264" else 21
    if len(extradata) <= place or extradata.startswith((_START_CODE, b"\0" + _START_CODE)):
        return 0
    return (extradata[place] & 3) + 1


def _units(data: memoryview, length_size: int) -> Iterator[bytes]:
    """The NAL units of a packet."""
    if not length_size:
        for unit in bytes(data).split(_START_CODE)[1:]:
            yield unit.rstrip(b"\0")
        return
    place = 0
    while place + length_size < len(data):
        length = int.from_bytes(data[place : place + length_size], "big")
        place += length_size
        yield bytes(data[place : place + length])
        place += length


def _h264(data: memoryview, length_size: int) -> CodedPicture:
    """Only at an IDR picture: at others, what comes later may still need earlier pictures."""
    units = [unit for unit in _units(data, length_size) if unit]
    layout = b"".join(unit for unit in units if unit[0] & 31 == _H264_SPS)
    return CodedPicture(any(unit[0] & 31 == _H264_IDR for unit in units), layout=layout)


def _hevc(data: memoryview, length_size: int) -> CodedPicture:
    units = [unit for unit in _units(data, length_size) if unit]
    layout = b"".join(unit for unit in units if unit[0] >> 1 & 63 == _HEVC_SPS)
    return CodedPicture(any(unit[0] >> 1 & 63 in _HEVC_RANDOM_ACCESS for unit in units), layout=layout)
