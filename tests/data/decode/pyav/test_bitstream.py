"""What the first bytes of coded pictures say."""

from __future__ import annotations

import pytest

from reserve.data.decode.pyav.bitstream import CodedPicture, reader_of

VP9_KEY = bytes([0x82, 0x49, 0x83, 0x42, 0x00, 0x03, 0xF0, 0x02, 0xF6, 0x00])
VP9_SHOWN, VP9_HIDDEN, VP9_REPEATED = b"\x86\0\0", b"\x84\0\0", b"\x88"
AVCC, HVCC = bytes([1, 100, 0, 31, 0xFF]), bytes(21) + b"\xff"


def read(codec, data, is_key=True, extradata=b""):
    return reader_of(codec, extradata)(memoryview(data), is_key)


def superframe(*frames):
    marker = bytes([0xC0 | 1 << 3 | len(frames) - 1])
    return b"".join(frames) + marker + b"".join(len(f).to_bytes(2, "little") for f in frames) + marker


@pytest.mark.parametrize(
    ("data", "begins", "shown", "repeats"),
    [
        (VP9_KEY, True, True, False),
        (VP9_SHOWN, False, True, False),
        (VP9_HIDDEN, False, False, False),
        (VP9_REPEATED, False, True, True),
        (superframe(VP9_HIDDEN, VP9_SHOWN), False, True, False),
        (superframe(VP9_KEY, VP9_SHOWN), True, True, True),  # two pictures in a packet
        (superframe(VP9_HIDDEN, VP9_REPEATED), False, True, True),
    ],
)
def test_vp9(data, begins, shown, repeats):
    found = read("vp9", data)
    assert (found.begins, found.shown, found.repeats) == (begins, shown, repeats)


def test_vp9_layout_changes_with_the_size():
    other = VP9_KEY[:5] + b"\x04" + VP9_KEY[6:]
    assert read("vp9", VP9_KEY).layout == read("vp9", VP9_KEY[:9] + b"\xff").layout != read("vp9", other).layout
    assert read("vp9", VP9_SHOWN).layout == b""


def vp9_inter(size: str, *, shown=True, resilient=False) -> bytes:
    """A frame that refers to others; `size` is the bits from the first that says whether their size is its own."""
    head = "10000" + "1" + "01"[shown] + "01"[resilient] + ("" if shown else "0") + ("" if resilient else "00")
    bits = f"{head}{0:08b}{0:012b}{size}".ljust(96, "0")
    return int(bits, 2).to_bytes(12, "big")


@pytest.mark.parametrize("options", [{}, {"shown": False}, {"resilient": True}])
def test_vp9_between_key_frames_may_have_a_size_of_its_own(options):
    reader = reader_of("vp9", b"")
    key = reader(memoryview(VP9_KEY), True).layout
    same, other = "000" + f"{63:016b}{47:016b}", "000" + f"{31:016b}{47:016b}"
    sizes = [reader(memoryview(vp9_inter(bits, **options)), False).layout for bits in ("1", "01", "001", same, other)]
    assert sizes[:4] == [b"", b"", b"", key]
    assert sizes[4] not in (b"", key)


def test_vp9_without_references_has_a_size_of_its_own():
    reader = reader_of("vp9", b"")
    key = reader(memoryview(VP9_KEY), True).layout
    for width, is_same in ((63, True), (31, False)):
        bits = f"10000100{1}{0:02b}{0x498342:024b}{255:08b}{width:016b}{47:016b}".ljust(96, "0")
        found = reader(memoryview(int(bits, 2).to_bytes(12, "big")), False)
        assert (found.begins, found.shown, found.layout == key) == (False, False, is_same)


def test_vp8():
    key = b"\x10\0\0\x9d\x01\x2a\x40\0\x30\0\0"
    assert read("vp8", key) == CodedPicture(True, True, False, b"\x40\0\x30\0")
    assert read("vp8", b"\x11\0\0") == CodedPicture(False)
    assert read("vp8", b"\x01\0\0") == CodedPicture(False, shown=False)


def test_mjpeg():
    header = b"\x08\0\x30\0\x40\x01\x01\x11\0"
    data = b"\xff\xd8\xff\xe0\0\x04ab\xff\xc0\0\x0b" + header + b"\xff\xda"
    assert read("mjpeg", data) == CodedPicture(True, layout=header)
    assert read("mjpeg", data[:8]) == CodedPicture(True)


@pytest.mark.parametrize(
    ("codec", "begins", "other", "header", "extradata"),
    [
        ("h264", b"\x65ab", b"\x61ab", b"\x67sps", AVCC),
        ("hevc", b"\x2a\x01ab", b"\x02\x01ab", b"\x42\x01sps", HVCC),
    ],
)
def test_units(codec, begins, other, header, extradata):
    """With lengths, as in MP4, and with start codes, as in transport streams."""
    for separate, extra in [
        (lambda unit: len(unit).to_bytes(4, "big") + unit, extradata),
        (lambda unit: b"\0\0\0\1" + unit, b""),
    ]:
        assert read(codec, separate(header) + separate(begins), extradata=extra) == CodedPicture(True, layout=header)
        assert read(codec, separate(other), extradata=extra) == CodedPicture(False)
        assert read(codec, separate(begins), is_key=False, extradata=extra) == CodedPicture(False)


@pytest.mark.parametrize("codec", ["vp8", "vp9", "mjpeg", "h264", "hevc"])
@pytest.mark.parametrize("length", [0, 1, 2, 5, 30])
def test_damage_is_no_error(codec, length):
    for byte in (b"\0", b"\xff", b"\xc9", b"\x82"):
        read(codec, byte * length, extradata=AVCC)
