"""Where streams are decoded, and why not."""

from __future__ import annotations

import pytest

from reserve.data.decode.dali.devices import Devices
from reserve.data.decode.dali.nvdec import Format, VideoHardware
from reserve.data.decode.dali.request import Stream
from reserve.data.decode.protocol import VideoTrack
from reserve.errors import Unsuited

NO_GPU = Devices(VideoHardware(reason="no CUDA device"))
GPU = Devices(
    VideoHardware({(codec, "4:2:0", 8): Format((48, 16), (4096, 4096), 65536, 7) for codec in ("h264", "hevc", "vp9")})
)


def stream(codec, pixel_format="yuv420p", size=(640, 360), **facts):
    kinds = {"hides": False, "repeats": False, "is_interlaced": False, "is_full_range": False, **facts}
    return Stream(VideoTrack(True, *size, codec=codec, pixel_format=pixel_format), **kinds)


@pytest.mark.parametrize(
    ("asked", "device"),
    [
        (stream("h264"), "mixed"),
        (stream("hevc", "yuvj420p", is_full_range=True), "mixed"),
        (stream("vp9"), "mixed"),
        (stream("vp9", repeats=True), "cpu"),
        (stream("vp9", is_full_range=True), "cpu"),
        (stream("vp9", "yuv444p"), "cpu"),
        (stream("vp9", size=(32, 32)), "cpu"),
        (stream("vp8", hides=True), "cpu"),
        (stream("mjpeg", "yuvj422p"), "cpu"),
    ],
)
def test_with_a_gpu(asked, device):
    assert GPU.choose(asked) == device
    assert GPU.unsuited(asked.track) is None


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (stream("h264", is_interlaced=True), "its pictures are interlaced"),
        (stream("h264", "yuv420p10le"), "pictures in yuv420p10le, not 8 bits in 4:2:0"),
        (stream("av1"), "DALI does not decode av1 on a CPU; on a GPU: av1 is not sent there"),
        (stream("hevc", size=(8000, 8000)), "not 8000x8000"),
        (stream(""), "an unknown codec"),
    ],
)
def test_refused_with_a_gpu(asked, reason):
    with pytest.raises(Unsuited, match=reason):
        GPU.choose(asked)


@pytest.mark.parametrize("codec", ["vp8", "vp9", "mjpeg"])
def test_without_a_gpu(codec):
    assert NO_GPU.choose(stream(codec)) == "cpu"


@pytest.mark.parametrize(
    ("track", "reason"),
    [
        (stream("h264").track, "DALI does not decode h264 on a CPU; on a GPU: no CUDA device"),
        (stream("vp9", "yuv420p10le").track, "pictures in yuv420p10le, not in 8 bits of YCbCr"),
    ],
)
def test_unsuited_without_a_gpu(track, reason):
    assert reason in NO_GPU.unsuited(track)
